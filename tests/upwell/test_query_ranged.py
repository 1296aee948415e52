"""Searches between two bounds: what comparing every row gives, whatever segments are made of and however many rows are too close."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.making import Client, delete, drain, make_engine, make_index
from tests.querying import small_tiers
from upwell.changeset import Changeset, Operation
from upwell.kinds import IndexKind
from upwell.query import ranged
from upwell.query.ranged import Bounds, search_sparse_within, search_within
from upwell.query.search import Match, search
from upwell.query.sparse import search_sparse
from upwell.shard import merge
from upwell.shard.deletions import Mask
from upwell.shard.metric import Metric
from upwell.shard.segment import Segment
from upwell.shard.view import View
from upwell.sparse import Sparse

DIMENSIONS = 16
ROWS = 500


@pytest.fixture(autouse=True, scope="module")
def _few_rows_have_codes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        small_tiers(patch, DIMENSIONS)
        patch.setattr(merge, "FOLDED_BYTES_MAX", 0)
        patch.setattr(ranged, "PASSED", 1)
        patch.setattr(ranged, "PASSED_MORE", 5)
        yield


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[Metric, View]:
    """One of each metric: segments with codes and without, a few rows deleted, dense and sparse vectors, two namespaces."""
    return {metric: made(tmp_path_factory.mktemp(metric), metric) for metric in Metric}


def made(folder: Path, metric: Metric) -> View:
    engine = make_engine(folder)
    index = make_index(engine, dimensions=DIMENSIONS, metric=metric, shards=2, kind=IndexKind.HYBRID)
    random = np.random.default_rng(7)
    vectors = random.integers(-3, 4, (ROWS, DIMENSIONS)).astype(np.float32)
    sparse = Sparse.of(
        [([int(a), int(a) + 1], [float(b), 1]) for a, b in random.integers(1, 6, (ROWS, 2)).tolist()]
    )
    for start, end in ((0, 300), (300, 340), (340, ROWS)):
        chosen = np.arange(start, end)
        Client(index).append(
            Changeset(
                operation=Operation.UPSERT,
                ids=pa.array([f"v{n}" for n in chosen]),
                vectors=vectors[chosen],
                sparse=sparse.take(chosen),
                namespaces=pa.array(["n" if n % 3 else None for n in chosen], pa.utf8()),
                received=len(chosen),
            )
        )
        drain(engine, index)
    Client(index).append(delete(*(f"v{n}" for n in range(0, ROWS, 11))))
    drain(engine, index)
    view = index.newest.get()
    assert {live.segment.trust is None for live in view.segments()} == {True, False}
    return view


def even(segment: Segment) -> Mask:
    return np.array([int(name[1:]) % 2 == 0 for name in segment.ids.to_pylist()])


def told(matches: list[Match]) -> list[tuple[float, str]]:
    return [(match.closeness, match.found.id) for match in matches]


def between(matches: list[Match], closest: float | None, furthest: float | None) -> list[tuple[float, str]]:
    """One by one, as it is written: ``furthest`` < a score <= ``closest``, of scores as they are shown."""
    return [
        (match.closeness, match.found.id)
        for match in matches
        if (closest is None or np.float32(match.closeness) <= np.float32(closest))
        and (furthest is None or np.float32(match.closeness) > np.float32(furthest))
    ]


SHARES = st.none() | st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(Metric),
    seed=st.integers(0, 1000),
    closest=SHARES,
    furthest=SHARES,
    count=st.sampled_from([1, 3, 20, 200, 600]),
    namespace=st.sampled_from([None, "", "n"]),
    filtered=st.booleans(),
)
def test_any_bounds_leave_what_comparing_every_row_leaves(
    views: dict[Metric, View],
    metric: Metric,
    seed: int,
    closest: float | None,
    furthest: float | None,
    count: int,
    namespace: str | None,
    filtered: bool,
) -> None:
    view, within = views[metric], even if filtered else None
    random = np.random.default_rng(seed)
    query = random.integers(-3, 4, DIMENSIONS).astype(np.float32)
    terms = (np.array([1, 3], np.int32), random.integers(1, 4, 2).astype(np.float32))
    every = search(view, query, ROWS, namespace, within=within, recall=1)
    bounds = drawn(every, closest, furthest)
    found = search_within(view, query, count, namespace, bounds=bounds, within=within, recall=1)
    assert told(found) == between(every, bounds.closest, bounds.furthest)[:count]
    every = search_sparse(view, terms, ROWS, namespace, within=within)
    bounds = drawn(every, closest, furthest)
    found = search_sparse_within(view, terms, count, namespace, bounds=bounds, within=within)
    assert told(found) == between(every, bounds.closest, bounds.furthest)[:count]


def drawn(every: list[Match], closest: float | None, furthest: float | None) -> Bounds:
    """Bounds that lie just where some rows do, so many of all behind the first."""
    scores = [match.closeness for match in every]
    at = [None if one is None else scores[int(one * (len(scores) - 1))] for one in (closest, furthest)]
    return Bounds(closest=at[0], furthest=at[1])


@pytest.mark.parametrize("metric", Metric)
def test_by_codes_it_finds_as_much_as_a_search_does(views: dict[Metric, View], metric: Metric) -> None:
    view, good, wanted = views[metric], 0, 0
    for seed in range(20):
        query = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
        every = search(view, query, ROWS, recall=1)
        bounds = Bounds(closest=every[5 * seed].closeness, furthest=every[5 * seed + 40].closeness)
        truth = between(every, bounds.closest, bounds.furthest)[:10]
        found = told(search_within(view, query, 10, bounds=bounds))
        assert {*found} <= {*between(every, bounds.closest, bounds.furthest)}
        good, wanted = good + len({*truth} & {*found}), wanted + len(truth)
    assert good >= 0.9 * wanted


def test_a_row_is_where_the_score_says_that_was_shown_of_it(views: dict[Metric, View]) -> None:
    """Doors show scores as float32, and people send those back."""
    view = views[Metric.COSINE]
    query: npt.NDArray[np.float32] = np.arange(DIMENSIONS, dtype=np.float32)
    fifth = search(view, query, 5, recall=1)[4]
    shown = float(str(np.float32(fifth.closeness)))
    assert (
        search_within(view, query, 1, bounds=Bounds(closest=shown), recall=1)[0].closeness == fifth.closeness
    )
    assert (
        search_within(view, query, 9, bounds=Bounds(furthest=shown), recall=1)[-1].closeness > fifth.closeness
    )


def test_bounds_beyond_all_numbers_are_bounds(views: dict[Metric, View]) -> None:
    view, query = views[Metric.EUCLIDEAN], np.ones(DIMENSIONS, np.float32)
    assert (
        len(search_within(view, query, ROWS, bounds=Bounds(closest=0.0, furthest=-1e300)))
        == view.manifest.vectors
    )
    assert search_within(view, query, 9, bounds=Bounds(closest=-1e300)) == []
    assert search_within(view, query, 9, bounds=Bounds(closest=-5.0, furthest=-5.0)) == []
