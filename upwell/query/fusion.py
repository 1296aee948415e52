"""Making one ranking of several. Pure: what is ranked may be anything.

rrf   reciprocal rank fusion: a key has 1 / (its rank + 60) of each list that it is in, ranks from 0
dbsf  distribution-based score fusion: a key has its score of each list, put so that three standard deviations below the list's mean
      are 0 and three above it are 1

Each list has a key once, best first. Answers are best first, and equals in the order in which the lists have them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from typing import TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)

#: Keys and scores, best first.
Ranking = Sequence[tuple[K, float]]

#: What keeps the first of a list from counting for everything.
RANK_OFFSET = 60


class Fusion(StrEnum):
    """How rankings are made one."""

    RRF = "rrf"
    DBSF = "dbsf"

    def fuse(self, lists: Sequence[Ranking[K]]) -> list[tuple[K, float]]:
        """One ranking of several."""
        return rrf(lists) if self is Fusion.RRF else dbsf(lists)


def rrf(lists: Sequence[Ranking[K]]) -> list[tuple[K, float]]:
    """One ranking of several, by ranks alone."""
    return _summed(lists, lambda ranking: [1 / (rank + RANK_OFFSET) for rank in range(len(ranking))])


def dbsf(lists: Sequence[Ranking[K]]) -> list[tuple[K, float]]:
    """One ranking of several, by scores. Where all of a list are equal each has a half of it."""
    return _summed(lists, _normalised)


def _normalised(ranking: Ranking[K]) -> list[float]:
    scores = np.array([score for _, score in ranking], np.float64)
    # Not by the deviation: what rounding makes of that of equals is not always zero.
    if len(scores) == 0 or scores.min() == scores.max():
        return [0.5] * len(scores)
    deviation = scores.std(ddof=1)
    lowest = scores.mean() - 3 * deviation
    return [float(score) for score in (scores - lowest) / (6 * deviation)]


def _summed(lists: Sequence[Ranking[K]], parts: Callable[[Ranking[K]], list[float]]) -> list[tuple[K, float]]:
    sums: dict[K, float] = {}
    for ranking in lists:
        for (key, _), part in zip(ranking, parts(ranking), strict=True):
            sums[key] = sums.get(key, 0.0) + part
    return sorted(sums.items(), key=lambda each: -each[1])
