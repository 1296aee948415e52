"""The commands of this door, and which of them a request means.

    /upstash/{account}/{index}/{command}[/{namespace}]

What stands before the command is the base URL that Upstash's clients are given, with a token of ours. Clients disagree about methods: any
of five will do for any command, with a body or without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from ingest.doors import Door
from ingest.doors.upstash import info, queries, reads, resumable, writes
from ingest.doors.upstash.answers import errors_as_json
from ingest.doors.upstash.context import Asked, authorised, read_path
from ingest.doors.upstash.errors import NOT_A_METHOD, UpstashError
from ingest.doors.upstash.resumable import RESUMABLE_QUERIES, ResumableQueries
from ingest.keys import DOOR
from ingest.metrics import ROUTE
from ingest.operations import Operations
from ingest.unread import read_when_wanted
from upwell.catalog.tokens import Access

METHODS: Final = (hdrs.METH_HEAD, hdrs.METH_GET, hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_DELETE)


@dataclass(frozen=True, slots=True)
class Command:
    """A command: who does it, what a token needs for it, and whether it is about one namespace."""

    handler: Callable[[Asked], Awaitable[web.Response]]
    access: Access = Access.READ
    has_namespace: bool = True


COMMANDS: Final = {
    "upsert": Command(writes.upsert, Access.WRITE),
    "upsert-data": Command(writes.upsert, Access.WRITE),
    "update": Command(writes.update, Access.WRITE),
    "delete": Command(writes.delete, Access.WRITE),
    "reset": Command(writes.reset, Access.WRITE),
    "query": Command(queries.query),
    "query-data": Command(queries.query),
    "resumable-query": Command(resumable.begin),
    "resumable-query-data": Command(resumable.begin),
    "resumable-query-next": Command(resumable.next_, has_namespace=False),
    "resumable-query-end": Command(resumable.end, has_namespace=False),
    "fetch": Command(reads.fetch),
    "range": Command(reads.range_),
    "random": Command(reads.random),
    "info": Command(info.info, has_namespace=False),
    "list-namespaces": Command(info.list_namespaces, has_namespace=False),
    "delete-namespace": Command(writes.delete_namespace, Access.WRITE),
    "rename-namespace": Command(writes.rename_namespace, Access.WRITE, has_namespace=False),
}


async def dispatch(request: web.Request) -> web.Response:
    """Answer any request of this door."""
    if request.method not in METHODS:
        raise UpstashError(405, NOT_A_METHOD)
    path = read_path(request)
    command = COMMANDS.get(path.command)
    if command is not None:
        request[ROUTE] = f"/upstash/{{account}}/{{index}}/{path.command}"
    # First the token: who has none is not told what there is.
    asked = await authorised(request, path, Access.READ if command is None else command.access)
    if command is None:
        named = f"Command {path.command[:64]} is not available" if path.command else "No command was given"
        raise UpstashError(404, f"{named}; expected one of {', '.join(COMMANDS)}")
    if asked.namespace and not command.has_namespace:
        raise UpstashError(404, f"/{path.command} takes no namespace in its path")
    return await command.handler(asked)


def upstash_door(operations: Operations) -> web.Application:
    """An application to be mounted at ``/upstash``."""
    door = web.Application(middlewares=[errors_as_json])
    door[DOOR] = Door.UPSTASH
    settings = operations.engine.settings
    door[RESUMABLE_QUERIES] = ResumableQueries(operations.engine.clock, settings.upstash_resumable_max)
    operations.chores.append(door[RESUMABLE_QUERIES].forget_idle)
    door.add_routes(read_when_wanted([web.route("*", "/{account}/{index}{command:(?:/.*)?}", dispatch)]))
    return door
