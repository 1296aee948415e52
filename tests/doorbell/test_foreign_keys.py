"""Keys under our names that are not as we make them, clocks that are apart, and servers that changed their part: none stops an index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import arq.connections
import pytest
from arq.connections import ArqRedis

from tests.tcp_proxy import TcpProxy
from tests.valkey_server import ValkeyServer, eventually
from upwell.doorbell.bell import Bell
from upwell.doorbell.connection import connect
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import (
    DRAIN_QUEUE,
    applying_key,
    compaction_lease_key,
    generation_key,
    lease_key,
    swept_key,
    tries_key,
)
from upwell.doorbell.lease import (
    FOREIGN_S,
    Lease,
    Released,
    drain_waits,
    enqueue_compaction,
    enqueue_drain,
    is_drained,
    mark,
)
from upwell.doorbell.notices import Notice, Notices, publish
from upwell.doorbell.tries import count_try
from workers.hold import renewed

#: So long that no machine is busy until it ends.
TTL_S = 30.0


async def a_hash(redis: ArqRedis, key: str) -> None:
    await redis.hset(key, "a", "b")  # type: ignore[misc]


async def no_text(redis: ArqRedis, key: str) -> None:
    await redis.set(key, b"\xff\xfe not ours")


async def without_an_end(redis: ArqRedis, key: str) -> None:
    await redis.set(key, "0123456789abcdef")


async def of_a_clock_that_was_set_back(redis: ArqRedis, key: str) -> None:
    await redis.set(key, "0123456789abcdef", ex=3600)


Foreign = pytest.mark.parametrize("foreign", [a_hash, no_text, without_an_end, of_a_clock_that_was_set_back])
Make = Callable[[ArqRedis, str], Awaitable[None]]


@pytest.fixture
async def pool(server: ValkeyServer) -> AsyncIterator[ArqRedis]:
    """As ``redis``; what a test leaves in it is wiped."""
    pool = connect(server.url)
    yield pool
    await pool.flushall()
    await pool.aclose(close_connection_pool=True)


@Foreign
async def test_a_lease_that_is_nobodys_is_taken(pool: ArqRedis, foreign: Make) -> None:
    await foreign(pool, lease_key("a1"))
    assert not await is_drained(pool, "a1", TTL_S)
    lease = Lease(pool, "a1", TTL_S)
    assert await lease.acquire()
    assert await is_drained(pool, "a1", TTL_S)
    assert not await Lease(pool, "a1", TTL_S).acquire(), "a real one is not"
    assert await lease.release() is Released.KNOCKED
    assert await lease.release() is Released.FREE


@Foreign
async def test_marks_and_merges_likewise(pool: ArqRedis, foreign: Make) -> None:
    for key in (swept_key("a1"), compaction_lease_key("a1", 0)):
        await foreign(pool, key)
    assert await mark(pool, swept_key("a1"), TTL_S)
    assert not await mark(pool, swept_key("a1"), TTL_S)
    assert await enqueue_compaction(pool, "a1", 0, TTL_S)
    assert await Lease(pool, "a1", TTL_S, 0).claim()
    assert not await enqueue_compaction(pool, "a1", 0, TTL_S)


async def test_the_lease_of_a_worker_with_other_settings_is_left_to_it(pool: ArqRedis) -> None:
    assert await Lease(pool, "a1", FOREIGN_S).acquire()
    assert not await Lease(pool, "a1", TTL_S).acquire()
    assert await is_drained(pool, "a1", TTL_S)


@Foreign
async def test_a_generation_of_another_making_is_replaced(pool: ArqRedis, foreign: Make) -> None:
    await foreign(pool, generation_key("a1"))
    assert not await drain_waits(pool, "a1")
    assert await enqueue_drain(pool, "a1")
    assert await drain_waits(pool, "a1")


@Foreign
async def test_hints_of_another_making_are_none(pool: ArqRedis, server: ValkeyServer, foreign: Make) -> None:
    for key in (applying_key("a1"), tries_key("a1")):
        await pool.delete(key)
        await foreign(pool, key)
    notices = Notices(server.url, on_notice=lambda _: None, on_reconnect=lambda: None)
    notices.start()
    await eventually(lambda: notices.connected)
    assert await notices.applying("a1") is None
    await notices.close()
    assert [await count_try(pool, "a1") for _ in range(2)] == [1, 2]


async def redis_ms(redis: ArqRedis) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds * 1000 + microseconds // 1000)


async def test_a_job_waits_for_no_clock(pool: ArqRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever enqueues is an hour ahead, and whoever works half a day behind: it is taken on all the same."""
    here_ms = await redis_ms(pool)
    monkeypatch.setattr(arq.connections, "timestamp_ms", lambda: here_ms + 3_600_000)
    assert await enqueue_drain(pool, "a1")
    behind_ms = here_ms - 12 * 3_600_000
    assert len(await pool.zrangebyscore(DRAIN_QUEUE, "-inf", behind_ms)) == 1


