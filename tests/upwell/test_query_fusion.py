"""Fusion: the very numbers that the official clients expect, and what the formulas say of any lists."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from upwell.query.fusion import ByRank, ByScore, Fusion, Scored, dbsf, rrf

LISTS = st.lists(
    st.dictionaries(st.sampled_from("abcdefghij"), st.floats(-1e6, 1e6, width=32), max_size=8).map(
        lambda scores: sorted(scores.items(), key=lambda each: -each[1])
    ),
    max_size=3,
)


def shown(score: float) -> str:
    """As clients see it."""
    return str(np.float32(score))


def test_ranks_begin_with_zero() -> None:
    first, second = [("a", 0.9), ("b", 0.8), ("c", 0.7)], [("a", 3.0), ("d", 2.0), ("b", 1.0)]
    found = dict(rrf([first, second]))
    assert shown(found["a"]) == "0.033333335", "first in both"
    assert shown(dict(rrf([first, second[1:]]))["b"]) == shown(1 / 61 + 1 / 61)
    assert shown(dict(rrf([[("a", 1.0)], [("x", 9.0), ("y", 8.0), ("a", 7.0)]]))["a"]) == "0.032795697"
    assert [key for key, _ in rrf([first, second])] == ["a", "b", "d", "c"]
    assert Fusion.RRF.fuse([first, second]) == rrf([first, second])


def test_of_two_scores_the_better_is_always_as_far_above_their_mean() -> None:
    """In exact arithmetic it is 0.5 and a twelfth of the root of two; the clients' 0.617851 is that but for float32's rounding."""
    for scores in ((0.9949748, 0.99029034), (5.0, -3.0)):
        (best, score), (_, other) = dbsf([[("a", scores[0]), ("b", scores[1])]])
        assert best == "a"
        assert score == pytest.approx(0.617851, abs=2e-7)
        assert score + other == pytest.approx(1)


def test_one_alone_and_equals_have_a_half_each() -> None:
    assert dbsf([[("a", 7.0)]]) == [("a", 0.5)]
    assert dbsf([[("a", 0.1), ("b", 0.1), ("c", 0.1)]]) == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
    assert dbsf([[("a", 7.0)], [("a", -1.0)]]) == [("a", 1.0)]
    assert Fusion.DBSF.fuse([[("a", 7.0)]]) == [("a", 0.5)]


def test_nothing_is_made_of_nothing() -> None:
    for fuse in (rrf, dbsf):
        assert fuse([]) == fuse([[], []]) == []


def test_equals_stay_in_the_order_of_the_lists() -> None:
    assert [key for key, _ in rrf([[("b", 2.0), ("a", 1.0)], [("d", 2.0), ("c", 1.0)]])] == list("bdac")
    assert [key for key, _ in dbsf([[("z", 2.0)], [("y", 1.0)], [("x", 1.0)]])] == list("zyx")


@given(LISTS)
def test_any_lists_are_fused_as_the_formulas_say(lists: list[list[tuple[str, float]]]) -> None:
    by_rank: dict[str, float] = {}
    by_score: dict[str, float] = {}
    for ranking in lists:
        scores = [score for _, score in ranking]
        for rank, (key, score) in enumerate(ranking):
            by_rank[key] = by_rank.get(key, 0) + 1 / (60 + rank)
            part = 0.5
            if min(scores) != max(scores):
                mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
                part = (score - (mean - 3 * deviation)) / (6 * deviation)
            by_score[key] = by_score.get(key, 0) + part
    for fused, expected in ((rrf(lists), by_rank), (dbsf(lists), by_score)):
        assert dict(fused) == pytest.approx(expected, rel=1e-9)
        assert len(fused) == len(expected)
        assert all(first >= second for (_, first), (_, second) in itertools.pairwise(fused))
        assert all(math.isfinite(score) for _, score in fused)


@pytest.mark.parametrize("k", [0, -1, 16384, math.nan, math.inf])
def test_a_k_that_milvus_refuses_is_none(k: float) -> None:
    with pytest.raises(ValueError, match="expected one between"):
        ByRank(k)


@given(LISTS, st.floats(0.001, 16_383))
def test_by_rank_it_is_milvuss_formula(lists: list[list[tuple[str, float]]], k: float) -> None:
    expected: dict[str, float] = {}
    for ranking in lists:
        for rank, (key, _) in enumerate(ranking, 1):
            expected[key] = expected.get(key, 0) + 1 / (k + rank)
    assert dict(ByRank(k).fuse(lists)) == pytest.approx(expected, rel=1e-9)
    assert dict(ByRank().fuse([[("a", 1.0)]])) == {"a": 1 / 61}


#: By Milvus's formulas, of what it calls a distance: of L2 the smaller one is better, and ours have a minus.
NORMALISED: dict[Scored, Callable[[float], float]] = {
    Scored.COSINE: lambda score: (1 + score) * 0.5,
    Scored.INNER_PRODUCT: lambda score: 0.5 + math.atan(score) / math.pi,
    Scored.BM25: lambda score: 2 * math.atan(score) / math.pi,
    Scored.SQUARED_DISTANCE: lambda score: 1 - 2 * math.atan(-score) / math.pi,
}


@pytest.mark.parametrize("kind", Scored)
def test_normalised_scores_lie_between_0_and_1_and_keep_their_order(kind: Scored) -> None:
    scores = {
        Scored.COSINE: [-1, -0.5, 0, 1],
        Scored.INNER_PRODUCT: [-1e30, -2, 0, 3, 1e30],
        Scored.BM25: [0, 0.2, 7, 1e30],
        Scored.SQUARED_DISTANCE: [-1e30, -4, -0.5, 0],
    }[kind]
    shown = [kind.normalised(score) for score in scores]
    assert shown == pytest.approx([NORMALISED[kind](score) for score in scores])
    assert all(0 <= one <= 1 for one in shown) and shown == sorted(shown)


@given(
    lists=LISTS,
    kinds=st.lists(st.sampled_from(Scored), min_size=3, max_size=3),
    weights=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    normalised=st.booleans(),
)
def test_weighted_scores_are_summed_as_the_formulas_say(
    lists: list[list[tuple[str, float]]], kinds: list[Scored], weights: list[float], normalised: bool
) -> None:
    kinds, weights = kinds[: len(lists)], weights[: len(lists)]
    how = ByScore(tuple(weights), tuple(kinds), normalised=normalised)
    mixed = len({kind is Scored.SQUARED_DISTANCE for kind in kinds}) > 1
    expected: dict[str, float] = {}
    for ranking, kind, weight in zip(lists, kinds, weights, strict=True):
        alone = not normalised and not (mixed and kind is Scored.SQUARED_DISTANCE)
        for key, score in ranking:
            part = weight * (score if alone else NORMALISED[kind](score))
            expected[key] = expected.get(key, 0) + part
    fused = how.fuse(lists)
    assert dict(fused) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert all(first >= second for (_, first), (_, second) in itertools.pairwise(fused))
    assert how.sums_distances == (
        not normalised and bool(kinds) and not mixed and kinds[0] is Scored.SQUARED_DISTANCE
    )


def test_distances_alone_are_summed_as_they_are_unless_told_otherwise() -> None:
    """Milvus then has the smallest sum first, and what is in one list only has a smaller one."""
    near, far = [("a", -1.0), ("b", -4.0)], [("b", -2.0)]
    kinds = (Scored.SQUARED_DISTANCE, Scored.SQUARED_DISTANCE)
    assert ByScore((1, 0.5), kinds).fuse([near, far]) == [("a", -1.0), ("b", -5.0)]
    assert ByScore((1, 0.5), kinds).sums_distances
    assert not ByScore((1, 0.5), kinds, normalised=True).sums_distances


def test_each_list_has_its_weight() -> None:
    with pytest.raises(ValueError, match="1 weights for 2 lists"):
        ByScore((1.0,), (Scored.COSINE,)).fuse([[], []])
    with pytest.raises(ValueError, match="2 weights for 1 lists"):
        ByScore((1.0, 1.0), (Scored.COSINE,))
