"""Makes .venv-bench, an environment of its own for the peers' packages: arq needs an older redis than some of them allow.

    python -m tests.bench.peers.install

Everything is pinned by hash in requirements.lock. Where a package has no wheel for a machine, the others are installed without it,
and the comparison names what is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".venv-bench"
PYTHON = FOLDER / "bin" / "python"
LOCK = Path(__file__).with_name("requirements.lock")
STAMP = FOLDER / "installed.json"
REASON_LENGTH = 200


def pip(lock: str, *options: str) -> str | None:
    """Install what a lock file's text names; pip's last words, if it failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(lock)
        file.flush()
        command = [
            str(PYTHON),
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "install",
        ]
        done = subprocess.run(
            [*command, "--require-hashes", *options, "-r", file.name],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (lines or [f"pip ended with {done.returncode}"])[-1][:REASON_LENGTH]


def one_by_one(lock: str) -> dict[str, str]:
    """Install every locked package by itself; the reasons of those that could not be."""
    failed = {}
    for block in re.split(r"\n(?=\S)", lock):
        problem = pip(block + "\n", "--no-deps") if "==" in block else None
        if problem:
            failed[block.partition("==")[0]] = problem
    return failed


def ensure() -> dict[str, str]:
    """Make the environment, or renew it after a change of the lock; packages missing from it, with reasons."""
    lock = LOCK.read_text()
    digest = hashlib.sha256(lock.encode()).hexdigest()
    if STAMP.exists():
        stamp = json.loads(STAMP.read_text())
        if stamp["lock"] == digest:
            missing: dict[str, str] = stamp["missing"]
            return missing
    print("Installing the peers into .venv-bench (a minute or two, once) ...", flush=True)
    if not PYTHON.exists():
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(FOLDER)
    (FOLDER / ".gitignore").write_text("*\n")
    missing = {} if pip(lock) is None else one_by_one(lock)
    STAMP.write_text(json.dumps({"lock": digest, "missing": missing}))
    return missing


if __name__ == "__main__":
    for name, reason in ensure().items():
        print(f"{name} is missing: {reason}", file=sys.stderr)