async def test_jobs_run_in_the_order_in_which_they_were_enqueued(
    pool: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clocks of those who enqueue: else one that is ahead would wait behind all others."""
    for number, skew_ms in enumerate([3_600_000, -3_600_000, 0]):
        now_ms = await redis_ms(pool) + skew_ms
        monkeypatch.setattr(arq.connections, "timestamp_ms", lambda now_ms=now_ms: now_ms)
        await enqueue_drain(pool, f"a{number}")
        await asyncio.sleep(0.005)
    names = [name.decode().split(":")[1] for name in await pool.zrange(DRAIN_QUEUE, 0, -1)]
    assert names == ["a0", "a1", "a2"]


async def test_a_notice_that_redis_does_not_take_is_no_failure(pool: ArqRedis, server: ValkeyServer) -> None:
    await pool.execute_command("ACL", "SETUSER", "default", "-publish")  # type: ignore[no-untyped-call]
    await publish(pool, Notice("a1", 1, 1))
    await pool.execute_command("ACL", "SETUSER", "default", "+publish")  # type: ignore[no-untyped-call]
    server.stop()
    await publish(pool, Notice("a1", 1, 1))
    server.start()


async def test_a_lease_outlives_cut_connections(tmp_path: Path) -> None:
    """A batch is not thrown away because its lease could not be renewed for a moment; nor is one kept for long that is lost."""
    valkey = EmbeddedValkey(tmp_path / "v")
    valkey.start()
    path = valkey.url.removeprefix("unix://").partition("?")[0]
    with TcpProxy(path) as proxy:
        redis = connect(proxy.url)
        lease, brief = Lease(redis, "a1", TTL_S), Lease(redis, "a2", 1.0)
        assert await lease.acquire()
        async with renewed(lease, 0.2) as hold:
            proxy.lead_to(None)
            await asyncio.sleep(0.7)
            assert hold.ours, "it has not run out"
            proxy.lead_to(path)
            await asyncio.sleep(0.5)
            assert await lease.renew()
        assert await brief.acquire()
        async with renewed(brief, 0.2) as hold:
            proxy.lead_to(None)
            await eventually(lambda: not hold.ours)
        await redis.aclose(close_connection_pool=True)
    valkey.stop()


async def test_a_bell_leaves_a_server_that_became_a_replica(tmp_path: Path, server: ValkeyServer) -> None:
    """Its address leads to the new one already; its connection stays with the old one, which answers, and takes no writes."""
    old = EmbeddedValkey(tmp_path / "v")
    old.start()
    with TcpProxy(old.url.removeprefix("unix://").partition("?")[0]) as proxy:
        bell = Bell(proxy.url)
        bell.ring("a1")
        await eventually(lambda: bell.enqueued == 1)
        proxy.lead_to(server.url.removeprefix("unix://").partition("?")[0], cut=False)
        demoting = connect(old.url)
        await demoting.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        await demoting.aclose(close_connection_pool=True)
        bell.ring("a2")
        await eventually(lambda: len(server.queued()) == 1)
        await bell.close()
    old.stop()
