"""A query that goes on: each time the next best rows that it has not returned yet, of one and the same version."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from upwell.query.hybrid import Question
from upwell.query.search import Match
from upwell.shard.deletions import Mask
from upwell.shard.segment import Segment
from upwell.shard.view import View

T = TypeVar("T")


class ResumableQuery:
    """A question and what was returned of it so far. Blocking; safe to share between threads, one of which is served at a time.

    Each time it is a search among what is left. Asked by both kinds of vectors, the next best by each are fused, as many of each as are
    wanted; those of them that are not returned take part again the next time.

    Ceiling: a bit for each row of the segments that rows were returned of, 125 KB for a million; and the view's files, which stay on the
    disk for as long as it is held, whatever is merged or deleted meanwhile.
    """

    def __init__(self, view: View, question: Question) -> None:
        self.view = view
        self._question = question
        self._lock = threading.Lock()
        #: By segment: the rows returned, the first one highest.
        self._returned: dict[str, npt.NDArray[np.uint8]] = {}

    def next(self, count: int) -> list[Match]:
        """The next ``count`` rows, best first; fewer, or none, when no more are left. ``closeness`` is the score."""
        return self.next_as(count, lambda matches: matches)

    def next_as(self, count: int, shown: Callable[[list[Match]], T]) -> T:
        """What ``shown`` makes of the next ``count`` rows. Should it raise, they count as not returned yet."""
        with self._lock:
            matches = self._question.answer(self.view, count, count, self._left)
            made = shown(matches)
            for match in matches:
                segment, row = match.found.segment, match.found.row
                bits = self._returned.get(segment.id)
                if bits is None:
                    bits = self._returned[segment.id] = np.zeros(-(-segment.rows // 8), np.uint8)
                bits[row >> 3] |= 0x80 >> (row & 7)
        return made

    def _left(self, segment: Segment) -> Mask:
        """The rows that the question is about and that were not returned yet."""
        within = self._question.within
        bits = self._returned.get(segment.id)
        if bits is None:
            return np.ones(segment.rows, np.bool_) if within is None else within(segment)
        left = ~np.unpackbits(bits, count=segment.rows).view(np.bool_)
        return left if within is None else left & within(segment)
