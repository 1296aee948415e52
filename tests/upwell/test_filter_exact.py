"""Filters against a plain evaluator: every node, integers of 64 bits, ids; among rows, in stored columns, and in the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.making import Client, contents, drain, make_engine, make_index, upsert
from tests.plain_filters import (
    NOTHING,
    calculated,
    globbed,
    in_order,
    is_number,
    number_fits,
    written_integer,
)
from upwell.changeset import Details, KeyScope, Operation, Selection, without_rows
from upwell.columns import encode_batch
from upwell.custody import rows as custody_rows
from upwell.errors import Corrupt
from upwell.properties import ABSENT, value_at
from upwell.shard import property as stored
from upwell.shard.asked import depth, globs, leaves, paths
from upwell.shard.comparing import OPERATORS, ORDERS
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Calculated,
    Compared,
    Contains,
    Covered,
    Every,
    Filter,
    Glob,
    Length,
    MetadataColumns,
    Not,
    OfId,
    OneOf,
    Present,
    Some,
    Within,
    matching,
)
from upwell.shard.filter_json import filter_from_json, filter_to_json
from upwell.shard.glob import glob_of, matches
from upwell.shard.identified import IntegerIds
from upwell.shard.metric import Metric
from upwell.shard.property import PropertyColumn, columns_of, decode_property, encode_property
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import Segment, encode_segment
from upwell.shard.vectors import Vectors
from upwell.streamed import joined

LARGE = 2**53
LARGEST = 2**63 - 1


def holds(asked: Filter, name: str, metadata: Any) -> bool:
    """What a filter says of one row, plainly."""
    match asked:
        case Every(parts):
            return all(holds(part, name, metadata) for part in parts)
        case Some(parts):
            return any(holds(part, name, metadata) for part in parts)
        case Not(part):
            return not holds(part, name, metadata)
        case OfId(part):
            number = written_integer(name)
            return fits(part, name) or (number is not None and fits(part, number))
    value = value_at(metadata, asked.path)
    match asked:
        case Present():
            return value is not ABSENT
        case Contains(_, values):
            return isinstance(value, list) and any(fits(OneOf("", values), one) for one in value)
        case Length(_, part):
            return isinstance(value, list) and fits(part, len(value))
        case Calculated(_, operator, operand, part):
            made = calculated(value, operator, operand) if is_number(value) else NOTHING
            return made is not NOTHING and fits(part, made)
        case Compared(_, order, path):
            other = value_at(metadata, path)
            alike = (
                all(map(is_number, (value, other))) or isinstance(value, str) == isinstance(other, str) == 1
            )
            return alike and in_order(value, order, other)
        case OneOf() | Within() | Glob():
            return fits(asked, value)
    raise AssertionError(f"{asked}: words are test_filter_words.py's")


def fits(asked: OneOf | Within | Glob, value: Any) -> bool:
    """What a comparison says of one value."""
    if isinstance(asked, Glob):
        return isinstance(value, str) and globbed(asked.pattern, value)
    if isinstance(asked, OneOf):
        return any(_same(value, one) for one in asked.values)
    bounds: list[tuple[Any, str]] = [
        (one, orders[included])
        for one, orders, included in (
            (asked.low, (">", ">="), asked.low_included),
            (asked.high, ("<", "<="), asked.high_included),
        )
        if one is not None
    ]
    texts = [isinstance(one, str) for one, _ in bounds]
    if any(texts):
        return all(texts) and isinstance(value, str) and all(in_order(value, how, one) for one, how in bounds)
    return is_number(value) and all(number_fits(value, how, bound) for bound, how in bounds)


def _same(value: Any, wanted: Any) -> bool:
    if is_number(value) and is_number(wanted):
        return number_fits(value, "==", wanted)
    return type(value) is type(wanted) and bool(value == wanted)


class StoredColumns(MetadataColumns):
    """Columns as a segment has them once they were written and read."""

    def column(self, path: str) -> PropertyColumn:
        column = decode_property(memoryview(encode_property(super().column(path))))
        assert not column.rounded
        return column


# Numbers that lie so near to one another that it matters how they are kept.
INTEGERS = (
    st.integers(-3, 3)
    | st.sampled_from([LARGE, 2 * LARGE, LARGEST + 1, 2**62, 3_037_000_500]).flatmap(
        lambda near: st.integers(near - 3, near + 3) | st.integers(-near - 3, -near + 3)
    )
    | st.integers(-(2**63), 2**64 - 1)
).filter(lambda number: -(2**63) <= number < 2**64)
DOUBLES = (
    INTEGERS.map(float) | st.sampled_from([0.5, -0.5, 1e300, -1e300, 5e-324]) | st.floats(-9, 9, width=16)
)
NUMBERS = INTEGERS | DOUBLES
TEXTS = st.text("ab*é", max_size=2)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.just({"a": 1})
ROWS = st.lists(
    st.tuples(
        INTEGERS.map(str) | st.sampled_from(["-0", "007", "+1", "1.0", "", " 1", "1" * 30, "é", "-"]) | TEXTS,
        st.none() | st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2),
    ),
    min_size=1,
    max_size=6,
)
PATHS = st.sampled_from(["a", "b", "a.[0]", "c"])
#: Far beyond 64 bits too.
ASKED = NUMBERS | st.integers(-(2**70), 2**70)
WANTED = st.lists(st.none() | st.booleans() | ASKED | TEXTS, max_size=4).map(tuple)
BOUNDS = st.none() | ASKED | TEXTS


def one_of(path: st.SearchStrategy[str]) -> st.SearchStrategy[OneOf]:
    return st.builds(OneOf, path, WANTED)


def within(path: st.SearchStrategy[str]) -> st.SearchStrategy[Within]:
    return st.builds(Within, path, BOUNDS, BOUNDS, st.booleans(), st.booleans())


def glob(path: st.SearchStrategy[str]) -> st.SearchStrategy[Glob]:
    return st.builds(Glob, path, st.text("ab*?é1-", max_size=4))


HERE = st.just("")
OF_NUMBER = one_of(HERE) | within(HERE)
LEAVES: st.SearchStrategy[Filter] = (
    st.builds(Present, PATHS)
    | one_of(PATHS)
    | within(PATHS)
    | glob(PATHS)
    | st.builds(Contains, PATHS, WANTED)
    | st.builds(OfId, OF_NUMBER | glob(HERE))
    | st.builds(Length, PATHS, OF_NUMBER | st.builds(OneOf, HERE, st.lists(st.integers(0, 3)).map(tuple)))
    | st.builds(Calculated, PATHS, st.sampled_from(OPERATORS), ASKED, OF_NUMBER)
    | st.builds(Compared, PATHS, st.sampled_from(ORDERS), PATHS)
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Every, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Some, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=4,
)


def metadata_of(rows: Sequence[tuple[str, Any]]) -> pa.Array:
    return pa.array([None if one is None else orjson.dumps(one) for _, one in rows], pa.binary())


@settings(max_examples=400, deadline=None)
@given(rows=ROWS, asked=FILTERS)
@example(rows=[("1", {"a": 7}), ("2", {"a": -7})], asked=Calculated("a", "/", -2, OneOf("", (3, -3))))
def test_a_filter_says_what_it_says_plainly(rows: list[tuple[str, Any]], asked: Filter) -> None:
    expected = [holds(asked, name, one) for name, one in rows]
    ids = pa.array([name for name, _ in rows], pa.utf8())
    columns = MetadataColumns(metadata_of(rows), len(rows), ids)
    assert matching(asked, len(rows), columns).tolist() == expected
    written = orjson.dumps(filter_to_json(asked))
    travelled = filter_from_json(orjson.loads(written))
    assert orjson.dumps(filter_to_json(travelled)) == written
    kept = StoredColumns(metadata_of(rows), len(rows), ids)
    assert matching(travelled, len(rows), kept).tolist() == expected


NEAR = st.sampled_from([0, LARGE, LARGEST, -LARGEST, 2**62, 3_037_000_500]).flatmap(
    lambda near: st.integers(max(near - 9, -(2**63)), min(near + 9, LARGEST))
)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(NEAR, min_size=1, max_size=5), operator=st.sampled_from(OPERATORS), operand=NEAR)
def test_integers_are_calculated_exactly(values: list[int], operator: str, operand: int) -> None:
    metadata = metadata_of([("", {"a": value}) for value in values])
    results = [calculated(value, operator, operand) for value in values]
    columns = MetadataColumns(metadata, len(values))
    for result in results:
        if result is NOTHING:
            continue
        for wanted in (result, result + 1):
            asked = Calculated("a", operator, operand, OneOf("", (wanted,)))
            expected = [one is not NOTHING and number_fits(one, "==", wanted) for one in results]
            assert matching(asked, len(values), columns).tolist() == expected
    assert not matching(Calculated("a", "%", 0, Within("")), len(values), columns).any()


def test_an_integer_beyond_64_bits_is_its_nearest_double() -> None:
    metadata = pa.array([b'{"a":18446744073709551616}', b'{"a":18446744073709551617}'], pa.binary())
    columns = MetadataColumns(metadata, 2)
    for wanted in (2**64, 2**64 + 1, float(2**64)):
        assert matching(OneOf("a", (wanted,)), 2, columns).tolist() == [True, True]
    assert matching(Within("a", low=2**64 - 1, low_included=False), 2, columns).all()
    assert not matching(Within("a", high=10**400, low=-(10**400)), 2, MetadataColumns(None, 2)).any()
    assert matching(Within("a", high=10**400, low=-(10**400)), 2, columns).all()


def test_who_asks_with_a_double_means_all_that_is_nearest_to_it() -> None:
    # What a door says whose numbers are doubles, as it did before integers were exact.
    rows = [("", {"a": LARGE + more}) for more in range(4)]
    columns = MetadataColumns(metadata_of(rows), 4)
    assert matching(OneOf("a", (float(LARGE),)), 4, columns).tolist() == [True, True, False, False]
    assert matching(Within("a", low=float(LARGE), low_included=False), 4, columns).tolist() == [
        False, False, True, True,
    ]  # fmt: skip
    assert matching(OneOf("a", (LARGE + 1,)), 4, columns).tolist() == [False, True, False, False]


def test_ids_as_integers() -> None:
    least, most = str(-(2**63)), str(LARGEST)
    names = ["0", "-0", "12", "012", "-3", "+3", most, str(LARGEST + 1), least, str(-(2**63) - 1)]
    names += ["", "-", "1e3", " 1", "1 ", "1\n", "٣", "9" * 18, "-" + "9" * 18, "99999999999999999999"]
    found = IntegerIds.of(pa.array(names, pa.utf8()))
    expected = [written_integer(name) for name in names]
    assert found.there.tolist() == [one is not None for one in expected]
    assert found.values[found.there].tolist() == [one for one in expected if one is not None]
    assert len(IntegerIds.of(pa.array([], pa.utf8())).values) == 0


def test_rows_that_have_no_ids_to_ask_for() -> None:
    with pytest.raises(ValueError, match="without ids"):
        matching(OfId(OneOf("", ("a",))), 1, MetadataColumns(None, 1))


# Segments, of now and of before.


def as_rows(rows: Sequence[tuple[str, Any]]) -> SegmentRows:
    numbers = np.arange(len(rows), dtype=np.uint64)
    ids = pa.array([name for name, _ in rows], pa.utf8())
    vectors = Vectors.of(np.ones((len(rows), 2), np.float32))
    return SegmentRows(ids, vectors, None, metadata_of(rows), numbers, numbers)


EXACT = [(str(LARGE + n), {"a": LARGE + n, "b": LARGE + 1, "c": [LARGE + n]}) for n in range(4)]
ASKED_EXACTLY: list[tuple[Filter, list[int]]] = [
    (OneOf("a", (LARGE + 1, LARGE + 3)), [1, 3]),
    (Within("a", low=LARGE + 1, low_included=False), [2, 3]),
    (Within("a", low=LARGE + 1, high=LARGE + 2), [1, 2]),
    (Contains("c", (LARGE + 3,)), [3]),
    (Compared("a", "==", "b"), [1]),
    (Compared("a", ">", "b"), [2, 3]),
    (Calculated("a", "%", 2, OneOf("", (1,))), [1, 3]),
    (Calculated("a", "-", LARGE, Within("", low=2)), [2, 3]),
    (OfId(Within("", high=LARGE + 1)), [0, 1]),
    (OfId(OneOf("", (LARGE + 2, str(LARGE)))), [0, 2]),
    (Length("c", OneOf("", (1.0,))), [0, 1, 2, 3]),
]


@pytest.mark.parametrize("properties", [(), ("a",), ("a", "b", "c")], ids=len)
@pytest.mark.parametrize("old", [False, True], ids=["", "as it was written before"])
def test_a_segment_says_so_too(
    properties: tuple[str, ...], old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        monkeypatch.setattr(
            stored,
            "encode_batch",
            lambda arrays: encode_batch({k: v for k, v in arrays.items() if k != "rest"}),
        )
    encoded = encode_segment("s", as_rows(EXACT), Metric.EUCLIDEAN, KeyScope.INDEX, properties=properties)
    segment = Segment(memoryview(joined(encoded.parts)))
    for _ in range(2):  # the second time from what is kept
        for asked, expected in ASKED_EXACTLY:
            found = np.flatnonzero(Covered(asked, (), backfill=True)(segment)).tolist()
            assert found == expected, asked


def test_a_check_of_a_store_sees_what_doubles_do_not() -> None:
    lists = ([LARGE], [LARGE + 1], [float(LARGE)])
    exact, other, double = (metadata_of([("", {"a": one}) for one in values]) for values in lists)
    ((kept,), (told,), (same,)) = (columns_of(metadata, 1, ["a"]) for metadata in (exact, other, double))
    assert custody_rows._same(kept, same)
    assert not custody_rows._same(kept, told)


def test_a_delete_in_the_log_removes_the_same_rows(tmp_path: Path) -> None:
    rows: list[tuple[str, Any]] = [
        (str(LARGE + n), {"a": LARGE + n, "b": ["x"] * (n % 3)}) for n in range(12)
    ]
    rows += [("007", {"a": 7, "b": 7}), ("word", None)]
    for asked in (
        OfId(Within("", low=LARGE + 3, high=LARGE + 9)),
        Every((Length("b", OneOf("", (2,))), Calculated("a", "%", 2, OneOf("", (1,))))),
        Some((Compared("a", "==", "b"), OneOf("a", (LARGE + 5,)), OfId(Glob("", "w*")))),
    ):
        name = f"index-{len(orjson.dumps(filter_to_json(asked)))}"
        engine = make_engine(tmp_path / name)
        index = make_index(engine, name)
        client = Client(index)
        client.append(upsert(*((name, (1, 2), None, one) for name, one in rows[:8])))
        drain(engine, index)
        # Of the others some are decided in the batch that brings them.
        client.append(upsert(*((name, (1, 2), None, one) for name, one in rows[8:])))
        selection = Selection(namespace=None, filter=filter_to_json(asked))
        client.append(without_rows(Operation.DELETE_MATCHING, Details(selection=selection)))
        drain(engine, index)
        left = {name for name, one in rows if not holds(asked, name, one)}
        assert {name for _, name in contents(index)} == left
        assert 0 < len(left) < len(rows)


# What else is said of a tree, and how it is written.

PART = OneOf("", (1,))
WRITTEN: list[tuple[Filter, str]] = [
    (OfId(OneOf("", (LARGEST, "é"))), '["id",["in","",9223372036854775807,"é"]]'),
    (OfId(Glob("", "a*")), '["id",["glob","","a*"]]'),
    (Length("a", Within("", high=2, high_included=False)), '["length","a",["within","",null,2,true,false]]'),
    (Calculated("a.b", "%", 2, PART), '["calc","a.b","%",2,["in","",1]]'),
    (Calculated("a", "/", 2.0, PART), '["calc","a","/",2.0,["in","",1]]'),
    (Compared("a", "!=", "b"), '["compare","a","!=","b"]'),
]


@pytest.mark.parametrize(("asked", "text"), WRITTEN, ids=lambda value: str(value)[:30])
def test_the_form_in_the_log_never_changes(asked: Filter, text: str) -> None:
    assert orjson.dumps(filter_to_json(asked)).decode() == text
    assert repr(filter_from_json(orjson.loads(text))) == repr(asked)


@pytest.mark.parametrize(
    "data",
    [
        ["id"],
        ["id", "a"],
        ["id", ["has", ""]],
        ["id", ["in", "a", 1]],
        ["id", ["in", "", 1], 2],
        ["id", ["glob", "", "x" * 1_025]],
        ["id", ["not", ["in", "", 1]]],
        ["length", "a"],
        ["length", "a", ["glob", "", "*"]],
        ["length", ["in", "", 1]],
        ["length", "a", ["within", "", 1]],
        ["calc", "a", "+", 1],
        ["calc", "a", "**", 1, ["in", "", 1]],
        ["calc", "a", "+", True, ["in", "", 1]],
        ["calc", "a", "+", "1", ["in", "", 1]],
        ["calc", "a", "+", float("nan"), ["in", "", 1]],
        ["calc", "a", "+", 1, ["in", "a", 1]],
        ["compare", "a", "=", "b"],
        ["compare", "a", ["=="], "b"],
        ["compare", "a", "=="],
    ],
    ids=lambda data: repr(data)[:30],
)
def test_each_thing_that_is_no_filter(data: Any) -> None:
    with pytest.raises(Corrupt):
        filter_from_json(data)


def test_what_a_tree_asks_for() -> None:
    asked = Not(
        Every((OfId(Glob("", "a*")), Compared("a", "<", "b"), Calculated("c", "+", 1, PART), Glob("d", "?")))
    )
    assert list(paths(asked)) == ["a", "b", "c", "d"]
    assert len(list(leaves(asked))) == 4
    assert [one.pattern for one in globs(asked)] == ["a*", "?"]
    assert depth(asked) == 4
    deepest: Filter = OfId(PART)
    for _ in range(FILTER_DEPTH_MAX - 2):
        deepest = Not(deepest)
    assert depth(deepest) == FILTER_DEPTH_MAX
    assert filter_from_json(filter_to_json(deepest)) == deepest
    with pytest.raises(Corrupt):
        filter_from_json(filter_to_json(Not(deepest)))


@given(
    text=st.text("ab[]^-*?\\.%é\n", max_size=9),
    others=st.lists(st.text("ab[]^-*?\\", max_size=4), max_size=5),
)
def test_a_text_as_a_glob_matches_itself_alone(text: str, others: list[str]) -> None:
    words = [text, *others]
    assert matches(pa.array(words, pa.utf8()), glob_of(text)).tolist() == [word == text for word in words]
    assert matches(pa.array([f"<{text}>"]), f"*{glob_of(text)}?").tolist() == [True]
