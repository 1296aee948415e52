"""Talking to a service as its client: where it is, who we are, and answers taken out of their envelopes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import aiohttp
import typer

from ingest.bootstrap import TOKEN_FILE
from upwell.errors import Unavailable, UpwellError
from upwell.ids import new_identity

T = TypeVar("T")

Url = Annotated[str, typer.Option(help="Address of the service.", envvar="UPWELL_URL")]
Token = Annotated[
    str | None, typer.Option(help="Token [default: the one kept in ./data].", envvar="UPWELL_TOKEN")
]
Account = Annotated[str, typer.Option(help="Account.", envvar="UPWELL_ACCOUNT")]
DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_ACCOUNT = "default"

TIMEOUT_S = 120.0
TRIES = 6
RETRY_S = 0.2
RETRY_MAX_S = 5.0
#: The longest that we wait at once because we were told to.
RETRY_TOLD_S_MAX = 60.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 507})


class ServerSaid(UpwellError):
    """The service refused."""

    def __init__(self, status: int, errors: list[dict[str, Any]], retry_after_s: float = 0.0) -> None:
        says = "; ".join(f"{error.get('message')} (code {error.get('code')})" for error in errors)
        super().__init__(f"the service answered {status}: {says or 'nothing more'}")
        self.status = status
        self.errors = errors
        #: When to try again, if it said so.
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answered:
    """A success: its result, and what the service had to say besides."""

    result: Any
    messages: list[dict[str, Any]]


class Client:
    """One connection's worth of calls. Use as an async context manager."""

    #: What a connection that breaks, or is silent for too long, raises.
    BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)

    def __init__(self, url: str, token: str | None, account: str) -> None:
        self.url = url.rstrip("/")
        self.account = account
        #: Did the service ever answer us? If not, there is nothing to wait for.
        self._reached = False
        self._headers = {"Authorization": f"Bearer {token or _kept_token()}"}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def indexes(self, rest: str = "") -> str:
        """The path of the account's indexes, and what follows."""
        return f"/client/v4/accounts/{self.account}/vectorize/v2/indexes{rest}"

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A long answer, to be read as it comes and as it is: its total time is not bounded. Raises ServerSaid or Unavailable."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        plain = {"Accept-Encoding": "identity"}
        try:
            answer = await self._session.get(self.url + path, timeout=timeout, headers=plain)
        except self.BROKEN as error:
            raise Unavailable(f"no service answers at {self.url}; is one running (make serve)?") from error
        async with answer:
            if answer.status >= 400:
                try:
                    errors = (await answer.json(content_type=None))["errors"]
                except (ValueError, TypeError, KeyError):
                    errors = [{"code": 0, "message": "not an answer of Upwell's"}]
                raise ServerSaid(answer.status, errors)
            yield answer

    async def call(
        self, method: str, path: str, *, json: Any = None, ndjson: bytes | None = None
    ) -> Answered:
        """One call, tried again while the service is away or busy, if it ever answered. Raises ServerSaid or Unavailable.

        An upload is sent with a key, so that it counts once however often it is sent.
        """
        pause_s = RETRY_S
        headers = {} if ndjson is None else {"Idempotency-Key": new_identity()}
        for left in reversed(range(TRIES)):
            try:
                return await self._call_once(method, path, headers, json, ndjson)
            except ServerSaid as error:
                if left == 0 or error.status not in RETRIED:
                    raise
                told_s = error.retry_after_s
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                if left == 0 or not self._reached:
                    raise Unavailable(
                        f"no service answers at {self.url}; is one running (make serve)?"
                    ) from error
                told_s = 0.0
            await asyncio.sleep(max(pause_s, told_s))
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        raise AssertionError("unreachable")

    async def _call_once(
        self, method: str, path: str, headers: dict[str, str], json: Any, ndjson: bytes | None
    ) -> Answered:
        if ndjson is not None:
            headers = headers | {"Content-Type": "application/x-ndjson"}
        data = None if ndjson is None else io.BytesIO(ndjson)
        async with self._session.request(
            method, self.url + path, json=json, data=data, headers=headers
        ) as answer:
            self._reached = True
            try:
                envelope = await answer.json(content_type=None)
                errors = envelope["errors"]
            except (ValueError, TypeError, KeyError):
                raise ServerSaid(
                    answer.status, [{"code": 0, "message": "not an answer of Upwell's"}]
                ) from None
            if answer.status >= 400 or not envelope["success"]:
                raise ServerSaid(answer.status, errors, _told_s(answer.headers.get("Retry-After", "")))
            return Answered(envelope["result"], envelope["messages"])


def _told_s(retry_after: str) -> float:
    """What the header says, if that is a number of seconds."""
    seconds = retry_after.isascii() and retry_after.isdigit()
    return min(float(retry_after), RETRY_TOLD_S_MAX) if seconds else 0.0


def run(main: Coroutine[None, None, T]) -> T:
    """Run a command's work."""
    return asyncio.run(main)


def _kept_token() -> str:
    """The token that ``upwell serve`` keeps in its data directory, if that is here."""
    path = Path(os.environ.get("UPWELL_DATA", "data")) / TOKEN_FILE
    try:
        return path.read_text().strip()
    except OSError:
        raise Unavailable("no token: give --token, or set UPWELL_TOKEN") from None
