"""The Workers binding: what ``env.VECTORIZE`` of workerd sends, so that Workers run against Upwell without Cloudflare.

It is the REST surface with other names and without envelopes. The same handlers run behind it, so operations, rules, codes
and words are the same by construction: a success is the bare result with status 200, a failure ``{"code", "error"}`` with the
status it has there.

The binding asks ``http://vector-search/<operation>`` and names no index. Where account and index come from:

* ``/bindings/vectorize/{account}/{index}/<operation>``, for whatever can put a path in front;
* two headers, for the host ``vector-search``: workerd's configuration can add headers to a request, and no path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from ingest.doors import Door
from ingest.doors.cloudflare import indexes, queries, vectors
from ingest.doors.cloudflare.envelope import result_in, said_in
from ingest.doors.cloudflare.errors import errors_in_envelopes
from ingest.keys import DOOR
from ingest.unread import read_when_wanted
from upwell.errors import Invalid

#: The host that the binding asks, whatever its requests are then sent to.
HOST = "vector-search"
ACCOUNT_HEADER = "Upwell-Account"
INDEX_HEADER = "Upwell-Index"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def binding_door() -> web.Application:
    """An application to be mounted at ``/bindings/vectorize``; account and index are in the path."""
    door = web.Application(middlewares=[without_envelope, errors_in_envelopes])
    door[DOOR] = Door.BINDING
    door.add_routes(_routes("/{account}/{index}"))
    return door


def binding_door_by_headers() -> web.Application:
    """An application for the host ``vector-search``; account and index are in headers."""
    door = web.Application(middlewares=[without_envelope, errors_in_envelopes, addressed_by_headers])
    door[DOOR] = Door.BINDING
    door.add_routes(_routes(""))
    return door


def _routes(index: str) -> list[web.RouteDef]:
    return read_when_wanted(
        [
            web.get(index + "/info", indexes.info),
            web.post(index + "/insert", vectors.insert),
            web.post(index + "/upsert", vectors.upsert),
            web.post(index + "/deleteByIds", vectors.delete_by_ids),
            web.post(index + "/getByIds", vectors.get_by_ids),
            web.post(index + "/query", queries.query),
        ]
    )


@web.middleware
async def without_envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take the envelope off; status and headers stay. The binding takes any status but exactly 200 for an error."""
    response = await handler(request)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    if response.status == 200:
        response.body = result_in(response.body)
    else:
        code, message = said_in(response.body)
        response.body = orjson.dumps({"code": code, "error": message})
    return response


@web.middleware
async def addressed_by_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let handlers find in the path what the headers say."""
    for header, name in ((ACCOUNT_HEADER, "account"), (INDEX_HEADER, "index")):
        value = request.headers.get(header)
        if not value:
            raise Invalid(f"{header}: this header must name the {name}")
        request.match_info[name] = value
    return await handler(request)
