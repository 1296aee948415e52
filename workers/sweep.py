"""The sweep: find indexes with a backlog that nobody drains, by looking at the store, and ring for them.

In a healthy cluster it finds nothing. It is what makes a killed worker, a wiped Redis, or a bell that rang while Redis was away
cost seconds and no data. Every worker sweeps; a mark in Redis keeps them from all seeing to the same index.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Executor

import structlog
from arq.connections import ArqRedis

from upwell.doorbell.keys import swept_key
from upwell.doorbell.lease import begin_generation, drain_waits, enqueue_drain, is_drained, mark
from upwell.errors import UpwellError
from workers.engine import Drainable
from workers.hold import past_refusals

log = structlog.get_logger()


class Sweep:
    """One worker's sweep."""

    def __init__(self, engine: Drainable, executor: Executor, interval_s: float, lease_ttl_s: float) -> None:
        self._engine = engine
        self._executor = executor
        self._interval_s = interval_s
        self._lease_ttl_s = lease_ttl_s
        #: Indexes that had a backlog, no holder and no job that waits its turn, at the last look: a bell may just be ringing.
        self._suspects: frozenset[str] = frozenset()

    async def run(self, redis: ArqRedis) -> None:
        """Sweep until cancelled, or until Redis goes away (RedisError, OSError)."""
        # What a worker finds when it starts has waited long enough.
        with past_refusals("sweeping"):
            self._suspects = frozenset(await self._unattended(redis))
        while True:
            with past_refusals("sweeping"):
                await self.once(redis)
            await asyncio.sleep(self._interval_s * random.uniform(0.75, 1.25))  # noqa: S311  jitter needs no secrecy

    async def once(self, redis: ArqRedis) -> int:
        """Ring for every index that is unattended for the second time; returns how many."""
        unattended = frozenset(await self._unattended(redis))
        rung = 0
        for index_id in unattended & self._suspects:
            if await mark(redis, swept_key(index_id), self._interval_s):
                # A job of this generation may be stuck behind a dead worker's in-progress key.
                await begin_generation(redis, index_id)
                await enqueue_drain(redis, index_id)
                log.info("backlog found by sweep", index=index_id)
                rung += 1
        self._suspects = unattended
        return rung

    async def _unattended(self, redis: ArqRedis) -> list[str]:
        try:
            backlogged = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: list(self._engine.backlogged())
            )
        except UpwellError as error:
            log.error("sweep failed", error=str(error))
            return []
        return [
            index_id
            for index_id in backlogged
            if not await is_drained(redis, index_id, self._lease_ttl_s)
            and not await drain_waits(redis, index_id)
        ]
