"""Sharing a large batch among workers: parts are offered as jobs on the drains' queue, and claimed one by one in Redis.

Whoever claims a part writes it; the drain that holds the batch claims what nobody else has. See upwell/shard/part.py for why none of
this can do harm: a claim spares work and decides nothing.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.doorbell.jobs import enqueue
from upwell.doorbell.keys import CLAIM_TTL_S, DRAIN_QUEUE, HELP_JOB, claim_key, help_job_id
from upwell.doorbell.lease import mark
from upwell.errors import UpwellError
from upwell.shard.part import PartTask
from workers.engine import Drainable
from workers.hold import on_loop

log = structlog.get_logger()

#: A Redis that takes longer to answer is taken to be away.
CALL_S = 2.0


class Claims:
    """Sharing (upwell/shard/part.py) over Redis, for one batch of one index. Called from a thread."""

    def __init__(self, redis: ArqRedis, index_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self._redis = redis
        self._index_id = index_id
        self._loop = loop

    def offer(self, task: PartTask, shards: int) -> None:
        """Enqueue a job for each part but one."""
        try:
            on_loop(self._loop, self._enqueue(task, shards - 1), CALL_S)
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("no help asked for", index=self._index_id, error=str(error))

    def claim(self, token: str, shard: int) -> bool:
        """Is this part ours?"""
        key = claim_key(self._index_id, token, shard)
        try:
            return on_loop(self._loop, mark(self._redis, key, CLAIM_TTL_S), CALL_S)
        except (RedisError, OSError, TimeoutError):
            return True

    async def _enqueue(self, task: PartTask, jobs: int) -> None:
        fields = task.model_dump(mode="json")
        for number in range(jobs):
            name = help_job_id(self._index_id, task.token, number)
            await enqueue(self._redis, HELP_JOB, self._index_id, fields, job_id=name, queue=DRAIN_QUEUE)


class Helping:
    """One worker's help with batches that others hold."""

    def __init__(self, engine: Drainable, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    async def help(self, redis: ArqRedis, index_id: str, fields: dict[str, Any]) -> None:
        """Write parts of a batch as long as any are unclaimed."""
        loop = asyncio.get_running_loop()
        claims, task = Claims(redis, index_id, loop), PartTask.model_validate(fields)
        try:
            done = await loop.run_in_executor(self._executor, self._engine.help_apply, index_id, task, claims)
        except UpwellError as error:
            # Whoever holds the batch does it himself.
            log.warning("could not help", index=index_id, error=str(error))
            return
        log.debug("helped", index=index_id, parts=done)
