"""How often an index's batch was begun since one was last finished: how a mutation is noticed that breaks whoever applies it. The same
is counted of merges of a shard.

A worker that dies leaves its try counted; one that finds out what is wrong, or finishes, forgets them. Only a hint of where to look:
what fails is decided by trying it (workers/poison.py), so a wipe costs a few more tries and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from arq.connections import ArqRedis

from upwell.doorbell.keys import MERGE_TRIES_TTL_S, TRIES_TTL_S, merge_tries_key, tries_key

# KEYS tries   ARGV ttl s. What is no number is not ours, and counting begins anew.
_COUNT = """
local count = redis.pcall('INCR', KEYS[1])
if type(count) ~= 'number' then
  redis.call('SET', KEYS[1], '1')
  count = 1
end
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
"""


async def count_try(redis: ArqRedis, index_id: str, shard: int | None = None) -> int:
    """An index's batches (a ``shard``'s merges) are begun; returns how many times they were since the last that came to an end, this one included."""
    ttl_s = TRIES_TTL_S if shard is None else MERGE_TRIES_TTL_S
    call = redis.eval(_COUNT, 1, _key(index_id, shard), str(ttl_s))
    return int(await cast(Awaitable[int], call))


async def forget_tries(redis: ArqRedis, index_id: str, shard: int | None = None) -> None:
    """A batch (a merge) was finished, or it is known why it was not."""
    await redis.delete(_key(index_id, shard))


def _key(index_id: str, shard: int | None) -> str:
    return tries_key(index_id) if shard is None else merge_tries_key(index_id, shard)
