"""Making Redis anew from the store, at once, instead of waiting for the sweeps that would do it within a second or two.

Nothing in Redis is needed. What stale keys can cost is time: the lease of a worker that died until it runs out, and what arq keeps of its
jobs until that does. ``forget`` deletes ours, and nobody else's; running workers notice that they lost their leases, and go on.
"""

from __future__ import annotations

from arq.connections import ArqRedis
from arq.constants import (
    health_check_key_suffix,
    in_progress_key_prefix,
    job_key_prefix,
    retry_key_prefix,
)

from upwell.doorbell.keys import COMPACTION_JOB, COMPACTION_QUEUE, DRAIN_JOB, DRAIN_QUEUE, HELP_JOB
from upwell.doorbell.lease import begin_generation, enqueue_drain

_QUEUES = (DRAIN_QUEUE, COMPACTION_QUEUE)
#: Every pattern that a key of ours has (keys.py), and that arq gives to those of our jobs.
PATTERNS = (
    "upwell:{*}:*",
    *(
        f"{prefix}{job}:*"
        for prefix in (job_key_prefix, in_progress_key_prefix, retry_key_prefix)
        for job in (DRAIN_JOB, COMPACTION_JOB, HELP_JOB)
    ),
    *_QUEUES,
    *(queue + health_check_key_suffix for queue in _QUEUES),
)
SCANNED_AT_ONCE = 1_000


async def ours(redis: ArqRedis) -> list[str]:
    """Every key of ours there is, in order."""
    found: set[bytes] = set()
    for pattern in PATTERNS:
        async for key in redis.scan_iter(match=pattern, count=SCANNED_AT_ONCE):
            found.add(key)
    return sorted(key.decode() for key in found)


async def forget(redis: ArqRedis, keys: list[str]) -> int:
    """Delete these keys; returns how many were still there."""
    gone = 0
    for start in range(0, len(keys), SCANNED_AT_ONCE):
        gone += await redis.delete(*keys[start : start + SCANNED_AT_ONCE])
    return gone


async def ring_again(redis: ArqRedis, index_id: str) -> bool:
    """Ring for an index, past whatever job of it may be stuck behind a dead worker."""
    await begin_generation(redis, index_id)
    return await enqueue_drain(redis, index_id)
