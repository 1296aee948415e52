"""Hybrid queries and resumable ones: by both kinds of vectors or one, fused as plain Python would; and on, without anything twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.querying import (
    DIMENSIONS,
    Row,
    Story,
    answered,
    even_ids,
    floats,
    is_even,
    search_hybrid,
    sparse_of,
)
from upwell.kinds import IndexKind
from upwell.query.fusion import ByRank, ByScore, Fusion, Scored
from upwell.query.hybrid import Question, depth_of, fuse_lists
from upwell.query.resumable import ResumableQuery
from upwell.query.search import search
from upwell.query.sparse import search_sparse
from upwell.shard.metric import Metric

Vector = npt.NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


def score(metric: Metric, closeness: float) -> float:
    """As some vendor might scale them, and round them."""
    assert metric is Metric.COSINE
    return float(np.float32((1 + closeness) / 2))


def question(dense: Vector | None, sparse: Any, namespace: str = "", **how: Any) -> Question:
    return Question(dense=dense, sparse=sparse, namespace=namespace, dense_score=score, **how)


@pytest.fixture
def three(tmp_path: Path) -> Story:
    """The rows of the official clients' tests; a third dimension of zero changes no angle."""
    story = Story(tmp_path, 0, IndexKind.HYBRID)
    story.write(
        [
            Row("ns", "id0", [0.1, 0.2, 0], [0, 1], [0.1, 0.2]),
            Row("ns", "id1", [0.2, 0.3, 0], [1, 2], [0.2, 0.3]),
            Row("ns", "id2", [0.3, 0.4, 0], [2, 3], [0.3, 0.4]),
        ]
    )
    return story


def dense(*values: float) -> Vector:
    return np.array([*values, 0], np.float32)


def test_ranks_are_fused_as_the_official_clients_expect(three: Story) -> None:
    view = three.view()
    found = search_hybrid(
        view, dense(0.1, 0.1), sparse_of([3, 4], [0.1, 0.2]), 1, "ns", dense_score=score, fusion=Fusion.RRF
    )
    assert floats(found) == [("id2", "0.033333335")]
    found = search_hybrid(view, dense(0.5, 0.1), sparse_of([0, 1], [0.5, 0.1]), 1, "ns", dense_score=score)
    assert floats(found) == [("id0", "0.032795697")]


def test_one_kind_of_vector_alone_is_answered_by_its_own_scores(three: Story) -> None:
    view = three.view()
    for fusion in Fusion:
        sparse = sparse_of([2, 3], [0.5, 0.5])
        found = search_hybrid(view, None, sparse, 1, "ns", dense_score=score, idf=True, fusion=fusion)
        assert floats(found) == [("id2", "0.26666638")]
        found = search_hybrid(view, dense(0.6, 0.8), None, 2, "ns", dense_score=score, fusion=fusion)
        assert floats(found)[0] == ("id2", "1.0")
        assert 0.99 < found[1].closeness < 1
    with pytest.raises(ValueError, match="without a vector"):
        search_hybrid(view, None, None, 1, "ns", dense_score=score)


def test_a_resumed_query_goes_on_as_the_official_clients_expect(three: Story) -> None:
    view = three.view()
    sparse = sparse_of([0], [0.1])
    both = ResumableQuery(view, question(dense(0.1, 0.1), sparse, "ns", fusion=Fusion.DBSF, idf=True))
    (first, second) = both.next(2)
    assert first.found.id == "id2"
    assert first.closeness == pytest.approx(0.617851, abs=2e-7)
    assert floats([second]) == [("id0", "0.5")]
    assert floats(both.next(1)) == [("id1", "0.5")]
    assert both.next(1) == both.next(10) == []
    alone = ResumableQuery(view, question(None, sparse_of([0, 1], [0.1, 0.2]), "ns", idf=True))
    assert floats(alone.next(1)) == [("id0", "0.028608438")]
    assert floats(alone.next(1)) == [("id1", "0.018800145")]
    assert alone.next(1) == []


def plain_cosine(one: list[float], other: list[float]) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.dot(one, other)) / length if length else 0.0


def plain_ranking(story: Story, asked: Row, *, even: bool) -> tuple[list[str], list[str]]:
    """All ids of namespace "one" by dense and by sparse vectors."""
    rows = [row for row in story.rows("one") if is_even(row.id) or not even]
    by_dense = sorted(rows, key=lambda row: -score(Metric.COSINE, plain_cosine(row.dense, asked.dense)))
    weights: dict[int, float] = {}
    for index, value in zip(asked.indices, asked.values, strict=True):
        weights[index] = weights.get(index, 0.0) + value
    weights = {index: value for index, value in weights.items() if value}
    products: dict[str, float] = {}
    for row in rows:
        values: dict[int, float] = {}
        for index, value in zip(row.indices, row.values, strict=True):
            values[index] = values.get(index, 0.0) + value
        shared = [index for index, value in values.items() if value and index in weights]
        if shared:
            products[row.id] = sum(values[index] * weights[index] for index in shared)
    by_sparse = sorted((row.id for row in rows if row.id in products), key=lambda name: -products[name])
    return [row.id for row in by_dense], by_sparse


