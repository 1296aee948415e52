"""Sparse search: what comparing every live row of a namespace gives, by scipy; and how rare a dimension is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings

from tests.making import make_engine, make_index
from tests.querying import NAMESPACES, TERMS, Row, Story, answered, even_ids, floats, is_even, sparse_of
from upwell.kinds import IndexKind
from upwell.query import sparse as searching
from upwell.query.sparse import search_sparse


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        # So that what is added up comes in several pieces, or in one.
        patch.setattr(searching, "ADDED_AT_ONCE", 20)
        yield


def matrix_of(vectors: list[tuple[list[int], list[float]]]) -> scipy.sparse.csr_array:
    """A row each; negative dimensions moved up; what is there twice added up."""
    place = [(row, index + 2) for row, (indices, _) in enumerate(vectors) for index in indices]
    made = scipy.sparse.coo_array(
        (
            np.array([value for _, values in vectors for value in values], np.float64),
            ([row for row, _ in place], [index for _, index in place]),
        ),
        shape=(len(vectors), TERMS),
    ).tocsr()
    made.sum_duplicates()
    made.eliminate_zeros()
    return made


def truth(
    rows: list[Row], query: tuple[list[int], list[float]], *, even: bool, idf: bool
) -> list[tuple[str, float]]:
    """Every row that shares a dimension, best first; ``rows`` are in the order of writing."""
    if not rows:
        return []
    held, asked = matrix_of([(row.indices, row.values) for row in rows]), matrix_of([query])
    has, weights = held.toarray() != 0, asked.toarray()[0]
    shares = (has & (weights != 0)).any(axis=1)
    if idf:
        holding = has.sum(axis=0)
        weights = weights * np.log((len(rows) - holding + 0.5) / (holding + 0.5) + 1)
    scores = held @ weights
    found = [
        (row.id, float(score))
        for row, score, shared in zip(rows, scores, shares, strict=True)
        if shared and not (even and not is_even(row.id))
    ]
    return sorted(found, key=lambda each: -each[1])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([1, 4, 40, 90])),
        st.tuples(st.just("delete"), st.sampled_from([0.1, 0.5, 0.95])),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    min_size=1,
    max_size=6,
)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([IndexKind.SPARSE, IndexKind.HYBRID]),
    shards=st.integers(1, 2),
    steps=STEPS,
    per_posting=st.sampled_from([0, 16]),
    asked=st.lists(
        st.tuples(
            st.sampled_from([1, 3, 10, 500]), st.sampled_from([*NAMESPACES, "nobody's"]), st.booleans()
        ),
        min_size=2,
        max_size=4,
    ),
)
@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_any_answer_is_what_comparing_every_row_gives(
    seed: int,
    kind: IndexKind,
    shards: int,
    steps: list[tuple[str, float]],
    per_posting: int,
    asked: list[tuple[int, str, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "ROWS_PER_POSTING", per_posting)
        story = Story(Path(folder), seed, kind, shards=shards)
        for what, how_much in [("write", 50), *steps]:
            match what:
                case "write":
                    story.write_some(int(how_much))
                case "delete":
                    story.delete_some(how_much)
                case _:
                    story.compact()
        view = story.view()
        for count, namespace, even in asked:
            its = story.row("", "asked")
            query, within = sparse_of(its.indices, its.values), even_ids if even else None
            found = answered(search_sparse(view, query, count, namespace, within=within))
            plain = (its.indices, its.values)
            assert found == truth(story.rows(namespace), plain, even=even, idf=False)[:count]
            weighed = search_sparse(view, query, 500, namespace, within=within, idf=True)
            expected = truth(story.rows(namespace), plain, even=even, idf=True)
            assert {match.found.id: match.closeness for match in weighed} == pytest.approx(
                dict(expected), rel=1e-6, abs=1e-6
            )
            scores = [match.closeness for match in weighed]
            assert scores == sorted(scores, reverse=True)
            assert {match.found.namespace or "" for match in weighed} <= {namespace}


def three(folder: Path) -> Story:
    """The three rows of the official clients' tests."""
    story = Story(folder, 0, IndexKind.HYBRID)
    story.write(
        [
            Row("ns", "id0", [0.1, 0.2, 0], [0, 1], [0.1, 0.2]),
            Row("ns", "id1", [0.2, 0.3, 0], [1, 2], [0.2, 0.3]),
            Row("ns", "id2", [0.3, 0.4, 0], [2, 3], [0.3, 0.4]),
        ]
    )
    return story


