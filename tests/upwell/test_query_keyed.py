"""Rows in the order of their ids, and questions about several namespaces: against a dict that went through the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.making import Client, delete, drain, make_engine, make_index, upsert
from tests.plain_filters import written_integer
from tests.querying import NAMESPACES, Story, answered, even_ids, is_even, search_hybrid, sparse_of
from upwell.changeset import KeyScope
from upwell.kinds import IndexKind
from upwell.query import keyed
from upwell.query.keyed import SPARE_ROWS, count_rows, keyed_rows
from upwell.query.lookup import Found
from upwell.query.scan import Scan
from upwell.query.scope import AllBut, Names, RowFilter, asks_for
from upwell.query.search import search
from upwell.query.sparse import search_sparse
from upwell.shard import segment, spaces
from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.segment import Segment

LARGE = 2**53
#: Those that end in a digit, as the stories' filter asks. Others than integers sort among them as texts.
IDS = [str(number) for number in (0, 7, 9, 10, 11, -3, LARGE, LARGE + 1, 2**63 - 1, -(2**63), 2**63)]
IDS += ["-0", "007", "é1", "a2", "A3", "😀4", "1.5"]
CHOICES: list[Names] = [
    None,
    "",
    "one",
    ("",),
    ("one", "two"),
    ("", "two", "two"),
    (),
    ("nobody", "one"),
    "nobody",
    AllBut(("one",)),
    AllBut(("", "two")),
    AllBut(("nobody",)),
    AllBut(("", "one", "two")),
    AllBut(()),
]


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


def held(story: Story, names: Names, *, even: bool = False) -> list[tuple[str, str]]:
    """Ids and namespaces that count."""
    if isinstance(names, AllBut):
        wanted = {row.namespace for row in story.held.values()} - {*names.names}
    else:
        wanted = {*NAMESPACES} if names is None else {names} if isinstance(names, str) else {*names}
    rows = [row for row in story.held.values() if row.namespace in wanted]
    assert all(asks_for(names, row.namespace) == (row in rows) for row in story.held.values())
    return [(row.id, row.namespace) for row in rows if not even or is_even(row.id)]


def as_integers(row: tuple[str, str]) -> tuple[bool, int, bytes, str]:
    """What a row is ordered by."""
    number = written_integer(row[0])
    return number is None, number or 0, row[0].encode(), row[1]


def as_text(row: tuple[str, str]) -> tuple[bytes, str]:
    return row[0].encode(), row[1]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), merged=st.booleans(), spare=st.sampled_from([0, 5, SPARE_ROWS]))
def test_any_page_is_that_part_of_all_rows_in_order(seed: int, merged: bool, spare: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed, "SPARE_ROWS", spare)
        story = Story(Path(folder), seed, IndexKind.DENSE)
        random = np.random.default_rng(seed)
        for _ in range(4):
            story.write(
                [
                    story.row(NAMESPACES[random.integers(3)], IDS[random.integers(len(IDS))])
                    for _ in range(random.integers(1, 25))
                ]
            )
            story.delete_some(0.2)
        if merged:
            story.compact()
        view = story.view()
        for names in CHOICES:
            for within in (None, even_ids):
                expected = held(story, names, even=within is not None)
                assert count_rows(view, names, within) == len(expected)
                for order in (as_text, as_integers):
                    inside = sorted(expected, key=order)
                    offset, limit = (int(one) for one in random.integers(0, len(inside) + 3, 2))
                    for start, count in ((offset, limit), (0, 1), (offset, None), (0, None)):
                        page = keyed_rows(
                            view,
                            namespaces=names,
                            within=within,
                            as_integers=order is as_integers,
                            offset=start,
                            limit=count,
                        )
                        end = None if count is None else start + count
                        assert [(one.id, one.namespace or "") for one in page] == inside[start:end]


def test_where_ids_are_unique_in_the_index(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=2)
    client = Client(index)
    assert list(keyed_rows(index.newest.get(), as_integers=True)) == []
    assert count_rows(index.newest.get()) == 0
    client.append(upsert(*((str(n), (n, 1), "even" if n % 2 == 0 else None) for n in range(40))))
    drain(engine, index)
    client.append(delete("3", "38"))
    drain(engine, index)
    view = index.newest.get()
    page = keyed_rows(view, as_integers=True, offset=1, limit=4)
    assert [(one.id, one.values.tolist()) for one in page] == [
        ("1", [1, 1]), ("2", [2, 1]), ("4", [4, 1]), ("5", [5, 1]),
    ]  # fmt: skip
    assert [one.id for one in keyed_rows(view, namespaces=("even",), limit=3)] == ["0", "10", "12"]
    assert (count_rows(view), count_rows(view, "even"), count_rows(view, ("even", ""))) == (38, 19, 38)


def test_less_than_nothing_is_no_page(tmp_path: Path) -> None:
    view = Story(tmp_path, 1, IndexKind.DENSE).view()
    with pytest.raises(ValueError, match="less than nothing"):
        keyed_rows(view, offset=-1)
    with pytest.raises(ValueError, match="less than nothing"):
        keyed_rows(view, limit=-1)


def test_only_rows_that_are_answered_become_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=2)
    Client(index).append(upsert(*((str(n), (n, 1)) for n in range(500))))
    drain(engine, index)
    answered_rows, least = [], keyed._least

    def watched(keys: pa.Array, count: int | None) -> Rows:
        answered_rows.append(least(keys, count))
        return answered_rows[-1]

    monkeypatch.setattr(keyed, "_least", watched)
    page = keyed_rows(index.newest.get(), as_integers=True, offset=3, limit=4)
    assert [one.id for one in page] == ["3", "4", "5", "6"]
    assert [len(rows) for rows in answered_rows] == [7, 7]


def test_no_row_becomes_an_object_before_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=2)
    Client(index).append(upsert(*((str(n), (n, 1)) for n in range(500))))
    drain(engine, index)
    made = []

    def watched(*arguments: Any) -> Found:
        made.append(Found(*arguments))
        return made[-1]

    monkeypatch.setattr(keyed, "Found", watched)
    everything = keyed_rows(index.newest.get(), as_integers=True)
    assert len(everything) == 500 and not made
    assert [one.id for one in everything[100:103]] == ["100", "101", "102"]
    assert everything[-1].id == "499" and len(made) == 4


def test_of_many_segments_no_more_is_remembered_than_two_pages_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=12)
    Client(index).append(upsert(*((str(n), (n, 1)) for n in range(120))))
    drain(engine, index)
    lengths, real = [], keyed._First.add

    def watched(self: keyed._First, *arguments: Any) -> None:
        real(self, *arguments)
        lengths.append(self._length)

    monkeypatch.setattr(keyed, "SPARE_ROWS", 0)
    monkeypatch.setattr(keyed._First, "add", watched)
    page = keyed_rows(index.newest.get(), as_integers=True, limit=5)
    assert [one.id for one in page] == [str(n) for n in range(5)]
    assert len(lengths) == 24 and 5 <= max(lengths) <= 10


# Several namespaces.


def of_spaces(names: tuple[str, ...]) -> RowFilter:
    """The same as a filter, plainly."""

    def within(segment: Segment) -> Mask:
        column = [None] * segment.rows if segment.namespaces is None else segment.namespaces.to_pylist()
        return np.array([(one or "") in names for one in column])

    return within


def test_a_search_in_several_namespaces(tmp_path: Path) -> None:
    story = Story(tmp_path, 7, IndexKind.HYBRID)
    for _ in range(3):
        story.write_some(40)
        story.delete_some(0.1)
    view = story.view()
    dense, sparse = np.array([1, 0.5, -1], np.float32), sparse_of([0, 1, 2, 3], [1, 2, 1, 1])
    score = lambda _metric, closeness: closeness  # noqa: E731
    for names in (("one",), ("one", ""), ("two", "one"), ("", "one", "two"), ("nobody",), ()):
        within = of_spaces(names)
        found = search(view, dense, 15, names)
        assert answered(found) == answered(search(view, dense, 15, within=within))
        assert len(found) == min(15, len(held(story, names)))
        assert {one.found.namespace or "" for one in found} <= set(names)
        found = search_sparse(view, sparse, 15, names)
        assert answered(found) == answered(search_sparse(view, sparse, 15, within=within))
        found = search_hybrid(view, dense, sparse, 9, names, dense_score=score)
        assert answered(found) == answered(
            search_hybrid(view, dense, sparse, 9, dense_score=score, within=within)
        )
        assert Scan(view, names).vectors == len(held(story, names))
    same: list[tuple[Names, Names]] = [
        ("one", ("one",)),
        (None, ("two", "", "one")),
        (AllBut(("two",)), ("", "one")),
    ]
    for asked in same:
        # Rarity is counted among the rows of all that are asked.
        one, other = (search_sparse(view, sparse, 15, which, idf=True) for which in asked)
        assert answered(one) == answered(other)


def test_of_many_namespaces_a_segment_is_not_read_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=1, key_scope=KeyScope.NAMESPACE)
    names = [f"s{n:02d}" for n in range(50)]
    given = [None, *names] * 2
    Client(index).append(upsert(*((str(n), (n, 1), space) for n, space in enumerate(given))))
    drain(engine, index)
    view = index.newest.get()
    reads: list[str] = []
    real = spaces.in_space

    def watched(namespaces: pa.Array | None, rows: int, identity: str) -> Mask:
        reads.append(identity)
        return real(namespaces, rows, identity)

    monkeypatch.setattr(segment, "in_space", watched)
    some = ("", *names[::2])
    for asked in (some, AllBut(some), AllBut(("s01", "")), ("s01", "s02")):
        reads.clear()
        found = [one.namespace or "" for one in keyed_rows(view, namespaces=asked)]
        wanted = sorted(one or "" for one in given if asks_for(asked, one or ""))
        assert sorted(found) == wanted and count_rows(view, asked) == len(wanted)
        assert len(reads) <= segment.NAMESPACES_KEPT
