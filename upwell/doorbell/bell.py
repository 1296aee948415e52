"""Ringing for a drain: instant, coalesced, and never a reason for a request to fail or to wait.

``ring`` marks the index and returns. A task turns marks into at most one arq job per index and generation. With Redis away the
marks stay, and are rung when it is back; should this process die with marks left, the workers' sweep finds the backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import structlog
from redis.exceptions import RedisError

from upwell.doorbell.connection import connect
from upwell.doorbell.ending import end
from upwell.doorbell.lease import enqueue_drain

log = structlog.get_logger()

#: Pause after the first failure; doubles up to the maximum, with jitter, while Redis is away.
RETRY_S = 0.05
RETRY_MAX_S = 2.0


class Bell:
    """One front end's doorbell. Used from one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)
        self._marked: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        #: Calls of ``ring``, jobs enqueued for them, and times that Redis could not be reached.
        self.rings = 0
        self.enqueued = 0
        self.failures = 0

    @property
    def waiting(self) -> int:
        """Indexes that were rung for and whose ring has not reached Redis yet."""
        return len(self._marked)

    def ring(self, index_id: str) -> None:
        """See to it that the index is drained after now."""
        self.rings += 1
        self._marked[index_id] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ring_all(), name="doorbell")

    async def close(self) -> None:
        """Stop. Marks not rung yet are left to the workers' sweep."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await asyncio.wait([self._task])
            await end(self._task)
        await self._redis.aclose(close_connection_pool=True)

    async def _ring_all(self) -> None:
        pause_s = RETRY_S
        while self._marked:
            index_id = next(iter(self._marked))
            # Unmarked before the call: a ring during it is about a later append, and needs a call of its own.
            del self._marked[index_id]
            try:
                self.enqueued += await enqueue_drain(self._redis, index_id)
                pause_s = RETRY_S
            except (RedisError, OSError) as error:
                self._marked[index_id] = None
                self.failures += 1
                if pause_s == RETRY_S:
                    log.warning("doorbell unreachable, will ring again", error=str(error))
                # Its address may lead elsewhere by now; what we are connected to may have become a replica.
                with contextlib.suppress(RedisError, OSError):
                    await self._redis.connection_pool.disconnect()
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  jitter needs no secrecy
                pause_s = min(2 * pause_s, RETRY_MAX_S)
