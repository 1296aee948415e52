"""``upwell serve``: keeps a Valkey, a front end and workers running, and leaves none behind.

* A part that dies is started again, after a pause that grows while it keeps dying.
* SIGTERM or SIGINT stops all of them, gracefully first; the exit code is then 0.
* Should we be killed outright, the kernel kills the children (Linux), or they outlive us only until told (elsewhere).
* Children run in sessions of their own, so that Ctrl-C in a terminal reaches us alone, and once.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

import structlog
from setproctitle import setproctitle

from ingest.cli.environment import environment_of
from upwell.children import start_child, stop_child
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.errors import Invalid, Unavailable
from upwell.logs import configure_logging
from upwell.settings import Settings

log = structlog.get_logger()

LOOK_S = 0.1
START_S = 30.0
#: Given to children to stop by themselves; a front end finishes its requests, a worker its batch.
STOP_S = 12.0
PAUSE_S = 0.2
PAUSE_MAX_S = 5.0
TOKENS = {"UPWELL_TOKEN", "UPWELL_TOKEN_PREVIOUS"}
#: A part that ran this long was well: its pause starts small again.
WELL_S = 30.0


class Part:
    """One child process, started again whenever it dies."""

    def __init__(self, name: str, module: str, environment: Callable[[], dict[str, str]]) -> None:
        self.name = name
        self._module = module
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0
        self._pause_s = PAUSE_S

    def start(self) -> None:
        """Start it."""
        self._started_at = time.monotonic()
        self._process = start_child([sys.executable, "-m", self._module], environment=self._environment())

    @property
    def exit_code(self) -> int | None:
        """Its exit code if it has died, else None."""
        return None if self._process is None else self._process.poll()

    def see_to(self) -> None:
        """Start it again if it died and its pause is over."""
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if self._start_again_at < self._started_at:
            if now - self._started_at > WELL_S:
                self._pause_s = PAUSE_S
            log.warning(
                "part died", part=self.name, exit_code=self._process.returncode, again_in_s=self._pause_s
            )
            self._start_again_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        elif now >= self._start_again_at:
            self.start()

    def tell_to_stop(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            stop_child(self._process)

    def wait_until_stopped(self, deadline: float) -> None:
        """Wait for its end, and bring it about at ``deadline`` (monotonic seconds)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("part does not stop, killed", part=self.name)
            self._process.kill()
            self._process.wait()


class Supervisor:
    """Everything on one machine. For one ``run``, from the main thread."""

    def __init__(self, settings: Settings, token_was_generated: bool) -> None:
        self._settings = settings
        self._token_was_generated = token_was_generated
        self._stop = threading.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="upwell-"))
        self._ready_file = self._folder / "ready"
        self._valkey = EmbeddedValkey(self._folder) if settings.redis is None else None
        self._front_end = Part("api", "ingest", self._environment)
        self._parts = [
            self._front_end,
            *(
                Part(f"worker {number}", "workers", self._without_tokens)
                for number in range(settings.workers)
            ),
        ]

    def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        setproctitle("upwell serve")
        configure_logging(self._settings, "serve")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        lock = _lock(self._settings.data / "upwell.lock")
        try:
            return self._run()
        finally:
            lock.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> int:
        try:
            if self._valkey is not None:
                self._valkey.start()
            for part in self._parts:
                part.start()
            address = self._wait_until_ready()
            if address is None:
                return 0 if self._stop.is_set() else 1
            self._say_ready(address)
            while not self._stop.wait(LOOK_S):
                self._see_to_all()
            return 0
        finally:
            self._stop_all()

    def _wait_until_ready(self) -> str | None:
        """The front end's address once it can work; None if we are to stop, or it cannot start."""
        deadline = time.monotonic() + START_S
        while not self._stop.wait(LOOK_S / 4):
            if self._front_end.exit_code is not None:
                return None
            if self._ready_file.exists():
                address = self._ready_file.read_text().strip()
                if _is_ready(address):
                    return address
            if time.monotonic() > deadline:
                raise Unavailable("the front end did not get ready", waited_s=START_S)
        return None

    def _say_ready(self, address: str) -> None:
        lines = [f"upwell ready on {address}"]
        if self._token_was_generated:
            lines.append(f"token: {self._settings.token}")
            lines.append(f"(kept in {self._settings.data / 'admin-token'}; try: upwell demo)")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def _see_to_all(self) -> None:
        if self._valkey is not None and not self._valkey.alive():
            log.warning("valkey died, starting it again")
            try:
                self._valkey.start()
            except Unavailable as error:
                log.error("valkey does not start", error=str(error))
        for part in self._parts:
            part.see_to()

    def _stop_all(self) -> None:
        for part in self._parts:
            part.tell_to_stop()
        deadline = time.monotonic() + STOP_S
        for part in self._parts:
            part.wait_until_stopped(deadline)
        # Last, so that workers can give back their leases.
        if self._valkey is not None:
            self._valkey.stop()

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        if self._valkey is not None:
            settings = settings.model_copy(update={"redis": self._valkey.url})
        if self._ready_file.exists():
            # Started again, the front end takes the port that it told the world.
            port = int(self._ready_file.read_text().strip().rpartition(":")[2])
            settings = settings.model_copy(update={"port": port})
        return environment_of(settings, UPWELL_READY_FILE=str(self._ready_file))

    def _without_tokens(self) -> dict[str, str]:
        """Workers have no use for them."""
        return {name: value for name, value in self._environment().items() if name not in TOKENS}


def _is_ready(address: str) -> bool:
    try:
        with urlopen(f"{address}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _lock(path: Path) -> IO[str]:
    """Hold the data directory for ourselves. Raises Invalid if another service holds it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Invalid("another upwell serve uses this data directory", data=str(path.parent)) from None
    return file
