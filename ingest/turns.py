"""Many small pieces of one request's work, done a few at a time, so that others' requests come in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from ingest.operations import Operations

T = TypeVar("T")


async def in_turns(ops: Operations, work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece comes to, in order, done in the threads for queries. The first error ends it."""
    done: list[T | None] = [None] * len(work)
    left = deque(range(len(work)))

    async def some() -> None:
        while left:
            place = left.popleft()
            done[place] = await ops.ask(work[place])

    try:
        await asyncio.gather(*(some() for _ in range(min(len(work), ops.engine.settings.query_threads))))
    finally:
        left.clear()
    return done  # type: ignore[return-value]  # all of them are done
