"""Notices: heard when there is somebody to hear, and a reconnect says that some may have been missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from tests.valkey_server import ValkeyServer, eventually
from upwell.doorbell import notices as notices_module
from upwell.doorbell.keys import COMMITTED_CHANNEL
from upwell.doorbell.notices import Notice, Notices, publish


class Ear:
    """What a front end hears."""

    def __init__(self, url: str) -> None:
        self.heard: list[Notice] = []
        self.connects = 0
        self.notices = Notices(url, on_notice=self.hear, on_reconnect=self.connected)

    def hear(self, notice: Notice) -> None:
        self.heard.append(notice)
        if notice.index_id == "bad":
            raise ValueError("a listener's own mistake")

    def connected(self) -> None:
        self.connects += 1

    async def has_connected(self, times: int) -> None:
        await eventually(lambda: self.connects == times)


@pytest.fixture
async def ear(server: ValkeyServer) -> AsyncIterator[Ear]:
    ear = Ear(server.url)
    ear.notices.start()
    yield ear
    await ear.notices.close()


async def test_every_reconnect_is_told(ear: Ear, redis: ArqRedis, server: ValkeyServer) -> None:
    for times in (1, 2, 3):
        await ear.has_connected(times)
        assert ear.notices.connected
        server.stop()
        await eventually(lambda: not ear.notices.connected)
        server.start()
    await eventually(lambda: ear.connects == 4)
    await publish(redis, Notice("a1", 1, 1))
    await eventually(lambda: ear.heard)


async def test_it_starts_while_redis_is_away(server: ValkeyServer) -> None:
    server.stop()
    ear = Ear(server.url)
    ear.notices.start()
    await asyncio.sleep(0.2)
    assert not ear.connects
    server.start()
    await eventually(lambda: ear.connects == 1)
    await ear.notices.close()


@pytest.mark.parametrize(
    "rubbish", [b"", b"{", b"[1]", b"{}", b'"text"', b"null", b'{"index_id": "a1"}', b"\xff"]
)
async def test_what_is_no_notice_is_passed_over(ear: Ear, redis: ArqRedis, rubbish: bytes) -> None:
    await eventually(lambda: ear.connects)
    await redis.publish(COMMITTED_CHANNEL, rubbish)
    await publish(redis, Notice("a1", 1, 1))
    await eventually(lambda: ear.heard)
    assert ear.heard == [Notice("a1", 1, 1)] and ear.connects == 1


async def test_a_listener_that_raises_goes_on_hearing(ear: Ear, redis: ArqRedis) -> None:
    await eventually(lambda: ear.connects)
    await publish(redis, Notice("bad", 1, 1))
    await eventually(lambda: ear.heard)
    await eventually(lambda: ear.notices.connected)
    for _ in range(500):
        await publish(redis, Notice("a1", 1, 1))
        await asyncio.sleep(0.01)
        if Notice("a1", 1, 1) in ear.heard:
            return
    raise AssertionError("deaf after one mistake")


async def is_patient(ear: Ear) -> bool:
    """Does it keep its connection through a second of silence? A machine that was busy for as long as a PING may take proves nothing."""
    for _ in range(10):
        before = ear.connects
        await asyncio.sleep(1)
        if ear.connects == before and ear.notices.connected:
            return True
    return False


async def test_a_frozen_redis_is_noticed(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open and say nothing, as those of a host that vanished do."""
    monkeypatch.setattr(notices_module, "PING_S", 0.2)
    ear = Ear(server.url)
    ear.notices.start()
    await eventually(lambda: ear.connects == 1)
    assert await is_patient(ear), "silence alone is no reason"
    before = ear.connects
    server.pause()
    await eventually(lambda: not ear.notices.connected)
    server.resume()
    await eventually(lambda: ear.connects > before)
    await ear.notices.close()
