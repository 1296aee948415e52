"""Compaction as jobs: asked for when a shard has segments to merge, done by any worker, in a thread that gives way to all others.

A compaction never keeps a mutation from becoming visible. Its thread runs at a lower priority than those that drain. Its commit
takes the lease of the index's drain for some milliseconds, so that neither throws the other's work away; whoever knocked
meanwhile is rung for. Without Redis nothing of this runs, and nothing needs it: the manifest decides who committed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.doorbell.lease import Lease, Released, enqueue_compaction, enqueue_drain
from upwell.doorbell.notices import Notice, publish
from upwell.doorbell.tries import count_try, forget_tries
from upwell.errors import Corrupt, Fenced, Unavailable, UpwellError
from upwell.failpoint import Step, reached
from upwell.settings import Settings
from upwell.shard.compact import Compacted
from workers.engine import Drainable
from workers.hold import Hold, on_loop, past_refusals, renewed

log = structlog.get_logger()

#: Added to the niceness of compacting threads, where the system has one for each thread.
NICENESS = 10
#: How long a finished merge waits for the drain's lease before it commits without it.
TURN_S = 15.0
TURN_POLL_S = 0.005


class StoppedError(Exception):
    """The process is to end, or the lease was lost: leave the merge unfinished."""


def compacting_threads(count: int) -> ThreadPoolExecutor:
    """Threads for merges."""
    return ThreadPoolExecutor(count, thread_name_prefix="compact", initializer=_be_nice)


def _be_nice() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Compacting:
    """One worker's share of compaction."""

    def __init__(self, engine: Drainable, settings: Settings, looks: Executor, executor: Executor) -> None:
        self._engine = engine
        self._settings = settings
        self._looks = looks
        self._executor = executor
        #: Set when the process is told to stop.
        self.stopping = False

    async def run(self, redis: ArqRedis) -> None:
        """Look for segments to merge, in all indexes, until cancelled or until Redis goes away (RedisError, OSError)."""
        while True:
            await asyncio.sleep(self._settings.sweep_interval_s * random.uniform(0.75, 1.25))  # noqa: S311  jitter
            try:
                with past_refusals("looking for segments to merge"):
                    await self.ask(redis)
            except UpwellError as error:
                log.error("compactions not looked for", error=str(error))

    async def ask(self, redis: ArqRedis) -> None:
        """Enqueue the merges that are due, in whichever index."""
        due = await asyncio.get_running_loop().run_in_executor(
            self._looks, lambda: list(self._engine.compactions_due())
        )
        for index_id, shard in due:
            await enqueue_compaction(redis, index_id, shard, self._settings.lease_ttl_s)

    async def compact(self, redis: ArqRedis, index_id: str, shard: int) -> None:
        """Merge what is due in a shard, unless somebody else does. With Redis gone it ends; the next look finds what is left."""
        try:
            await self._compact(redis, index_id, shard)
        except (RedisError, OSError) as error:
            log.warning("redis lost while compacting", index=index_id, shard=shard, error=str(error))

    async def _compact(self, redis: ArqRedis, index_id: str, shard: int) -> None:
        ttl_s = self._settings.lease_ttl_s
        lease = Lease(redis, index_id, ttl_s, shard)
        if not await lease.claim():
            return
        try:
            reached(Step.COMPACT_LEASED)
            tried = await count_try(redis, index_id, shard)
            if tried > self._settings.apply_tries_max:
                # Perhaps it breaks whoever does it. Mutations and queries go on, and it is tried again once the count is forgotten.
                log.warning("merging breaks, put off for a while", index=index_id, shard=shard, tries=tried)
                return
            async with renewed(lease, ttl_s / 3) as hold:
                while not self.stopping and hold.ours:
                    done = await self._merge(redis, index_id, shard, hold)
                    await forget_tries(redis, index_id, shard)
                    if done is None:
                        return
                    log.info("segments merged", index=index_id, **asdict(done))
                    await publish(redis, Notice(index_id, done.version, 0))
        finally:
            with contextlib.suppress(RedisError, OSError):
                await lease.drop()

    async def _merge(self, redis: ArqRedis, index_id: str, shard: int, hold: Hold) -> Compacted | None:
        loop = asyncio.get_running_loop()

        def alive() -> None:
            if self.stopping or not hold.ours:
                raise StoppedError

        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            lease = on_loop(loop, self._take_turn(redis, index_id))
            try:
                yield
            finally:
                on_loop(loop, self._give_back(redis, index_id, lease))

        try:
            return await loop.run_in_executor(
                self._executor, self._engine.compact, index_id, shard, alive, turn
            )
        except StoppedError:
            return None
        except (Fenced, Unavailable, Corrupt) as error:
            log.warning("segments not merged", index=index_id, shard=shard, error=str(error))
            return None

    async def _take_turn(self, redis: ArqRedis, index_id: str) -> Lease | None:
        """The drain's lease, once it is free; None if that takes too long or Redis is away: then the manifest decides."""
        lease = Lease(redis, index_id, self._settings.lease_ttl_s)
        try:
            async with asyncio.timeout(TURN_S):
                while not await lease.claim():  # noqa: ASYNC110  it is another process that gives it up
                    await asyncio.sleep(TURN_POLL_S)
        except (RedisError, OSError, TimeoutError):
            # It may have been given to us all the same, and we were not told.
            with contextlib.suppress(RedisError, OSError):
                await lease.drop()
            return None
        return lease

    async def _give_back(self, redis: ArqRedis, index_id: str, lease: Lease | None) -> None:
        if lease is None:
            return
        with contextlib.suppress(RedisError, OSError):
            if await lease.release() is Released.KNOCKED:
                # A drain came while we held it, and left: send another.
                await lease.drop()
                await enqueue_drain(redis, index_id)
