"""Bodies that nobody reads, because the request is refused before: they are not asked for, and not waited for.

A client that sends ``Expect: 100-continue`` (curl does with large bodies) holds its body back until we begin to read
(``requests.read_chunks``), so a refusal costs it nothing. From one that sends at once, a small body is taken and dropped, and the
connection goes on. Otherwise the answer says ``Connection: close``, and of what still comes a little is dropped before we hang up:
a client that only looks up once all is sent would lose the answer if we hung up at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import HttpVersion11, hdrs, web

#: A body no larger than this is dropped for the sake of its connection.
SMALL_BYTES = 64 << 10
#: Of a larger one no more than this is dropped, and for no longer. aiohttp alone would take whatever comes for ten seconds.
DROPPED_BYTES_MAX = 32 << 20
DROPPED_S_MAX = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_when_wanted(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The same routes, with bodies asked for when they are read, and not (as aiohttp does) before the handler is called."""
    return [
        web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _not_yet})
        for route in routes
    ]


async def _not_yet(_request: web.Request) -> None:
    """Ask for nothing."""


def demand_known_expectation(request: web.Request) -> None:
    """Raise a 417 if the client expects what we do not know."""
    expected = request.headers.get(hdrs.EXPECT)
    if expected is None or request.version < HttpVersion11 or expected.lower() == "100-continue":
        return
    raise web.HTTPExpectationFailed(text=f"Expect: only 100-continue is known here, got {expected[:64]!r}")


@web.middleware
async def leave_unread(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer, and where a body is left that is not worth waiting for, hang up."""
    raised: web.HTTPException | None = None
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = raised = error
    if not _is_worth_waiting_for(request):
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        await _hang_up(request)
    if raised is not None:
        raise raised
    return response


def _is_worth_waiting_for(request: web.Request) -> bool:
    if request.content.is_eof() or request.transport is None:
        return True
    size = request.content_length
    return size is not None and size <= SMALL_BYTES and hdrs.EXPECT not in request.headers


async def _hang_up(request: web.Request) -> None:
    transport = request.transport
    if transport is not None and transport.can_write_eof():
        # Who reads until we are done need not wait until we have heard enough.
        transport.write_eof()
    dropped = 0
    # Whatever goes wrong with a body that we do not want is no concern of ours.
    with contextlib.suppress(TimeoutError, ConnectionError, web.RequestPayloadError):
        async with asyncio.timeout(DROPPED_S_MAX):
            while dropped < DROPPED_BYTES_MAX and not request.content.at_eof():
                dropped += len(await request.content.readany())
    request.protocol.force_close()
