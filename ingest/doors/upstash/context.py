"""What every command of this door needs of a request: which index and namespace it is about, who may do this, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aiohttp import web

from ingest.doors.upstash.errors import UpstashError
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.strict import strict_json
from ingest.granted import Granted
from ingest.keys import DOOR, OPERATIONS
from ingest.requests import bearer_token
from upwell.catalog.tokens import Access
from upwell.engine import Index
from upwell.errors import Forbidden, Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Granted):
    """A request of somebody who may make it. ``namespace`` "": the default one."""

    namespace: str
    index: Index

    async def fields(self) -> Fields:
        """The object that the body is; an empty one if there is nothing in it. Raises Invalid or UpstashError."""

        def parsed(body: bytes) -> Fields:
            given = strict_json(body)
            return Fields({} if given is None or given == [] else given)

        return await self.question(parsed)

    async def settled(self) -> None:
        """Before a read that is to see all earlier writes: wait for them, unless the operator does not want that. Raises Unavailable."""
        if self.settings.upstash_read_your_writes:
            await self.ops.caught_up(self.index, self.settings.upstash_read_wait_s)


@dataclass(frozen=True, slots=True)
class Path:
    """What a path says. ``command`` "": nothing."""

    account: str
    index: str
    command: str
    namespace: str


def read_path(request: web.Request) -> Path:
    """The pieces of ``/upstash/{account}/{index}/{command}/{namespace}``, whose namespace may have slashes in it. Raises UpstashError.

    Clients join their base URL to a command with a slash, whether it ends in one or not.
    """
    _, _, account, index, *rest = request.rel_url.raw_path.split("/", 4)
    command, _, namespace = "".join(rest).lstrip("/").partition("/")
    try:
        return Path(account, index, command, unquote_to_bytes(namespace).decode())
    except UnicodeDecodeError:
        raise UpstashError(422, "namespace: expected UTF-8 in the path") from None


async def authorised(request: web.Request, path: Path, access: Access) -> Asked:
    """The request, once its token is known to allow ``access`` to its index. Raises Unauthenticated, Forbidden, NotFound or Gone."""
    ops = request.config_dict[OPERATIONS]
    grant = await ops.grant_of(bearer_token(request), request.config_dict[DOOR])
    try:
        grant.check(access, path.account, path.index)
    except Forbidden as error:
        raise Forbidden(f"/{path.command} is not allowed: {error.detail}") from None
    index = await ops.find_index(path.account, path.index)
    check_namespace(path.namespace, ops.engine.settings.upstash_namespace_bytes_max)
    return Asked(request=request, command=path.command, grant=grant, namespace=path.namespace, index=index)


def check_namespace(name: str, bytes_max: int, field: str = "namespace") -> None:
    """Raise Invalid for a name that no namespace can have."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{field}: expected text that is valid UTF-8, got a lone surrogate") from None
    if size > bytes_max:
        raise Invalid(f"{field}: expected at most {bytes_max} bytes, got {size}")
    if "\0" in name:
        raise Invalid(f"{field}: expected no NUL character")
