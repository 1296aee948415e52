"""The rules of the house that no linter knows: one small test each, and a message that names the place."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, settings

from upwell.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("upwell", "ingest", "workers")
FOLDERS = {*PACKAGES, "tests", "deploy"}
MADE_HERE = {"data", "dist", "build", "__pycache__"}  # git ignores them
NOT_OURS = {".env", ".coverage", ".DS_Store"}  # the same, as files
LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    "tests/bench/requirements.lock",
    "tests/bench/peers/requirements.lock",
    "tests/clients/llamaindex/requirements.lock",
)
NPM_LOCK = "tests/clients/js/package-lock.json"
LINES_MAX = dict.fromkeys(PACKAGES, 400) | {"tests": 500}
FUNCTION_LINES_MAX = 70
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
SOMEONES_HOME = re.compile(r"(?<![\w.$}])/(home|Users)/\w+/|(?<![\w.$}])/[r]oot/")
CLIENT_VARIABLES = {"UPWELL_URL", "UPWELL_TOKEN", "UPWELL_ACCOUNT", "UPWELL_PORT"}
#: What was installed for the tests: git ignores it, and there is far too much of it to look at.
INSTALLED = "node_modules"
#: Folders that hold no text of ours: caches, and stores as they lay on disk.
NOT_TEXT = {"__pycache__", "golden"}
BINARY = {
    ".pyc",
    ".png",
    ".gif",
    ".woff2",
    ".ico",
    ".arrow",
    ".parquet",
    ".gz",
    ".zst",
    ".so",
    ".db",
    ".sqlite",
}


def everything(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for parent, below, files in os.walk(ROOT / folder):
            below[:] = sorted(name for name in below if name != INSTALLED)
            yield from (Path(parent) / name for name in sorted([*below, *files]))


def modules(*folders: str) -> Iterator[Path]:
    yield from (path for path in everything(*folders) if path.suffix == ".py")


def is_text(path: Path) -> bool:
    return path.is_file() and path.suffix not in BINARY


def text_files() -> Iterator[Path]:
    yield from sorted(path for path in ROOT.iterdir() if is_text(path) and path.name not in NOT_OURS)
    for path in everything(*sorted(FOLDERS)):
        if is_text(path) and not NOT_TEXT.intersection(path.parts):
            yield path


def at(path: Path, line: int, rule: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {rule}"


def matching(paths: Iterator[Path], pattern: re.Pattern[str], rule: str) -> list[str]:
    return [
        at(path, number, rule)
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def demand_none(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_files_are_short() -> None:
    problems = []
    for folder, most in LINES_MAX.items():
        for path in modules(folder):
            lines = len(path.read_text("utf-8").splitlines())
            if lines > most:
                problems.append(at(path, lines, f"a file here has at most {most} lines"))
    demand_none(problems)


def test_functions_are_short() -> None:
    problems = []
    for path in modules(*LINES_MAX):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    rule = f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
                    problems.append(at(path, node.lineno, rule))
    demand_none(problems)


def test_modules_say_what_they_are() -> None:
    undocumented = [
        path for path in modules(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    demand_none([at(path, 1, "a module begins with a docstring") for path in undocumented])


def test_nothing_is_left_unfinished() -> None:
    demand_none(matching(text_files(), UNFINISHED, "finish it or open an issue"))


def test_no_machine_is_named() -> None:
    rule = "no path of one person's machine"
    problems = matching(text_files(), SOMEONES_HOME, rule)
    if len(ROOT.parts) > 2:  # a checkout right under / has too plain a name to search for
        problems += matching(text_files(), re.compile(rf"(?<![\w.$}}]){re.escape(str(ROOT))}(?!\w)"), rule)
    demand_none(problems)


def test_lock_files_hold_no_addresses() -> None:
    address = re.compile(r"://|^\s*-(-index-url|-extra-index-url|-find-links|e|i|f)\b|(^|\s)[./~]+/|\bfile:")
    demand_none(
        matching((ROOT / name for name in LOCKS), address, "a lock file names packages and hashes only")
    )


def test_the_javascript_lock_holds_hashes_and_no_addresses() -> None:
    """npm's lock has a form of its own; the addresses in it are those where one may pay for a package."""
    packages = json.loads((ROOT / NPM_LOCK).read_text("utf-8"))["packages"]
    del packages[""]  # our own
    problems = [
        at(ROOT / NPM_LOCK, 1, f"{name}: a locked package has a hash and no address")
        for name, locked in packages.items()
        if "integrity" not in locked or "resolved" in locked
    ]
    address = re.compile(r'^(?!\s*"url": |\s*"https://[^"]*",?$).*://')
    demand_none(
        problems + matching(iter([ROOT / NPM_LOCK]), address, "a lock file names packages and hashes only")
    )


def test_everything_locked_has_a_hash() -> None:
    problems = []
    for name in LOCKS:
        lines = (ROOT / name).read_text("utf-8").splitlines()
        for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
            if line[:1].isalnum() and "--hash=sha256:" not in following:
                problems.append(at(ROOT / name, number, "a locked package has hashes"))
    demand_none(problems)


def test_names_say_something() -> None:
    vague = [
        path
        for path in everything(*LINES_MAX)
        if path.stem in VAGUE and (path.is_dir() or path.suffix == ".py")
    ]
    demand_none([at(path, 1, "name it after what it does") for path in vague])


def test_top_level_is_as_designed() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    found = {name for name in folders - MADE_HERE if not name.endswith(".egg-info")}
    assert found == FOLDERS, f"top-level folders: {sorted(found)}, designed: {sorted(FOLDERS)}"


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"\bUPWELL_[A-Z0-9_]+\b", readme))
    missing = sorted({f"UPWELL_{field.upper()}" for field in Settings.model_fields} - named)
    demand_none([f"README.md:1: does not name {variable}" for variable in missing])


def test_the_readme_names_no_other_setting() -> None:
    known = {f"UPWELL_{field.upper()}" for field in Settings.model_fields} | CLIENT_VARIABLES
    problems = [
        at(ROOT / "README.md", number, f"there is no {variable}")
        for number, line in enumerate((ROOT / "README.md").read_text("utf-8").splitlines(), 1)
        for variable in re.findall(r"\bUPWELL_[A-Z0-9_]+\b", line)
        if variable not in known
    ]
    demand_none(problems)


def test_no_property_is_in_a_hurry() -> None:
    """An example may take as long as the machine takes: a deadline fails where it is busy, and only there."""
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
