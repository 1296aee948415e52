"""Work in a thread beside a lease: holding it meanwhile, and calling the loop from there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import structlog
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from upwell.doorbell.ending import end
from upwell.doorbell.lease import Lease

log = structlog.get_logger()


T = TypeVar("T")


def on_loop(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], timeout_s: float | None = None
) -> T:
    """Run ``work`` on the loop, from another thread. Raises TimeoutError if it takes longer; then it goes on all the same. Raises
    RuntimeError if the loop is closed."""
    try:
        done = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        raise
    return done.result(timeout_s)


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


@contextlib.contextmanager
def past_refusals(doing: str) -> Iterator[None]:
    """Go on with something else where Redis answers, and refuses: a right that is missing, memory that is full, a key of another
    kind. What is done now and then must not end the drains beside it; it is done again in a while."""
    try:
        yield
    except ReadOnlyError:
        raise  # a new connection may lead to a server that takes writes
    except ResponseError as error:
        log.error("refused by redis", doing=doing, error=str(error))


@contextlib.asynccontextmanager
async def renewed(lease: Lease, every_s: float) -> AsyncIterator[Hold]:
    """Renew the lease as long as the block runs. One that cannot be renewed is ours until its time is over: a connection that was
    cut costs no work."""
    hold = Hold()
    loop = asyncio.get_running_loop()

    async def renew() -> None:
        ours_until = loop.time() + lease.ttl_s
        pause_s = every_s
        while hold.ours:
            await asyncio.sleep(pause_s)
            asked = loop.time()
            try:
                # Half its time: enough for a server that is far away, and leaves some for another try.
                async with asyncio.timeout(lease.ttl_s / 2):
                    hold.ours = await lease.renew()
            except (RedisError, OSError) as error:
                log.debug("lease not renewed", error=str(error))
                hold.ours = loop.time() < ours_until
                pause_s = every_s / 4
            else:
                ours_until, pause_s = asked + lease.ttl_s, every_s

    task = asyncio.create_task(renew(), name="lease")
    try:
        yield hold
    finally:
        hold.ours = False
        await end(task)
