"""The filters that all doors share: what each node says of rows, in a segment or not, and their form in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import Client, drain, make_engine, make_index, upsert
from upwell.errors import Corrupt
from upwell.properties import ABSENT, value_at
from upwell.shard.asked import depth, paths
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Contains,
    Covered,
    Every,
    Filter,
    Glob,
    MetadataColumns,
    Not,
    OneOf,
    Present,
    Some,
    Within,
    matching,
)
from upwell.shard.filter_json import filter_from_json, filter_to_json
from upwell.shard.property import READ_AT_ONCE

ROWS: list[Any] = [
    None,
    {},
    {"a": "Istanbul"},
    {"a": "Izmir", "b": ["x", "y", 1]},
    {"a": ["Izmir", True, None, 2.5]},
    {"a": [["x"], {"b": "x"}], "b": []},
    {"a": {"[0]": "x", "b": [{"c": 1}, {"c": 2}]}},
    {"a": 1, "b": [False]},
    {"a": None, "b": "x"},
    {"a": "x\ny", "b": ["é", "😀", "x", "x"]},
]

#: filter, the rows that it lets through
SAID: list[tuple[Filter, list[int]]] = [
    (Contains("b", ("x",)), [3, 9]),
    (Contains("b", (1.0,)), [3]),
    (Contains("b", (True,)), []),
    (Contains("b", (False, "y")), [3, 7]),
    (Contains("a", (None,)), [4]),
    (Contains("a", (1.0, True)), [4]),
    (Contains("a", ("Istanbul",)), []),
    (Contains("a.[0]", ("x",)), [5]),
    (Contains("b", ()), []),
    (Contains("nothing", ("x",)), []),
    (Glob("a", "I*"), [2, 3]),
    (Glob("a", "*"), [2, 3, 9]),
    (Glob("a", "x?y"), [9]),
    (Glob("a.[0]", "I*"), [4]),
    (Glob("nothing", "*"), []),
    (Not(Glob("a", "*")), [0, 1, 4, 5, 6, 7, 8]),
    (OneOf("a.[0]", ("x", "Izmir")), [4, 6]),
    (OneOf("b.[#-1]", (1.0, False, "x")), [3, 7, 9]),
    (OneOf("a.b.[#-1].c", (2.0,)), [6]),
    (Present("b.[0]"), [3, 7, 9]),
    (Present("b.[#-0]"), []),
    (Every((Present("b"), Not(Contains("b", ("x",))))), [5, 7, 8]),
    (Some((Contains("b", ("y",)), Within("a", low=0.0))), [3, 7]),
]


def as_arrow(rows: list[Any]) -> pa.Array:
    return pa.array([None if row is None else orjson.dumps(row) for row in rows], pa.binary())


@pytest.mark.parametrize(("asked", "expected"), SAID, ids=lambda value: str(value)[:40])
def test_what_a_filter_says_of_rows_that_are_in_no_segment(asked: Filter, expected: list[int]) -> None:
    found = matching(asked, len(ROWS), MetadataColumns(as_arrow(ROWS), len(ROWS)))
    assert np.flatnonzero(found).tolist() == expected


def test_it_says_the_same_of_rows_in_a_segment(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=1)
    Client(index).append(upsert(*((f"{n}", (n, 1), None, row) for n, row in enumerate(ROWS))))
    drain(engine, index)
    ((live,),) = index.newest.get().shards
    names = [int(name) for name in live.segment.ids.to_pylist()]
    for _ in range(2):  # the second time from what is kept
        for asked, expected in SAID:
            found = np.flatnonzero(Covered(asked, (), backfill=True)(live.segment)).tolist()
            assert sorted(names[row] for row in found) == expected, asked


def test_many_words_are_found_as_few_are() -> None:
    texts = [f"w{number}é" for number in range(1_000)]
    rows = [{"t": text} for text in [*texts, "z", ""]] + [{"t": 1}, {}]
    asked = [*texts[::2], "", "no", "w1"]
    columns = MetadataColumns(as_arrow(rows), len(rows))
    many = matching(OneOf("t", tuple(asked)), len(rows), columns)
    few = matching(Some(tuple(OneOf("t", (one,)) for one in asked)), len(rows), columns)
    assert many.tolist() == few.tolist() == [row.get("t") in asked for row in rows]


def test_rows_without_any_metadata_have_nothing() -> None:
    columns = MetadataColumns(None, 3)
    asked: list[Filter] = [
        Present("a"),
        OneOf("a", (None,)),
        Contains("a", ("x",)),
        Glob("a", "*"),
        Within("a", low=0.0),
    ]
    assert [matching(one, 3, columns).tolist() for one in asked] == [[False] * 3] * 5
    assert matching(Contains("a", ("x",)), 0, MetadataColumns(None, 0)).tolist() == []


def test_elements_belong_to_their_rows_beyond_what_is_read_at_once() -> None:
    rows = READ_AT_ONCE + 3
    metadata = as_arrow([{"a": [n, "x"] if n % 2 else n} for n in range(rows)])
    columns = MetadataColumns(metadata, rows)
    last = float(rows - 1 if rows % 2 == 0 else rows - 2)
    assert np.flatnonzero(matching(Contains("a", (1.0, last)), rows, columns)).tolist() == [1, int(last)]
    assert (matching(Contains("a", ("x",)), rows, columns) == (np.arange(rows) % 2 == 1)).all()


def test_metadata_that_is_no_json_is_damage() -> None:
    columns = MetadataColumns(pa.array([b"{"], pa.binary()), 1)
    for asked in (Present("a"), Contains("a", (1.0,))):
        with pytest.raises(Corrupt):
            matching(asked, 1, columns)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.[0]", 1),
        ("a.[2].b", 3),
        ("a.[#-1].b", 3),
        ("a.[#-3]", 1),
        ("a.[3]", ABSENT),
        ("a.[#-4]", ABSENT),
        ("a.[#-0]", ABSENT),
        ("a.[-1]", ABSENT),
        ("a.[#]", ABSENT),
        ("a.0", ABSENT),
        ("a.[0x1]", ABSENT),
        ("a.[٣]", ABSENT),
        ("a.[9999999999999999999999]", ABSENT),
        ("a.[" + "1" * 5_000 + "]", ABSENT),  # more digits than Python turns into a number
        ("a", [1, [2], {"b": 3}]),
        ("a.[1].[0]", 2),
        ("[0]", 4),
        ("[#-1]", ABSENT),
        ("a.[0].[0]", ABSENT),
    ],
    ids=lambda value: "absent" if value is ABSENT else repr(value)[:30],
)
def test_a_path_steps_into_arrays(path: str, value: Any) -> None:
    assert value_at({"a": [1, [2], {"b": 3}], "[0]": 4}, path) == value


# The form in the log.

GOLDEN: list[tuple[Filter, str]] = [
    (Present("a.[0]"), '["has","a.[0]"]'),
    (OneOf("a", ("é", 1.0, True, None, 0.1)), '["in","a","é",1.0,true,null,0.1]'),
    (Contains("a", (1.0, True)), '["contains","a",1.0,true]'),
    (Glob("a", "[a-c]*"), '["glob","a","[a-c]*"]'),
    (Within("a", low=1.0), '["within","a",1.0,null,true,true]'),
    (Within("a", high="b", high_included=False), '["within","a",null,"b",true,false]'),
    (
        Some((Every((Present("a"), Not(OneOf("a", (2.0,))))), Every(()))),
        '["or",["and",["has","a"],["not",["in","a",2.0]]],["and"]]',
    ),
]


@pytest.mark.parametrize(("asked", "text"), GOLDEN, ids=lambda value: str(value)[:30])
def test_the_form_in_the_log_never_changes(asked: Filter, text: str) -> None:
    assert orjson.dumps(filter_to_json(asked)).decode() == text
    assert repr(filter_from_json(orjson.loads(text))) == repr(asked)


def test_an_integer_in_json_is_the_number_that_it_is() -> None:
    largest = 2**64 - 1
    for number in (1, 2**53 + 1, -(2**63), largest):
        assert repr(filter_from_json(["in", "a", number])) == repr(OneOf("a", (number,)))
    for beyond in (largest + 1, -(2**63) - 1, 2**70):
        assert repr(filter_from_json(["in", "a", beyond])) == repr(OneOf("a", (float(beyond),)))
        assert filter_to_json(OneOf("a", (beyond,))) == ["in", "a", float(beyond)]


SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
NAMES = st.text("ab.[0]#-é", max_size=5)
BOUNDS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
LEAVES: st.SearchStrategy[Filter] = (
    st.builds(Present, NAMES)
    | st.builds(OneOf, NAMES, st.lists(SCALARS, max_size=4).map(tuple))
    | st.builds(Contains, NAMES, st.lists(SCALARS, max_size=4).map(tuple))
    | st.builds(Glob, NAMES, st.text(max_size=8))
    | st.builds(Within, NAMES, BOUNDS, BOUNDS, st.booleans(), st.booleans())
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Every, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Some, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(asked=FILTERS)
def test_what_was_written_is_read(asked: Filter) -> None:
    # By their words, as 1.0 and true are equal to Python.
    assert repr(filter_from_json(orjson.loads(orjson.dumps(filter_to_json(asked))))) == repr(asked)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["a", "in"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
        | st.tuples(
            st.sampled_from(["has", "in", "contains", "glob", "within", "and", "or", "not"]), inner, inner
        ).map(list)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(data=JSON)
def test_what_is_no_filter_is_corrupt(data: Any) -> None:
    try:
        asked = filter_from_json(data)
    except Corrupt:
        return
    assert len(matching(asked, len(ROWS), MetadataColumns(as_arrow(ROWS), len(ROWS)))) == len(ROWS)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        "has",
        ["has"],
        ["has", 1],
        ["has", "a", "b"],
        ["in"],
        ["in", "a", []],
        ["in", "a", float("nan")],
        ["in", "a", float("inf")],
        ["in", "a", 10**400],
        ["glob", "a", None],
        ["glob", "a", "x" * 1_025],
        ["within", "a", 1.0, 2.0],
        ["within", "a", True, None, True, True],
        ["within", "a", 1.0, None, 1, True],
        ["not"],
        ["not", ["has", "a"], ["has", "b"]],
        ["and", "has"],
        ["xor", ["has", "a"]],
        [["has", "a"]],
    ],
    ids=lambda data: repr(data)[:30],
)
def test_each_thing_that_is_no_filter(data: Any) -> None:
    with pytest.raises(Corrupt):
        filter_from_json(data)


def test_filters_are_only_so_deep() -> None:
    data: Any = ["has", "a"]
    for _ in range(FILTER_DEPTH_MAX - 1):
        data = ["not", data]
    deepest = filter_from_json(data)
    assert depth(deepest) == FILTER_DEPTH_MAX
    assert orjson.loads(orjson.dumps(filter_to_json(deepest))) == data
    assert list(paths(deepest)) == ["a"]
    with pytest.raises(Corrupt):
        filter_from_json(["not", data])
    for _ in range(100_000):
        deepest = Not(deepest)
    assert depth(deepest) == FILTER_DEPTH_MAX + 100_000
