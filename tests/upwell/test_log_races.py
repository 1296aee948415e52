"""Writers and appliers that sleep: what they knew before, others have overtaken and swept, and they must not believe it still.

All margins are used up on purpose. The other process's clock runs a little faster than ours, so that it sweeps what we
still trust by our own: 50 seconds there are 49 here, and trust is for 50, half the grace period.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.making import (
    Client,
    HandClock,
    contents,
    drain,
    drain_of,
    make_engine,
    make_index,
    prepared,
    upsert,
)
from upwell.engine import Engine, Index
from upwell.errors import Fenced, Unavailable
from upwell.log.writer import LOST_RACES_BEFORE_PROBING

GRACE_S = 100.0


class Elsewhere:
    """Another process on the same store, with a clock of its own."""

    def __init__(self, folder: Path, clock: HandClock) -> None:
        self._clock = clock
        self._ahead = HandClock()
        self._engine = make_engine(folder, clock=self._ahead, grace_s=GRACE_S, results_s=GRACE_S)
        self._index = self._engine.find("default", "index")

    def write(self, *names: str) -> None:
        """An entry for each of ``names``, applied and seen to be applied: in a grace period it is swept."""
        for name in names:
            Client(self._index).append(upsert((name, (1, 1))))
        drain(self._engine, self._index)
        self._engine.collect_garbage(self._index.record.id)

    def half_a_grace_period_passes(self) -> None:
        """Just less than that by our clock."""
        self._clock.pass_s(GRACE_S / 2 - 1)
        self._ahead.pass_s(GRACE_S / 2)
        self._engine.collect_garbage(self._index.record.id)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock) -> Engine:
    return make_engine(tmp_path, clock=clock, grace_s=GRACE_S, results_s=GRACE_S)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


@pytest.fixture
def elsewhere(tmp_path: Path, clock: HandClock, index: Index) -> Elsewhere:
    return Elsewhere(tmp_path, clock)


def before_creating(
    index: Index, monkeypatch: pytest.MonkeyPatch, wanted: str, meanwhile: Callable[[], None]
) -> None:
    """Let ``meanwhile`` happen at the last moment before the first object is created whose name holds ``wanted``."""
    store = index.log._store
    create = store.create

    def slow(key: str, *parts: Any) -> None:
        if wanted in key:
            monkeypatch.setattr(store, "create", create)
            meanwhile()
        create(key, *parts)

    monkeypatch.setattr(store, "create", slow)


def after_creating(
    index: Index, monkeypatch: pytest.MonkeyPatch, wanted: str, meanwhile: Callable[[], None]
) -> None:
    """Let ``meanwhile`` happen when an object was created whose name holds ``wanted``, before the creator knows."""
    store = index.log._store
    create = store.create

    def slow(key: str, *parts: Any) -> None:
        create(key, *parts)
        if wanted in key:
            meanwhile()

    monkeypatch.setattr(store, "create", slow)


def in_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# Writers.


@pytest.mark.parametrize("lost", range(1, LOST_RACES_BEFORE_PROBING))
def test_a_lost_race_renews_no_trust(
    index: Index, clock: HandClock, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """What a writer loses to is still there; what comes after it may be swept by the time the writer gets to it."""
    writer = index.log_writer()
    free = writer.append([prepared(upsert(("a", (1, 1))))]) + 1
    taken = [f"taken-{n}" for n in range(lost + 1)]
    elsewhere.write(*taken)
    swept = free + lost

    def others_sweep() -> None:
        elsewhere.half_a_grace_period_passes()
        assert not index.log.exists(swept)

    before_creating(index, monkeypatch, index.log.key(swept), others_sweep)
    elsewhere.half_a_grace_period_passes()
    assert index.log.exists(free)
    with pytest.raises(Unavailable, match="longer than the log can vouch for"):
        writer.append([prepared(upsert(("lost", (3, 3))))])
    assert index.log.exists(swept), "the create was to succeed where no drain looks"
    assert writer.append([prepared(upsert(("b", (4, 4))))]) == swept + 1
    drain_of(index)
    assert {name for _, name in contents(index)} == {"a", "b", *taken}


def test_time_slept_in_a_create_that_won_counts_against_the_next_position(
    index: Index, clock: HandClock, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = index.log_writer()

    def others_go_on() -> None:
        elsewhere.write("taken")
        elsewhere.half_a_grace_period_passes()

    with monkeypatch.context() as patch:
        after_creating(index, patch, index.log.key(1), others_go_on)
        assert writer.append([prepared(upsert(("a", (1, 1))))]) == 1
    before_creating(index, monkeypatch, index.log.key(2), elsewhere.half_a_grace_period_passes)
    with pytest.raises(Unavailable, match="longer than the log can vouch for"):
        writer.append([prepared(upsert(("lost", (3, 3))))])
    drain_of(index)
    assert {name for _, name in contents(index)} == {"a", "taken"}


def test_a_writer_that_rested_for_long_finds_the_tail_anew(index: Index, elsewhere: Elsewhere) -> None:
    """Its position was taken and swept meanwhile. It does not try it: that would leave an entry where none belongs."""
    writer = index.log_writer()
    assert writer.append([prepared(upsert(("a", (1, 1))))]) == 1
    elsewhere.write("b", "c")
    for _ in range(3):
        elsewhere.half_a_grace_period_passes()
    assert writer.append([prepared(upsert(("d", (4, 4))))]) == 4
    assert not index.log.exists(2)
    drain_of(index)
    assert {name for _, name in contents(index)} == {"a", "b", "c", "d"}


@pytest.mark.parametrize("seconds", [25, 26])
def test_the_time_from_payload_to_entry_is_counted_as_one(
    engine: Engine, clock: HandClock, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A slow payload and a slow entry, each well within what is trusted; nobody else is there to take or sweep anything."""
    wide = make_index(engine, "wide", dimensions=1024)
    large = prepared(upsert(*[(f"v{n}", [1.0] * 1024) for n in range(300)], dimensions=1024))
    writer = wide.log_writer()
    with monkeypatch.context() as patch:
        after_creating(wide, patch, wide.record.folder, lambda: clock.pass_s(seconds))
        if 2 * seconds <= GRACE_S / 2:
            assert writer.append([large]) == 1
        else:
            with pytest.raises(Unavailable, match="longer than its payload is kept"):
                writer.append([large])
    assert wide.log.read(1).mutations[0].payload is not None
    assert writer.append([large]) == 2