@pytest.mark.parametrize("seed", range(12))
def test_any_hybrid_answer_is_what_plain_python_fuses(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path, seed, IndexKind.HYBRID)
    for size in (60, 5, 40):
        story.write_some(size, names=200)
        story.delete_some(0.1)
    if seed % 2:
        story.compact()
    view = story.view()
    for even in (False, True):
        asked = story.row("", "asked")
        rankings = plain_ranking(story, asked, even=even)
        fused: dict[str, float] = {}
        for ranking in rankings:
            for rank, name in enumerate(ranking):
                fused[name] = fused.get(name, 0.0) + 1 / (60 + rank)
        order = {row.id: row.order for row in story.rows("one")}
        expected = sorted(fused.items(), key=lambda each: (-each[1], order[each[0]]))
        found = search_hybrid(
            view,
            np.array(asked.dense, np.float32),
            sparse_of(asked.indices, asked.values),
            10,
            "one",
            dense_score=score,
            within=even_ids if even else None,
        )
        assert [name for name, _ in answered(found)] == [name for name, _ in expected[:10]]
        assert dict(answered(found)) == pytest.approx(dict(expected[:10]))


def test_nothing_beyond_what_is_looked_at_belongs_into_an_answer() -> None:
    for count in (1, 10, 1_000):
        best_unseen = 2 / (depth_of(count) + 60)
        worst_of_the_first = 1 / (count - 1 + 60)
        assert best_unseen < worst_of_the_first


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("by", ["dense", "sparse", "both"])
def test_a_resumed_query_returns_everything_once_whatever_happens_meanwhile(
    tmp_path: Path, seed: int, by: str
) -> None:
    story = Story(tmp_path, seed, IndexKind.HYBRID)
    for _ in range(3):
        story.write_some(70, names=80)
    even, asked = bool(seed % 2), story.row("", "asked")
    by_dense, by_sparse = plain_ranking(story, asked, even=even)
    expected = {"dense": by_dense, "sparse": by_sparse, "both": by_dense}[by]
    query = ResumableQuery(
        story.view(),
        question(
            None if by == "sparse" else np.array(asked.dense, np.float32),
            None if by == "dense" else sparse_of(asked.indices, asked.values),
            "one",
            within=even_ids if even else None,
        ),
    )
    found: list[str] = []
    for count in (1, 2, 5, 3, 7, 1_000):
        found += [match.found.id for match in query.next(count)]
        story.write_some(10)
        story.delete_some(0.3)
        story.compact()
    assert query.next(5) == []
    if by == "both":
        assert sorted(found) == sorted(expected)
    else:
        assert found == expected


def test_two_threads_never_get_the_same(tmp_path: Path) -> None:
    story = Story(tmp_path, 1, IndexKind.HYBRID)
    story.write([story.row("one", f"v{number}") for number in range(300)])
    query = ResumableQuery(story.view(), question(np.ones(DIMENSIONS, np.float32), None, "one"))
    found: list[str] = []

    def read() -> None:
        for _ in range(25):
            found.extend(match.found.id for match in query.next(7))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(found) == sorted(row.id for row in story.rows("one"))


def test_found_tells_everything_of_a_row(three: Story) -> None:
    three.rename("ns", "renamed")
    (match,) = search_hybrid(three.view(), dense(3, 4), None, 1, "renamed", dense_score=score)
    found = match.found
    assert (found.id, found.namespace, found.sequence) == ("id2", "renamed", 3)
    assert (found.metadata, found.data) == (b'{"id":"id2"}', "text of id2")
    assert found.values.tolist() == dense(0.3, 0.4).tolist()
    assert found.sparse is not None
    assert [part.tolist() for part in found.sparse] == [
        part.tolist() for part in sparse_of([2, 3], [0.3, 0.4])
    ]
    assert search_hybrid(three.view(), dense(3, 4), None, 1, "ns", dense_score=score) == []


def test_any_number_of_lists_are_fused_with_equals_in_the_order_of_writing(three: Story) -> None:
    """Several on one field too, each with a filter of its own: as Milvus's hybrid search has them."""
    view = three.index.newest.get()
    odd = search(view, dense(0.3, 0.4), 2, "ns", within=lambda segment: ~even_ids(segment))
    lists = [
        search(view, dense(0.1, 0.2), 3, "ns"),
        search_sparse(view, sparse_of([2, 3], [1, 1]), 3, "ns"),
        odd,
    ]
    assert [[match.found.id for match in one] for one in lists] == [
        ["id0", "id1", "id2"],
        ["id2", "id1"],
        ["id1"],
    ]
    fused = fuse_lists(lists, ByRank(1))
    wanted = {"id0": 1 / 2, "id1": 1 / 3 + 1 / 3 + 1 / 2, "id2": 1 / 4 + 1 / 2}
    assert {match.found.id: match.closeness for match in fused} == pytest.approx(wanted)
    assert [match.found.id for match in fused] == ["id1", "id2", "id0"]
    nothing = ByScore((0.0, 0.0, 0.0), (Scored.COSINE, Scored.INNER_PRODUCT, Scored.COSINE))
    assert [match.found.id for match in fuse_lists(lists, nothing)] == ["id0", "id1", "id2"]
    assert fuse_lists([], ByRank()) == []
