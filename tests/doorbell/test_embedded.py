"""A Valkey of our own: answers once started, keeps its address and nothing else, and never outlives its parent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from upwell.doorbell.embedded import EmbeddedValkey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="upwell-own-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def gone(pid: int) -> bool:
    """Has the process ended (a zombie has)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_answers_keeps_its_address_and_starts_empty(folder: Path) -> None:
    server = EmbeddedValkey(folder / "own")
    assert not server.alive() and server.pid is None
    url = server.url
    for _ in range(2):
        server.start()
        server.start()
        assert server.alive() and server.pid and server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("left", "behind")
        server.stop()
        server.stop()
        assert not server.alive() and server.pid is None
    assert [path.name for path in (folder / "own").iterdir() if path.suffix in {".rdb", ".aof"}] == []


def test_nobody_else_may_enter_its_folder(folder: Path) -> None:
    server = EmbeddedValkey(folder / "own")
    server.start()
    try:
        assert (folder / "own").stat().st_mode & 0o077 == 0
    finally:
        server.stop()


def test_what_a_killed_server_left_is_no_hindrance(folder: Path) -> None:
    server = EmbeddedValkey(folder)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, 9)
    while server.alive():
        time.sleep(0.01)
    server.start()
    assert server.alive()
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_it_dies_with_a_parent_that_is_killed(folder: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from upwell.doorbell.embedded import EmbeddedValkey
        server = EmbeddedValkey(Path(sys.argv[1]))
        server.start()
        print(server.pid, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
