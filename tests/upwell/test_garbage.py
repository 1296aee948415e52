"""Collecting garbage: everything superfluous goes in the end, and nothing that anybody may still need goes before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import Client, HandClock, contents, delete, drain, make_engine, make_index, prepared, upsert
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Fenced, NotFound, Unavailable
from upwell.outcome import State

GRACE_S = 100.0
RESULTS_S = 300.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock) -> Engine:
    return make_engine(tmp_path, clock=clock, grace_s=GRACE_S, results_s=RESULTS_S)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def objects(engine: Engine, index: Index, kind: str) -> list[str]:
    return list(engine.store.list(f"{index.record.folder}/{kind}"))


def collect_for(engine: Engine, index: Index, clock: HandClock, seconds: float) -> None:
    """As workers do: a pass each tenth of a grace period."""
    for _ in range(int(seconds / (GRACE_S / 10))):
        engine.collect_garbage(index.record.id)
        clock.pass_s(GRACE_S / 10)
    engine.collect_garbage(index.record.id)


def test_in_the_end_only_the_live_remains(engine: Engine, index: Index, clock: HandClock) -> None:
    client = Client(index)
    for number in range(20):
        client.append(upsert((f"v{number % 7}", (number, 1))))
        drain(engine, index)
    client.append(delete("v0", "v1"))
    drain(engine, index)
    before = contents(index)
    named = {segment.id for segment in index.head.refresh().segments()}
    assert len(objects(engine, index, "segment")) > len(named)
    collect_for(engine, index, clock, RESULTS_S + 3 * GRACE_S)
    assert set(objects(engine, index, "segment")) == named
    assert objects(engine, index, "log") == []
    assert len(objects(engine, index, "manifest")) == 1
    deletions = {segment.deletions.object for segment in index.head.refresh().segments() if segment.deletions}
    assert len(objects(engine, index, "deletions")) == len(deletions)
    assert contents(index) == before
    # A new process finds its way, and the next mutation goes on where the log ended.
    again = make_engine(engine.settings.data, clock=clock, grace_s=GRACE_S, results_s=RESULTS_S)
    reopened = again.find("default", "index")
    assert contents(reopened) == before
    Client(reopened).append(upsert(("new", (5, 5))))
    assert drain(again, reopened) == 1
    assert reopened.head.refresh().applied_through == 22


def test_nothing_goes_within_the_grace_period(engine: Engine, index: Index, clock: HandClock) -> None:
    client = Client(index)
    for number in range(5):
        client.append(upsert(("same", (number, 1))))
        drain(engine, index)
    every = {kind: objects(engine, index, kind) for kind in ("log", "segment", "manifest", "deletions")}
    collect_for(engine, index, clock, GRACE_S * 0.9)
    assert {kind: objects(engine, index, kind) for kind in every} == every


def test_what_waits_in_the_log_never_goes(engine: Engine, index: Index, clock: HandClock) -> None:
    client = Client(index)
    mutations = client.append(upsert(("a", (1, 1)))) + client.append(upsert(("b", (2, 2))))
    collect_for(engine, index, clock, 10 * GRACE_S)
    assert [index.outcomes.of(mutation).state for mutation in mutations] == [State.QUEUED] * 2
    drain(engine, index)
    assert len(contents(index)) == 2


def test_a_batch_being_written_keeps_its_objects_until_it_is_decided(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    """The lease check comes after the objects are written: there a worker sleeps, while another's collector goes round."""
    client = Client(index)
    client.append(upsert(("a", (1, 1))))
    other = make_engine(engine.settings.data, clock=clock, grace_s=GRACE_S, results_s=RESULTS_S)

    def sleep_a_little_and_be_collected() -> bool:
        collect_for(other, other.find("default", "index"), clock, GRACE_S / 2 - 10)
        return True

    assert engine.apply_batch(index.record.id, sleep_a_little_and_be_collected) is not None
    assert contents(index) == {(None, "a"): ([1, 1], None)}

    client.append(upsert(("b", (2, 2))))

    def sleep_for_long_and_be_collected() -> bool:
        collect_for(other, other.find("default", "index"), clock, 3 * GRACE_S)
        return True

    with pytest.raises(Fenced):
        engine.apply_batch(index.record.id, sleep_for_long_and_be_collected)
    assert drain(engine, index) == 1
    assert len(contents(index)) == 2


