"""Enqueueing arq jobs so that they run whatever the clocks of the machines show.

arq gives a job a place in its queue by the clock of whoever enqueues it, and takes it on once the clock of whoever works has got there.
With clocks apart, or one that is set back, a job would wait for as long as they differ, and nobody would miss it. So a job's
place is the time of Redis, which is one for all, less a margin.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from arq.connections import ArqRedis

#: A worker's clock may be behind that of Redis by this much.
CLOCKS_APART = timedelta(days=1)
#: A job that nobody has taken on for so long is forgotten. What it was to do is found by a sweep.
JOB_TTL = timedelta(days=1)


async def enqueue(redis: ArqRedis, job: str, *arguments: object, job_id: str, queue: str) -> bool:
    """Enqueue a job, behind all that wait; False if one of this id is queued or running already."""
    seconds, microseconds = await redis.time()
    place = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds) - CLOCKS_APART
    enqueued = await redis.enqueue_job(
        job, *arguments, _job_id=job_id, _queue_name=queue, _defer_until=place, _expires=JOB_TTL
    )
    return enqueued is not None
