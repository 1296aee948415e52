"""Ending tasks that talk to Redis. A cancellation can come to nothing there: redis-py turns one that arrives while it waits
under a timeout into that timeout, now and then. So it is repeated until the task has ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: A cancellation that came to nothing is repeated after this.
AGAIN_S = 0.25


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` and return once all have ended, however they ended."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=AGAIN_S)
        for task in done:
            # Asked for, so that it is not reported as never looked at.
            _ = task.cancelled() or task.exception()