def test_results_are_told_for_their_period_and_visibility_for_ever(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    (mutation,) = Client(index).append(upsert(("a", (1, 1))))
    drain(engine, index)
    Client(index).append(upsert(("b", (1, 1))))
    drain(engine, index)
    collect_for(engine, index, clock, RESULTS_S / 2)
    fresh = make_engine(engine.settings.data, clock=clock).find("default", "index")
    result = fresh.outcomes.of(mutation).result
    assert result is not None and result.inserted == 1
    collect_for(engine, index, clock, RESULTS_S)
    fresh = make_engine(engine.settings.data, clock=clock).find("default", "index")
    outcome = fresh.outcomes.of(mutation)
    assert (outcome.state, outcome.result, outcome.visible_at) == (State.VISIBLE, None, None)


def test_payloads_go_with_their_entries_and_orphans_go_later(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    wide = make_index(engine, "wide", dimensions=1000)
    rows = [(f"v{number}", [1.0] * 1000) for number in range(300)]
    Client(wide).append(upsert(*rows, dimensions=1000))
    engine.store.create(f"{wide.record.folder}/payload/orphan", b"of a writer that died before its entry")
    assert len(objects(engine, wide, "payload")) == 2
    drain(engine, wide)
    collect_for(engine, wide, clock, 0.9 * GRACE_S)
    assert len(objects(engine, wide, "payload")) == 2
    collect_for(engine, wide, clock, 3 * GRACE_S)
    assert objects(engine, wide, "payload") == []


def test_a_writer_that_slept_with_its_payload_does_not_acknowledge(
    engine: Engine, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = make_index(engine, "wide", dimensions=1000)
    writer = wide.log_writer()
    changeset = prepared(upsert(*[(f"v{number}", [1.0] * 1000) for number in range(300)], dimensions=1000))
    create = engine.store.create

    def sleep_after_the_payload(key: str, *parts: bytes) -> None:
        create(key, *parts)
        if "/payload/" in key:
            collect_for(engine, wide, clock, 4 * GRACE_S)

    monkeypatch.setattr(engine.store, "create", sleep_after_the_payload)
    with pytest.raises(Unavailable):
        writer.append([changeset])
    monkeypatch.undo()
    # The entry is in the log, its payload is gone: it fails, visibly, and what follows goes on.
    after = Client(wide).append(upsert(("next", [0.0] * 1000), dimensions=1000))
    drain(engine, wide)
    assert wide.outcomes.of(after[0]).state is State.VISIBLE
    assert [failure.position for failure in wide.head.refresh().failures] == [1]


@pytest.mark.parametrize("damaged", ["record", "event"])
def test_a_damaged_index_is_not_taken_for_a_dead_one(
    engine: Engine, index: Index, clock: HandClock, damaged: str
) -> None:
    Client(index).append(upsert(("a", (1, 1))))
    store = engine.settings.data / "store"
    path = (
        store / index.record.folder / "record"
        if damaged == "record"
        else store / f"catalog/default/index/{1:020d}"
    )
    path.write_bytes(path.read_bytes()[:70])
    other = make_engine(engine.settings.data, clock=clock, grace_s=GRACE_S)
    for _ in range(4):
        try:
            assert other.collect_dead_indexes() == 0
        except Corrupt:
            assert damaged == "event"
        clock.pass_s(GRACE_S)
    assert len(objects(engine, index, "log")) == 1


def test_a_dead_index_goes_whole_and_its_successor_stays(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    Client(index).append(upsert(("a", (1, 1))))
    drain(engine, index)
    engine.catalog.delete("default", "index")
    successor = make_index(engine)
    Client(successor).append(upsert(("b", (2, 2))))
    drain(engine, successor)
    assert engine.collect_dead_indexes() == 0
    clock.pass_s(GRACE_S - 1)
    assert engine.collect_dead_indexes() == 0
    clock.pass_s(2)
    assert engine.collect_dead_indexes() == 1
    assert list(engine.store.list("index")) == [successor.record.id]
    assert contents(successor) == {(None, "b"): ([2, 2], None)}
    with pytest.raises(NotFound):
        engine.index(index.record.id)
