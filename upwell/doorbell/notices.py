"""Telling front ends of commits, and of how far a drain will get. Hints: what is believed is always the store.

Pub/sub drops what is published while nobody listens; so after every (re)connect the listener is told to assume that it missed
something.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson
import structlog
from arq.connections import ArqRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from upwell.doorbell.connection import connect
from upwell.doorbell.ending import end
from upwell.doorbell.keys import COMMITTED_CHANNEL, applying_key

log = structlog.get_logger()

RETRY_S = 0.05
RETRY_MAX_S = 2.0
#: A hint is not worth more waiting than this.
HINT_S = 0.25
#: A silent channel is asked for a sign of life after this, and given up if it stays silent for as long again.
PING_S = 5.0


@dataclass(frozen=True, slots=True)
class Notice:
    """An index has a new version."""

    index_id: str
    version: int
    through: int


async def publish(redis: ArqRedis, notice: Notice) -> None:
    """Tell all front ends, if Redis takes it: who waits looks for himself now and then."""
    try:
        await redis.publish(COMMITTED_CHANNEL, orjson.dumps(asdict(notice)))
    except (RedisError, OSError) as error:
        log.debug("notice not delivered", error=str(error))


async def hint_applying(redis: ArqRedis, index_id: str, through: int, ttl_s: float) -> None:
    """Say that positions up to ``through`` are being applied."""
    await redis.set(applying_key(index_id), str(through), px=max(1, int(ttl_s * 1000)))


class Notices:
    """A front end's ear. Used from one event loop."""

    def __init__(
        self, redis_url: str, *, on_notice: Callable[[Notice], None], on_reconnect: Callable[[], None]
    ) -> None:
        self._redis = connect(redis_url)
        self._on_notice = on_notice
        self._on_reconnect = on_reconnect
        self._task: asyncio.Task[None] | None = None
        #: Is the channel subscribed to just now?
        self.connected = False

    def start(self) -> None:
        """Listen from now on, for ever, through any absence of Redis."""
        self._task = asyncio.create_task(self._listen_for_ever(), name="notices")

    async def applying(self, index_id: str) -> int | None:
        """How far a drain under way will get; None if nobody says so, or Redis is away."""
        if not self.connected:
            return None
        try:
            async with asyncio.timeout(HINT_S):
                through = await self._redis.get(applying_key(index_id))
            return None if through is None else int(through)
        except (RedisError, OSError, TimeoutError, ValueError):
            return None  # ValueError: a position of somebody else's making

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end(self._task)
        await self._redis.aclose(close_connection_pool=True)

    async def _listen_for_ever(self) -> None:
        pause_s = RETRY_S
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self.connected:
                    log.warning("notices interrupted", error=str(error))
                    pause_s = RETRY_S
            self.connected = False
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  jitter needs no secrecy
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(COMMITTED_CHANNEL)
            if await channel.get_message(timeout=PING_S) is None:
                raise RedisConnectionError("no answer to SUBSCRIBE")
            self.connected = True
            self._tell(self._on_reconnect)
            asked = False
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=PING_S)
                if message is None and asked:
                    # A host that vanished, or a frozen server: the connection alone would look well for minutes.
                    raise RedisConnectionError("no answer to PING")
                asked = message is None
                if message is None:
                    await channel.ping()
                elif message["type"] == "message":
                    self._hear(message["data"])

    def _hear(self, data: bytes) -> None:
        try:
            notice = Notice(**orjson.loads(data))
        except (orjson.JSONDecodeError, TypeError):
            return  # of another version, or not ours
        self._tell(self._on_notice, notice)

    def _tell(self, listener: Callable[..., None], *what: Notice) -> None:
        try:
            listener(*what)
        except Exception:  # a listener's mistake must not make us deaf to all that follows
            log.exception("notice not taken")
