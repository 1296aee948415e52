"""The sweep: finds what nobody attends to, and leaves alone what somebody does or will."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from tests.fake_engine import FakeEngine
from tests.valkey_server import ValkeyServer
from upwell.doorbell.lease import Lease, begin_generation, enqueue_drain
from upwell.errors import Unavailable
from workers.sweep import Sweep

BRIEF_S = 0.001  # the mark that keeps sweeps from doing the same work is gone by the next look
LEASE_S = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    engine = FakeEngine(tmp_path)
    engine.append("a1")
    return engine


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def look(sweep: Sweep, redis: ArqRedis, times: int) -> int:
    return sum([await sweep.once(redis) for _ in range(times)])


async def test_a_backlog_without_a_job_is_rung_for_at_the_second_look(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    sweep = Sweep(engine, executor, BRIEF_S, LEASE_S)
    assert await sweep.once(redis) == 0, "a bell may just be ringing"
    assert await sweep.once(redis) == 1
    assert len(server.queued()) == 1


async def test_an_index_without_backlog_or_with_a_holder_is_left_alone(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    await Lease(redis, "a1", LEASE_S).acquire()
    engine.append("b2")
    engine.apply_batch("b2", lambda: True, lambda _: None)
    assert await look(Sweep(engine, executor, BRIEF_S, LEASE_S), redis, 5) == 0
    assert server.queued() == []


async def test_two_workers_do_not_both_see_to_an_index(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    sweeps = [Sweep(engine, executor, 30, LEASE_S) for _ in range(3)]
    for _ in range(3):
        for sweep in sweeps:
            await sweep.once(redis)
    assert len(server.queued()) == 1


async def test_a_job_that_waits_for_its_turn_is_not_rung_for_again(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    """Else a queue longer than a sweep's interval would grow with every sweep, and the longer the faster."""
    await enqueue_drain(redis, "a1")
    waiting = server.queued()
    await look(Sweep(engine, executor, BRIEF_S, LEASE_S), redis, 10)
    assert server.queued() == waiting


async def test_a_dead_workers_job_is_not_waited_for(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    """Killed before its first step: the generation is still its own, and arq blocks its id for minutes."""
    await enqueue_drain(redis, "a1")
    (dead,) = server.queued()
    await redis.set(f"arq:in-progress:{dead}", b"1", ex=900)
    await look(Sweep(engine, executor, BRIEF_S, LEASE_S), redis, 3)
    assert len(server.queued()) == 2, "one more, under another id, and no more than one"


async def test_a_worker_killed_in_the_middle_is_not_waited_for(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    await enqueue_drain(redis, "a1")
    (dead,) = server.queued()
    await redis.set(f"arq:in-progress:{dead}", b"1", ex=900)
    await begin_generation(redis, "a1")
    await look(Sweep(engine, executor, BRIEF_S, LEASE_S), redis, 3)
    assert len(server.queued()) == 2


async def test_a_job_whose_body_is_gone_is_made_anew(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, server: ValkeyServer
) -> None:
    """A job's body expires after a day; its place in the queue does not."""
    await enqueue_drain(redis, "a1")
    (name,) = server.queued()
    await redis.delete(f"arq:job:{name}")
    await look(Sweep(engine, executor, BRIEF_S, LEASE_S), redis, 3)
    assert any([await redis.exists(f"arq:job:{queued}") for queued in server.queued()])


async def test_a_store_that_is_away_does_not_end_the_sweep(
    engine: FakeEngine, executor: ThreadPoolExecutor, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Iterator[str]:
        raise Unavailable("the store is away")

    sweep = Sweep(engine, executor, BRIEF_S, LEASE_S)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "backlogged", away)
        assert await look(sweep, redis, 2) == 0
    assert await look(sweep, redis, 2) == 1
