"""Ringing: instant, coalesced, and remembered while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.valkey_server import ValkeyServer, eventually
from upwell.doorbell.bell import Bell


@pytest.fixture
async def bell(server: ValkeyServer) -> AsyncIterator[Bell]:
    bell = Bell(server.url)
    yield bell
    await bell.close()


async def test_each_index_has_its_own_job(bell: Bell, server: ValkeyServer) -> None:
    for index_id in ("a1", "b2", "a1", "c3"):
        bell.ring(index_id)
    await eventually(lambda: len(server.queued()) == 3)
    assert sorted(name.split(":")[1] for name in server.queued()) == ["a1", "b2", "c3"]


async def test_a_ring_through_a_restart_is_not_lost(bell: Bell, server: ValkeyServer) -> None:
    """The connection in the pool is dead, and the bell does not know."""
    bell.ring("a1")
    await eventually(lambda: bell.enqueued == 1)
    server.restart_empty()
    bell.ring("a1")
    await eventually(lambda: len(server.queued()) == 1)


async def test_ringing_a_frozen_redis_returns_at_once(bell: Bell, server: ValkeyServer) -> None:
    server.pause()
    for number in range(100):
        bell.ring(f"a{number}")
    # No await since the pause: nothing of the above can have waited for anything.
    assert bell.rings == 100
    await asyncio.sleep(0.05)
    server.resume()
    await eventually(lambda: len(server.queued()) == 100)


async def test_close_rings_what_was_just_rung(server: ValkeyServer) -> None:
    bell = Bell(server.url)
    bell.ring("a1")
    await bell.close()
    assert len(server.queued()) == 1


async def test_after_a_wipe_a_ring_has_an_id_that_was_never_used(bell: Bell, server: ValkeyServer) -> None:
    """The job of the old id may still run; when it ends, arq deletes what is queued under its id."""
    bell.ring("a1")
    await eventually(lambda: len(server.queued()) == 1)
    before = server.queued()
    server.flush()
    bell.ring("a1")
    await eventually(lambda: len(server.queued()) == 1)
    assert server.queued() != before
