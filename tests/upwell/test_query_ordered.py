"""Rows in the order of writing: every page, every cursor, while others write; those of old formats first; one by chance."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from tests.querying import NAMESPACES, SCOPE, Story
from upwell.changeset import Changeset, Operation
from upwell.errors import Invalid
from upwell.kinds import IndexKind
from upwell.query import ordered
from upwell.query.lookup import lookup
from upwell.query.ordered import random_row, range_rows, with_prefix
from upwell.query.scan import Scan
from upwell.shard.segment import Segment


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path, 1, IndexKind.DENSE)


def everything(story: Story, namespace: str, limit: int, prefix: str | None = None) -> list[str]:
    """All ids, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page, cursor = range_rows(story.view(), namespace, cursor, limit, prefix)
        assert len(page) <= limit
        found += [one.id for one in page]
        if not cursor:
            return found


def test_a_cursor_is_how_far_one_has_come(story: Story) -> None:
    story.write([story.row("", f"id-{number}") for number in range(20)])
    page, cursor = range_rows(story.view(), "", "0", 5)
    assert [one.id for one in page] == [f"id-{number}" for number in range(5)]
    assert [one.sequence for one in page] == [1, 2, 3, 4, 5]
    assert cursor == "5"
    page, cursor = range_rows(story.view(), "", cursor, 14)
    assert ([one.id for one in page][-1], cursor) == ("id-18", "19")
    page, cursor = range_rows(story.view(), "", cursor, 5)
    assert ([one.id for one in page], cursor) == (["id-19"], "")


@pytest.mark.parametrize("limit", [10, 20])
def test_nothing_follows_a_last_page_that_is_just_full(story: Story, limit: int) -> None:
    story.write([story.row("", f"id-{number}") for number in range(20)])
    cursor = "0" if limit == 20 else "10"
    page, cursor = range_rows(story.view(), "", cursor, limit)
    assert (len(page), page[-1].id, cursor) == (limit, "id-19", "")
    assert range_rows(story.view(), "", "20", 10) == ([], "")
    assert range_rows(story.view(), "nobody's", "", 10) == ([], "")


@pytest.mark.parametrize(
    "cursor", ["-1", "x", "00-", "0-xyz", "0-12", " 1", "1 ", "1.0", "٣", "18446744073709551616", "00"]
)
def test_what_is_no_cursor_is_refused(story: Story, cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        range_rows(story.view(), "", cursor, 10)


def test_the_largest_cursor_is_one(story: Story) -> None:
    story.write([story.row("", "a")])
    assert range_rows(story.view(), "", str(2**64 - 1), 10) == ([], "")
    assert range_rows(story.view(), "", "0-" + 16 * "f", 10)[0][0].id == "a"


def test_a_page_of_no_rows_is_a_mistake(story: Story) -> None:
    with pytest.raises(ValueError, match="without rows"):
        range_rows(story.view(), "", "", 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([1, 4, 30])),
        st.tuples(st.just("delete"), st.sampled_from([0.1, 0.5])),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    max_size=6,
)


@given(seed=st.integers(0, 2**32 - 1), steps=STEPS, limit=st.integers(1, 30), shards=st.integers(1, 3))
@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_any_namespace_is_read_in_the_order_of_writing(
    seed: int, steps: list[tuple[str, float]], limit: int, shards: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), seed, IndexKind.DENSE, shards=shards)
        for step in [("write", 30), *steps]:
            take(story, *step)
        for namespace in NAMESPACES:
            expected = [row.id for row in story.rows(namespace)]
            assert everything(story, namespace, limit) == expected
            alike = [name for name in expected if name.startswith("v1")]
            assert everything(story, namespace, limit, "v1") == alike
            assert [one.id for one in with_prefix(story.view(), namespace, "v1", limit)] == alike[:limit]
            assert {one.namespace or "" for one in with_prefix(story.view(), namespace, "", 99)} <= {
                namespace
            }


def take(story: Story, what: str, how_much: float) -> None:
    match what:
        case "write":
            story.write_some(int(how_much))
        case "delete":
            story.delete_some(how_much)
        case _:
            story.compact()


@given(
    seed=st.integers(0, 2**32 - 1), between=st.lists(STEPS, min_size=3, max_size=12), limit=st.integers(1, 9)
)
@settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_who_reads_on_sees_each_row_that_stays_exactly_once(
    seed: int, between: list[list[tuple[str, float]]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), seed, IndexKind.DENSE)
        story.write_some(120)
        before = {row.id: row.order for row in story.rows("one")}
        found: list[str] = []
        cursor, steps = "", iter(between)
        while True:
            page, cursor = range_rows(story.view(), "one", cursor, limit)
            found += [one.id for one in page]
            if not cursor:
                break
            for step in next(steps, []):
                take(story, *step)
        stayed = [row.id for row in story.rows("one") if before.get(row.id) == row.order]
        seen = Counter(found)
        assert [name for name in found if name in stayed] == stayed
        assert all(seen[name] == 1 for name in stayed)


