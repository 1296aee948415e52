"""Compaction as jobs: asked for, done once, beside drains, and given up when it is not wanted any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from tests.fake_engine import FakeEngine
from tests.valkey_server import ValkeyServer
from upwell.clock import SystemClock
from upwell.doorbell.keys import (
    COMPACTION_QUEUE,
    DRAIN_QUEUE,
    compaction_lease_key,
    lease_key,
    merge_tries_key,
)
from upwell.doorbell.lease import Lease, enqueue_compaction
from upwell.errors import Corrupt, Fenced, Unavailable
from upwell.settings import Settings
from upwell.shard.compact import Compacted
from workers import compaction as compaction_module
from workers.compaction import Compacting, compacting_threads
from workers.hold import renewed
from workers.worker import WorkerProcess

#: So long that no machine is busy until it ends: what a test wants of a lease, it does to its key.
LEASE_S = 60.0
STUCK_S = 50.0


class MergingEngine(FakeEngine):
    """Shards that need so many merges each; each merge takes a while, and says who was at it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.needed: dict[tuple[str, int], int] = {}
        self.merges: list[tuple[str, int]] = []
        self.takes_s = 0.0
        #: What a merge waits for, if there is something.
        self.gate: threading.Event | None = None
        self.error: Exception | None = None
        self.at_work = threading.Event()
        self.committing: Callable[[], None] = lambda: None

    def compactions_due(self) -> Iterator[tuple[str, int]]:
        return iter([one for one, left in self.needed.items() if left > 0])

    def compact(
        self,
        index_id: str,
        shard: int,
        alive: Callable[[], None],
        turn: Callable[[], AbstractContextManager[object]],
    ) -> Compacted | None:
        if self.needed.get((index_id, shard), 0) <= 0:
            return None
        self.at_work.set()
        ends = time.monotonic() + self.takes_s
        while time.monotonic() < ends:
            alive()
            time.sleep(0.005)
        assert self.gate is None or self.gate.wait(STUCK_S), "nobody opened the gate"
        if self.error is not None:
            raise self.error
        with turn():
            self.committing()
            self.needed[index_id, shard] -= 1
            self.merges.append((index_id, shard))
        return Compacted(version=7, shard=shard, segments=8, rows=10, nbytes=100)


@pytest.fixture
def engine(tmp_path: Path) -> MergingEngine:
    return MergingEngine(tmp_path)


@pytest.fixture
async def compacting(engine: MergingEngine) -> AsyncIterator[Compacting]:
    looks, threads = ThreadPoolExecutor(1), compacting_threads(2)
    settings = Settings.model_validate({"lease_ttl_s": LEASE_S, "sweep_interval_s": 0.05})
    yield Compacting(engine, settings, looks, threads)
    for pool in (looks, threads):
        await asyncio.to_thread(pool.shutdown)


async def test_what_is_due_is_asked_for_once(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis
) -> None:
    engine.needed = {("a", 0): 1, ("a", 1): 0, ("a", 2): 1}
    for _ in range(3):
        await compacting.ask(redis)
    names = [name.decode().split(":")[:3] for name in await redis.zrange(COMPACTION_QUEUE, 0, -1)]
    assert sorted(names) == [["compact", "a", "0"], ["compact", "a", "2"]]
    await redis.set(compaction_lease_key("b", 0), "somebody", px=60_000)
    assert not await enqueue_compaction(redis, "b", 0, 60)


