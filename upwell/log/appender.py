"""Group commit: concurrent mutations of one index share a log entry, and one fsync.

While an entry is being written, whatever arrives waits and becomes the next entry, in the order of arrival. So the log
is written at the pace of the disk, however many clients there are, and a lone client waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from upwell.errors import StoreFull, Unavailable
from upwell.failpoint import Step, reached
from upwell.log.entry import PreparedMutation
from upwell.log.receipt import Receipt
from upwell.log.writer import LogWriter

#: An entry is applied by one commit, so it must fit one batch; see also receipt.PLACES_MAX.
ENTRY_MUTATIONS_MAX = 1_000
#: Enough to amortise an fsync many times over; small enough that nobody waits long for others' bytes.
ENTRY_BYTES_MAX = 8 << 20


@dataclass(slots=True, eq=False)
class _Waiting:
    prepared: PreparedMutation
    done: asyncio.Future[Receipt]


class Appender:
    """The one writer of an index's log in this process. Used from one event loop."""

    def __init__(
        self,
        writer: LogWriter,
        executor: Executor,
        *,
        batch_vectors_max: int,
        on_appended: Callable[[int, Sequence[PreparedMutation]], None],
    ) -> None:
        self._writer = writer
        self._executor = executor
        self._rows_max = batch_vectors_max
        #: Told each entry's position and mutations once it is durable, to ring the doorbell. Must not raise or block.
        self._on_appended = on_appended
        self._waiting: deque[_Waiting] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def append(self, prepared: PreparedMutation) -> Receipt:
        """Make a mutation durable; returns where it lies. Raises Unavailable, with the outcome unknown.

        If the caller is cancelled the mutation may still be appended: it was not acknowledged, and that is all we say.
        """
        one = _Waiting(prepared, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._write_all(), name="log-appender")
        return await one.done

    @property
    def idle(self) -> bool:
        """Is nothing being written or waiting?"""
        return not self._waiting and (self._pump is None or self._pump.done())

    async def drained(self) -> None:
        """Return once everything handed to ``append`` so far is durable or has failed."""
        while not self.idle:
            if self._pump is not None:
                await asyncio.wait([self._pump])

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group = self._next_group()
            entry = [one.prepared for one in group]
            try:
                position = await loop.run_in_executor(self._executor, self._writer.append, entry)
            except Exception as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
                for one in group:
                    if not one.done.done():
                        one.done.set_exception(_own_copy(error))
                continue
            self._on_appended(position, entry)
            reached(Step.BELL_RUNG)
            for place, one in enumerate(group):
                if not one.done.done():
                    one.done.set_result(Receipt(position, place))

    def _next_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        nbytes, rows = group[0].prepared.nbytes, group[0].prepared.mutation.rows
        while self._waiting and len(group) < ENTRY_MUTATIONS_MAX:
            following = self._waiting[0].prepared
            nbytes += following.nbytes
            rows += following.mutation.rows
            if nbytes > ENTRY_BYTES_MAX or rows > self._rows_max:
                break
            group.append(self._waiting.popleft())
        return group


def _own_copy(error: Exception) -> Exception:
    """An exception for one waiter of several: sharing one object would grow its traceback with each raise."""
    kind, why = (
        (StoreFull, "the store is full")
        if isinstance(error, StoreFull)
        else (Unavailable, "the log could not be written")
    )
    copy = kind(f"{why}; the mutation may or may not have been kept")
    copy.__cause__ = error
    return copy
