"""A front end that is spoken to byte by byte, and whose every word to the log is kept."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.service import ROOT, TOKEN, Api, Service, until

START_S = 60.0
AUTHORISED = f"Authorization: Bearer {TOKEN}\r\n".encode()
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Overheard(Service):
    """A service whose processes write to ``said``, a file, and not to the terminal."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.said = self.folder / "said"
        return self

    def start_api(self) -> Api:
        ready = self.folder / f"ready-{len(self.apis)}-{time.monotonic_ns()}"
        process = self._start("ingest", UPWELL_READY_FILE=str(ready))
        for _ in until(START_S):
            if ready.exists():
                break
            assert process.poll() is None, self.said.read_text()
        api = Api(process, ready.read_text().strip())
        self.apis.append(api)
        return api

    def start_worker(self) -> subprocess.Popen[bytes]:
        process = self._start("workers")
        self.workers.append(process)
        return process

    def _start(self, module: str, **more: str) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env=self._environment() | more,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )


class Wire:
    """One connection. Use as a context manager."""

    def __init__(self, api: Api, *, receive_bytes: int | None = None, timeout_s: float = 30.0) -> None:
        where = urlsplit(api.url)
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect((where.hostname, where.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Was it taken? A connection that the other side has ended takes nothing."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def read(self) -> bytes:
        """All that comes until the connection ends."""
        found = bytearray()
        while piece := self.read_some():
            found += piece
        return bytes(found)

    def read_some(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionError:
            return b""

    def answers(self) -> list[int]:
        """The statuses of all answers until the connection ends."""
        return [int(status) for status in STATUS.findall(self.read())]


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """The last request of a connection, with the right token. A body that is given has its length said."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + AUTHORISED + b"\r\n" + body


def sockets_of(process_id: int) -> int:
    """How many sockets a process holds."""
    found = 0
    for file in Path(f"/proc/{process_id}/fd").iterdir():
        try:
            found += os.readlink(file).startswith("socket:")
        except FileNotFoundError:
            continue
    return found
