"""What failed mutations were to do is kept, shown and sent again; a damaged log entry fails whole, and a newer one waits."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.making import Client, HandClock, contents, delete, drain, insert, make_engine, make_index, upsert
from upwell.changeset import Operation, about_property
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Invalid, NotFound, TooNew
from upwell.format import VERSION, Kind
from upwell.log.receipt import PLACES_MAX, Receipt, mint
from upwell.outcome import State
from upwell.properties import MetadataIndex, PropertyType


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def damage(index: Index, position: int, offset: int) -> Path:
    """Flip a byte of a log entry, behind the store's back."""
    path = Path(index.log._store.root) / index.log.key(position)  # type: ignore[attr-defined]
    whole = bytearray(path.read_bytes())
    whole[offset] ^= 0x40
    os.chmod(path, 0o644)
    path.write_bytes(bytes(whole))
    return path


def test_a_failed_mutation_is_kept_as_it_was_sent_and_can_be_sent_again(engine: Engine, index: Index) -> None:
    rows = insert(("a", (1, 2), "n", {"k": 1}), ("b", (3, 4)))
    good, bad, gone = Client(index).append(upsert(("x", (0, 0))), rows, delete("x"))
    receipt = Receipt(1, 1)
    engine.apply_batch(index.record.id, lambda: True, broken={receipt: "it broke"})
    outcome = index.outcomes.of(bad)
    assert (outcome.state, outcome.error) == (State.FAILED, "it broke")
    assert [index.outcomes.of(one).state for one in (good, gone)] == [State.VISIBLE] * 2
    assert contents(index) == {}
    kept = index.sent.changeset(bad)
    assert kept.ids.to_pylist() == ["a", "b"] and kept.vectors is not None and rows.vectors is not None
    assert kept.vectors.tolist() == rows.vectors.tolist()
    assert kept.namespaces is not None and kept.namespaces.to_pylist() == ["n", None]
    assert kept.operation is Operation.INSERT
    again = index.sent.again(bad, engine.clock.now())
    position = index.log_writer().append([again])
    drain(engine, index)
    retried = mint(index.record.receipt_key, Receipt(position, 0))
    assert index.outcomes.of(retried).state is State.VISIBLE
    assert {name for _, name in contents(index)} == {"a", "b"}
    # What failed stays failed: its id never flips.
    assert index.outcomes.of(bad).state is State.FAILED


def test_only_what_failed_can_be_sent_again(engine: Engine, index: Index) -> None:
    (fine,) = Client(index).append(upsert(("x", (0, 0))))
    with pytest.raises(Invalid, match="only a mutation that failed"):
        index.sent.again(fine, engine.clock.now())
    assert index.sent.changeset(fine).ids.to_pylist() == ["x"]
    with pytest.raises(NotFound):
        index.sent.changeset("00000000-0001-8000-8000-000000000000")


def test_what_failed_is_kept_after_the_log_let_go_of_it(tmp_path: Path) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, grace_s=10, results_s=10)
    index = make_index(engine)
    large = upsert(*((f"v{n}", (n, n), None, {"t": "x" * 900}) for n in range(2_000)))
    bad, fine = Client(index).append(large, upsert(("x", (0, 0))))
    engine.apply_batch(index.record.id, lambda: True, broken={Receipt(1, 0): "it broke"})
    for _ in range(8):
        clock.pass_s(5)
        index.collector.collect()
    assert list(engine.store.list(f"{index.record.folder}/log")) == []
    assert list(engine.store.list(f"{index.record.folder}/payload")) == []
    assert len(index.sent.changeset(bad)) == 2_000
    with pytest.raises(NotFound, match="kept no longer"):
        index.sent.changeset(fine)


def test_a_metadata_index_that_failed_is_sent_again_too(engine: Engine, index: Index) -> None:
    kinds = (PropertyType.STRING, PropertyType.NUMBER)
    made = [
        about_property(Operation.CREATE_METADATA_INDEX, MetadataIndex(property="p", type=kind))
        for kind in kinds
    ]
    _, bad = Client(index).append(*made)
    drain(engine, index)
    about = index.sent.changeset(bad).metadata_index
    assert about is not None and (about.property, about.type) == ("p", PropertyType.NUMBER)


