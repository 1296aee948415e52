"""Connections to a front end: how many there may be, and how long each may keep us waiting. aiohttp alone bounds neither.

* The head of a request must be there within ``idle_s``, counted from the answer before it or from the connection's beginning, so that
  a head that trickles gains nothing over silence (aiohttp's ``keepalive_timeout``, which has just this meaning);
* a body must go on (``requests.read_chunks``);
* an answer must be taken: where a client acknowledges nothing for ``idle_s``, the kernel ends the connection;
* beyond ``connections_max`` a connection is told so and closed, so that files are left to be opened for those that are in.

What waits for us (a long poll, a stream of events, a query) may wait as long as it likes.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import cast

import structlog
from aiohttp import web

from upwell.settings import Settings

log = structlog.get_logger()

CONNECTIONS_WAITING_MAX = 1_024
#: Files that a front end opens besides: the store's, spools, pipes, Redis.
OTHER_FILES = 512
#: So many of those turned away may say what they came for first: who is hung up on while sending may miss our answer.
HEARD_OUT_MAX = 64
HEARD_OUT_S = 1.0
_SAID = b'{"result":null,"success":false,"errors":[{"code":50503,"message":"too many connections; try again later"}],"messages":[]}'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 5\r\nConnection: close\r\n\r\n%s" % (len(_SAID), _SAID)
)


async def listen(runner: web.AppRunner, settings: Settings) -> asyncio.Server:
    """Take connections for an application that is set up. Raises OSError if the port cannot be had."""
    server = runner.server
    assert server is not None
    most = _room_for(settings.connections_max)
    turned_away: set[_TurnedAway] = set()

    def connection() -> asyncio.BaseProtocol:
        if len(server.connections) < most:
            return cast(asyncio.BaseProtocol, server())
        return _TurnedAway(turned_away)

    listening = await asyncio.get_running_loop().create_server(
        connection, settings.host, settings.port, backlog=CONNECTIONS_WAITING_MAX
    )
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; what is set here, each connection gets
        for each in listening.sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.idle_s * 1_000))
    return listening


class _TurnedAway(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def __init__(self, others: set[_TurnedAway]) -> None:
        self._others = others

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(BUSY)
        if len(self._others) >= HEARD_OUT_MAX:
            self._transport.close()
            return
        self._others.add(self)
        asyncio.get_running_loop().call_later(HEARD_OUT_S, self._transport.close)

    def data_received(self, _data: bytes) -> None:
        self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._others.discard(self)


def _room_for(connections: int) -> int:
    """How many connections there may be: as many as asked for, or as the system lets us open files for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    fewer = max(soft - OTHER_FILES, soft // 2)
    log.warning(
        "fewer connections than asked for: too few open files are allowed", open_files=soft, most=fewer
    )
    return fewer
