"""Values so large that float32 overflows in FAISS: still the exact nearest, as float64 has it, and no row left out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from tests.making import Client, delete, drain_of, make_engine, make_index, upsert
from upwell.engine import Index
from upwell.query.search import SCANNED_FLAT_ROWS, SPARE, search
from upwell.shard.ann import CODED_DIMENSIONS_MIN, CODED_ROWS_MIN, COMPONENT_MAX
from upwell.shard.metric import Metric, closeness

#: Its square, and its sum with itself, are beyond float32.
HUGE = 3e38
#: So many that neither spare candidates nor a scan for its own sake cover what FAISS leaves out, also in a namespace.
ROWS = 4 * SCANNED_FLAT_ROWS
DIMENSIONS = 3


def made(tmp_path: Path, metric: Metric, vectors: npt.NDArray[np.float32], spaces: list[str | None]) -> Index:
    """An index of one segment that holds ``vectors`` as v0, v1, …"""
    index = make_index(make_engine(tmp_path), dimensions=vectors.shape[1], metric=metric, shards=1)
    rows = [
        (f"v{n}", values, space)
        for n, (values, space) in enumerate(zip(vectors.tolist(), spaces, strict=True))
    ]
    Client(index).append(upsert(*rows, dimensions=vectors.shape[1]))
    drain_of(index)
    return index


def nearest(metric: Metric, query: Any, vectors: Any, rows: Any, count: int) -> list[str]:
    """The ids of the ``count`` closest of ``rows``, in float64."""
    q, x = query.astype(np.float64), vectors[rows].astype(np.float64)
    near = -((x - q) ** 2).sum(axis=1) if metric is Metric.EUCLIDEAN else (x * q).sum(axis=1)
    if metric is Metric.COSINE:
        near /= np.sqrt((x**2).sum(axis=1)) * np.sqrt((q**2).sum())
    return [f"v{row}" for row in rows[np.argsort(-near, kind="stable")[:count]].tolist()]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("query_scale", [1.0, HUGE])
@pytest.mark.parametrize("namespace", [None, "even"])
@pytest.mark.parametrize("deleted", [0, ROWS // 10])
def test_the_nearest_are_exact_and_none_is_left_out(
    tmp_path: Path, metric: Metric, query_scale: float, namespace: str | None, deleted: int
) -> None:
    generator = np.random.default_rng(7)
    vectors = (generator.uniform(-1, 1, size=(ROWS, DIMENSIONS)) * HUGE).astype(np.float32)
    index = made(tmp_path, metric, vectors, ["even" if n % 2 == 0 else None for n in range(ROWS)])
    gone = generator.choice(ROWS, deleted, replace=False)
    if deleted:
        Client(index).append(delete(*(f"v{n}" for n in gone)))
        drain_of(index)
    left = np.setdiff1d(np.arange(ROWS), gone)
    if namespace is not None:
        left = left[left % 2 == 0]
    ((live,),) = index.newest.get().shards
    assert live.segment.trust is None and len(left) > SCANNED_FLAT_ROWS, "FAISS was to be asked"
    assert (live.segment.rows, live.deleted is not None) == (ROWS, deleted > 0)
    for _ in range(5):
        query = (generator.uniform(-1, 1, size=DIMENSIONS) * query_scale).astype(np.float32)
        for count in (1, 10, len(left), ROWS):
            found = search(index.newest.get(), query, count, namespace)
            assert [match.found.id for match in found] == nearest(metric, query, vectors, left, count)
            assert np.isfinite([match.closeness for match in found]).all()


@pytest.mark.parametrize(
    ("metric", "large"),
    [(Metric.EUCLIDEAN, "a row"), (Metric.EUCLIDEAN, "the query"), (Metric.DOT_PRODUCT, "a row")],
)
def test_what_is_too_large_for_codes_is_compared_without(tmp_path: Path, metric: Metric, large: str) -> None:
    """One such row makes its whole segment one without codes; such a query is compared with every row."""
    generator = np.random.default_rng(9)
    shape = (CODED_ROWS_MIN, CODED_DIMENSIONS_MIN)
    vectors = (generator.normal(size=shape) * COMPONENT_MAX / 10).astype(np.float32)
    query = (generator.normal(size=shape[1]) * COMPONENT_MAX / 10).astype(np.float32)
    if large == "a row":
        vectors[77] = query * np.float32(1e20)
    else:
        query *= np.float32(10)
    index = made(tmp_path, metric, vectors, [None] * len(vectors))
    ((live,),) = index.newest.get().shards
    assert (live.segment.trust is None) == (large == "a row")
    assert large == "a row" or np.abs(query).max() > COMPONENT_MAX
    for count in (10, len(vectors)):
        found = search(index.newest.get(), query, count, recall=0.5)
        expected = nearest(metric, query, vectors, np.arange(len(vectors)), count)
        assert [match.found.id for match in found] == expected


def lost_by_faiss() -> npt.NDArray[np.float32]:
    """A row whose product with ones is 3e38, but in the order in which FAISS adds up −inf before, which it stays."""
    signs = set(itertools.permutations((-1, -1, 1, 1, 1)))
    rows = np.array(sorted(signs), np.float32) * np.float32(HUGE)
    index = faiss.IndexFlatIP(5)
    index.add(rows)
    _, found = index.search(np.ones((1, 5), np.float32), len(rows))
    lost = np.setdiff1d(np.arange(len(rows)), found)
    assert len(lost), "this FAISS adds up in a way that we did not think of"
    return np.asarray(rows[lost[0]])


@pytest.mark.parametrize("others", [5, SPARE, SPARE + 1, ROWS])
def test_a_row_that_overflows_on_the_way_to_the_largest_product_is_found(tmp_path: Path, others: int) -> None:
    """FAISS leaves it out, and the distances that it answers are all finite."""
    vectors = np.vstack([lost_by_faiss(), np.full((others, 5), 1e-3, np.float32)])
    index = made(tmp_path, Metric.DOT_PRODUCT, vectors, [None] * len(vectors))
    query = np.ones(5, np.float32)
    assert len(search(index.newest.get(), query, len(vectors))) == len(vectors)
    assert [match.found.id for match in search(index.newest.get(), query, 1)] == ["v0"]


@pytest.mark.parametrize("metric", [Metric.EUCLIDEAN, Metric.DOT_PRODUCT])
@pytest.mark.parametrize(("rows", "dimensions"), [(200, 5), (3_000, 64)])
@pytest.mark.parametrize("scale", [1e-25, 1e-18, 1e-8, 1e-4, 5e-4])
def test_components_so_small_that_their_products_vanish_are_told_apart(
    tmp_path: Path, metric: Metric, rows: int, dimensions: int, scale: float
) -> None:
    generator = np.random.default_rng(7)
    vectors = (generator.normal(size=(rows, dimensions)) * scale).astype(np.float32)
    index = made(tmp_path, metric, vectors, [None] * rows)
    found = 0
    for query in (generator.normal(size=(20, dimensions)) * scale).astype(np.float32):
        near = closeness(metric, query, vectors)
        truth = {f"v{row}" for row in np.argsort(-near, kind="stable")[:10].tolist()}
        found += len(truth & {match.found.id for match in search(index.newest.get(), query, 10)})
    assert found >= 0.97 * 200


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scale", [1e-3, 30])
def test_queries_of_another_length_than_the_rows_find_as_much(
    tmp_path: Path, metric: Metric, scale: float
) -> None:
    """What codes miss grows with the query's length, or its distance: the margins grow with it."""
    generator = np.random.default_rng(8)
    vectors = generator.normal(size=(6_000, 64)).astype(np.float32)
    index = made(tmp_path, metric, vectors, [None] * len(vectors))
    found = 0
    for query in (generator.normal(size=(30, 64)) * scale).astype(np.float32):
        near = closeness(metric, query, vectors)
        truth = {f"v{row}" for row in np.argsort(-near, kind="stable")[:10].tolist()}
        found += len(truth & {match.found.id for match in search(index.newest.get(), query, 10)})
    assert found >= 0.97 * 300