@pytest.mark.parametrize("offset", [70, 20])
def test_a_damaged_entry_fails_whole_and_those_behind_it_go_on(
    engine: Engine, index: Index, offset: int
) -> None:
    before, lost, lost_too, behind = (
        *Client(index).append(upsert(("before", (1, 1)))),
        *Client(index).append(upsert(("lost", (2, 2))), upsert(("too", (2, 2)))),
        *Client(index).append(upsert(("behind", (3, 3)))),
    )
    damage(index, 2, offset)
    fresh = make_engine(engine.settings.data).find("default", "index")
    drain(make_engine(engine.settings.data), fresh)
    assert {name for _, name in contents(fresh)} == {"before", "behind"}
    for one in (lost, lost_too):
        outcome = fresh.outcomes.of(one)
        assert outcome.state is State.FAILED and "log entry is damaged" in (outcome.error or "")
        with pytest.raises(Corrupt, match="nothing of it can be read"):
            fresh.sent.again(one, engine.clock.now())
    assert [fresh.outcomes.of(one).state for one in (before, behind)] == [State.VISIBLE] * 2
    (failure,) = fresh.head.refresh().failures
    assert (failure.position, failure.places) == (2, PLACES_MAX)
    # All that is left of it is kept for whoever can make something of it.
    assert failure.kept is not None
    (told,) = fresh.outcomes.recent(10, state=State.FAILED)
    assert told.receipt == Receipt(2, 0)
    all_told = fresh.outcomes.applied_after(Receipt(1, 0), 10)
    assert all_told is not None and [one.state for one in all_told.outcomes] == [State.FAILED, State.VISIBLE]


@pytest.mark.parametrize("rows", [1, 2_000])
def test_columns_that_were_damaged_in_the_log_are_never_shown_or_sent_again(
    engine: Engine, index: Index, rows: int
) -> None:
    many = upsert(*((f"v{n}", (1, 2), None, {"t": "x" * 900}) for n in range(rows)))
    bad, fine = Client(index).append(many, upsert(("x", (0, 0))))
    mutation = index.log.read(1).mutations[0]
    path = Path(index.log._store.root) / (mutation.payload or index.log.key(1))  # type: ignore[attr-defined]
    whole = bytearray(path.read_bytes())
    # Still a number, and another one: only a checksum can tell.
    whole[whole.find(struct.pack("<ff", 1, 2)) + 2] ^= 0x40
    os.chmod(path, 0o644)
    path.write_bytes(bytes(whole))
    drain(engine, index)
    assert [index.outcomes.of(one).state for one in (bad, fine)] == [State.FAILED, State.VISIBLE]
    for ask in (index.sent.changeset, lambda one: index.sent.again(one, engine.clock.now())):
        with pytest.raises(Corrupt, match="damaged or gone"):
            ask(bad)


def test_an_entry_of_a_newer_format_waits_for_a_newer_upwell_and_does_not_fail(
    engine: Engine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    Client(index).append(upsert(("a", (1, 1))))
    with monkeypatch.context() as newer_upwell:
        newer_upwell.setitem(VERSION, Kind.LOG_ENTRY, VERSION[Kind.LOG_ENTRY] + 1)
        (newer,) = Client(index).append(upsert(("b", (2, 2))))
    for _ in range(3):
        with pytest.raises(TooNew, match="upgrade it"):
            drain(engine, index)
    assert index.head.refresh().failures == () and index.head.refresh().applied_through == 0
    # Upgraded, so to say.
    monkeypatch.setitem(VERSION, Kind.LOG_ENTRY, VERSION[Kind.LOG_ENTRY] + 1)
    drain(engine, index)
    assert index.outcomes.of(newer).state is State.VISIBLE


def test_one_index_of_a_newer_format_keeps_no_other_from_being_swept(
    engine: Engine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_index(engine, "other")
    Client(other).append(upsert(("a", (1, 1))))
    with monkeypatch.context() as newer_upwell:
        newer_upwell.setitem(VERSION, Kind.MANIFEST, VERSION[Kind.MANIFEST] + 1)
        Client(index).append(upsert(("a", (1, 1))))
        drain(engine, index)
    fresh = make_engine(engine.settings.data)
    assert list(fresh.backlogged()) == [other.record.id]
    with pytest.raises(TooNew):
        fresh.find("default", "index").head.refresh()
