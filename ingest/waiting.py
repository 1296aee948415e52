"""Waiting for visibility: wake when a notice says that an index moved on, and look for ourselves now and then.

A notice only ever wakes; what is believed is the manifest in the store. With Redis away nothing wakes us, and looking
every POLL_S still finds what there is. After an interruption of notices everybody is woken.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from upwell.clock import Clock
from upwell.engine import Index

#: How long a waiter sleeps at most between looks of its own: while nobody would tell it, and while notices come in. A thousand
#: waiters then cost the store some hundred looks a second, and not thousands.
POLL_S = 0.25
POLL_TOLD_S = 5.0


class Visibility:
    """Lets requests wait until an index has applied a position. Used from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Do notices come in just now? Asked by each waiter before it sleeps.
        self.told: Callable[[], bool] = lambda: False
        self._moved: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        #: Is the front end stopping? Then nobody waits any longer.
        self.closed = False

    def notice(self, index_id: str) -> None:
        """An index may have a newer version: wake its waiters."""
        event = self._moved.pop(index_id, None)
        if event is not None:
            event.set()

    def notice_all(self) -> None:
        """Notices may have been missed: wake everybody."""
        for index_id in list(self._moved):
            self.notice(index_id)

    def close(self) -> None:
        """The front end stops: let all who wait go, with what there is."""
        self.closed = True
        self.notice_all()

    async def reached(self, index: Index, position: int, wait_s: float) -> bool:
        """Wait until ``position`` is applied, at most ``wait_s``; returns whether it is. Raises Gone if the index is deleted
        meanwhile."""
        deadline = self._clock.monotonic() + wait_s
        while True:
            # Taken before the look: a notice between look and wait must not be lost.
            moved = self._moved[index.record.id]
            seen = index.head.seen
            if seen is None or seen.applied_through < position:
                seen = await asyncio.to_thread(index.head.refresh)
            if seen.applied_through >= position:
                return True
            left = deadline - self._clock.monotonic()
            if left <= 0 or self.closed:
                return False
            try:
                async with asyncio.timeout(min(left, POLL_TOLD_S if self.told() else POLL_S)):
                    await moved.wait()
            except TimeoutError:
                await asyncio.to_thread(index.check_live)