# Appliers.


@pytest.mark.parametrize("where", ["opening the view", "before the commit"])
def test_another_threads_look_makes_no_batch_younger(
    tmp_path: Path,
    engine: Engine,
    index: Index,
    clock: HandClock,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Client(index).append(upsert(("a", (1, 1))))
    drain(engine, index)
    Client(index).append(upsert(("b", (2, 2))))
    # A process that has nothing open yet.
    slow = make_engine(tmp_path, clock=clock, grace_s=GRACE_S, results_s=GRACE_S)
    ours = slow.find("default", "index")
    read = slow.store.read

    def sleep_while_a_query_looks() -> None:
        clock.pass_s(GRACE_S / 2 + 1)
        in_another_thread(ours.head.refresh)

    def slow_read(key: str) -> memoryview:
        if where == "opening the view" and "/segment/" in key:
            monkeypatch.undo()
            sleep_while_a_query_looks()
        return read(key)

    def slow_lease() -> bool:
        if where == "before the commit":
            sleep_while_a_query_looks()
        return True

    monkeypatch.setattr(slow.store, "read", slow_read)
    with pytest.raises(Fenced, match="longer than its objects are kept"):
        ours.applier.apply_batch(slow_lease)
    assert index.head.refresh().applied_through == 1
    applied = ours.applier.apply_batch(lambda: True)
    assert applied is not None and applied.through_position == 2


def test_a_stale_batch_never_wins_a_version_that_is_swept(
    tmp_path: Path, engine: Engine, index: Index, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would cost: a batch starts from version 2, version 3 comes and goes, and the batch commits another 3."""
    elsewhere.write("a")
    # Not applied yet when the batch begins.
    Client(index).append(upsert(("b", (2, 2))))
    read = engine.store.read

    def slow_read(key: str) -> memoryview:
        if "/segment/" in key:
            monkeypatch.undo()
            elsewhere.write()
            elsewhere.write("c")
            elsewhere.half_a_grace_period_passes()
            in_another_thread(index.head.refresh)
        return read(key)

    def slow_lease() -> bool:
        elsewhere.half_a_grace_period_passes()
        assert not index.head.chain.exists(3) and index.head.chain.exists(4)
        return True

    monkeypatch.setattr(engine.store, "read", slow_read)
    with pytest.raises(Fenced):
        index.applier.apply_batch(slow_lease)
    assert not index.head.chain.exists(3)
    assert index.head.refresh().applied_through == 3
    assert {name for _, name in contents(index)} == {"a", "b", "c"}
