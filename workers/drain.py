"""The drain: one index's log, applied batch by batch until there is nothing left to apply.

The job carries the index's identity and nothing else. While a batch is being applied in a thread, a task renews the lease;
should it be lost, the batch is not committed. See upwell/doorbell/lease.py for why the order of these steps matters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.clock import Clock
from upwell.doorbell.lease import Lease, Released, begin_generation, enqueue_drain
from upwell.doorbell.notices import Notice, hint_applying, publish
from upwell.errors import Corrupt, Fenced, Unavailable
from upwell.settings import Settings
from upwell.shard.apply import Applied
from workers.engine import Drainable
from workers.hold import Hold, renewed
from workers.parts import Claims

log = structlog.get_logger()

#: After this long a drain hands over to a job of its own making, so that other indexes get their turn.
SLICE_S = 10.0
#: How long a hint that a batch is being applied is believed; a batch that takes longer shows as queued again.
HINT_TTL_S = 10.0
#: Pause before looking again after losing a race for a commit.
FENCED_PAUSE_S = 0.02


class Drainer:
    """Drains indexes for one worker process."""

    def __init__(
        self,
        engine: Drainable,
        settings: Settings,
        clock: Clock,
        executor: Executor,
        *,
        committed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._executor = executor
        #: Told of each commit: the index's identity.
        self._committed = committed
        #: Set when the process is told to stop: drains end after the batch they are at.
        self.stopping = False

    async def drain(self, redis: ArqRedis, index_id: str) -> None:
        """Apply an index's log to its end, unless another worker does. With Redis gone it ends; the sweep finds what is left."""
        try:
            await self._drain(redis, index_id)
        except (RedisError, OSError) as error:
            log.warning("redis lost while draining", index=index_id, error=str(error))

    async def _drain(self, redis: ArqRedis, index_id: str) -> None:
        await begin_generation(redis, index_id)
        lease = Lease(redis, index_id, self._settings.lease_ttl_s)
        if not await lease.acquire():
            return
        try:
            finished = await self._drain_held(redis, index_id, lease)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await lease.drop()
        if not finished:
            # After the drop, so that the job finds the lease free, whoever runs it.
            await enqueue_drain(redis, index_id)

    async def _drain_held(self, redis: ArqRedis, index_id: str, lease: Lease) -> bool:
        """Apply until nothing is left or it must end; returns False if somebody should go on soon."""
        slice_ends = self._clock.monotonic() + SLICE_S
        async with renewed(lease, self._settings.lease_ttl_s / 3) as hold:
            while hold.ours:
                try:
                    applied = await self._apply(redis, index_id, hold)
                except Fenced as error:
                    log.info("commit lost", index=index_id, reason=str(error))
                    await asyncio.sleep(FENCED_PAUSE_S)
                    continue
                except (Unavailable, Corrupt) as error:
                    # The sweep comes back to it, at its own pace: a broken disk is not asked without pause.
                    log.error("index cannot be drained", index=index_id, error=str(error))
                    return True
                if applied is None:
                    if await lease.release() is not Released.KNOCKED:
                        return True
                elif self.stopping or self._clock.monotonic() > slice_ends:
                    return False
        return True

    async def _apply(self, redis: ArqRedis, index_id: str, hold: Hold) -> Applied | None:
        loop = asyncio.get_running_loop()

        def tell(through: int) -> None:
            loop.call_soon_threadsafe(hold.tell, hint_applying(redis, index_id, through, HINT_TTL_S))

        applied = await loop.run_in_executor(
            self._executor,
            self._engine.apply_batch,
            index_id,
            lambda: hold.ours,
            tell,
            Claims(redis, index_id, loop),
        )
        if applied is not None:
            log.debug("batch applied", index=index_id, **asdict(applied))
            self._committed(index_id)
            await publish(redis, Notice(index_id, applied.version, applied.through_position))
        return applied
