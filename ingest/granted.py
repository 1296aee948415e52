"""A request of somebody whose token is known, as a door's commands are handed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import hdrs, web

from ingest.body import inflate
from ingest.keys import OPERATIONS
from ingest.operations import Operations
from ingest.requests import read_body
from upwell.catalog.tokens import Grant
from upwell.query.patience import FILTER, Patience
from upwell.settings import Settings

T = TypeVar("T")
#: Of a body that brings no rows to be kept. Decoded it may take thirty times as much.
QUESTION_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What all commands need of a request. Each door adds what its own are about."""

    request: web.Request
    command: str
    grant: Grant

    @property
    def ops(self) -> Operations:
        """What doors call."""
        return self.request.config_dict[OPERATIONS]

    @property
    def settings(self) -> Settings:
        """The server's."""
        return self.ops.engine.settings

    @property
    def encoding(self) -> str | None:
        """How the body is compressed."""
        return self.request.headers.get(hdrs.CONTENT_ENCODING)

    def bounded(self, wait_s: float) -> float:
        """``wait_s``, or less if the client will not wait so long."""
        return wait_s

    def patience(self) -> Patience:
        """How long a filter may take that is asked now."""
        return self.patience_of(self.settings.filter_s_max, FILTER)

    def patience_of(self, most_s: float, says: str) -> Patience:
        """How long something may take that is begun now; ``says``: as Patience takes it."""
        # A client that will wait for no time at all will wait for its answer all the same.
        return Patience(self.ops.engine.clock, self.bounded(most_s) or most_s, says)

    async def body(self, bytes_max: int) -> bytes:
        """The body as it was sent, of no more bytes than that, or than any may have. Raises TooLarge, TooSlow or Invalid."""
        return await read_body(self.request, min(bytes_max, self.settings.request_bytes_max))

    async def question(self, read: Callable[[bytes], T], bytes_max: int = QUESTION_BYTES_MAX) -> T:
        """What ``read``, which may block, makes of the body once it is inflated. Raises what it does, TooLarge, TooSlow or Invalid."""
        body, encoding = await self.body(bytes_max), self.encoding
        most = min(bytes_max, self.settings.request_bytes_max)
        return await self.ops.parse(lambda: read(bytes(inflate(body, encoding, most))))