def test_an_update_leaves_a_row_where_it_was(story: Story) -> None:
    story.write([story.row("one", f"v{number}") for number in range(5)])
    row = story.row("one", "v1")
    story.client.append(
        Changeset(
            operation=Operation.UPDATE,
            ids=pa.array(["v1"]),
            vectors=np.array([row.dense], np.float32),
            namespaces=pa.array(["one"]),
            received=1,
            details=SCOPE,
        )
    )
    story.drain()
    assert everything(story, "one", 2) == [f"v{number}" for number in range(5)]
    (found,) = lookup(story.view(), ["v1"], "one")
    assert (found.values.tolist(), found.sequence) == (row.dense, 2)


def test_rows_of_before_there_were_sequences_come_first_each_once(story: Story) -> None:
    story.write([story.row(NAMESPACES[number % 3], f"old{number}") for number in range(60)])
    forget_sequences(story)
    story.write([story.row(NAMESPACES[number % 3], f"new{number}") for number in range(30)])
    view = story.view()
    for namespace in NAMESPACES:
        its = [row.id for row in story.rows(namespace)]
        old = {name for name in its if name.startswith("old")}
        for limit in (1, 3, len(old), len(old) + 1, 1_000):
            found = everything(story, namespace, limit)
            assert len(found) == len(its)
            assert set(found[: len(old)]) == old
            assert found[len(old) :] == [name for name in its if name not in old]
        page, cursor = range_rows(view, namespace, "", 3)
        assert cursor.startswith("0-")
        assert len(cursor) == 18
        assert [one.sequence for one in page] == [0, 0, 0]
        # Merged, they are where they were.
    order = everything(story, "one", 7)
    story.compact()
    assert everything(story, "one", 7) == order


def forget_sequences(story: Story) -> None:
    """Make all segments that are open now what a format without sequences would be."""
    for live in story.view().segments():
        live.segment.__dict__["sequence"] = np.zeros(live.segment.rows, np.uint64)


def test_keys_with_one_hash_are_not_parted(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    story.write([story.row("", f"v{number}") for number in range(12)])
    forget_sequences(story)
    monkeypatch.setattr(
        ordered,
        "_hashes_of",
        lambda segment: np.array([int(name[1:]) // 5 for name in ids_of(segment)], np.uint64),
    )
    sizes, cursor, found = [], "", list[str]()
    while True:
        page, cursor = range_rows(story.view(), "", cursor, 2)
        sizes.append(len(page))
        found += [one.id for one in page]
        if not cursor:
            break
    assert sizes == [5, 5, 2]
    assert sorted(found) == sorted(row.id for row in story.rows(""))


def ids_of(segment: Segment) -> Sequence[str]:
    return [str(name) for name in segment.ids.to_pylist()]


@pytest.mark.parametrize("rng", [random.Random(5), np.random.default_rng(5)])
def test_any_row_may_come_up_and_each_as_often(
    story: Story, rng: random.Random | np.random.Generator
) -> None:
    for size in (20, 3, 9):
        story.write([story.row(NAMESPACES[number % 2], f"v{number}") for number in range(size)])
    story.delete([("", "v0"), ("", "v10"), ("one", "v1")])
    view = story.view()
    names = [row.id for row in story.rows("")]
    seen = Counter[str]()
    for _ in range(400 * len(names)):
        found = random_row(view, "", rng)
        assert found is not None
        assert found.namespace is None
        seen[found.id] += 1
    assert set(seen) == set(names)
    # Six standard deviations.
    assert all(abs(times - 400) < 120 for times in seen.values())
    assert random_row(view, "two", rng) is None


def test_a_renamed_namespace_is_the_same_by_its_new_name(story: Story) -> None:
    story.write([story.row("one", f"v{number}") for number in range(8)])
    story.rename("one", "three")
    story.write([story.row("one", "w0"), story.row("three", "w1")])
    assert everything(story, "three", 3) == [*(f"v{number}" for number in range(8)), "w1"]
    assert everything(story, "one", 3) == ["w0"]
    view = story.view()
    assert [one.namespace for one in lookup(view, ["v3", "w0", "w1"], "three")] == ["three", "three"]
    assert lookup(view, ["v3"], "one") == lookup(view, ["v3"]) == []
    scanned = [
        (name, namespace)
        for some in Scan(view, "three").some(4)
        for name, namespace in zip(some.ids, some.namespaces, strict=True)
    ]
    assert {namespace for _, namespace in scanned} == {"three"}
    assert len(scanned) == Scan(view, "three").vectors == 9
    chosen = random_row(view, "three", random.Random(1))
    assert chosen is not None
    assert chosen.namespace == "three"
