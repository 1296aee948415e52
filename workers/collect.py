"""Collecting garbage, now and then, index by index. Every worker does it in turn; a mark in Redis spreads the work.

How fast is of no consequence, that it is right is everything: the rules are in upwell/garbage.py and need nothing from here.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Executor
from dataclasses import asdict

import structlog
from arq.connections import ArqRedis

from upwell.doorbell.keys import collected_key
from upwell.doorbell.lease import mark
from upwell.errors import UpwellError
from workers.engine import Drainable
from workers.hold import past_refusals

log = structlog.get_logger()

#: Passes per grace period: an object goes at most this share of the period late.
PASSES_PER_GRACE = 10


class Collecting:
    """One worker's share of collecting."""

    def __init__(self, engine: Drainable, executor: Executor, grace_s: float) -> None:
        self._engine = engine
        self._executor = executor
        self._interval_s = grace_s / PASSES_PER_GRACE

    async def run(self, redis: ArqRedis) -> None:
        """Collect until cancelled, or until Redis goes away (RedisError, OSError)."""
        while True:
            await asyncio.sleep(self._interval_s * random.uniform(0.75, 1.25))  # noqa: S311  jitter needs no secrecy
            try:
                with past_refusals("collecting garbage"):
                    await self.once(redis)
            except UpwellError as error:
                log.error("garbage not collected", error=str(error))

    async def once(self, redis: ArqRedis) -> None:
        """One pass over all indexes."""
        loop = asyncio.get_running_loop()
        for index_id in await loop.run_in_executor(self._executor, self._engine.live_indexes):
            if await mark(redis, collected_key(index_id), self._interval_s / 2):
                done = await loop.run_in_executor(self._executor, self._engine.collect_garbage, index_id)
                if done:
                    log.info("garbage collected", index=index_id, **asdict(done))
        dead = await loop.run_in_executor(self._executor, self._engine.collect_dead_indexes)
        if dead:
            log.info("dead indexes deleted", indexes=dead)
