"""Who drains an index, and why no wake-up is lost.

The lease spares work; it is not what keeps an index correct (that is the manifest's commit). It must however never leave an
appended mutation without somebody who will look. The protocol, whose atomic steps are the lines:

    front end   append to the log (durable)
                g := GET generation; if there is none, SET it to a fresh random token      (one script)
                enqueue the job drain:{index}:{g}, unless one of that id is queued or running
    drain       SET generation := fresh random token
                acquire: SET lease if absent, else SET knock                  (one script)
                if not acquired: end
                loop: read the log to its end, apply, commit
                release: if knock is set: DEL knock, go on looping; else DEL lease, end      (one script)

Let an append finish at time A; its ring comes later. Claim: some drain reads the log's end after A.

* The ring enqueues a job: that job starts after A. It acquires the lease and reads after A; or it finds the lease taken and leaves
  a knock, in one step. The holder's release comes after the knock, sees it, and reads again: after A.
* The ring finds its id taken: job drain:{index}:{g} is queued or running. If it is queued it starts after A, as above. If it is
  running it has not replaced g yet when the front end read it, since replacing is its first step and tokens never return.
  So its acquire, and with it the case above, comes after the front end's GET, which is after A.

Tokens are random, the first one too: after FLUSHALL a counter, or a fixed beginning, would come back to ids that arq may still be
running, and arq breaks when it meets one twice. (A wipe just between GET and enqueue can still do that; workers survive it.)

A key that is not as we make keys (of another kind, or one that would live far longer than ours do: no time to live, or a server whose
clock was set back) is taken for nobody's and replaced. So no key, however it came to be, stops an index for ever.

What breaks the protocol (a worker killed with the lease, a wipe between two steps) leaves a backlog without a holder, and the
sweep of every worker finds that by looking at the store. It leaves alone what waits its turn (``drain_waits``): ringing for that
would make a long queue longer. tests/doorbell/ checks all this by running every interleaving.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from enum import IntEnum
from typing import cast

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from redis.exceptions import ResponseError

from upwell.doorbell.jobs import enqueue
from upwell.doorbell.keys import (
    ASKED_TTL_S,
    COMPACTION_JOB,
    COMPACTION_QUEUE,
    DRAIN_JOB,
    DRAIN_QUEUE,
    GENERATION_TTL_S,
    KNOCK_TTL_S,
    asked_key,
    compaction_job_id,
    compaction_lease_key,
    drain_job_id,
    generation_key,
    knock_key,
    lease_key,
    tells_key,
)

#: A lease or a mark that lives this much longer than those that we make is none of ours. Workers may differ in their settings.
FOREIGN_S = 60.0

# KEYS generation   ARGV fresh token, ttl s
_GENERATION = """
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'string' and #known == #ARGV[1] and string.match(known, '^%x+$') then return known end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""

# The beginning of a script, which goes on if somebody else has it.
# KEYS mark or lease   ARGV token, ttl ms, the longest it may live, ms
_TAKE_OR = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
"""

_TAKE = _TAKE_OR + "return 0"

# KEYS lease, knock   ARGV token, lease ttl ms, the longest it may live, ms, knock ttl ms
_ACQUIRE = (
    _TAKE_OR
    + """
redis.call('SET', KEYS[2], '1', 'PX', ARGV[4])
return 0
"""
)

# KEYS lease   ARGV token, lease ttl ms
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS lease, knock   ARGV token
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('DEL', KEYS[2]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
return 1
"""

# KEYS lease   ARGV token
_DROP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Released(IntEnum):
    """What ``Lease.release`` found."""

    #: Somebody else holds it, or nobody: our time ran out.
    LOST = -1
    #: Somebody knocked: still ours, look at the log again.
    KNOCKED = 0
    #: Given up.
    FREE = 1


async def enqueue_drain(redis: ArqRedis, index_id: str) -> bool:
    """Enqueue a drain of the index; False if one of this generation is queued or running already."""
    call = redis.eval(_GENERATION, 1, generation_key(index_id), _fresh(), str(GENERATION_TTL_S))
    generation = (await cast(Awaitable[bytes], call)).decode()
    return await enqueue(
        redis, DRAIN_JOB, index_id, job_id=drain_job_id(index_id, generation), queue=DRAIN_QUEUE
    )


