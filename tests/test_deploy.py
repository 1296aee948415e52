"""What deploy/ tells Docker must fit the command and the files that are really here. Needs no Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    composed = yaml.safe_load(COMPOSE.read_text("utf-8"))
    found: dict[str, Any] = composed["services"]
    return found


def help_of(command: str) -> str:
    run = [
        sys.executable,
        "-c",
        "import sys; from ingest.cli import main; sys.exit(main())",
        command,
        "--help",
    ]
    done = subprocess.run(
        run, check=False, cwd=ROOT, env={**os.environ, **PLAIN}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def instructions(keyword: str) -> list[str]:
    joined = DOCKERFILE.read_text("utf-8").replace("\\\n", " ")
    return [
        line.removeprefix(keyword).strip() for line in joined.splitlines() if line.startswith(f"{keyword} ")
    ]


def options(command: list[str]) -> list[str]:
    return [word for word in command if word.startswith("--")]


def test_compose_has_the_three_parts(services: dict[str, Any]) -> None:
    assert set(services) == {"valkey", "api", "worker"}


@pytest.mark.parametrize("name", ["api", "worker"])
def test_compose_uses_options_that_exist(services: dict[str, Any], name: str) -> None:
    command = services[name]["command"]
    assert command[0] == name
    known = set(re.findall(r"--[a-z][a-z-]*", help_of(name)))
    missing = [option for option in options(command) if option not in known]
    assert not missing, f"upwell {name} has no {missing}"


def test_image_starts_a_command_whose_options_exist() -> None:
    command = yaml.safe_load(instructions("CMD")[-1])  # a JSON list is YAML too
    assert yaml.safe_load(instructions("ENTRYPOINT")[-1]) == ["upwell"]
    known = set(re.findall(r"--[a-z][a-z-]*", help_of(command[0])))
    assert set(options(command)) <= known


def test_api_and_worker_share_store_and_redis(services: dict[str, Any]) -> None:
    def value(name: str, option: str) -> str:
        command: list[str] = services[name]["command"]
        return command[command.index(option) + 1]

    for option in ("--store", "--redis", "--data"):
        assert value("api", option) == value("worker", option)
    assert services["api"]["volumes"] == services["worker"]["volumes"]


def test_compose_refuses_to_start_without_a_token(services: dict[str, Any]) -> None:
    assert services["api"]["environment"]["UPWELL_TOKEN"].startswith("${UPWELL_TOKEN:?")


def test_workers_can_be_scaled(services: dict[str, Any]) -> None:
    assert "container_name" not in services["worker"]
    assert "ports" not in services["worker"]


def test_image_installs_from_the_lock_file() -> None:
    copied = {word for line in instructions("COPY") for word in line.split()[:-1]}
    assert {"requirements.lock", "pyproject.toml", "upwell", "ingest", "workers"} <= copied
    assert any("--require-hashes -r requirements.lock" in line for line in instructions("RUN"))


def test_image_copies_only_what_exists_and_docker_may_see() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert copied <= allowed
    assert not [name for name in copied if not (ROOT / name).exists()]


def test_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["upwell"]
