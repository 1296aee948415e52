"""Secrets: what a service was told in confidence is in no log line, metric, error or list of processes, however it goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from ingest.bootstrap import bootstrap_token
from ingest.cli.environment import environment_of
from tests.receiver import receiving
from tests.service import ROOT, TOKEN, until
from tests.wire import Overheard, Wire, request
from upwell.settings import Settings
from upwell.store import open_store

REDIS_PASSWORD = "redis-password-of-ours"
PREVIOUS = "the-bootstrap-token-before"
KEY = "an-idempotency-key-of-ours"
HOOK_SECRET = "whsec_" + b64encode(b"a-webhook-secret-of-our-own-making").decode()
HOOK_PATH = "/hook-path-of-ours"


def environment_seen(process_id: int) -> str:
    """What any user of the machine sees of a process: its name and its command line."""
    proc = Path("/proc") / str(process_id)
    return (proc / "cmdline").read_text() + (proc / "comm").read_text()


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[str, list[str], str]]:
    """(all that was said, the secrets, what the list of processes says) of a service that used every secret there is."""
    settings = {
        "UPWELL_LOG_LEVEL": "debug",
        "UPWELL_TOKEN_PREVIOUS": PREVIOUS,
        "UPWELL_WEBHOOK_PRIVATE_ADDRESSES": "true",
    }
    with Overheard(settings) as service, receiving() as receiver:
        receiver.answer = lambda _: 500
        api, worker = service.start_api(), service.start_worker()
        index = api.index("docs")
        secrets = [
            TOKEN,
            PREVIOUS,
            KEY,
            HOOK_SECRET,
            HOOK_SECRET.removeprefix("whsec_"),
            HOOK_PATH,
            REDIS_PASSWORD,
        ]
        assert index.create().status == 200
        hook = index.post("webhooks", {"url": receiver.url + HOOK_PATH, "secret": HOOK_SECRET})
        assert hook.status == 200
        # Some that lead nowhere.
        index.post("webhooks", {"url": "http://127.0.0.1:1" + HOOK_PATH})
        answer = index.post("upsert", b'{"id":"a","values":[1,2,3]}', headers={"Idempotency-Key": KEY})
        index.visible(answer.result["mutationId"])
        other = index.post("upsert", b'{"id":"b","values":[1,2,3]}', headers={"Idempotency-Key": KEY})
        assert other.status == 422 and KEY not in str(other.json)

        for fields in ({}, {"door": "binding"}, {"expires_in_s": 0.000_001}, {"access": "read"}):
            token = str(api.call("POST", "/upwell/v1/tokens", dict(fields)).result["token"])
            secrets.append(token)
            for method, path in (("GET", index.path()), ("DELETE", index.path("x")), ("GET", "/nowhere")):
                with Wire(api) as wire:
                    wire.send(request(method, path).replace(TOKEN.encode(), token.encode()))
                    assert token.encode() not in wire.read()
            # Where it does not belong.
            api.call("GET", index.path(f"/mutations/{token}"))
            api.call("POST", "/upwell/v1/tokens/rotate", {"token": token})
            api.call("POST", "/upwell/v1/tokens/revoke", {"token": token})
            again = api.call("POST", "/upwell/v1/tokens/rotate", {"token": token})
            assert again.status == 400 and token not in str(again.json)
        for broken in (f"Bearer {TOKEN}\x01", f"Basic {TOKEN}", f"Bearer  {TOKEN} {TOKEN}"):
            with Wire(api) as wire:
                wire.send(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {broken}\r\n\r\n".encode())
                wire.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                wire.read()
        for _ in until(60):
            if receiver.received:
                break

        # A Redis that does not take the password that it is given.
        socket = service.valkey.url.removeprefix("unix://").partition("?")[0]
        service.settings["UPWELL_REDIS"] = f"unix://:{REDIS_PASSWORD}@{socket}?db=0"
        second, helper = service.start_api(), service.start_worker()
        second.index("docs").upsert([{"id": "c", "values": [1, 2, 3]}])
        listed = "".join(map(environment_seen, (api.process.pid, worker.pid, second.process.pid, helper.pid)))
        with urlopen(f"{second.url}/metrics") as metrics, urlopen(f"{second.url}/readyz") as ready:
            shown = metrics.read().decode() + ready.read().decode()
        listing = second.call("GET", "/upwell/v1/tokens")
        assert len(listing.result) == 7 and "token" not in listing.result[0]
        shown += str(listing.json)
        for _ in until(60):
            if "AUTH <password> called" in service.said.read_text():
                break
        yield service.said.read_text() + shown, secrets, listed


def test_nothing_that_is_said_holds_a_secret(story: tuple[str, list[str], str]) -> None:
    said, secrets, _ = story
    for secret in secrets:
        for form in (secret, quote(secret, safe=""), b64encode(secret.encode()).decode()):
            assert form not in said, [line for line in said.splitlines() if form in line][:3]


def test_nothing_that_a_list_of_processes_shows_does(story: tuple[str, list[str], str]) -> None:
    _, secrets, listed = story
    assert "upwell api" in listed and "upwell worker" in listed
    assert not [secret for secret in secrets if secret in listed]


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        ("ingest", {"UPWELL_REDIS": "redis://:hunter2-hunter2@[bad"}),
        ("workers", {"UPWELL_REDIS": "http://:hunter2-hunter2@localhost"}),
        ("ingest.cli", {"UPWELL_REDIS": "redis://:hunter2-hunter2@localhost:port/0"}),
        ("ingest", {"UPWELL_TOKEN": "hunter2"}),
        ("ingest.cli", {"UPWELL_TOKEN_PREVIOUS": "hunter2"}),
    ],
)
def test_a_service_that_cannot_start_does_not_say_why_in_secrets(
    tmp_path: Path, module: str, wrong: dict[str, str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
    environment |= {"UPWELL_DATA": str(tmp_path), "UPWELL_PORT": "0"} | wrong
    command = [sys.executable, "-m", module]
    if module == "ingest.cli":
        command = [sys.executable, "-c", "from ingest.cli import main; main()", "api"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, timeout=60, text=True
    )
    assert done.returncode != 0
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stderr.strip(), "it says what is wrong"
    if module == "ingest.cli":
        assert "Traceback" not in done.stderr


def test_what_is_kept_is_for_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        settings = Settings.model_validate({"data": tmp_path / "data"})
        bootstrap_token(settings)
        open_store(None, settings.data)
    finally:
        os.umask(before)
    assert (settings.data / "admin-token").stat().st_mode & 0o777 == 0o600
    assert settings.data.stat().st_mode & 0o077 == 0, "vectors and the secrets of webhooks lie in it"


def test_what_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Who wants to share a folder makes it."""
    shared = tmp_path / "data"
    shared.mkdir(mode=0o750)
    shared.chmod(0o2770)
    bootstrap_token(Settings.model_validate({"data": shared}))
    assert shared.stat().st_mode & 0o7777 == 0o2770


def test_children_are_told_by_environment_and_not_by_arguments() -> None:
    settings = Settings.model_validate({"token": TOKEN, "redis": f"redis://:{REDIS_PASSWORD}@localhost"})
    assert environment_of(settings)["UPWELL_TOKEN"] == TOKEN
