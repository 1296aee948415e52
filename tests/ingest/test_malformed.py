"""What is not HTTP is refused, and nothing of it is found in the log."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.service import ROOT, Service, until

SECRET = b"upw_not-for-the-log"


@pytest.mark.parametrize(
    "header",
    [b"Authorization: Bearer %s\x01", b"Authorization : Bearer %s", b"X: %s" + b"y" * 9_000, b"%s"],
    ids=["control", "space", "long", "no colon"],
)
def test_a_malformed_request_is_not_quoted(tmp_path: Path, header: bytes) -> None:
    with Service() as service:
        ready, log = tmp_path / "ready", tmp_path / "log"
        environment = service._environment() | {"UPWELL_READY_FILE": str(ready), "UPWELL_LOG_LEVEL": "debug"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest"], cwd=ROOT, env=environment, stderr=output
            )
        try:
            for _ in until(60):
                if ready.exists():
                    break
            where = urlsplit(ready.read_text().strip())
            with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
                # A good request first: about the very first of a connection less is said.
                good = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                connection.sendall(good)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
                connection.sendall(good[:-2] + header.replace(b"%s", SECRET) + b"\r\n\r\n")
                assert connection.recv(1 << 16).split()[1] == b"400"
            for _ in until(60):
                if b"malformed request" in log.read_bytes():
                    break
        finally:
            process.terminate()
            process.wait(20)
        assert SECRET not in log.read_bytes() and b"Traceback" not in log.read_bytes()
