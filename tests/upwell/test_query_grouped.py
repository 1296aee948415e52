"""Groups of rows: the best rows of the best groups, as brute force has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.making import Client, delete, drain, make_engine, make_index
from tests.querying import small_tiers
from upwell.changeset import Changeset, Operation
from upwell.properties import ABSENT, value_at
from upwell.query import grouped as grouping_module
from upwell.query.grouped import Grouping, grouped, search_grouped
from upwell.query.scope import RowFilter
from upwell.query.search import Match, search
from upwell.shard import merge
from upwell.shard.deletions import Mask
from upwell.shard.metric import Metric
from upwell.shard.segment import Segment
from upwell.shard.view import View

DIMENSIONS = 16
ROWS = 400
#: Of each there are several rows; but of the last ones few. 1 and 1.0 are one number, 2^53 and the next one two; nor are 1, true, "1" one.
VALUES: list[Any] = [
    "a", "b", "", "1", 1, 1.0, True, False, 0, -0.0, 2**53, 2**53 + 1, 2**53 + 2, None, ABSENT, [1], {"x": 1}, 0.5, "rare",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _few_rows_are_asked_for() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        small_tiers(patch, DIMENSIONS)
        patch.setattr(merge, "FOLDED_BYTES_MAX", 0)
        patch.setattr(grouping_module, "FIRST", 3)
        yield


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Segments of any size, some rows deleted; near one corner all rows are of one group."""
    return made(tmp_path_factory.mktemp("grouped"))


def made(folder: Path) -> View:
    engine = make_engine(folder)
    index = make_index(engine, dimensions=DIMENSIONS, metric=Metric.EUCLIDEAN, shards=2)
    random = np.random.default_rng(5)
    vectors = random.integers(-3, 4, (ROWS, DIMENSIONS)).astype(np.float32)
    vectors[:150] = 9 + random.integers(-1, 2, (150, DIMENSIONS))
    values = ["crowd"] * 150 + [VALUES[n] for n in random.integers(0, len(VALUES) - 1, ROWS - 151)] + ["rare"]
    documents = [{} if value is ABSENT else {"o": {"g": value}} for value in values]
    for start, end in ((0, 200), (200, 230), (230, ROWS)):
        chosen = np.arange(start, end)
        Client(index).append(
            Changeset(
                operation=Operation.UPSERT,
                ids=pa.array([f"v{n}" for n in chosen]),
                vectors=vectors[chosen],
                metadata=pa.array([orjson.dumps(documents[n]) for n in chosen], pa.binary()),
                received=len(chosen),
            )
        )
        drain(engine, index)
    Client(index).append(delete(*(f"v{n}" for n in range(0, ROWS - 1, 11))))
    drain(engine, index)
    return index.newest.get()


def even(segment: Segment) -> Mask:
    return np.array([int(name[1:]) % 2 == 0 for name in segment.ids.to_pylist()])


def value_of(match: Match, nothing: Any) -> tuple[str, Any]:
    """What a row is grouped by, plainly: values of several types are several."""
    value = value_at(orjson.loads(match.found.metadata or b"{}"), "o.g")
    if value in (None, ABSENT) or isinstance(value, list | dict):
        value = nothing
    return "number" if type(value) in (int, float) else type(value).__name__, value


def plainly(every: list[Match], groups: int, size: int, nothing: Any = None) -> list[list[str]]:
    """All rows, best first, put to their groups."""
    held: dict[Any, list[str]] = {}
    for match in every:
        held.setdefault(value_of(match, nothing), []).append(match.found.id)
    return [ids[:size] for ids in itertools.islice(held.values(), groups)]


def told(groups: list[list[Match]]) -> list[list[str]]:
    return [[match.found.id for match in rows] for rows in groups]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    crowded=st.booleans(),
    groups=st.integers(1, 25),
    size=st.sampled_from([1, 2, 5, 40, 200]),
    strict=st.booleans(),
    filtered=st.booleans(),
    nothing=st.sampled_from([None, "b", 1, True, 2**53 + 1, "never"]),
)
def test_any_grouping_is_what_brute_force_makes(
    view: View, seed: int, crowded: bool, groups: int, size: int, strict: bool, filtered: bool, nothing: Any
) -> None:
    query = np.random.default_rng(seed).integers(-3, 4, DIMENSIONS).astype(np.float32) + 9 * crowded
    within = even if filtered else None
    every = search(view, query, ROWS, within=within, recall=1)
    asked: list[int] = []

    def ask(count: int, left: RowFilter | None) -> list[Match]:
        asked.append(count)
        return search(view, query, count, within=left, recall=1)

    grouping = Grouping(path="o.g", groups=groups, size=size, strict=strict, nothing=nothing)
    found = told(search_grouped(ask, grouping, within))
    wanted = plainly(every, groups, size, nothing)
    assert told(grouped(every, grouping)) == wanted
    assert len(asked) < 12
    if strict:
        assert found == wanted
        return
    assert [ids[0] for ids in found] == [ids[0] for ids in wanted]
    place = {match.found.id: n for n, match in enumerate(every)}
    last = place[wanted[-1][0]]
    for got, all_of_it in zip(found, wanted, strict=True):
        assert got == all_of_it[: len(got)], "the best of its group"
        assert len(got) >= sum(place[one] < last for one in all_of_it)


def test_what_is_full_is_not_looked_at_again(view: View) -> None:
    """Where all the nearest rows are of one group, the others are found without looking through it."""
    seen: list[list[str]] = []
    query = np.full(DIMENSIONS, 9, np.float32)

    def ask(count: int, left: RowFilter | None) -> list[Match]:
        matches = search(view, query, count, within=left, recall=1)
        seen.append([match.found.id for match in matches])
        return matches

    found = search_grouped(ask, Grouping(path="o.g", groups=3))
    assert len(found) == 3
    assert {len(ids) for ids in seen[1:]} <= {24} and len(seen) == 2
    assert all(int(one[1:]) >= 150 for one in seen[1])


def test_a_property_that_no_row_has_makes_one_group(view: View) -> None:
    query = np.zeros(DIMENSIONS, np.float32)
    (only,) = search_grouped(
        lambda count, left: search(view, query, count, within=left, recall=1),
        Grouping(path="never", groups=5, size=7, strict=True),
    )
    assert [one.found.id for one in only] == [one.found.id for one in search(view, query, 7, recall=1)]


def test_nothing_makes_no_group() -> None:
    assert search_grouped(lambda *_: [], Grouping(path="o.g", groups=5)) == []
    assert grouped([], Grouping(path="o.g", groups=5)) == []


@pytest.mark.parametrize(("groups", "size"), [(0, 1), (1, 0)])
def test_a_grouping_without_rows_is_none(groups: int, size: int) -> None:
    with pytest.raises(ValueError, match="without rows"):
        Grouping(path="k", groups=groups, size=size)


@pytest.mark.parametrize("size", [1, 10])
def test_of_many_large_groups_not_all_rows_are_asked_for_at_once(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping_module, "FIRST_MOST", 1_000)
    counts: list[int] = []

    def none(count: int, _: RowFilter | None) -> list[Match]:
        counts.append(count)
        return []

    grouping = Grouping(path="p", groups=400, size=size, strict=True)
    assert search_grouped(none, grouping) == [] and counts == [min(1_000, 800 * size)]