async def test_a_shard_is_merged_until_nothing_is_due_and_by_one_worker(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes: its lease is given back its whole time again and again."""
    monkeypatch.setattr(compaction_module, "renewed", lambda lease, _: renewed(lease, 0.05))
    engine.needed, engine.gate = {("a", 0): 3}, threading.Event()
    both = asyncio.gather(compacting.compact(redis, "a", 0), compacting.compact(redis, "a", 0))
    assert await asyncio.to_thread(engine.at_work.wait, STUCK_S)
    for _ in range(3):
        assert await redis.pexpire(compaction_lease_key("a", 0), int(LEASE_S * 500))
        async with asyncio.timeout(20):
            while await redis.pttl(compaction_lease_key("a", 0)) <= LEASE_S * 500:  # noqa: ASYNC110  a key of Redis
                await asyncio.sleep(0.01)
    await compacting.compact(redis, "a", 0)
    assert engine.merges == [], "another is at it"
    engine.gate.set()
    await both
    assert engine.merges == [("a", 0)] * 3
    assert await redis.keys("*") == []


async def test_shards_are_merged_side_by_side(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis
) -> None:
    engine.needed = {("a", 0): 1, ("a", 1): 1}
    both = threading.Barrier(2, timeout=STUCK_S)
    engine.committing = lambda: None
    merge = engine.compact

    def together(*what: object) -> Compacted | None:
        if engine.needed["a", what[1]] > 0:  # type: ignore[index]
            both.wait()
        return merge(*what)  # type: ignore[arg-type]

    engine.compact = together  # type: ignore[method-assign, assignment]
    await asyncio.gather(*(compacting.compact(redis, "a", shard) for shard in (0, 1)))
    assert sorted(engine.merges) == [("a", 0), ("a", 1)]


async def test_a_commit_waits_for_the_drain_and_rings_for_who_came_meanwhile(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis
) -> None:
    engine.needed = {("a", 0): 1}
    drain = Lease(redis, "a", 30)
    assert await drain.acquire()
    loop = asyncio.get_running_loop()

    def knocked_at() -> None:
        held = asyncio.run_coroutine_threadsafe(Lease(redis, "a", 30).acquire(), loop).result()
        assert not held, "the commit must hold the drain's lease"

    engine.committing = knocked_at
    task = asyncio.create_task(compacting.compact(redis, "a", 0))
    assert await asyncio.to_thread(engine.at_work.wait, STUCK_S)
    await asyncio.sleep(0.05)
    assert engine.merges == []
    await drain.drop()
    await task
    assert engine.merges == [("a", 0)]
    assert await redis.zcard(DRAIN_QUEUE) == 1
    assert await redis.exists(lease_key("a")) == 0


async def test_a_drain_that_never_ends_does_not_starve_it(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction_module, "TURN_S", 0.1)
    engine.needed = {("a", 0): 1}
    assert await Lease(redis, "a", 30).acquire()
    await compacting.compact(redis, "a", 0)
    assert engine.merges == [("a", 0)]
    assert await redis.exists(lease_key("a")) == 1


async def test_it_ends_when_the_process_is_to_stop(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis
) -> None:
    engine.needed, engine.takes_s = {("a", 0): 1}, 60
    task = asyncio.create_task(compacting.compact(redis, "a", 0))
    assert await asyncio.to_thread(engine.at_work.wait, STUCK_S)
    compacting.stopping = True
    await asyncio.wait_for(task, 30)
    assert engine.merges == [] and await redis.keys("*") == []


async def test_it_ends_when_another_took_over(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction_module, "renewed", lambda lease, _: renewed(lease, 0.05))
    engine.needed, engine.takes_s = {("a", 0): 1}, 100
    task = asyncio.create_task(compacting.compact(redis, "a", 0))
    assert await asyncio.to_thread(engine.at_work.wait, STUCK_S)
    await redis.set(compaction_lease_key("a", 0), "another", px=60_000)
    await asyncio.wait_for(task, 30)
    assert engine.merges == [] and await redis.get(compaction_lease_key("a", 0)) == b"another"


@pytest.mark.parametrize("error", [Fenced("lost"), Unavailable("disk"), Corrupt("bytes")])
async def test_a_merge_that_fails_is_left_for_later(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis, error: Exception
) -> None:
    engine.needed, engine.error = {("a", 0): 1}, error
    await compacting.compact(redis, "a", 0)
    assert engine.merges == [] and await redis.keys("*") == []
    engine.error = None
    await compacting.compact(redis, "a", 0)
    assert engine.merges == [("a", 0)]


async def test_with_redis_gone_it_commits_all_the_same(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis, server: ValkeyServer
) -> None:
    """The lease spares work; that the merge is right is the manifest's doing."""
    engine.needed, engine.takes_s = {("a", 0): 1}, 0.05
    task = asyncio.create_task(compacting.compact(redis, "a", 0))
    assert await asyncio.to_thread(engine.at_work.wait, STUCK_S)
    server.stop()
    await asyncio.wait_for(task, 30)
    assert engine.merges in ([("a", 0)], [])


async def test_a_worker_finds_what_nobody_asked_for(engine: MergingEngine, server: ValkeyServer) -> None:
    engine.needed = {("a", 0): 2, ("b", 1): 1}
    settings = Settings.model_validate({"sweep_interval_s": 0.05})
    worker = WorkerProcess(engine, settings, SystemClock(), server.url)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while sorted(engine.merges) != [("a", 0), ("a", 0), ("b", 1)]:  # noqa: ASYNC110  a thread merges
            await asyncio.sleep(0.01)
    worker.stop()
    await asyncio.wait_for(task, 20)


async def test_a_merge_that_breaks_is_put_off_and_tried_again_later(
    engine: MergingEngine, compacting: Compacting, redis: ArqRedis
) -> None:
    engine.needed["a1", 0] = engine.needed["a1", 1] = 1
    engine.error = ZeroDivisionError("a bug")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await compacting.compact(redis, "a1", 0)
    engine.error = None
    await compacting.compact(redis, "a1", 0)
    assert engine.merges == [] and 0 < await redis.ttl(merge_tries_key("a1", 0)) <= 60
    # Other shards are none of its business; and it is not put off for ever.
    await compacting.compact(redis, "a1", 1)
    assert engine.merges == [("a1", 1)] and not await redis.exists(merge_tries_key("a1", 1))
    await redis.delete(merge_tries_key("a1", 0))
    await compacting.compact(redis, "a1", 0)
    assert engine.merges == [("a1", 1), ("a1", 0)]
