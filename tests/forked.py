"""Front ends and workers for tests, forked within milliseconds from a process that has imported them (``tests/crash/forkserver.py``).

Starting Python and importing all of it is a second of computing each time, and the tests start hundreds. That the commands start as
they are is asked by tests/cli, tests/wire.py and `make crash`'s fresh processes.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
BORN_S = 60.0


class Forked:
    """A child of the fork server; to be used as one would use a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()
        try:
            # Signals go to this process and to no other, whatever becomes of its number.
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = None

    def poll(self) -> int | None:
        """How it ended, or None if that is not known yet."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the status, which is a signal's number below zero if one killed it."""
        if not self._ended.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired([f"process {self.pid}"], timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._handle is not None and not self._ended.is_set():
            try:
                signal.pidfd_send_signal(self._handle, number)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def ended(self, status: int) -> None:
        """For the fork server: it is no more."""
        self.returncode = status
        self._ended.set()

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


#: A front end or a worker, started one way or the other.
Process = subprocess.Popen[bytes] | subprocess.Popen[str] | Forked


class Forkserver:
    """The fork server of this process, which ends when this one does, and its children with it."""

    def __init__(self) -> None:
        # OpenBLAS, and Arrow's allocator, would start threads when they are imported, and then nothing could be forked soundly.
        alone = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forkserver"],
            cwd=ROOT,
            env=kept | alone,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._numbers = itertools.count()
        self._born: dict[int, Queue[Forked]] = {}
        self._living: dict[int, Forked] = {}
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, name="fork server", daemon=True)
        self._listener.start()

    def start(self, kind: Literal["api", "worker"], environment: dict[str, str]) -> Forked:
        """A new process, with nothing but ``environment`` as its environment, and our outputs as its own."""
        asked = {"kind": kind, "environment": environment, "output": None, "fresh": False}
        with self._lock:
            number = next(self._numbers)
            self._born[number] = Queue(1)
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(asked | {"number": number}).encode() + b"\n")
            self._server.stdin.flush()
        child = self._born[number].get(timeout=BORN_S)
        del self._born[number]
        return child

    def _listen(self) -> None:
        """In a thread: births and deaths, in their order."""
        assert self._server.stdout is not None
        for line in self._server.stdout:
            said = json.loads(line)
            if "born" in said:
                child = self._living[said["born"]] = Forked(said["born"])
                self._born[said["number"]].put(child)
            else:
                self._living.pop(said["died"]).ended(said["status"])

    def end(self) -> None:
        """End it."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(20)
        self._listener.join(20)


@cache
def forkserver() -> Forkserver:
    """This process's fork server, which is started when it is first asked for."""
    server = Forkserver()
    atexit.register(server.end)
    return server
