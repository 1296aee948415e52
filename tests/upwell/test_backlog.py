"""The backlog of a log: the same numbers as one who reads all of it, whoever appended what, and whatever was told when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.making import Client, delete, drain, make_engine, make_index, prepared, upsert
from upwell.changeset import Changeset, Details, Operation, Selection, without_rows
from upwell.engine import Engine, Index
from upwell.log import backlog as backlog_module
from upwell.log.backlog import Backlog, BacklogSize
from upwell.log.entry import Mutation
from upwell.log.reader import LogReader

ONE = prepared(upsert(("a", (1, 2)))).nbytes


def numbers(size: BacklogSize) -> tuple[int, int]:
    return size.mutations, size.nbytes


def by_reading(index: Index) -> tuple[int, int]:
    """What the backlog is, from scratch."""
    applied = index.head.refresh().applied_through
    entries = [index.log.read(position) for position in range(applied + 1, index.log.tail(applied) + 1)]
    mutations = [one for entry in entries for one in entry.mutations]
    return len(mutations), sum(one.nbytes for one in mutations)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def test_what_others_append_is_counted_by_a_look_and_what_is_applied_no_more(
    engine: Engine, index: Index
) -> None:
    client = Client(index)
    assert numbers(index.load().backlog) == (0, 0)
    client.append(upsert(("a", (1, 2))), delete("b"))
    client.append(upsert(("c", (1, 2))))
    assert numbers(index.backlog.size) == (0, 0)
    assert numbers(index.load().backlog) == by_reading(index)
    assert index.backlog.size.mutations == 3 and index.backlog.size.nbytes > 2 * ONE
    waited = index.backlog.size
    drain(engine, index)
    applied = index.load().backlog
    assert numbers(applied) == (0, 0)
    assert (applied.applied_mutations, applied.applied_nbytes) == (3, waited.nbytes)


def test_rows_that_wait_are_counted_by_namespace_and_removals_are_known(engine: Engine, index: Index) -> None:
    client = Client(index)

    def named(namespace: str | None, *ids: str) -> Changeset:
        return replace(upsert(*((one, (1, 2)) for one in ids)), details=Details(namespace=namespace))

    client.append(named("ns", "a", "b"), named("", "a"), named(None, "c"))
    client.append(
        named("ns", "a"), delete("a"), without_rows(Operation.RESET, Details(selection=Selection()))
    )
    client.append(replace(upsert(("a", (1, 2))), operation=Operation.UPDATE, details=Details(namespace="ns")))
    assert (index.backlog.rows_by_namespace(), index.backlog.last_removal) == ({}, 0)
    index.load()
    assert index.backlog.rows_by_namespace() == {"ns": 3, "": 1, None: 1}
    assert index.backlog.last_removal == 2
    drain(engine, index)
    index.load()
    assert index.backlog.rows_by_namespace() == {}


def test_our_own_count_at_once_and_once(index: Index) -> None:
    client = Client(index)
    client.append(upsert(("a", (1, 2))))
    (mutation,) = index.log.read(1).mutations
    index.backlog.appended(1, [mutation])
    assert numbers(index.backlog.size) == (1, ONE)
    assert numbers(index.load().backlog) == (1, ONE)
    # A look found the next one first.
    client.append(upsert(("b", (1, 2))))
    assert numbers(index.load().backlog) == (2, 2 * ONE)
    index.backlog.appended(2, [mutation])
    assert numbers(index.backlog.size) == (2, 2 * ONE)


def test_our_own_that_was_applied_before_we_were_told_does_not_count(engine: Engine, index: Index) -> None:
    Client(index).append(upsert(("a", (1, 2))))
    (mutation,) = index.log.read(1).mutations
    drain(engine, index)
    index.load()
    index.backlog.appended(1, [mutation])
    assert numbers(index.backlog.size) == (0, 0)


def test_no_entry_is_read_twice(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    really = LogReader.read

    def noted(self: LogReader, position: int) -> Any:
        entry = really(self, position)
        read.append(position)
        return entry

    monkeypatch.setattr(LogReader, "read", noted)
    client = Client(index)
    for _ in range(5):
        client.append(upsert(("a", (1, 2))))
        index.load()
    assert read == [1, 2, 3, 4, 5]


def test_what_was_applied_and_swept_before_we_looked_is_passed_over(engine: Engine, index: Index) -> None:
    client = Client(index)
    for _ in range(3):
        client.append(upsert(("a", (1, 2))))
    drain(engine, index)
    for position in (1, 2, 3):
        engine.store.delete(index.log.key(position))
    client.append(upsert(("b", (1, 2))))
    assert numbers(index.load().backlog) == (1, ONE)


def test_a_long_backlog_is_counted_in_several_looks(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "ENTRIES_READ_MAX", 4)
    client = Client(index)
    for _ in range(10):
        client.append(upsert(("a", (1, 2))))
    looks = [index.load().backlog for _ in range(4)]
    assert [look.mutations for look in looks] == [4, 8, 10, 10]
    assert [look.is_whole for look in looks] == [False, False, True, True]


def test_an_entry_that_cannot_be_read_counts_as_a_mutation(engine: Engine, index: Index) -> None:
    Client(index).append(upsert(("a", (1, 2))))
    engine.store.create(index.log.key(2), b"no entry at all" * 9)
    Client(index).append(upsert(("b", (1, 2))))
    assert numbers(index.load().backlog) == (3, 2 * ONE)


def test_an_entry_that_does_not_say_its_bytes_is_estimated(index: Index) -> None:
    backlog = Backlog(index.log, row_bytes=4 * index.record.dimensions)
    change = prepared(upsert(("a", (1, 2)), ("b", (1, 2)))).mutation
    old = Mutation(operation=change.operation, accepted_at=change.accepted_at, received=2, rows=2)
    assert old.nbytes == 0
    backlog.appended(1, [old])
    assert numbers(backlog.size) == (1, 2 * 4 * 2)


STEPS = st.lists(st.sampled_from(["ours", "told", "theirs", "apply", "look"]), max_size=30)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(steps=STEPS)
def test_any_order_of_things_ends_in_the_true_numbers(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    engine = make_engine(tmp_path_factory.mktemp("backlog"), batch_mutations_max=2)
    index = make_index(engine)
    client, untold = Client(index), list[int]()
    for step in steps:
        match step:
            case "ours":
                client.append(upsert(("a", (1, 2))), delete("b", "c"))
                untold.append(index.log.tail(0))
            case "told":
                for position in untold:
                    index.backlog.appended(position, index.log.read(position).mutations)
                untold.clear()
            case "theirs":
                client.append(upsert(("d", (1, 2))))
            case "apply":
                engine.apply_batch(index.record.id, lambda: True)
            case _:
                assert numbers(index.load().backlog) == by_reading(index)
    assert numbers(index.load().backlog) == by_reading(index)
