"""The commands of this door, and which of them a request means.

    /v1/vector/{command}     /v2/vectordb/{command}

What stands before is what Milvus's clients are given as their endpoint, with a token of ours.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from ingest.doors import Door
from ingest.doors.milvus.answers import errors_as_json
from ingest.doors.milvus.context import Call, Version
from ingest.keys import DOOR, OPERATIONS
from ingest.metrics import ROUTE
from ingest.unread import read_when_wanted
from upwell.catalog.tokens import Access, Grant
from upwell.errors import Forbidden, Unauthenticated

PREFIXES: Final = {Version.V1: "/v1/vector", Version.V2: "/v2/vectordb"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command: who does it, what a token needs for it, and by which method it is called."""

    handler: Callable[[Call], Awaitable[web.Response]]
    access: Access = Access.READ
    method: str = hdrs.METH_POST


COMMANDS: Final[dict[Version, dict[str, Command]]] = {
    Version.V1: {},
    Version.V2: {},
}


def credentials(request: web.Request) -> Iterator[str]:
    """What may be the token in ``Authorization``: ``Bearer TOKEN``, ``Bearer USER:TOKEN``, ``Basic`` of the latter, and either without a
    word before it."""
    given = request.headers.get(hdrs.AUTHORIZATION, "").strip()
    scheme, _, rest = given.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = b64decode(rest.strip(), validate=True).decode()
        except ValueError:
            return
    elif scheme.lower() == "bearer":
        given = rest.strip()
    if given:
        yield given
    _, separator, password = given.partition(":")
    if separator and password:
        yield password


async def grant_at_door(request: web.Request) -> Grant:
    """What the request's token allows. Raises Unauthenticated, or Forbidden for a token of another door."""
    ops, door = request.config_dict[OPERATIONS], request.config_dict[DOOR]
    for token in credentials(request):
        try:
            return await ops.grant_of(token, door)
        except Unauthenticated:
            continue
    raise Unauthenticated


def milvus_door(version: Version) -> web.Application:
    """An application to be mounted at ``PREFIXES[version]``."""
    commands = COMMANDS[version]

    async def dispatch(request: web.Request) -> web.StreamResponse:
        name = request.match_info["command"]
        command = commands.get(name)
        if command is None or command.method != request.method:
            return web.Response(status=404, text="404 page not found")
        request[ROUTE] = f"{PREFIXES[version]}/{name}"
        grant = await grant_at_door(request)
        if not grant.access.includes(command.access):
            raise Forbidden(f"the token allows {grant.access}, and this needs {command.access}")
        return await command.handler(Call(request, version, name, grant))

    door = web.Application(middlewares=[errors_as_json])
    door[DOOR] = Door.MILVUS
    door.add_routes(read_when_wanted([web.route("*", "/{command:.*}", dispatch)]))
    return door
