"""Making one ranking of several. Pure: what is ranked may be anything.

rrf       reciprocal rank fusion: a key has 1 / (its rank + an offset) of each list that it is in, ranks from 0
dbsf      distribution-based score fusion: a key has its score of each list, put so that three standard deviations below the list's mean
          are 0 and three above it are 1
weighted  a key has its score of each list, if wished put between 0 and 1 by what scores of its kind can be, times the list's weight

Each list has a key once, best first. Answers are best first, and equals in the order in which the lists have them. ``Fusion`` are Upstash's
ways, ``ByRank`` and ``ByScore`` are Milvus's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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


class Scored(StrEnum):
    """What the scores of a ranking are. Of each kind a larger one is better."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner-product"
    #: Not below zero.
    BM25 = "bm25"
    #: A squared distance with a minus before it.
    SQUARED_DISTANCE = "squared-distance"

    def normalised(self, score: float) -> float:
        """The score as one between 0 and 1."""
        match self:
            case Scored.COSINE:
                return (1 + score) / 2
            case Scored.INNER_PRODUCT:
                return 0.5 + math.atan(score) / math.pi
            case Scored.BM25:
                return 2 * math.atan(score) / math.pi
            case Scored.SQUARED_DISTANCE:
                return 1 + 2 * math.atan(score) / math.pi


#: ``ByRank.k`` lies between these, and is neither.
RANK_K_MIN = 0
RANK_K_MAX = 16_384


@dataclass(frozen=True, slots=True)
class ByRank:
    """Reciprocal rank fusion as Milvus has it: a key has 1 / (k + its rank) of each list that it is in, ranks from 1."""

    k: float = RANK_OFFSET

    def __post_init__(self) -> None:
        if not RANK_K_MIN < self.k < RANK_K_MAX:
            raise ValueError(f"k is {self.k}, expected one between {RANK_K_MIN} and {RANK_K_MAX}")

    def fuse(self, lists: Sequence[Ranking[K]]) -> list[tuple[K, float]]:
        """One ranking of several."""
        return rrf(lists, self.k + 1)


@dataclass(frozen=True, slots=True)
class ByScore:
    """The weighted sum of scores as Milvus has it: for each list its weight and what its scores are.

    Without ``normalised`` scores are taken as they are; but where those of some lists are distances and those of others are not, the
    distances are normalised all the same.
    """

    weights: tuple[float, ...]
    scored: tuple[Scored, ...]
    normalised: bool = False

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.scored):
            raise ValueError(f"{len(self.weights)} weights for {len(self.scored)} lists")

    @property
    def sums_distances(self) -> bool:
        """Is what it makes a sum of distances, with a minus before it?"""
        return not self.normalised and {*self.scored} == {Scored.SQUARED_DISTANCE}

    def fuse(self, lists: Sequence[Ranking[K]]) -> list[tuple[K, float]]:
        """One ranking of several. Raises ValueError if it has other than one weight for each."""
        if len(lists) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights for {len(lists)} lists")
        parts = [
            [weight * self._of(kind, score) for _, score in ranking]
            for ranking, weight, kind in zip(lists, self.weights, self.scored, strict=True)
        ]
        return _added(lists, parts)

    def _of(self, kind: Scored, score: float) -> float:
        alone = kind is not Scored.SQUARED_DISTANCE or self.sums_distances
        return score if alone and not self.normalised else kind.normalised(score)


def rrf(lists: Sequence[Ranking[K]], offset: float = RANK_OFFSET) -> list[tuple[K, float]]:
    """One ranking of several, by ranks alone."""
    return _summed(lists, lambda ranking: [1 / (rank + offset) for rank in range(len(ranking))])


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
    return _added(lists, [parts(ranking) for ranking in lists])


def _added(lists: Sequence[Ranking[K]], parts: Sequence[list[float]]) -> list[tuple[K, float]]:
    sums: dict[K, float] = {}
    for ranking, its in zip(lists, parts, strict=True):
        for (key, _), part in zip(ranking, its, strict=True):
            sums[key] = sums.get(key, 0.0) + part
    return sorted(sums.items(), key=lambda each: -each[1])
