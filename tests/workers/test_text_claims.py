"""Claims on texts: they are shared while Redis is there, and spare nobody the work when it is not; nothing of them stays, and none raises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from arq.connections import ArqRedis

from tests.valkey_server import ValkeyServer, eventually
from upwell.doorbell.connection import connect
from upwell.doorbell.keys import EMBED_CLAIM_TTL_S, EMBED_QUEUE, embed_asked_key, embed_claim_key
from workers import embedding
from workers.embedding import ASKED, Claims, claiming


async def call(method: Callable[..., Any], *arguments: Any) -> Any:
    """A method, called as a drain's thread calls it."""
    return await asyncio.to_thread(method, *arguments)


async def test_each_entry_is_one_holders_until_he_lets_go(redis: ArqRedis) -> None:
    async with claiming(redis, "a1") as ours, claiming(redis, "a1") as theirs:
        assert await call(ours.claim_texts, 1)
        assert not await call(theirs.claim_texts, 1)
        assert await call(theirs.claim_texts, 2)
        assert 0 < await redis.ttl(embed_claim_key("a1", 1)) <= EMBED_CLAIM_TTL_S
    assert await redis.keys("*") == []


async def test_claims_are_renewed_and_given_up_however_the_block_ends(
    redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "EMBED_CLAIM_TTL_S", 60)
    monkeypatch.setattr(embedding, "RENEW_S", 0.05)
    claimed, later = asyncio.Event(), list[Claims]()

    async def hold() -> None:
        async with claiming(redis, "a1") as claims:
            later.append(claims)
            for position in (1, 2):
                assert await call(claims.claim_texts, position)
            claimed.set()
            await asyncio.sleep(600)

    holder = asyncio.create_task(hold())
    await claimed.wait()
    for key in (embed_claim_key("a1", 1), embed_claim_key("a1", 2)):
        # Most of its time has passed; it is given all of it again.
        assert await redis.expire(key, 20)
        async with asyncio.timeout(20):
            while await redis.ttl(key) <= 20:  # noqa: ASYNC110  a key of Redis
                await asyncio.sleep(0.01)
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    assert await redis.keys("*") == []
    # The thread of a batch that was cancelled goes on for a while, and then nobody is there who would let go of what it claims.
    assert await call(later[0].claim_texts, 3)
    await call(later[0].ask_for_embedding)
    assert await redis.keys("*") == []


@pytest.mark.parametrize("kind", ["hash", "no end", "an hour"])
async def test_a_key_that_is_nobodys_keeps_nobody_from_embedding(
    redis: ArqRedis, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "EMBED_ASKED_TTL_S", 60)
    for key in (embed_claim_key("a1", 1), embed_asked_key("a1")):
        if kind == "hash":
            await redis.hset(key, "a", "b")  # type: ignore[misc]
        else:
            await redis.set(key, "1", ex=3600 if kind == "an hour" else None)
    async with claiming(redis, "a1") as claims:
        assert await call(claims.claim_texts, 1)
        await call(claims.ask_for_embedding)
        assert await redis.zcard(EMBED_QUEUE) == ASKED
        await call(claims.ask_for_embedding)
        assert await redis.zcard(EMBED_QUEUE) == ASKED, "they were asked a moment ago"
    await redis.delete(EMBED_QUEUE)


async def test_a_queue_of_another_kind_is_no_failure(redis: ArqRedis) -> None:
    await redis.set(EMBED_QUEUE, "x", ex=60)
    async with claiming(redis, "a1") as claims:
        await call(claims.ask_for_embedding)
        assert await call(claims.claim_texts, 1)


async def test_what_is_wiped_meanwhile_is_another_ones_too(redis: ArqRedis) -> None:
    async with claiming(redis, "a1") as ours, claiming(redis, "a1") as theirs:
        assert await call(ours.claim_texts, 1)
        await redis.flushall()
        assert await call(theirs.claim_texts, 1)


async def without_redis(server: ValkeyServer) -> None:
    server.stop()


async def without_the_right(server: ValkeyServer) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-eval")


async def frozen(server: ValkeyServer) -> None:
    server.pause()


@pytest.mark.parametrize("fault", [without_redis, without_the_right, frozen])
async def test_with_redis_away_all_texts_are_ours_and_it_is_waited_for_once(
    server: ValkeyServer, fault: Callable[[ValkeyServer], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has up to a thousand entries: each of them would wait for an answer that does not come."""
    monkeypatch.setattr(embedding, "CALL_S", 0.5)
    pool = connect(server.url)
    began = time.monotonic()
    async with claiming(pool, "a1") as claims:
        assert await call(claims.claim_texts, 1)
        await fault(server)
        for position in range(2, 200):
            assert await call(claims.claim_texts, position)
        await call(claims.ask_for_embedding)
    assert time.monotonic() - began < 30, "198 times half a second would be more"
    server.resume() if fault is frozen else server.restart_empty()
    await eventually(lambda: server.alive)
    await pool.aclose(close_connection_pool=True)


async def test_a_loop_that_is_gone_is_no_failure(redis: ArqRedis) -> None:
    gone = asyncio.new_event_loop()
    gone.close()
    claims = Claims(redis, "a1", gone)
    assert await call(claims.claim_texts, 1)
    await call(partial(claims.ask_for_embedding))
