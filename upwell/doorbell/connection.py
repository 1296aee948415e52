"""Reaching Redis: addresses, timeouts, and jobs as JSON (arq's default, pickle, runs what it reads).

Making a connection object never talks to the server; it may be away then, or at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from upwell.doorbell.keys import DRAIN_QUEUE
from upwell.errors import Invalid

#: A doorbell that does not answer within this is away.
CONNECT_S = 2.0
#: No command of ours blocks for longer on a healthy server.
COMMAND_S = 5.0
SCHEMES = ("redis://", "rediss://", "unix://")


class _Translating(AbstractConnection):
    """A connection that was closed from the other side amid a command fails as all that are away do: uvloop says RuntimeError, and nobody
    who calls Redis expects that."""

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection is closed: {error}") from error


class _Tcp(_Translating, Connection):
    pass


class _Tls(_Translating, SSLConnection):
    pass


class _Local(_Translating, UnixDomainSocketConnection):
    pass


#: Ours, by the sort that an address calls for.
_OURS: dict[Any, type[AbstractConnection]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Local,
}


def redis_settings(url: str) -> RedisSettings:
    """arq's settings for an address. Raises Invalid for one that is no Redis address."""
    # The address is not repeated: it may hold a password.
    if not url.startswith(SCHEMES):
        raise Invalid("the address of Redis must begin with redis://, rediss:// or unix://")
    try:
        parsed = RedisSettings.from_dsn(url)
    except ValueError:
        raise Invalid("the address of Redis must have a number for its port and its database") from None
    return replace(parsed, conn_timeout=int(CONNECT_S), conn_retries=1, conn_retry_delay=0)


def connect(url: str) -> ArqRedis:
    """A pool for ``url`` with arq's commands. Connects with its first command; raises Invalid for a bad address."""
    redis_settings(url)
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=COMMAND_S,
        **({} if url.startswith("unix://") else {"socket_connect_timeout": CONNECT_S}),
    )
    pool.connection_class = _OURS[pool.connection_class]
    redis = ArqRedis(
        connection_pool=pool,
        job_serializer=serialize,
        job_deserializer=deserialize,
        default_queue_name=DRAIN_QUEUE,
    )
    # A client leaves a pool that it was given open, unless told that it is its own: its sockets would stay.
    redis.auto_close_connection_pool = True
    return redis


def serialize(job: dict[str, Any]) -> bytes:
    """An arq job as JSON."""
    return orjson.dumps(job, default=repr)


def deserialize(data: bytes) -> dict[str, Any]:
    """The inverse of serialize."""
    job: dict[str, Any] = orjson.loads(data)
    return job
