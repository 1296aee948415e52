"""The doorbell's parts against a real Valkey: bell, lease, notices, the embedded server itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis as blocking_redis
from arq.connections import ArqRedis

from upwell.doorbell.bell import Bell
from upwell.doorbell.connection import connect, deserialize, redis_settings, serialize
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import DRAIN_QUEUE, lease_key
from upwell.doorbell.lease import Lease, Released, begin_generation, enqueue_drain
from upwell.doorbell.notices import Notice, Notices, hint_applying, publish
from upwell.errors import Invalid


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[ArqRedis]:
    pool = connect(valkey.url)
    yield pool
    await pool.aclose(close_connection_pool=True)


async def eventually(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.01)


async def test_many_rings_are_one_job_an_index(valkey: EmbeddedValkey, redis: ArqRedis) -> None:
    bell = Bell(valkey.url)
    for _ in range(100):
        bell.ring("a")
        bell.ring("b")
    await eventually(lambda: bell.waiting == 0)
    assert await redis.zcard(DRAIN_QUEUE) == 2
    assert (bell.rings, bell.enqueued, bell.failures) == (200, 2, 0)
    await bell.close()


async def test_a_drain_that_began_does_not_keep_the_next_ring_from_a_job_of_its_own(redis: ArqRedis) -> None:
    assert await enqueue_drain(redis, "a")
    assert not await enqueue_drain(redis, "a")
    await begin_generation(redis, "a")
    assert await enqueue_drain(redis, "a")
    assert await redis.zcard(DRAIN_QUEUE) == 2


async def test_rings_while_redis_is_away_are_made_up_for(valkey: EmbeddedValkey) -> None:
    bell = Bell(valkey.url)
    valkey.stop()
    bell.ring("a")
    bell.ring("b")
    await eventually(lambda: bell.failures >= 2)
    assert bell.waiting >= 1
    valkey.start()
    await eventually(lambda: bell.waiting == 0 and bell.enqueued == 2)
    await bell.close()


async def test_closing_a_bell_that_reaches_nobody_takes_no_time(tmp_path: Path) -> None:
    bell = Bell(f"unix://{tmp_path}/nobody.sock")
    bell.ring("a")
    await asyncio.wait_for(bell.close(), 20)


async def test_one_holds_the_lease_and_a_knock_makes_it_look_again(redis: ArqRedis) -> None:
    first, second = Lease(redis, "a", 30), Lease(redis, "a", 30)
    assert await first.acquire()
    assert not await second.acquire()
    assert await first.release() is Released.KNOCKED
    assert not await Lease(redis, "a", 30).acquire()
    assert await first.release() is Released.KNOCKED
    assert await first.release() is Released.FREE
    assert await second.acquire()
    assert await first.release() is Released.LOST
    assert not await first.renew()
    await first.drop()
    assert await second.renew(), "another's drop must not take our lease"
    await second.drop()


async def test_a_lease_ends_by_itself_and_renewing_keeps_it(redis: ArqRedis) -> None:
    lease = Lease(redis, "a", 60)
    assert await lease.acquire()
    for _ in range(3):
        # Most of its time has passed.
        assert await redis.pexpire(lease_key("a"), 20_000)
        assert await lease.renew()
        assert 20_000 < await redis.pttl(lease_key("a")) <= 60_000
    brief = Lease(redis, "b", 0.05)
    assert await brief.acquire()
    async with asyncio.timeout(20):
        while await redis.exists(lease_key("b")):  # noqa: ASYNC110  a key of Redis
            await asyncio.sleep(0.01)
    assert not await brief.renew()
    assert await Lease(redis, "b", 30).acquire()


async def test_two_indexes_do_not_know_of_each_other(redis: ArqRedis) -> None:
    assert await Lease(redis, "a", 30).acquire()
    assert await Lease(redis, "b", 30).acquire()


async def test_notices_are_heard_through_any_absence(valkey: EmbeddedValkey, redis: ArqRedis) -> None:
    heard: list[Notice] = []
    missed: list[bool] = []
    notices = Notices(valkey.url, on_notice=heard.append, on_reconnect=lambda: missed.append(True))
    notices.start()
    await eventually(lambda: notices.connected)
    await publish(redis, Notice("a", 2, 1))
    await eventually(lambda: heard == [Notice("a", 2, 1)])
    await hint_applying(redis, "a", 7, 60)
    # A hint is waited for a quarter of a second only; on a busy machine some are not heard.
    async with asyncio.timeout(20):
        while (through := await notices.applying("a")) is None:  # noqa: ASYNC110  it is asked
            await asyncio.sleep(0.01)
    assert through == 7
    assert await notices.applying("b") is None
    valkey.stop()
    await eventually(lambda: not notices.connected)
    async with asyncio.timeout(20):
        assert await notices.applying("a") is None
    valkey.start()
    await eventually(lambda: notices.connected and len(missed) == 2)
    await redis.publish("upwell:committed", b"not ours")
    await publish(redis, Notice("a", 3, 2))
    await eventually(lambda: heard[-1:] == [Notice("a", 3, 2)])
    await notices.close()


async def test_a_hint_does_not_wait_for_a_redis_that_hangs(valkey: EmbeddedValkey) -> None:
    notices = Notices(valkey.url, on_notice=lambda _: None, on_reconnect=lambda: None)
    notices.start()
    await eventually(lambda: notices.connected)
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            assert await notices.applying("a") is None
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await notices.close()


def test_the_embedded_server_comes_back_empty_at_the_same_address(valkey: EmbeddedValkey) -> None:
    url = valkey.url
    with blocking_redis.Redis.from_url(url) as client:
        client.set("kept", "not", ex=60)
        valkey.stop()
        assert not valkey.alive()
        assert valkey.pid is None
        valkey.start()
        assert valkey.url == url
        assert client.get("kept") is None


def test_a_socket_path_too_long_for_the_kernel_becomes_a_port(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / ("x" * 120))
    server.start()
    try:
        assert server.url.startswith("redis://127.0.0.1:")
        with blocking_redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["http://x", "localhost:6379", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="redis"):
        connect(url)


def test_addresses_and_jobs() -> None:
    assert redis_settings("redis://user:secret@10.0.0.1:7000/3").database == 3
    assert redis_settings("unix:///run/valkey.sock?db=2").unix_socket_path == "/run/valkey.sock"
    job = {"t": 1, "f": "drain", "a": ("index",), "k": {}, "et": 1}
    assert deserialize(serialize(job)) == {**job, "a": ["index"]}
