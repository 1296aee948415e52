"""One signed POST to a webhook's receiver, over a socket that leads where it may.

Where a socket leads is decided where it is made: aiohttp asks for one for every address that it is about to connect to, be it from a
name or written in the URL (for those it asks no resolver). So a name that resolves to something else by now, or to something else each
time, gets no further than one that was wrong from the start. No proxy of the environment is used, no redirect is followed, no cookie
kept, nothing unpacked, and of an answer no more is believed than its status.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver

from upwell.clock import Clock
from upwell.settings import Settings
from upwell.webhook import Message, Webhook
from upwell.webhook.addresses import why_refused
from upwell.webhook.signing import signed_headers

log = structlog.get_logger()

#: An answer's body is read so far, for the sake of using the connection again.
ANSWER_BYTES_MAX = 4_096
REASON_LENGTH_MAX = 200


class RefusedError(OSError):
    """A connection to an address that webhooks may not lead to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one try."""

    #: Why the receiver did not take the message; None if it did.
    problem: str | None = None
    #: It wants to be told nothing any more.
    gone: bool = False


class Post:
    """Connections to one receiver, for as long as there is something to tell. An asynchronous context manager."""

    def __init__(self, settings: Settings, clock: Clock, resolver: AbstractResolver | None = None) -> None:
        self._clock = clock
        self._timeout_s = settings.webhook_timeout_s
        connector = aiohttp.TCPConnector(
            limit=1,
            use_dns_cache=False,
            resolver=resolver,
            socket_factory=_any_socket if settings.webhook_private_addresses else _public_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, webhook: Webhook, message: Message) -> Answer:
        """Try once. Never raises for what a receiver, or the way to it, does."""
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "Upwell-Webhooks/1",
            **signed_headers(webhook.secret, message.id, message.body, self._clock.now()),
        }
        status = 0
        try:
            async with self._session.post(
                webhook.url, data=message.body.encode(), headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                await _read_little(response)
        except (aiohttp.ClientError, OSError) as error:
            if status == 0:
                return Answer(problem=self._reason(error))
            # The status was all there was to learn.
            log.debug("a receiver's answer broke off", webhook=webhook.id, error=repr(error))
        except Exception as error:
            # Taken for a failed try, so that a message which a library stumbles over is given up in the end like others.
            log.exception("a webhook's message could not be sent", webhook=webhook.id, message=message.id)
            return Answer(problem=self._reason(error))
        if 200 <= status < 300:
            return Answer()
        return Answer(problem=_named(status), gone=status == HTTPStatus.GONE)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            says = "the host cannot be resolved"
        elif isinstance(error, aiohttp.ClientConnectorError):
            says = f"cannot connect: {error.os_error.strerror or error.os_error}"
        elif isinstance(error, TimeoutError):
            says = f"no answer within {self._timeout_s:g} s"
        else:
            says = f"{type(error).__name__}: {error}"
        return " ".join(says.split())[:REASON_LENGTH_MAX]


async def _read_little(response: aiohttp.ClientResponse) -> None:
    """Read a short body to its end. A longer one is left, and its connection closed."""
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            return


def _named(status: int) -> str:
    """A status with its usual name: what the receiver calls it is of its own choosing."""
    try:
        return f"answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"answered {status}"


def _any_socket(address_info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address_info[:3]
    return socket.socket(family, kind, protocol)


def _public_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket, not connected yet, for an address that is public."""
    address = str(address_info[4][0])
    why = why_refused(address)
    if why is not None:
        raise RefusedError(f"{address} is not allowed: {why}")
    return _any_socket(address_info)
