"""One worker process: arq workers on the queues of drains and of compactions, the sweep, the collecting of garbage, and couriers.

arq's known traps and what is done about each:

    a result kept under a job's id blocks the next job of that id      keep_result=0 (on the worker: a function's is not enough)
    a crash counts as a try, and after a few the job vanishes          max_tries without an end; failures are the manifest's
    a dead worker's in-progress key blocks its job until a timeout     generations: the next ring has another job id
    only the first queue_read_limit ids are looked at, running ones too   a limit far above any number of running jobs
    jobs are pickled                                                    JSON
    Redis going away makes the worker raise                             a new one is made, with a pause, until told to stop
    a job cancelled at shutdown leaves its thread running               drains end by themselves after the batch they are at
    a health check key each hour                                        each HEALTH_S
    one timeout for all functions, the longest of them                  compactions, and texts, have queues and arq workers of their own
    a job's place in the queue is its enqueuer's clock, ahead or not    upwell/doorbell/jobs.py
    what it cannot read in a queue (of another kind, no text) ends it   the queues are forgotten; the sweep finds what they held
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import structlog
from arq.worker import Worker, func
from redis.exceptions import RedisError

from upwell.clock import Clock
from upwell.doorbell.connection import connect, deserialize, serialize
from upwell.doorbell.ending import end
from upwell.doorbell.keys import (
    COMPACTION_JOB,
    COMPACTION_QUEUE,
    DRAIN_JOB,
    DRAIN_QUEUE,
    EMBED_JOB,
    EMBED_QUEUE,
    HELP_JOB,
    PERMANENT,
)
from upwell.errors import UpwellError
from upwell.settings import Settings
from workers.collect import Collecting
from workers.compaction import Compacting, compacting_threads
from workers.drain import Drainer
from workers.embedding import EmbeddingAhead
from workers.engine import Drainable
from workers.parts import Helping
from workers.sweep import Sweep
from workers.webhooks import Courier

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

log = structlog.get_logger()

#: A backstop only: drains end their slice after seconds, and a batch takes less.
DRAIN_TIMEOUT_S = 900
#: The same; a compaction notices itself when it is not wanted any more.
COMPACTION_TIMEOUT_S = 6 * 3600
COMPACTION_POLL_S = 0.1
#: A backstop only: it ends when nothing is left to embed.
EMBEDDING_TIMEOUT_S = 3600
NEVER_GIVE_UP = 10**9
QUEUE_READ_LIMIT = 10_000
HEALTH_S = 15
#: How long drains may take to end once we are told to stop.
FINISH_S = 8.0
RETRY_S = 0.1
RETRY_MAX_S = 2.0
#: How Redis begins what it says of a key that holds a value of another kind.
WRONG_KIND = "WRONGTYPE"


class WorkerProcess:
    """Drains and sweeps until ``stop`` is called. Used from one event loop."""

    def __init__(self, engine: Drainable, settings: Settings, clock: Clock, redis_url: str) -> None:
        self._settings = settings
        self._redis_url = redis_url
        self._executor = ThreadPoolExecutor(settings.worker_jobs, thread_name_prefix="drain")
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="sweep")
        self._courier = Courier(engine, settings, clock)
        self._drainer = Drainer(engine, settings, clock, self._executor, committed=self._courier.committed)
        self._helping = Helping(engine, self._executor)
        self._engine = engine
        self._embeds = ThreadPoolExecutor(settings.embedding_jobs, thread_name_prefix="embed")
        self._embedding = EmbeddingAhead(engine, self._embeds)
        self._merges = compacting_threads(settings.compaction_jobs)
        self._compacting = Compacting(engine, settings, self._looks, self._merges)
        self._sweep = Sweep(engine, self._looks, settings.sweep_interval_s, settings.lease_ttl_s)
        # A thread of its own: what there is to collect may take a while to look through, and sweeps must not wait for it.
        self._collects = ThreadPoolExecutor(1, thread_name_prefix="collect")
        self._collecting = Collecting(engine, self._collects, settings.grace_s)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End after the batches under way."""
        self._drainer.stopping = True
        self._compacting.stopping = True
        self._embedding.stopping = True
        self._courier.stopping = True
        self._stop.set()

    async def run(self) -> None:
        """Work until stopped, through any absence of Redis."""
        pause_s = RETRY_S
        while not self._stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                await self._run_once()
            except UpwellError:
                # An address that is none: no pause will mend it.
                raise
            except Exception as error:
                expected = isinstance(error, RedisError | OSError)
                if asyncio.get_running_loop().time() - began > RETRY_MAX_S:
                    pause_s = RETRY_S
                log.warning(
                    "redis away, will try again" if expected else "arq failed, starting it again",
                    error=repr(error),
                    exc_info=not expected,
                )
                if not expected or str(error).startswith(WRONG_KIND):
                    await self._forget_queues()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s * random.uniform(0.5, 1)):  # noqa: S311  jitter
                        await self._stop.wait()
                pause_s = min(2 * pause_s, RETRY_MAX_S)
        # Or a model that does not answer would keep a thread, and with it the process.
        self._engine.close()
        for pool in (self._looks, self._collects, self._executor, self._merges, self._embeds):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._courier.close)

    async def _run_once(self) -> None:
        """One arq worker's life: until stopped (returns) or until Redis fails it (raises)."""
        redis = connect(self._redis_url)
        worker, merger = self._drain_worker(redis), self._compaction_worker(redis)
        embedder = self._embedding_worker(redis)
        parts = {
            asyncio.create_task(worker.async_run(), name="arq"),
            asyncio.create_task(merger.async_run(), name="arq-compaction"),
            asyncio.create_task(embedder.async_run(), name="arq-embedding"),
            asyncio.create_task(self._compacting.run(redis), name="compaction"),
            asyncio.create_task(self._sweep.run(redis), name="sweep"),
            asyncio.create_task(self._collecting.run(redis), name="collecting"),
            asyncio.create_task(self._courier.run(redis), name="webhooks"),
            asyncio.create_task(self._stop.wait(), name="stop"),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await asyncio.gather(_finish_jobs(worker, merger, embedder), self._courier.finish())
            for part in done:
                part.result()
        finally:
            workers = (worker, merger, embedder)
            await end(*parts, *(task for one in workers for task in one.tasks.values()))
            with contextlib.suppress(RedisError, OSError):
                await redis.delete(*(one.health_check_key for one in workers))
            await redis.aclose(close_connection_pool=True)

    async def _forget_queues(self) -> None:
        """Delete the queues: something in them may be what arq cannot read, now or ever. What they held is found by the sweep."""
        with contextlib.suppress(RedisError, OSError):
            async with connect(self._redis_url) as redis:
                await redis.delete(*PERMANENT)

    def _drain_worker(self, redis: Any) -> Worker:
        async def drain(_context: dict[str, Any], index_id: str) -> None:
            await self._drainer.drain(redis, index_id)

        async def help_apply(_context: dict[str, Any], index_id: str, task: dict[str, Any]) -> None:
            await self._helping.help(redis, index_id, task)

        return _arq_worker(
            redis,
            DRAIN_QUEUE,
            {DRAIN_JOB: drain, HELP_JOB: help_apply},
            timeout_s=DRAIN_TIMEOUT_S,
            jobs_max=self._settings.worker_jobs,
            poll_delay_s=self._settings.poll_delay_s,
        )

    def _compaction_worker(self, redis: Any) -> Worker:
        async def compact(_context: dict[str, Any], index_id: str, shard: int) -> None:
            await self._compacting.compact(redis, index_id, shard)

        return _arq_worker(
            redis,
            COMPACTION_QUEUE,
            {COMPACTION_JOB: compact},
            timeout_s=COMPACTION_TIMEOUT_S,
            jobs_max=self._settings.compaction_jobs,
            poll_delay_s=max(COMPACTION_POLL_S, self._settings.poll_delay_s),
        )

    def _embedding_worker(self, redis: Any) -> Worker:
        async def embed(_context: dict[str, Any], index_id: str) -> None:
            try:
                await self._embedding.embed(redis, index_id)
            except (RedisError, OSError) as error:
                log.warning("redis lost while embedding", index=index_id, error=str(error))

        return _arq_worker(
            redis,
            EMBED_QUEUE,
            {EMBED_JOB: embed},
            timeout_s=EMBEDDING_TIMEOUT_S,
            jobs_max=self._settings.embedding_jobs,
            poll_delay_s=self._settings.poll_delay_s,
        )


def _arq_worker(
    redis: Any,
    queue: str,
    jobs: dict[str, Any],
    *,
    timeout_s: float,
    jobs_max: int,
    poll_delay_s: float,
) -> Worker:
    """An arq worker on one queue; ``jobs`` are its functions by their names."""
    return Worker(
        functions=[
            func(cast("WorkerCoroutine", work), name=name, timeout=timeout_s, max_tries=NEVER_GIVE_UP)
            for name, work in jobs.items()
        ],
        queue_name=queue,
        redis_pool=redis,
        handle_signals=False,
        max_jobs=jobs_max,
        job_timeout=timeout_s,
        keep_result=0,
        max_tries=NEVER_GIVE_UP,
        poll_delay=poll_delay_s,
        queue_read_limit=QUEUE_READ_LIMIT,
        health_check_interval=HEALTH_S,
        job_serializer=serialize,
        job_deserializer=deserialize,
        log_results=False,
    )


async def _finish_jobs(*workers: Worker) -> None:
    """Take on no more jobs, and give those that run a while to end by themselves."""
    for worker in workers:
        worker.allow_pick_jobs = False
    running = [task for worker in workers for task in worker.tasks.values() if not task.done()]
    if running:
        await asyncio.wait(running, timeout=FINISH_S)


def stop_on_signals(process: WorkerProcess) -> None:
    """SIGTERM and SIGINT mean stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, process.stop)
