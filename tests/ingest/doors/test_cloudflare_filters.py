"""Cloudflare's filters: what each says of any metadata, held against a plain evaluator; and what is refused, in which words.

The evaluator below reads the filter as it was sent and knows nothing of trees, columns or codes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ingest.doors.cloudflare.filters import parse_filter
from tests.making import Client, delete, drain, make_engine, make_index, upsert
from upwell.changeset import Operation, about_property
from upwell.engine import Engine, Index
from upwell.errors import Invalid
from upwell.properties import MetadataIndex, PropertyType
from upwell.query.search import search
from upwell.shard.filter import Covered

BYTES_MAX = 2_048
NOTHING = object()

# The evaluator.


def value_of(metadata: Any, path: str) -> Any:
    """The value at a dotted path; NOTHING without one."""
    for key in path.split("."):
        if not isinstance(metadata, dict) or key not in metadata:
            return NOTHING
        metadata = metadata[key]
    return metadata


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(value: Any, wanted: Any) -> bool:
    if is_number(value) and is_number(wanted):
        return float(value) == float(wanted)
    return type(value) is type(wanted) and not isinstance(value, dict | list) and bool(value == wanted)


def ordered(value: Any, bound: Any, compare: Callable[[Any, Any], bool]) -> bool:
    if is_number(value) and is_number(bound):
        return compare(float(value), float(bound))
    if isinstance(value, str) and isinstance(bound, str):
        return compare(value.encode(), bound.encode())
    return False


TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": same,
    "$ne": lambda value, wanted: not same(value, wanted),
    "$in": lambda value, wanted: any(same(value, one) for one in wanted),
    "$nin": lambda value, wanted: not any(same(value, one) for one in wanted),
    "$lt": lambda value, bound: ordered(value, bound, lambda a, b: a < b),
    "$lte": lambda value, bound: ordered(value, bound, lambda a, b: a <= b),
    "$gt": lambda value, bound: ordered(value, bound, lambda a, b: a > b),
    "$gte": lambda value, bound: ordered(value, bound, lambda a, b: a >= b),
}


def lets_through(asked: dict[str, Any], metadata: Any, covers: Callable[[str, Any], bool]) -> bool:
    for path, condition in asked.items():
        value = value_of(metadata, path)
        if value is NOTHING or not covers(path, value):
            return False
        tests = condition if isinstance(condition, dict) else {"$eq": condition}
        if not all(TESTS[operator](value, wanted) for operator, wanted in tests.items()):
            return False
    return True


def is_of(kind: PropertyType, value: Any) -> bool:
    if value is None:
        return True
    if kind is PropertyType.NUMBER:
        return is_number(value)
    return isinstance(value, str if kind is PropertyType.STRING else bool)


def covering(declared: dict[str, PropertyType], written_late: bool) -> Callable[[str, Any], bool]:
    """Does the index on a property, if there is one, cover a value of such a row?"""
    return lambda path, value: path not in declared or (is_of(declared[path], value) and written_late)


# What is asked, and of what.

WORDS = ["", "a", "ab", "b", "é", "\uffff", "😀", "net", "neu", "true", "1"]
NUMBERS = [0, 1, -1, 2.5, 1e300, -0.0, 2**53 + 1]
SCALARS: st.SearchStrategy[Any] = (
    st.sampled_from(WORDS) | st.sampled_from(NUMBERS) | st.booleans() | st.none() | st.text(max_size=3)
)
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = SCALARS | st.lists(SCALARS, max_size=2)
METADATA = st.none() | st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=2), max_size=3)
PATHS = st.sampled_from(["a", "b", "c", "a.b", "a.c", "b.a", "d"])
BOUNDS = st.sampled_from([word for word in WORDS if word]) | st.sampled_from(NUMBERS)
RANGES = st.tuples(st.sampled_from(["$gt", "$gte"]), st.sampled_from(["$lt", "$lte"]), BOUNDS, BOUNDS).filter(
    lambda given: isinstance(given[2], str) == isinstance(given[3], str)
)
CONDITIONS = (
    SCALARS
    | st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$eq", "$ne"]), SCALARS)
    | st.builds(
        lambda operator, values: {operator: values},
        st.sampled_from(["$in", "$nin"]),
        st.lists(SCALARS, max_size=4),
    )
    | st.builds(
        lambda operator, bound: {operator: bound}, st.sampled_from(["$lt", "$lte", "$gt", "$gte"]), BOUNDS
    )
    | RANGES.map(lambda given: {given[0]: given[2], given[1]: given[3]})
)
FILTERS = st.dictionaries(PATHS, CONDITIONS, min_size=1, max_size=3)
DECLARED = st.dictionaries(PATHS, st.sampled_from(PropertyType), max_size=3)


def created(path: str, kind: PropertyType) -> Any:
    return about_property(Operation.CREATE_METADATA_INDEX, MetadataIndex(property=path, type=kind))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.lists(METADATA, max_size=8),
    after=st.lists(METADATA, max_size=8),
    declared=DECLARED,
    filters=st.lists(FILTERS, min_size=1, max_size=6),
    backfill=st.booleans(),
    apart=st.booleans(),
    gone=st.sets(st.integers(0, 15), max_size=4),
)
def test_a_filter_says_what_a_plain_evaluator_says(
    before: list[Any],
    after: list[Any],
    declared: dict[str, PropertyType],
    filters: list[dict[str, Any]],
    backfill: bool,
    apart: bool,
    gone: set[int],
) -> None:
    """Rows of before and after the indexes were made, in one commit or in several; some deleted again."""
    assume(before or after)
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(Path(folder))
        index = make_index(engine)
        rows = [(f"v{number}", (number, 1), None, one) for number, one in enumerate(before + after)]
        steps = [
            *([upsert(*rows[: len(before)])] if before else []),
            *(created(path, kind) for path, kind in declared.items()),
            *([upsert(*rows[len(before) :])] if after else []),
            delete(*(f"v{number}" for number in gone), "nobody"),
        ]
        client = Client(index)
        for one in steps:
            client.append(one)
            if apart:
                drain(engine, index)
        drain(engine, index)
        view = index.newest.get()
        for asked in filters:
            found = search(
                view,
                np.array([0, 0], np.float32),
                100,
                within=Covered(
                    parse_filter(asked, BYTES_MAX), view.manifest.metadata_indexes, backfill=backfill
                ),
            )
            expected = {
                f"v{number}"
                for number, metadata in enumerate(before + after)
                if number not in gone
                and lets_through(asked, metadata, covering(declared, backfill or number >= len(before)))
            }
            assert {match.found.id for match in found} == expected, asked


EVERY_VALUE: list[Any] = [NOTHING, *WORDS, *NUMBERS, True, False, None, [], ["a"], {}, {"b": 1}]


def test_every_operator_on_every_value(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine)
    rows = [
        (f"v{n}", (n, 1), None, {} if one is NOTHING else {"a": one}) for n, one in enumerate(EVERY_VALUE)
    ]
    Client(index).append(upsert(*rows))
    drain(engine, index)
    operands = [*WORDS, *NUMBERS, True, False, None]
    conditions: list[Any] = [{operator: one} for operator in ("$eq", "$ne") for one in operands]
    conditions += [{operator: [one, "b", 2.5]} for operator in ("$in", "$nin") for one in operands]
    bounds = [*WORDS, *NUMBERS]
    conditions += [{operator: one} for operator in ("$lt", "$lte", "$gt", "$gte") for one in bounds]
    view = index.newest.get()
    for condition in conditions:
        covered = Covered(parse_filter({"a": condition}, BYTES_MAX), (), backfill=True)
        found = search(view, np.array([0, 0], np.float32), 100, within=covered)
        expected = {name for name, _, _, one in rows if lets_through({"a": condition}, one, lambda *_: True)}
        assert {match.found.id for match in found} == expected, condition


# Indexes as mutations.


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def names(index: Index) -> dict[str, str]:
    return {one.index.property: one.index.type for one in index.head.refresh().metadata_indexes}


def results(index: Index) -> list[tuple[str, str | None]]:
    return [(one.state.value, one.error) for one in reversed(index.outcomes.recent(100))]


def test_indexes_are_made_and_deleted_in_order_within_one_batch(engine: Engine, index: Index) -> None:
    drop = about_property(
        Operation.DELETE_METADATA_INDEX, MetadataIndex(property="a", type=PropertyType.STRING)
    )
    Client(index).append(
        created("a", PropertyType.NUMBER),
        created("a", PropertyType.NUMBER),
        created("a", PropertyType.STRING),
        drop,
        drop,
        created("a", PropertyType.STRING),
        created("b", PropertyType.BOOLEAN),
    )
    assert drain(engine, index) == 1
    assert names(index) == {"a": "string", "b": "boolean"}
    states = results(index)
    assert [state for state, _ in states] == ["visible"] * 2 + ["failed"] + ["visible"] * 4
    assert 'there is a metadata index on "a" of type number' in (states[2][1] or "")


def test_one_index_too_many_fails_and_the_next_mutation_goes_on(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, metadata_indexes_max=2)
    index = make_index(engine)
    Client(index).append(*(created(name, PropertyType.STRING) for name in "abc"), upsert(("v", (1, 1))))
    drain(engine, index)
    assert names(index) == {"a": "string", "b": "string"}
    assert results(index)[2:] == [("failed", "too many metadata indexes; max is 2"), ("visible", None)]


def test_a_property_with_an_index_gets_a_column_and_one_without_is_read_from_metadata(
    engine: Engine, index: Index
) -> None:
    client = Client(index)
    client.append(upsert(*((f"v{n}", (n, 1), None, {"a": n, "b": str(n)}) for n in range(50))))
    drain(engine, index)
    segments = [live.segment for shard in index.newest.get().shards for live in shard]
    assert segments and not any(segment.has_column("a") for segment in segments)
    client.append(created("a", PropertyType.NUMBER), upsert(("v0", (9, 9), None, {"a": 7.5})))
    drain(engine, index)
    written = [
        live.segment for shard in index.newest.get().shards for live in shard if live.segment.has_column("a")
    ]
    assert written and not any(segment.has_column("b") for segment in written)
    for segment in written:
        numbers = segment.property_column("a").numbers
        assert numbers is not None and numbers.dtype == np.float64 and len(numbers) == segment.rows


# What is refused.

REFUSED: list[tuple[Any, str]] = [
    ({}, "expected an object that is not empty"),
    ({"a": "x" * BYTES_MAX}, "must have fewer than 2048 bytes, got 2056"),
    ({"k" * 513: 1}, "a key has 513 characters, at most 512"),
    ({"": 1}, "must not be empty"),
    ({"a..b": 1}, "nor have an empty part"),
    ({".a": 1}, "nor have an empty part"),
    ({'a"b': 1}, 'or " or | in it'),
    ({"a|b": 1}, 'or " or | in it'),
    ({"$or": [{"a": 1}]}, "must not start with [$]"),
    ({"a.$b": 1}, "no part of a key starts with [$]"),
    ({"a": {}}, "filter.a: expected a value or an operator, got an empty object"),
    ({"a": {"b": 1}}, 'filter.a: unknown operator the string "b", expected one of [$]eq, [$]ne, '),
    ({"a": {"$exists": True}}, "unknown operator"),
    ({"a": {"$eq": 1, "$ne": 2}}, r"filter.a: \$eq and \$ne cannot be combined"),
    ({"a": {"$gt": 1, "$gte": 2}}, "cannot be combined"),
    ({"a": {"$gt": 1, "$lt": 2, "$ne": 3}}, "cannot be combined"),
    ({"a": {"$gt": 1, "$lt": "b"}}, "expected two numbers or two strings as bounds"),
    ({"a": {"$gt": True}}, r"filter.a.\$gt: expected a string or a number, got true"),
    ({"a": {"$lt": None}}, r"filter.a.\$lt: expected a string or a number, got null"),
    ({"a": {"$in": "x"}}, r"filter.a.\$in: expected an array, got the string"),
    (
        {"a": {"$nin": [1, [2]]}},
        r"filter.a.\$nin\[1\]: expected a string, a number, a boolean or null, got an array",
    ),
    ({"a": [1]}, r"filter.a.\$eq: expected a string, a number, a boolean or null, got an array"),
    ({"a": {"$eq": {"b": 1}}}, r"filter.a.\$eq: expected .* got an object"),
]


@pytest.mark.parametrize(("asked", "says"), REFUSED, ids=lambda value: str(value)[:24])
def test_a_wrong_filter_is_refused_by_name(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as error:
        parse_filter(asked, BYTES_MAX)
    assert re.search(says, error.value.detail), error.value.detail


def test_the_size_of_a_filter_is_that_of_its_compact_json() -> None:
    fits = {"a": "x" * (BYTES_MAX - len('{"a":""}') - 1)}
    assert parse_filter(fits, BYTES_MAX) is not None
    with pytest.raises(Invalid):
        parse_filter({"a": fits["a"] + "x"}, BYTES_MAX)
