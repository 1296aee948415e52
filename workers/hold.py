"""Work in a thread beside a lease: holding it meanwhile, and calling the loop from there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

from upwell.doorbell.ending import end
from upwell.doorbell.lease import Lease

log = structlog.get_logger()


T = TypeVar("T")


def on_loop(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], timeout_s: float | None = None
) -> T:
    """Run ``work`` on the loop, from another thread. Raises TimeoutError if it takes longer; then it goes on all the same."""
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)


class Hold:
    """Whether the lease is still ours, as far as we know: read by the working thread, written by the renewing task."""

    def __init__(self) -> None:
        self.ours = True
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, hint: Coroutine[None, None, None]) -> None:
        """Send a hint on the side. It is only a hint: if Redis does not take it, nothing is lost."""
        task = asyncio.ensure_future(hint)
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("hint not delivered", error=str(error))


@contextlib.asynccontextmanager
async def renewed(lease: Lease, every_s: float) -> AsyncIterator[Hold]:
    """Renew the lease as long as the block runs."""
    hold = Hold()

    async def renew() -> None:
        while hold.ours:
            await asyncio.sleep(every_s)
            try:
                renewed = await lease.renew()
            except (RedisError, OSError):
                renewed = False
            if not renewed:
                hold.ours = False

    task = asyncio.create_task(renew(), name="lease")
    try:
        yield hold
    finally:
        hold.ours = False
        await end(task)
