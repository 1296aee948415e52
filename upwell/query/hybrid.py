"""Asking for dense and for sparse vectors at once: each is searched by itself, and the two rankings are made one.

What is asked by one kind of vector alone is answered by that kind's own scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from upwell.query.fusion import RANK_OFFSET, ByRank, ByScore, Fusion
from upwell.query.scope import Names, RowFilter
from upwell.query.search import RECALL, Match, in_order, search
from upwell.query.sparse import SparseVector, search_sparse
from upwell.shard.metric import Metric
from upwell.shard.view import View

#: A way of making one ranking of several.
How = Fusion | ByRank | ByScore

#: A score of a closeness by a metric; the closer the larger.
DenseScore = Callable[[Metric, float], float]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Question:
    """What is asked of an index: by a dense vector (float32 (dimensions,)), by a sparse one, or by both.

    ``namespace`` is a name or several (``scope.Names``), "" for what is in none; None asks for everything. ``dense_score`` makes scores of closenesses: how they are
    scaled matters to what is fused by scores.
    """

    dense: npt.NDArray[np.float32] | None
    sparse: SparseVector | None
    namespace: Names
    dense_score: DenseScore
    fusion: Fusion = Fusion.RRF
    within: RowFilter | None = None
    idf: bool = False
    recall: float = RECALL

    def __post_init__(self) -> None:
        if self.dense is None and self.sparse is None:
            raise ValueError("a question without a vector")

    def answer(self, view: View, count: int, depth: int, within: RowFilter | None) -> list[Match]:
        """The best ``count`` of those that ``within`` leaves, best first; ``closeness`` is the score. What is fused are the best
        ``depth`` by each vector."""
        if self.dense is None:
            return self._by_sparse(view, count, within)
        if self.sparse is None:
            return self._by_dense(view, count, within)
        rankings = [self._by_dense(view, depth, within), self._by_sparse(view, depth, within)]
        return fuse_lists(rankings, self.fusion)[:count]

    def _by_dense(self, view: View, count: int, within: RowFilter | None) -> list[Match]:
        assert self.dense is not None
        matches = search(view, self.dense, count, self.namespace, within=within, recall=self.recall)
        metric = view.record.metric
        # In order of scores: they may be coarser than closenesses, and equal where those differ by what rounding does.
        return in_order([Match(match.found, self.dense_score(metric, match.closeness)) for match in matches])

    def _by_sparse(self, view: View, count: int, within: RowFilter | None) -> list[Match]:
        assert self.sparse is not None
        return search_sparse(view, self.sparse, count, self.namespace, within=within, idf=self.idf)


def fuse_lists(lists: Sequence[Sequence[Match]], how: How) -> list[Match]:
    """One ranking of several of the same view, best first, equals as ``in_order`` says; ``closeness`` is the score.

    Each list has a row once, best first, and ``closeness`` as its score: what is fused by scores is said by ``how`` (of distances those with
    a minus, as closenesses are). A row that is in no list is in no answer.
    """
    found = {_key(match): match.found for ranking in lists for match in ranking}
    fused = how.fuse([[(_key(match), match.closeness) for match in ranking] for ranking in lists])
    return in_order([Match(found[key], score) for key, score in fused])


def depth_of(count: int) -> int:
    """How many by each vector are fused, for ``count`` answers.

    By ranks, a row that is beyond this depth in both lists has less than 2 / (2 (count + RANK_OFFSET)), and the first ``count`` of either
    list have more than that each: so nothing that was not looked at belongs into the answer. Fusing by scores has no such bound,
    but its mean and deviation are then those of enough rows to say something.
    """
    return 2 * count + RANK_OFFSET


def _key(match: Match) -> tuple[str, int]:
    return match.found.segment.id, match.found.row