def test_weighed_scores_are_those_that_the_official_clients_expect(tmp_path: Path) -> None:
    view = three(tmp_path).view()
    found = search_sparse(view, sparse_of([0, 1], [0.1, 0.2]), 3, "ns", idf=True)
    assert floats(found) == [("id0", "0.028608438"), ("id1", "0.018800145")]
    found = search_sparse(view, sparse_of([2, 3], [0.5, 0.5]), 1, "ns", idf=True)
    assert floats(found) == [("id2", "0.26666638")]


def test_rarity_is_that_of_the_namespace_now_and_not_of_what_a_filter_leaves(tmp_path: Path) -> None:
    story = three(tmp_path)
    query = sparse_of([0, 1], [0.1, 0.2])
    before = floats(search_sparse(story.view(), query, 3, "ns", idf=True))
    filtered = search_sparse(story.view(), query, 3, "ns", within=even_ids, idf=True)
    assert floats(filtered) == before[:1]
    story.write([Row("", "elsewhere", [1, 1, 1], [0, 1], [1, 1]), Row("ns", "more", [1, 1, 1], [0], [1])])
    assert floats(search_sparse(story.view(), query, 4, "ns", idf=True))[1:] != before
    story.delete([("ns", "more")])
    assert floats(search_sparse(story.view(), query, 3, "ns", idf=True)) == before


def test_a_row_is_found_by_a_dimension_that_it_shares_whatever_comes_of_it(tmp_path: Path) -> None:
    story = Story(tmp_path, 0, IndexKind.SPARSE)
    story.write(
        [
            Row("", "less", [], [1], [-2]),
            Row("", "nothing", [], [1, 2], [1, -1]),
            Row("", "cancelled", [], [1, 1], [1, -1]),
            Row("", "zero", [], [1], [0]),
            Row("", "another's", [], [3], [1]),
            Row("", "empty", [], [], []),
            Row("", "much", [], [2**31 - 1, -(2**31), 1], [1, 1, 0.5]),
        ]
    )
    view = story.view()
    assert answered(search_sparse(view, sparse_of([2, 1], [1, 1]), 9, "")) == [
        ("much", 0.5), ("nothing", 0.0), ("less", -2.0),
    ]  # fmt: skip
    assert answered(search_sparse(view, sparse_of([1, 3, 1, 3], [1, 2, 1, -2]), 9, "")) == [
        ("nothing", 2.0), ("much", 1.0), ("less", -4.0),
    ]  # fmt: skip
    assert answered(search_sparse(view, sparse_of([-(2**31), 2**31 - 1], [3, 4]), 9, "")) == [("much", 7.0)]
    assert search_sparse(view, sparse_of([], []), 9, "") == []
    assert search_sparse(view, sparse_of([], []), 9, "", idf=True) == []
    assert search_sparse(view, sparse_of([7], [1]), 9, "", idf=True) == []


def test_a_sum_that_no_float32_holds_is_the_largest_there_is(tmp_path: Path) -> None:
    story = Story(tmp_path, 0, IndexKind.SPARSE)
    story.write([Row("", "much", [], [1, 1], [3e38, 3e38]), Row("", "none", [], [1, 1, 1], [3e38, 3e38, 1])])
    (first, second) = search_sparse(story.view(), sparse_of([1], [1]), 9, "")
    assert [first.found.id, second.found.id] == ["much", "none"]
    largest = float(np.finfo(np.float32).max)
    assert first.closeness == second.closeness == largest
    both = search_sparse(story.view(), sparse_of([1, 1, 2], [3e38, 3e38, 1]), 9, "")
    assert [match.closeness for match in both] == [largest, largest]


def test_of_equals_the_first_written_come_first_however_many_there_are(tmp_path: Path) -> None:
    story = Story(tmp_path, 0, IndexKind.SPARSE, shards=3)
    for start in (600, 300, 0):
        story.write([Row("", f"v{number:03}", [], [5], [1]) for number in range(start, start + 300)])
    story.write([Row("", "v600", [], [5], [1])])
    expected = [row.id for row in story.rows("")]
    assert expected[0] == "v601"
    for _ in range(2):
        found = search_sparse(story.view(), sparse_of([5], [2]), 700, "")
        assert [match.found.id for match in found] == expected[:700]
        story.compact()


def test_an_index_of_dense_vectors_has_none(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    with pytest.raises(ValueError, match="no sparse"):
        search_sparse(index.newest.get(), sparse_of([1], [1]), 3, "")
