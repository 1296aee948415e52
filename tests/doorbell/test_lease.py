"""The lease: one holder, a knock that is never lost, and nothing taken from a holder by one who lost it."""

from __future__ import annotations

from arq.connections import ArqRedis

from tests.valkey_server import ValkeyServer
from upwell.doorbell.keys import knock_key, lease_key
from upwell.doorbell.lease import Lease, Released, begin_generation, enqueue_drain

TTL_S = 30.0


async def test_a_knock_makes_the_holder_look_once_more(redis: ArqRedis) -> None:
    holder = Lease(redis, "a1", TTL_S)
    await holder.acquire()
    await Lease(redis, "a1", TTL_S).acquire()
    await Lease(redis, "a1", TTL_S).acquire()
    assert await holder.release() is Released.KNOCKED
    assert await redis.exists(lease_key("a1"))
    assert await holder.release() is Released.FREE
    assert not await redis.exists(lease_key("a1"), knock_key("a1"))


async def test_who_lost_it_takes_nothing_from_who_has_it(redis: ArqRedis) -> None:
    late, holder = Lease(redis, "a1", TTL_S), Lease(redis, "a1", TTL_S)
    await late.acquire()
    await redis.delete(lease_key("a1"))
    assert await holder.acquire()
    await Lease(redis, "a1", TTL_S).acquire()
    assert not await late.renew()
    assert await late.release() is Released.LOST
    await late.drop()
    assert await redis.exists(knock_key("a1")), "the knock is the holder's to answer"
    assert await holder.renew()
    assert await holder.release() is Released.KNOCKED


async def test_after_a_wipe_it_is_lost(redis: ArqRedis, server: ValkeyServer) -> None:
    lease = Lease(redis, "a1", TTL_S)
    await lease.acquire()
    server.flush()
    assert not await lease.renew()
    assert await lease.release() is Released.LOST


async def test_drop_leaves_a_knock_for_the_next(redis: ArqRedis) -> None:
    lease = Lease(redis, "a1", TTL_S)
    await lease.acquire()
    await Lease(redis, "a1", TTL_S).acquire()
    await lease.drop()
    following = Lease(redis, "a1", TTL_S)
    assert await following.acquire()
    assert await following.release() is Released.KNOCKED


async def test_no_generation_ever_returns(redis: ArqRedis, server: ValkeyServer) -> None:
    used: list[str] = []
    for _ in range(20):
        await enqueue_drain(redis, "a1")
        used += server.queued()
        server.flush()
        await enqueue_drain(redis, "a1")
        await begin_generation(redis, "a1")
        await enqueue_drain(redis, "a1")
        used += server.queued()
        server.flush()
    assert len(set(used)) == len(used)
