"""Long answers, piece by piece: off the event loop, at the client's pace, and never taken for whole when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import structlog
from aiohttp import web

from ingest.doors.cloudflare.context import operations
from upwell.errors import Corrupt, UpwellError

log = structlog.get_logger()

#: Numbers that are turned into text at once: some 700 KB of it, and a few milliseconds.
NUMBERS_AT_ONCE = 1 << 16
#: A client that takes nothing for so long is gone: what it reads is let go of.
STALLED_S = 120.0


async def streamed(
    request: web.Request, headers: Mapping[str, str], pieces: Iterator[bytes]
) -> web.StreamResponse:
    """Answer with ``pieces``, whose making blocks; HEAD with the headers alone.

    What goes wrong on the way breaks the connection off before the last chunk.
    """
    if request.method == "HEAD":
        return web.Response(headers=headers)
    stream = web.StreamResponse(headers=headers)
    try:
        await stream.prepare(request)
        await _send(request, stream, pieces)
    except UpwellError as error:
        if isinstance(error, Corrupt):
            operations(request).met_damage(error)
        log.error("answer broken off", path=request.path, error=str(error))
        _break_off(request)
    except (ConnectionError, TimeoutError):
        _break_off(request)
    return stream


async def _send(request: web.Request, stream: web.StreamResponse, pieces: Iterator[bytes]) -> None:
    ops = operations(request)
    while (piece := await ops.bulk(lambda: next(pieces, None))) is not None:
        async with asyncio.timeout(STALLED_S):
            await stream.write(piece)


def _break_off(request: web.Request) -> None:
    """End the connection in the middle of the stream."""
    if request.transport is not None:
        request.transport.abort()
