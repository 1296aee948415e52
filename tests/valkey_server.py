"""A real Valkey for a test, and everything that can happen to it: stopped, started empty, wiped, frozen.

It is the embedded server of production. After each test that used it, every key left must have a time to live or be on the list of
permanent keys.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from arq.connections import ArqRedis

from upwell.doorbell.connection import connect
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import PERMANENT


class ValkeyServer:
    """One server, at one address for the whole test."""

    def __init__(self, directory: Path) -> None:
        self._embedded = EmbeddedValkey(directory)

    @property
    def url(self) -> str:
        return self._embedded.url

    @property
    def alive(self) -> bool:
        return self._embedded.alive()

    def start(self) -> None:
        self._embedded.start()

    def stop(self) -> None:
        self._embedded.stop()

    def restart_empty(self) -> None:
        """What a restart is to a server that keeps nothing on disk."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """A blocking client of the test's own; close it."""
        return redis.Redis.from_url(self.url)

    def all_keys(self) -> set[str]:
        with self.client() as client:
            return {key.decode() for key in client.scan_iter()}

    def queued(self) -> list[str]:
        """Ids of the drain jobs that are queued or running."""
        with self.client() as client:
            return [name.decode() for name in client.zrange("upwell:drain", 0, -1)]

    def immortal_keys(self) -> set[str]:
        """Keys without a time to live that are not on the permanent list."""
        with self.client() as client:
            return {
                key.decode()
                for key in client.scan_iter()
                if client.ttl(key) == -1 and key.decode() not in PERMANENT
            }

    def _signal(self, number: signal.Signals) -> None:
        assert self._embedded.pid is not None
        os.kill(self._embedded.pid, number)


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(prefix="upwell-valkey-"))  # short, so that the socket's path fits
    valkey = ValkeyServer(folder)
    valkey.start()
    try:
        yield valkey
        if valkey.alive:
            valkey.resume()
            assert valkey.immortal_keys() == set()
    finally:
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(name="redis")
async def redis_pool(server: ValkeyServer) -> AsyncIterator[ArqRedis]:
    """A pool on ``server``, as workers use it."""
    pool = connect(server.url)
    yield pool
    await pool.aclose(close_connection_pool=True)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A plain Valkey, and the promise that every key it is left with is meant to be there."""
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    if server.alive():
        with redis.Redis.from_url(server.url) as client:
            stays = {key.decode() for key in client.scan_iter() if client.ttl(key) == -1}
        assert stays <= PERMANENT, f"keys without a time to live: {stays - PERMANENT}"
    server.stop()


async def eventually(happened: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something has happened; generous, since it only matters that it does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        await asyncio.sleep(0.01)
