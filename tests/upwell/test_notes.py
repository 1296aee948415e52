"""Notes: what is acknowledged of them stays, whoever changes them at once, sleeps, or asks a store that loses its answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dict_store import DictStore
from tests.faulty_store import Day, FaultyStore
from tests.making import HandClock, make_engine, make_index
from tests.racing import WatchedStore
from tests.simulated_disk import SimulatedDisk
from upwell.catalog.notes import NOTES_BYTES_MAX, Notes, OldNotes
from upwell.errors import Corrupt, Invalid, NotFound, TooLarge, Unavailable
from upwell.ids import numbered
from upwell.store import DirectoryStore, Store

GRACE_S = 100.0
FOLDER = "index/0/notes"


def notes_on(store: Store, clock: HandClock | None = None) -> Notes:
    return Notes(store, FOLDER, clock or HandClock(), GRACE_S)


def more(notes: dict[str, Any]) -> dict[str, Any]:
    """One more."""
    return notes | {"n": notes.get("n", 0) + 1}


def numbers(store: Store) -> list[int]:
    return [int(name) for name in store.list(FOLDER)]


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


def test_what_is_changed_is_read_by_everybody_and_nobody_changes_it_by_accident(store: WatchedStore) -> None:
    ours, theirs = notes_on(store), notes_on(store)
    assert ours.read() == theirs.read() == {}
    assert ours.change(lambda _: {"a": {"b": [1, None, "é"]}}) == {"a": {"b": [1, None, "é"]}}
    theirs.read()["a"]["b"].append("mine")
    assert ours.read() == theirs.read() == {"a": {"b": [1, None, "é"]}}
    assert theirs.change(lambda notes: notes | {"c": 1})["c"] == 1
    assert ours.read() == {"a": {"b": [1, None, "é"]}, "c": 1}


def test_nothing_is_written_where_nothing_changes_and_one_look_tells_so(store: WatchedStore) -> None:
    notes = notes_on(store)
    notes.change(more)
    notes.read()
    seen: list[tuple[str, str]] = []
    store.hook = lambda when, call, key: seen.append((call, key)) if when == "before" else None
    assert notes.change(dict) == notes.read() == {"n": 1}
    assert seen == [("exists", f"{FOLDER}/{numbered(2)}")] * 2


@pytest.mark.parametrize(
    ("becomes", "error"),
    [
        ({"x": {1, 2}}, Invalid),
        ({1: 2}, Invalid),
        (["x"], Invalid),
        ({"x": "y" * NOTES_BYTES_MAX}, TooLarge),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    store: WatchedStore, becomes: Any, error: type[Exception]
) -> None:
    notes = notes_on(store)
    notes.change(more)
    with pytest.raises(error):
        notes.change(lambda _: becomes)
    with pytest.raises(KeyError):
        notes.change(lambda found: found["nothing"])
    assert notes.read() == {"n": 1} and numbers(store) == [1]
    assert len(notes.change(lambda _: {"x": "y" * (NOTES_BYTES_MAX - 8)})["x"]) == NOTES_BYTES_MAX - 8


def test_of_two_who_change_it_at_once_both_do(store: WatchedStore) -> None:
    ours, theirs, asked = notes_on(store), notes_on(store), count()

    def make(notes: dict[str, Any]) -> dict[str, Any]:
        if next(asked) == 0:
            theirs.change(more)
        return more(notes)

    assert ours.change(make) == {"n": 2}
    assert next(asked) == 2
    assert theirs.read() == {"n": 2}


def test_of_many_threads_and_processes_none_is_lost(store: WatchedStore) -> None:
    everybody = [notes_on(store) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        became = list(pool.map(lambda turn: everybody[turn % 3].change(more)["n"], range(60)))
    assert sorted(became) == list(range(1, 61))
    assert all(one.read() == {"n": 60} for one in everybody)


# Old versions.


def collected(store: Store, clock: HandClock) -> OldNotes:
    """Everything but the newest, as of now."""
    old = OldNotes(store, FOLDER, clock, GRACE_S)
    old.collect()
    clock.pass_s(GRACE_S)
    old.collect()
    return old


def test_only_the_newest_is_kept_and_nothing_before_its_time(store: WatchedStore) -> None:
    clock = HandClock()
    notes, old = notes_on(store), OldNotes(store, FOLDER, clock, GRACE_S)
    assert old.collect() == 0
    for _ in range(3):
        notes.change(more)
    assert old.collect() == 0
    clock.pass_s(GRACE_S - 1)
    notes.change(more)
    assert old.collect() == 0 and numbers(store) == [1, 2, 3, 4]
    clock.pass_s(1)
    # The fourth was not seen a grace period ago.
    assert old.collect() == 2 and numbers(store) == [3, 4]
    assert old.collect() == 0
    clock.pass_s(GRACE_S)
    assert old.collect() == 1 and numbers(store) == [4]
    assert notes.read() == notes_on(store).read() == {"n": 4}


def test_who_slept_while_all_that_he_knew_was_collected_reads_the_newest(store: WatchedStore) -> None:
    clock = HandClock()
    asleep, awake = notes_on(store, clock), notes_on(store)
    asleep.change(more)
    for _ in range(5):
        awake.change(more)
    collected(store, clock)
    assert numbers(store) == [6]
    assert asleep.read() == {"n": 6}


def after(store: WatchedStore, call: str, when: str, doing: Callable[[], object]) -> None:
    """Have something done once, just before or after the next such call."""

    def hook(then: str, what: str, key: str) -> None:
        if (then, what) == (when, call) and key.startswith(FOLDER):
            store.hook = None
            doing()

    store.hook = hook


@pytest.mark.parametrize("call", ["list", "exists", "read", "create"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_sleeps_in_any_call_while_others_go_on_loses_nothing(
    store: WatchedStore, call: str, when: str
) -> None:
    """Until his number was used and collected, and more were written and collected."""
    clock = HandClock()
    asleep, awake = notes_on(store, clock), notes_on(store)
    for _ in range(3):
        awake.change(more)

    def others() -> None:
        for _ in range(4):
            awake.change(lambda notes: notes | {"theirs": notes.get("theirs", 0) + 1})
            collected(store, clock)

    if call == "exists":
        asleep.read()
    after(store, call, when, others)
    try:
        made = asleep.change(more)["n"] == 4
    except Unavailable:
        # It does not know; and it was in time only if the others came after it.
        made = (call, when) == ("create", "after")
    assert store.hook is None
    assert made is ((call, when) != ("create", "before"))
    assert notes_on(store).read() == asleep.read() == {"n": 4 if made else 3, "theirs": 4}
    assert asleep.change(more)["n"] == (5 if made else 4)


def test_what_vanishes_between_two_looks_is_looked_for_again(store: WatchedStore) -> None:
    clock = HandClock()
    reading, awake = notes_on(store, clock), notes_on(store)
    awake.change(more)

    def others() -> None:
        awake.change(more)
        # The collector's clock, and not ours.
        collected(store, HandClock())

    after(store, "read", "before", others)
    assert reading.read() == {"n": 2}


# A store that loses answers, and a disk that loses power.


@pytest.mark.parametrize("day", [Day.RESENT, Day.LOST, Day.FAILS])
def test_our_own_write_is_known_for_ours(tmp_path: Path, day: Day) -> None:
    days = [day]
    plain = DirectoryStore(tmp_path / "store")
    store = FaultyStore(
        plain, HandClock(), lambda call, _: days.pop() if call == "create" and days else Day.FINE
    )
    notes = notes_on(store)
    if day is Day.RESENT:
        assert notes.change(more) == {"n": 1}
    else:
        with pytest.raises(Unavailable):
            notes.change(more)
        assert notes.read() == ({"n": 1} if day is Day.LOST else {})


@given(st.randoms(use_true_random=False))
def test_every_change_that_was_acknowledged_counts_once(rng: random.Random) -> None:
    clock, plain = HandClock(), DictStore()
    days, chances = list(Day), (12, 1, 1, 2, 1, 1)
    store = FaultyStore(plain, clock, lambda *_: rng.choices(days, chances)[0], slow_s=GRACE_S / 3)
    everybody = [notes_on(store, clock) for _ in range(3)]
    old = OldNotes(store, FOLDER, clock, GRACE_S)
    sure, unsure = 0, 0
    for _ in range(25):
        clock.pass_s(rng.choice((0, 1, GRACE_S)))
        store.land(rng, 0.5)
        try:
            if rng.random() < 0.3:
                old.collect()
            elif rng.random() < 0.2:
                assert sure <= rng.choice(everybody).read().get("n", 0) <= sure + unsure
            else:
                unsure += 1
                rng.choice(everybody).change(more)
                sure, unsure = sure + 1, unsure - 1
        except Unavailable:
            continue
    store.land(rng, 1)
    assert sure <= notes_on(plain).read().get("n", 0) <= sure + unsure


def test_what_was_said_is_there_whenever_the_power_fails() -> None:
    """Also what another process wrote, and had not synced yet when we read it."""
    disk, said = SimulatedDisk(), list[tuple[int, int]]()
    store = DirectoryStore(Path("/disk/store"), disk)
    ours, theirs = notes_on(store), notes_on(store)

    def read_within(*_: object) -> None:
        disk.hook = None
        n = ours.read().get("n", 0)
        said.append((n, len(disk.journal)))
        disk.hook = read_within

    disk.hook = read_within
    for turn in range(6):
        if turn == 3:
            disk.hook = None
            collected(store, HandClock())
            disk.hook = read_within
        said.append((theirs.change(more)["n"], len(disk.journal)))
    disk.hook = None
    assert len(said) > 12
    for at in range(len(disk.journal) + 1):
        promised = max((n for n, when in said if when <= at), default=0)
        for survive in (0.0, 0.5, 1.0):
            left = disk.after_power_loss(at, random.Random(f"{at} {survive}"), survive)
            try:
                found = notes_on(DirectoryStore(Path("/disk/store"), left)).read().get("n", 0)
            except (Corrupt, NotFound) as error:
                raise AssertionError(f"after {at}, survive {survive}") from error
            assert found >= promised, (at, survive)


def test_the_collector_of_an_index_takes_its_old_notes(tmp_path: Path) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, grace_s=GRACE_S)
    index = make_index(engine)
    for _ in range(3):
        index.notes.change(more)
    taken = []
    for _ in range(3):
        taken.append(engine.collect_garbage(index.record.id).notes)
        clock.pass_s(GRACE_S)
    assert taken == [0, 2, 0]
    assert make_engine(tmp_path, clock=clock).find("default", "index").notes.read() == {"n": 3}