async def drain_waits(redis: ArqRedis, index_id: str) -> bool:
    """Is a drain of the current generation queued with nobody at it? Then it runs when its turn comes, however long the queue.

    False for one that is in progress: its worker may be dead, and arq would keep it from others for minutes.
    """
    try:
        generation = await redis.get(generation_key(index_id))
    except ResponseError:
        return False  # of another kind than ours: no job is named by it, and whoever rings replaces it
    if generation is None:
        return False
    name = drain_job_id(index_id, generation.decode(errors="replace"))
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zscore(DRAIN_QUEUE, name)
        pipe.exists(job_key_prefix + name)
        pipe.exists(in_progress_key_prefix + name)
        place, body, in_progress = await pipe.execute()
    return place is not None and bool(body) and not in_progress


async def begin_generation(redis: ArqRedis, index_id: str) -> None:
    """The first act of a drain, and of a sweep that will not wait for a job whose worker may be dead: rings from now on
    enqueue a job of another id."""
    await redis.set(generation_key(index_id), _fresh(), ex=GENERATION_TTL_S)


def _fresh() -> str:
    return secrets.token_hex(8)


async def is_drained(redis: ArqRedis, index_id: str, ttl_s: float) -> bool:
    """Does anybody hold the lease of an index? ``ttl_s`` is how long such a lease is made for."""
    return await _is_held(redis, lease_key(index_id), ttl_s)


async def mark(redis: ArqRedis, key: str, ttl_s: float) -> bool:
    """Are we the first to come by within ``ttl_s``?"""
    return await _take(redis, key, "1", ttl_s)


async def enqueue_compaction(redis: ArqRedis, index_id: str, shard: int, ttl_s: float) -> bool:
    """Enqueue a merge of a shard's segments, unless somebody is at it or it was asked for a moment ago. ``ttl_s`` is how long
    the lease of one at it is made for."""
    if await _is_held(redis, compaction_lease_key(index_id, shard), ttl_s):
        return False
    if not await mark(redis, asked_key(index_id, shard), ASKED_TTL_S):
        return False
    job_id = compaction_job_id(index_id, shard, _fresh())
    return await enqueue(redis, COMPACTION_JOB, index_id, shard, job_id=job_id, queue=COMPACTION_QUEUE)


async def _is_held(redis: ArqRedis, key: str, ttl_s: float) -> bool:
    left_ms = await redis.pttl(key)
    return 0 <= int(left_ms) <= _ms(ttl_s + FOREIGN_S)


async def _take(redis: ArqRedis, key: str, token: str, ttl_s: float) -> bool:
    call = redis.eval(_TAKE, 1, key, token, str(_ms(ttl_s)), str(_ms(ttl_s + FOREIGN_S)))
    return bool(await cast(Awaitable[int], call))


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


class Lease:
    """One drain's claim to an index, or (with ``shard``) one compaction's to a shard, or one courier's to a ``webhook``."""

    def __init__(
        self,
        redis: ArqRedis,
        index_id: str,
        ttl_s: float,
        shard: int | None = None,
        *,
        webhook: str | None = None,
    ) -> None:
        self._redis = redis
        held = lease_key(index_id) if shard is None else compaction_lease_key(index_id, shard)
        if webhook is not None:
            held = tells_key(index_id, webhook)
        self._keys = (held, knock_key(index_id))
        self._token = secrets.token_hex(16)
        #: How long it is ours after it was taken, or renewed.
        self.ttl_s = ttl_s

    async def acquire(self) -> bool:
        """Take the lease, or leave a knock for whoever holds it."""
        longest_ms = _ms(self.ttl_s + FOREIGN_S)
        return bool(await self._run(_ACQUIRE, self._keys, _ms(self.ttl_s), longest_ms, KNOCK_TTL_S * 1000))

    async def claim(self) -> bool:
        """Take the lease if it is free, and leave nothing if it is not."""
        return await _take(self._redis, self._keys[0], self._token, self.ttl_s)

    async def renew(self) -> bool:
        """Hold it for another while; False if it is not ours any more."""
        return bool(await self._run(_RENEW, self._keys[:1], _ms(self.ttl_s)))

    async def release(self) -> Released:
        """Give it up unless somebody knocked."""
        return Released(await self._run(_RELEASE, self._keys))

    async def drop(self) -> None:
        """Give it up whatever happened; for a drain that hands over to a job that it has enqueued, or that failed."""
        await self._run(_DROP, self._keys[:1])

    async def _run(self, script: str, keys: tuple[str, ...], *arguments: int) -> int:
        """Run a script whose first argument is our token."""
        call = self._redis.eval(script, len(keys), *keys, self._token, *map(str, arguments))
        return int(await cast(Awaitable[int], call))
