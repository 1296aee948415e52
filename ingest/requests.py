"""Reading a request: its body, whole and bounded, and who sent it."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import AsyncIterator

from aiohttp import HttpVersion11, hdrs, web

from upwell.errors import Invalid, TooLarge, TooSlow, Unauthenticated

#: Of the application: how long a body may bring less than STEADY_BYTES.
BODY_IDLE_S = web.AppKey("body_idle_s", float)
STEADY_BYTES = 1_024


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """The body as sent (still compressed, if it is), in one piece. Raises as ``read_chunks`` does."""
    return b"".join([chunk async for chunk in read_chunks(request, bytes_max)])


async def read_chunks(request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The body as it comes in. Raises TooLarge as soon as it is known to be, TooSlow if it stands still, Invalid if cut short.

    Counted while it streams in, so memory is bounded by ``bytes_max`` whatever the client declares.
    """
    declared = request.content_length
    if declared is not None and declared > bytes_max:
        raise TooLarge(f"the request body has {declared} bytes; at most {bytes_max} are allowed")
    await _ask_for_body(request)
    size = 0
    try:
        async for chunk in _steadily(request):
            size += len(chunk)
            if size > bytes_max:
                raise TooLarge(f"the request body has more than the {bytes_max} bytes allowed")
            yield chunk
    except (web.RequestPayloadError, ConnectionResetError) as error:
        raise Invalid("the request body ended before it was complete") from error


async def _steadily(request: web.Request) -> AsyncIterator[bytes]:
    """A body's chunks. Raises TooSlow when too little of it comes for too long; how long the whole takes is the client's affair."""
    loop, idle_s = asyncio.get_running_loop(), request.config_dict.get(BODY_IDLE_S)
    until = None if idle_s is None else loop.time() + idle_s
    brought = 0
    while True:
        try:
            async with asyncio.timeout_at(until):
                chunk = await request.content.readany()
        except TimeoutError:
            raise TooSlow(
                f"less than {STEADY_BYTES} bytes of the request body came in {idle_s:g} s"
            ) from None
        if not chunk:
            return
        brought += len(chunk)
        if idle_s is not None and brought >= STEADY_BYTES:
            until, brought = loop.time() + idle_s, 0
        yield chunk


async def _ask_for_body(request: web.Request) -> None:
    """Tell a client that holds its body back (``Expect: 100-continue``) to send it. See ``unread.py``."""
    if request.version < HttpVersion11 or request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return
    with contextlib.suppress(ConnectionError):  # reading will tell
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # What counts as the answer has not begun.
    request.writer.output_size = 0


def bearer_token(request: web.Request) -> str:
    """The token of ``Authorization: Bearer``, ``Basic`` (its password), or ``X-Auth-Key`` with ``X-Auth-Email``.

    Raises Unauthenticated when there is none.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer" and credentials:
        return credentials
    if scheme.lower() == "basic" and credentials:
        try:
            _, _, password = b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            raise Unauthenticated("the Authorization header is malformed") from None
        return password
    key = request.headers.get("X-Auth-Key", "")
    if key and request.headers.get("X-Auth-Email"):
        return key
    raise Unauthenticated("missing Authorization header, or X-Auth-Key with X-Auth-Email")
