"""Bodies that nobody reads, seen from the wire: when they are asked for, how much of them is taken, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingest import unread
from ingest.doors.cloudflare.errors import errors_in_envelopes
from ingest.requests import read_body
from ingest.unread import SMALL_BYTES, leave_unread, read_when_wanted
from upwell.errors import Unauthenticated

CHUNK = b"x" * 65_536
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def reads(request: web.Request) -> web.Response:
    return web.Response(text=f"read {len(await read_body(request, 1 << 20))}")


async def refuses(_request: web.Request) -> web.Response:
    raise Unauthenticated


async def throws(_request: web.Request) -> web.Response:
    raise web.HTTPForbidden


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application(middlewares=[leave_unread])
    door = web.Application(middlewares=[errors_in_envelopes])
    routes = [web.post("/reads", reads), web.post("/refuses", refuses), web.post("/throws", throws)]
    door.add_routes(read_when_wanted(routes))
    app.add_subapp("/door", door)
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()


class Wire:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send_head(self, path: str, *headers: str, version: str = "1.1") -> None:
        head = [f"POST /door{path} HTTP/{version}", "Host: test", *headers]
        self.writer.write("\r\n".join([*head, "", ""]).encode())

    async def answer(self) -> tuple[int, bytes, bytes]:
        """The next answer: status, head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        return int(head.split(b" ")[1]), head, await self.reader.readexactly(size)

    async def send_until_hung_up(self, piece: bytes, pieces_max: int, pause_s: float = 0) -> None:
        """Send until nobody takes it any more; fails if so many pieces are taken."""
        with suppress(ConnectionError):
            for _ in range(pieces_max):
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(pause_s)
            pytest.fail(f"{pieces_max} pieces of {len(piece)} bytes were taken")


@asynccontextmanager
async def connected(server: TestServer) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    yield Wire(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_body_that_is_held_back_is_asked_for_when_it_is_read(server: TestServer) -> None:
    async with connected(server) as wire:
        wire.send_head("/reads", "Content-Length: 5", "Expect: 100-continue")
        assert await wire.reader.readexactly(len(CONTINUE)) == CONTINUE
        wire.writer.write(b"12345")
        status, head, body = await wire.answer()
        assert (status, body) == (200, b"read 5") and b"connection: close" not in head.lower()
        # The connection goes on, and asks again.
        wire.send_head("/reads", "Transfer-Encoding: chunked", "Expect: 100-Continue")
        assert await wire.reader.readexactly(len(CONTINUE)) == CONTINUE
        wire.writer.write(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        assert (await wire.answer())[2] == b"read 7"


@pytest.mark.parametrize(("path", "expected"), [("/refuses", 401), ("/throws", 403)])
@pytest.mark.parametrize("size", [1, 100_000_000])
async def test_a_body_that_is_held_back_from_a_refusal_is_never_asked_for(
    server: TestServer, monkeypatch: pytest.MonkeyPatch, path: str, expected: int, size: int
) -> None:
    monkeypatch.setattr(unread, "DROPPED_S_MAX", 3_600)
    async with connected(server) as wire:
        wire.send_head(path, f"Content-Length: {size}", "Expect: 100-continue")
        status, head, _ = await wire.answer()
        assert status == expected and b"connection: close" in head.lower()
        assert await wire.reader.read() == b"", "the connection ends at once: nothing more is coming"


async def test_a_body_that_is_too_large_is_not_asked_for(server: TestServer) -> None:
    async with connected(server) as wire:
        wire.send_head("/reads", "Content-Length: 100000000", "Expect: 100-continue")
        assert (await wire.answer())[0] == 413


async def test_other_expectations_are_refused_in_the_envelope(server: TestServer) -> None:
    async with connected(server) as wire:
        wire.send_head("/reads", "Content-Length: 5", "Expect: miracles")
        status, _, body = await wire.answer()
        assert status == 417
        assert b'"code":50417' in body and b"only 100-continue is known here, got 'miracles'" in body


async def test_an_old_client_is_not_told_to_continue(server: TestServer) -> None:
    async with connected(server) as wire:
        wire.send_head("/reads", "Content-Length: 5", "Expect: 100-continue", version="1.0")
        wire.writer.write(b"12345")
        assert (await wire.answer())[2] == b"read 5"


async def test_a_small_body_is_dropped_and_the_connection_goes_on(server: TestServer) -> None:
    async with connected(server) as wire:
        for path, expected in (("/refuses", 401), ("/throws", 403), ("/nowhere", 404)):
            wire.send_head(path, f"Content-Length: {SMALL_BYTES}")
            status, head, _ = await wire.answer()
            assert status == expected and b"connection: close" not in head.lower()
            wire.writer.write(CHUNK[:SMALL_BYTES])
        wire.send_head("/reads", "Content-Length: 5")
        wire.writer.write(b"12345")
        assert (await wire.answer())[2] == b"read 5"


@pytest.mark.parametrize(("path", "expected"), [("/refuses", 401), ("/throws", 403), ("/nowhere", 404)])
@pytest.mark.parametrize("length", [f"Content-Length: {1 << 40}", "Transfer-Encoding: chunked"])
async def test_of_a_large_body_little_is_taken(
    server: TestServer, monkeypatch: pytest.MonkeyPatch, path: str, expected: int, length: str
) -> None:
    monkeypatch.setattr(unread, "DROPPED_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(unread, "DROPPED_S_MAX", 3_600)
    async with connected(server) as wire:
        wire.send_head(path, length)
        if "chunked" in length:
            wire.writer.write(b"10000000000\r\n")
        status, head, _ = await wire.answer()
        assert status == expected and b"connection: close" in head.lower()
        # What lies in buffers on the way is taken too: a good deal more than a megabyte.
        await wire.send_until_hung_up(CHUNK, 1_000)


async def test_a_client_that_sends_no_more_is_not_waited_for(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "DROPPED_S_MAX", 0.05)
    async with connected(server) as wire:
        wire.send_head("/refuses", "Content-Length: 100000000")
        assert (await wire.answer())[0] == 401
        await wire.send_until_hung_up(b"x", 1_000, 0.01)


async def test_a_client_that_looks_up_only_when_all_is_sent_gets_its_answer(server: TestServer) -> None:
    async with connected(server) as wire:
        wire.send_head("/refuses", f"Content-Length: {8 << 20}")
        for _ in range(128):
            wire.writer.write(CHUNK)
            await wire.writer.drain()
        assert (await wire.answer())[0] == 401


async def test_a_client_that_goes_away_harms_nobody(
    server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        async with connected(server) as wire:
            wire.send_head("/refuses", "Content-Length: 100000000")
            wire.writer.write(CHUNK)
            assert (await wire.answer())[0] == 401
    async with connected(server) as wire:
        wire.send_head("/reads", "Content-Length: 5")
        wire.writer.write(b"12345")
        assert (await wire.answer())[2] == b"read 5"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
