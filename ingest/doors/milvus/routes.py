"""Which command a request means, and whose it is.

    /v1/vector/{command}     /v2/vectordb/{command}

What stands before is what Milvus's clients are given as their endpoint, with a token of ours.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from ingest.doors import Door
from ingest.doors.milvus.answers import errors_as_json
from ingest.doors.milvus.commands import COMMANDS
from ingest.doors.milvus.context import Call, Version
from ingest.keys import DOOR, OPERATIONS
from ingest.metrics import ROUTE
from ingest.unread import read_when_wanted
from ingest.wishes import MUTATION_ID
from upwell.catalog.tokens import Grant
from upwell.errors import Forbidden, Unauthenticated

PREFIXES: Final = {Version.V1: "/v1/vector", Version.V2: "/v2/vectordb"}
#: Pages of any origin may call, as they may call Milvus: what they need besides is a token.
CROSS_ORIGIN: Final = {
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: (
        "Content-Type, Content-Length, Content-Encoding, Accept-Encoding, X-CSRF-Token, Authorization, accept, origin, "
        "Cache-Control, X-Requested-With, Accept-Type-Allow-Int64, DB-Name, Request-Timeout, RequestId, ContentType, "
        "Prefer, Idempotency-Key, X-After-Mutation"
    ),
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "POST, HEAD, PATCH, OPTIONS, GET, PUT, DELETE",
    hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: f"{MUTATION_ID}, X-Mutation-State, Idempotency-Replayed, Preference-Applied, Retry-After",
}
BASIC: Final = 'Basic realm="restricted", charset="UTF-8"'


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


async def _as_milvus_does(request: web.Request, response: web.StreamResponse) -> None:
    """The headers that every answer of this door has."""
    response.headers.update(CROSS_ORIGIN)
    if request.headers.get(hdrs.AUTHORIZATION, "").lower().startswith("basic "):
        response.headers[hdrs.WWW_AUTHENTICATE] = BASIC


def milvus_door(version: Version) -> web.Application:
    """An application to be mounted at ``PREFIXES[version]``."""
    commands = COMMANDS[version]

    async def dispatch(request: web.Request) -> web.StreamResponse:
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        name = request.match_info["command"]
        command = commands.get(name)
        if command is None or command.method != request.method:
            return web.Response(status=HTTPStatus.NOT_FOUND, text="404 page not found")
        request[ROUTE] = f"{PREFIXES[version]}/{name}"
        grant = await grant_at_door(request)
        if not grant.access.includes(command.access):
            raise Forbidden(f"the token allows {grant.access}, and this needs {command.access}")
        return await command.handler(Call(request=request, version=version, command=name, grant=grant))

    door = web.Application(middlewares=[errors_as_json])
    door[DOOR] = Door.MILVUS
    door.on_response_prepare.append(_as_milvus_does)
    door.add_routes(read_when_wanted([web.route("*", "/{command:.*}", dispatch)]))
    return door
