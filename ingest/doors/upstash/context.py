"""What every command of this door needs of a request: which index and namespace it is about, who may do this, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from ingest.body import inflate
from ingest.doors.upstash.errors import UpstashError
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.strict import strict_json
from ingest.keys import DOOR, OPERATIONS
from ingest.operations import Operations
from ingest.requests import bearer_token, read_body
from upwell.catalog.tokens import Access, Grant
from upwell.engine import Index
from upwell.errors import Forbidden, Invalid
from upwell.query.patience import Patience
from upwell.settings import Settings

#: Of a body that brings no vectors to be kept. Decoded it may take thirty times as much.
QUESTION_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of somebody who may make it. ``namespace`` "": the default one."""

    request: web.Request
    command: str
    namespace: str
    index: Index
    grant: Grant

    @property
    def ops(self) -> Operations:
        return self.request.config_dict[OPERATIONS]

    @property
    def settings(self) -> Settings:
        return self.ops.engine.settings

    async def body(self, bytes_max: int | None = None) -> bytes:
        """The body as sent, of ``bytes_max`` or what is enough for a question. Raises TooLarge, TooSlow or Invalid."""
        return await read_body(self.request, self.question_bytes_max if bytes_max is None else bytes_max)

    async def fields(self) -> Fields:
        """The object that the body is; an empty one if there is nothing in it. Raises Invalid or UpstashError."""
        body, bytes_max = await self.body(), self.question_bytes_max
        encoding = self.request.headers.get("Content-Encoding")

        def parsed() -> Fields:
            given = strict_json(bytes(inflate(body, encoding, bytes_max)))
            return Fields({} if given is None or given == [] else given)

        return await self.ops.parse(parsed)

    @property
    def question_bytes_max(self) -> int:
        """How long a body may be that brings no vectors to be kept, sent or inflated."""
        return min(QUESTION_BYTES_MAX, self.settings.request_bytes_max)

    def patience(self) -> Patience:
        """How long a question may take that is asked now."""
        return Patience(self.ops.engine.clock, self.settings.filter_s_max)

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
    return Asked(request, path.command, path.namespace, index, grant)


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
