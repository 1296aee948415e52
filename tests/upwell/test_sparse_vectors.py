"""Sparse vectors in rows: chosen, joined, written and read again, they are what was sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.shard.postings import Postings
from upwell.sparse import Sparse, concat_sparse

ROW = st.lists(st.tuples(st.integers(-2, 5), st.integers(-3, 3).map(float)), max_size=5)
ROWS = st.lists(ROW, max_size=8)

Row = list[tuple[int, float]]


def made(rows: list[Row]) -> Sparse:
    return Sparse.of([([index for index, _ in row], [value for _, value in row]) for row in rows])


def plain(sparse: Sparse) -> list[Row]:
    return [
        list(zip(*(part.tolist() for part in sparse.row(place)), strict=True)) for place in range(len(sparse))
    ]


@given(rows=ROWS, data=st.data())
def test_rows_are_taken_joined_and_read_as_they_were_sent(rows: list[Row], data: st.DataObject) -> None:
    sparse = made(rows)
    assert plain(sparse) == rows
    assert plain(Sparse.from_arrow(*sparse.to_arrow())) == rows
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)) if rows else []
    taken = sparse.take(np.array(places, np.int64))
    assert plain(taken) == [rows[place] for place in places]
    assert plain(concat_sparse([sparse, taken, sparse])) == rows + [rows[place] for place in places] + rows
    assert plain(concat_sparse([])) == []
    kinds = [part.dtype.name for part in (sparse.indptr, sparse.indices, sparse.values)]
    assert kinds == ["int64", "int32", "float32"]


@given(rows=ROWS, start=st.integers(0, 8))
def test_a_slice_of_written_rows_is_read_as_what_it_is(rows: list[Row], start: int) -> None:
    indices, values = made(rows).to_arrow()
    assert plain(Sparse.from_arrow(indices.slice(start), values.slice(start))) == rows[start:]


@given(rows=ROWS)
def test_postings_find_each_row_by_what_it_has(rows: list[Row]) -> None:
    postings = Postings.build(made(rows))
    found = {
        (int(row), int(postings.terms[place])): float(value)
        for place, its_rows, values in postings.of(postings.terms)
        for row, value in zip(its_rows, values, strict=True)
    }
    expected: dict[tuple[int, int], float] = {}
    for number, row in enumerate(rows):
        for index, value in row:
            expected[number, index] = expected.get((number, index), 0) + value
    assert found == {key: value for key, value in expected.items() if value}
    assert list(postings.of(np.array([99], np.int32))) == []


def test_what_does_not_fit_together_is_refused() -> None:
    whole = made([[(1, 1.0)], [(2, 2.0)]])
    indices, values = whole.to_arrow()
    with pytest.raises(ValueError, match="lengths"):
        Sparse.from_arrow(indices, values.slice(1))
    with pytest.raises(ValueError, match="fit"):
        Sparse(whole.indptr, whole.indices, whole.values[:1])
