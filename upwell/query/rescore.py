"""Which candidates are the closest: compared exactly, by their raw vectors, as few of them as it takes.

Candidates of an exact index are all compared. One found by codes comes with a *bound*, the closeness that it hardly exceeds (its
estimate plus the margin that was measured for its segment, shard/ann.py). They are compared in order of their bounds, until the
next bound lies below the closest ones found: how many that takes depends on the question, and is found out instead of guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from upwell.shard.keys import Rows
from upwell.shard.metric import Metric, closeness
from upwell.shard.view import LiveSegment

Closeness = npt.NDArray[np.float64]

#: Candidates compared at first, to know how close is close, and at most at once from then on.
FIRST = 32
STEP = 512
#: Rows turned into float64 at once: they should stay in the cache.
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """Rows of a view and how close they are, in no order. ``place`` numbers the view's segments."""

    close: Closeness
    place: Rows
    row: Rows


class Rescorer:
    """Compares rows of several segments with one query, and keeps what it found."""

    def __init__(
        self, segments: list[LiveSegment], metric: Metric, query: npt.NDArray[np.float32], count: int
    ) -> None:
        self._segments = segments
        self._metric = metric
        self._query = query
        self._count = count
        self._found: list[tuple[Closeness, Rows, Rows]] = []
        self._best = np.empty(0, np.float64)

    @property
    def least(self) -> float:
        """The closeness that a row must reach to be among the closest: that of the last one wanted, of those found so far."""
        return float(self._best.min()) if len(self._best) >= self._count else -np.inf

    def compare(self, place: int, rows: Rows) -> None:
        """Compare rows of one segment."""
        if len(rows):
            self.keep(place, rows, exact_closeness(self._segments[place], self._metric, self._query, rows))

    def keep(self, place: int, rows: Rows, close: Closeness) -> None:
        """Rows of one segment that are compared already."""
        if len(rows):
            self._found.append((close, np.full(len(rows), place), rows))
            best = np.concatenate([self._best, close])
            if len(best) > self._count:
                best = np.partition(best, len(best) - self._count)[len(best) - self._count :]
            self._best = best

    def compare_bounded(self, places: Rows, rows: Rows, bounds: Closeness) -> None:
        """Compare rows of any segments, as far as their bounds say that they may be among the closest."""
        order = np.argsort(-bounds)
        places, rows, bounds = places[order], rows[order], -bounds[order]
        several = sorted(set(places.tolist()))
        start, end = 0, max(FIRST, 2 * self._count)
        while start < end:
            now, its_rows = places[start:end], rows[start:end]
            least, before = self.least, len(self._found)
            for place in several:
                self.compare(place, its_rows if len(several) == 1 else its_rows[now == place])
            if all((close == least).all() for close, _, _ in self._found[before:]) and end - start == STEP:
                # So many equals in a row: copies of one vector, of which those at hand will do.
                return
            start, end = (
                min(end, len(rows)),
                min(end + STEP, int(np.searchsorted(bounds, -self.least, "right"))),
            )

    def nearest(self) -> Nearest:
        """Everything compared that is as close as the last one wanted, or closer."""
        if not self._found:
            return Nearest(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
        close, place, row = (np.concatenate(column) for column in zip(*self._found, strict=True))
        near = close >= self.least
        return Nearest(close[near], place[near], row[near])


def exact_closeness(
    live: LiveSegment, metric: Metric, query: npt.NDArray[np.float32], rows: Rows
) -> Closeness:
    """Closeness of ``query`` to each of the given rows, in float64."""
    if len(rows) <= BLOCK_ROWS:
        return closeness(metric, query, live.segment.take_vectors(rows))
    return np.concatenate(
        [
            closeness(metric, query, live.segment.take_vectors(rows[start : start + BLOCK_ROWS]))
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
    )
