"""A Redis that answers and refuses: what is done now and then beside the drains must not end them, and no queue is beyond repair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis as blocking_redis
from arq.connections import ArqRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.fake_engine import FakeEngine
from tests.valkey_server import ValkeyServer, eventually
from upwell.clock import SystemClock
from upwell.doorbell.bell import Bell
from upwell.doorbell.keys import COMPACTION_QUEUE, DRAIN_QUEUE, lease_key
from upwell.doorbell.lease import Lease
from upwell.settings import Settings
from workers.compaction import Compacting, compacting_threads
from workers.worker import WorkerProcess


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@asynccontextmanager
async def working(engine: FakeEngine, server: ValkeyServer) -> AsyncIterator[Bell]:
    settings = Settings(lease_ttl_s=30.0, sweep_interval_s=0.1)
    process = WorkerProcess(engine, settings, SystemClock(), server.url)
    task, bell = asyncio.create_task(process.run()), Bell(server.url)
    try:
        yield bell
    finally:
        process.stop()
        await task
        await bell.close()


def allow(server: ValkeyServer, *rules: str) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", *rules)


def applied(engine: FakeEngine, position: int) -> bool:
    return engine.through("a1") == position


async def test_a_sweep_that_is_refused_ends_no_drain(engine: FakeEngine, server: ValkeyServer) -> None:
    engine.apply_s = 1.5
    async with working(engine, server) as bell:
        engine.append("a1")
        bell.ring("a1")
        await eventually(lambda: engine.calls)
        # Only sweeps use this one, ten times a second; there is a backlog for them to look at.
        allow(server, "-pttl")
        engine.append("a2")
        await eventually(lambda: engine.through("a1") == 1)
        assert (engine.at_once, engine.fenced) == (1, 0), "the batch was done at the first try"
        assert engine.through("a2") == 0, "nobody rang for it, and sweeps are refused"
        allow(server, "+pttl")
        await eventually(lambda: engine.through("a2") == 1)


@pytest.mark.parametrize("queue", [DRAIN_QUEUE, COMPACTION_QUEUE])
@pytest.mark.parametrize("kind", ["text", "member"])
async def test_a_queue_that_cannot_be_read_is_made_anew(
    engine: FakeEngine, server: ValkeyServer, queue: str, kind: str
) -> None:
    with server.client() as client:
        if kind == "text":
            client.set(queue, b"\xff")
        else:
            client.zadd(queue, {b"\xff\xfe": 1})
    async with working(engine, server) as bell:
        for number in range(3):
            engine.append("a1")
            bell.ring("a1")
            await eventually(partial(applied, engine, number + 1))
    with server.client() as client:
        assert client.type(queue) in {b"zset", b"none"}


async def test_a_turn_given_without_our_hearing_of_it_is_given_back(
    engine: FakeEngine, server: ValkeyServer, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a merge whose connection was cut would keep drains away for as long as a lease lasts."""
    claim = Lease.claim

    async def unheard(lease: Lease) -> bool:
        await claim(lease)
        raise RedisConnectionError("cut")

    monkeypatch.setattr(Lease, "claim", unheard)
    with compacting_threads(1) as pool:
        compacting = Compacting(engine, Settings(lease_ttl_s=60), pool, pool)
        assert await compacting._take_turn(redis, "a1") is None
    with blocking_redis.Redis.from_url(server.url) as client:
        assert not client.exists(lease_key("a1"))
