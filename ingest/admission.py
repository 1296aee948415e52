"""May a write be read? Asked before its body is: an index that lags too far behind takes no more until it has caught up.

What an index waits with is counted without the store as long as it lies within the limits and was looked up a moment ago; what this
front end appends counts at once. So a limit may be overshot by what is being read just then, and by what other front ends
append between two looks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from upwell.clock import Clock
from upwell.engine import Index, Load
from upwell.errors import Behind, Invalid
from upwell.log.backlog import BacklogSize
from upwell.settings import Settings

#: What was found within the limits is believed to be so for so long, and what was found beyond them for so long.
ADMITTED_S = 1.0
REFUSED_S = 0.05
#: Who is refused is told to come back when this share of a limit is free again, so as not to come in vain.
FREE_SHARE = 0.1
#: What the pace of the workers is taken from: at least so long a time, and the newest one.
PACE_S = 1.0
#: The least and the most that anybody is told to wait, and what they are told while nothing is known.
WAIT_S_MIN, WAIT_S_MAX, WAIT_S_UNKNOWN = 1.0, 60.0, 5.0


@dataclass(slots=True)
class _Watched:
    """What is known of one index. ``looked_at`` and ``pace_from[0]`` are monotonic seconds."""

    #: Held for the length of a look: one for all who wait.
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_at: float = -math.inf
    segments: int = 0
    #: A look at the backlog that the next ones are compared with.
    pace_from: tuple[float, BacklogSize] | None = None
    #: Mutations and bytes that the workers applied in a second of late.
    pace: tuple[float, float] | None = None


class Admission:
    """Admits writes, or refuses them. ``look`` runs a short look at the store off the loop. Used from one event loop."""

    def __init__(
        self, settings: Settings, clock: Clock, look: Callable[[Callable[[], Load]], Awaitable[Load]]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._look = look
        self._watched: dict[str, _Watched] = {}

    async def check(self, index: Index, *, adds_rows: bool) -> None:
        """Raise Behind if ``index`` has too long a backlog, or, for what adds rows, too many segments. May also raise NotFound,
        Unavailable or Corrupt."""
        watched = self._watched.setdefault(index.record.id, _Watched())
        if await self._refused(index, watched, adds_rows, believed_s=ADMITTED_S):
            refusal = await self._refused(index, watched, adds_rows, believed_s=REFUSED_S)
            if refusal is not None:
                raise refusal

    def forget(self, index_id: str) -> None:
        """Let go of an index that was deleted."""
        self._watched.pop(index_id, None)

    async def _refused(
        self, index: Index, watched: _Watched, adds_rows: bool, *, believed_s: float
    ) -> Behind | None:
        """Why not, by what was looked up at most ``believed_s`` ago."""
        if self._clock.monotonic() - watched.looked_at >= believed_s:
            async with watched.looking:
                # Others may have looked while we waited for our turn.
                began = self._clock.monotonic()
                if began - watched.looked_at >= believed_s:
                    self._learn(watched, await self._look(index.load), began)
        return self._backlog_refused(index.backlog.size, watched) or (
            self._segments_refused(watched) if adds_rows else None
        )

    def _learn(self, watched: _Watched, load: Load, looked_at: float) -> None:
        size = load.backlog
        # While a long backlog is still being counted, every look finds more.
        watched.looked_at = looked_at if size.is_whole else -math.inf
        watched.segments = load.segments
        if watched.pace_from is None:
            watched.pace_from = looked_at, size
        since_s = looked_at - watched.pace_from[0]
        if since_s >= PACE_S:
            before = watched.pace_from[1]
            watched.pace = (
                (size.applied_mutations - before.applied_mutations) / since_s,
                (size.applied_nbytes - before.applied_nbytes) / since_s,
            )
            watched.pace_from = looked_at, size

    def _backlog_refused(self, size: BacklogSize, watched: _Watched) -> Behind | None:
        mutations_max = self._settings.backlog_mutations_max
        nbytes_max = self._settings.backlog_bytes_max
        if size.mutations < mutations_max and size.nbytes < nbytes_max:
            return None
        pace = watched.pace or (0.0, 0.0)
        wait_s = max(
            _seconds_until_free(size.mutations, mutations_max, pace[0]),
            _seconds_until_free(size.nbytes, nbytes_max, pace[1]),
        )
        return Behind(
            f"the index has a backlog of {size.mutations:,} mutations and {size.nbytes:,} bytes, "
            f"at most {mutations_max:,} and {nbytes_max:,} are allowed",
            retry_after_s=wait_s,
        )

    def _segments_refused(self, watched: _Watched) -> Behind | None:
        most = self._settings.stall_segments
        if watched.segments <= most:
            return None
        return Behind(
            f"compaction is behind: a shard has {watched.segments} segments, at most {most} are allowed",
            retry_after_s=WAIT_S_UNKNOWN,
        )


def check_room(index: Index, most: int | None) -> None:
    """Raise Invalid if an index is full. It may be overfilled by what is in its log at the time. Blocks."""
    if most is not None and (now := index.head.refresh().vectors) >= most:
        raise Invalid(f"too many vectors in the index; max is {most}, it has {now}")


def _seconds_until_free(waiting: int, most: int, pace: float) -> float:
    """When some of a limit is free again, if the workers go on at this pace; 0 if the limit is not reached."""
    if waiting < most:
        return 0.0
    if pace <= 0:
        return WAIT_S_UNKNOWN
    return min(max((waiting - (1 - FREE_SHARE) * most) / pace, WAIT_S_MIN), WAIT_S_MAX)
