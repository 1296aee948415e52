"""The drain, alone with a real Valkey: what it applies, what it tells, and what it leaves when it cannot go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from tests.fake_engine import BATCH, FakeEngine
from tests.valkey_server import ValkeyServer, eventually
from upwell.clock import SystemClock
from upwell.doorbell.keys import COMMITTED_CHANNEL, applying_key, generation_key, knock_key, lease_key
from upwell.doorbell.lease import Lease
from upwell.settings import Settings
from workers import drain as drain_module
from workers.drain import Drainer
from workers.hold import Hold, renewed

#: So long that no machine is busy until it ends: what a test wants of a lease, it does to its key.
LEASE_S = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.fixture
def drainer(engine: FakeEngine) -> Iterator[Drainer]:
    with ThreadPoolExecutor(4) as executor:
        yield Drainer(engine, Settings(lease_ttl_s=LEASE_S), SystemClock(), executor)


async def test_it_applies_all_and_leaves_nothing_behind(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis, server: ValkeyServer
) -> None:
    for _ in range(3 * BATCH + 1):
        engine.append("a1")
    await drainer.drain(redis, "a1")
    assert [through for _, _, through in engine.history("a1")] == [8, 16, 24, 25]
    left = server.all_keys()
    assert generation_key("a1") in left and lease_key("a1") not in left and knock_key("a1") not in left


async def test_each_commit_is_published_and_the_batch_under_way_hinted(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis
) -> None:
    engine.gate = gate = threading.Event()
    for _ in range(BATCH + 1):
        engine.append("a1")
    async with redis.pubsub() as channel:
        await channel.subscribe(COMMITTED_CHANNEL)
        await channel.get_message(timeout=20)
        draining = asyncio.create_task(drainer.drain(redis, "a1"))
        hint = None
        while hint is None:
            hint = await redis.get(applying_key("a1"))
            await asyncio.sleep(0.01)
        assert int(hint) == BATCH and engine.through("a1") == 0
        gate.set()
        await draining
        heard = [await channel.get_message(timeout=20) for _ in range(2)]
    assert [notice["data"] for notice in heard if notice is not None] == [
        b'{"index_id":"a1","version":1,"through":8}',
        b'{"index_id":"a1","version":2,"through":9}',
    ]


async def test_a_batch_longer_than_the_lease_keeps_it(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given back its whole time again and again, while others come and find it taken."""

    def often(lease: Lease, every_s: float) -> AbstractAsyncContextManager[Hold]:
        assert lease.ttl_s == LEASE_S and 0 < every_s < LEASE_S / 2
        return renewed(lease, 0.05)

    monkeypatch.setattr(drain_module, "renewed", often)
    engine.gate = gate = threading.Event()
    engine.append("a1")
    draining = asyncio.create_task(drainer.drain(redis, "a1"))
    await eventually(lambda: engine.calls)
    for _ in range(3):
        assert await redis.pexpire(lease_key("a1"), int(LEASE_S * 500))
        await drainer.drain(redis, "a1")
        async with asyncio.timeout(20):
            while await redis.pttl(lease_key("a1")) <= LEASE_S * 500:  # noqa: ASYNC110  a key of Redis
                await asyncio.sleep(0.01)
    gate.set()
    await draining
    assert engine.at_once == 1 and engine.fenced == 0 and engine.through("a1") == 1


async def test_an_append_while_the_holder_is_at_its_last_look_is_not_lost(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis
) -> None:
    """The second drain finds the lease taken and ends; its knock is what makes the holder look again."""
    engine.gate = gate = threading.Event()
    engine.append("a1")
    draining = asyncio.create_task(drainer.drain(redis, "a1"))
    await eventually(lambda: engine.calls)
    engine.append("a1")
    await drainer.drain(redis, "a1")
    gate.set()
    await draining
    assert engine.through("a1") == 2


async def test_who_loses_the_lease_commits_nothing_and_takes_nothing(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "renewed", lambda lease, _: renewed(lease, 0.05))
    engine.gate = gate = threading.Event()
    engine.append("a1")
    draining = asyncio.create_task(drainer.drain(redis, "a1"))
    await eventually(lambda: engine.calls)
    assert engine.still_ours()
    await redis.delete(lease_key("a1"))
    other = Lease(redis, "a1", LEASE_S)
    assert await other.acquire()
    await eventually(lambda: not engine.still_ours())
    gate.set()
    await draining
    assert engine.fenced == 1 and engine.through("a1") == 0
    assert await other.renew()


async def test_who_loses_the_race_for_a_commit_looks_again(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis
) -> None:
    """Two holders, as after a pause longer than the lease: the commit decides, each position is applied once."""
    engine.gate = gate = threading.Event()
    for _ in range(2 * BATCH):
        engine.append("a1")
    draining = asyncio.create_task(drainer.drain(redis, "a1"))
    await eventually(lambda: engine.calls)
    engine.gate = None
    await asyncio.to_thread(engine.apply_batch, "a1", lambda: True, lambda _: None)
    gate.set()
    await draining
    assert engine.fenced == 1
    assert [through for _, _, through in engine.history("a1")] == [8, 16]


async def test_a_store_that_is_away_ends_the_drain_and_frees_the_index(
    drainer: Drainer, engine: FakeEngine, redis: ArqRedis, server: ValkeyServer
) -> None:
    engine.append("a1")
    engine.away = True
    await drainer.drain(redis, "a1")
    assert engine.calls == 1, "no loop around a store that is away"
    assert lease_key("a1") not in server.all_keys() and server.queued() == []
    engine.away = False
    await drainer.drain(redis, "a1")
    assert engine.through("a1") == 1


@pytest.mark.parametrize("why", ["slice", "stopping"])
async def test_what_ends_early_hands_over_to_a_job_of_its_own(
    why: str,
    drainer: Drainer,
    engine: FakeEngine,
    redis: ArqRedis,
    server: ValkeyServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if why == "slice":
        monkeypatch.setattr(drain_module, "SLICE_S", -1.0)
    drainer.stopping = why == "stopping"
    for _ in range(3 * BATCH):
        engine.append("a1")
    await drainer.drain(redis, "a1")
    assert engine.through("a1") == BATCH
    assert lease_key("a1") not in server.all_keys() and len(server.queued()) == 1


async def test_redis_wiped_under_a_drain_costs_that_batch_at_most(
    drainer: Drainer,
    engine: FakeEngine,
    redis: ArqRedis,
    server: ValkeyServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain_module, "renewed", lambda lease, _: renewed(lease, 0.05))
    engine.gate = gate = threading.Event()
    for _ in range(4 * BATCH):
        engine.append("a1")
    draining = asyncio.create_task(drainer.drain(redis, "a1"))
    await eventually(lambda: engine.calls)
    server.flush()
    await eventually(lambda: not engine.still_ours())
    engine.gate = None
    gate.set()
    await draining
    assert (engine.calls, engine.fenced, engine.through("a1")) == (1, 1, 0)
    await drainer.drain(redis, "a1")
    assert engine.history("a1")[-1][2] == 4 * BATCH and engine.at_once == 1
