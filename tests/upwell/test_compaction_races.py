"""Compactions, drains, collectors and writers against one another, each a process of its own that may sleep at any store call.

The store watches: no object that the newest manifest names may be deleted, and no manifest may become the newest that names what
is gone. In the end everything acknowledged must be there, once. Whatever is random here has a seed: a failure repeats itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import Client, HandClock, contents, delete, drain, make_engine, make_index, upsert
from upwell.engine import Engine, Index
from upwell.errors import Fenced, NotFound, Unavailable
from upwell.format import Kind, unpack
from upwell.log import writer as log_writer
from upwell.manifest import Manifest
from upwell.query.lookup import lookup
from upwell.query.search import search
from upwell.shard import merge
from upwell.shard.view import segment_key
from upwell.store import DirectoryStore

GRACE_S = 100.0
#: What an actor, a call of the store, and its place before or after the call are told to a hook as.
Hook = Callable[[str, str, str], None]


class WatchedStore(DirectoryStore):
    """Says before and after each call what is done, and checks what a store can check of Upwell's promises."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hook: Hook | None = None
        self.broken: list[str] = []
        self._manifests: dict[str, set[str]] = {}

    def tell(self, when: str, call: str, key: str) -> None:
        if self.hook is not None:
            self.hook(when, call, key)

    def create(self, key: str, *parts: Any) -> None:
        self.tell("before", "create", key)
        super().create(key, *parts)
        folder, _, name = key.rpartition("/")
        if folder.endswith("/manifest") and name == list(super().list(folder))[-1]:
            gone = sorted(one for one in self._named(folder) if not super(WatchedStore, self).exists(one))
            if gone:
                self.broken.append(f"{key} names {gone}")
        self.tell("after", "create", key)

    def read(self, key: str) -> memoryview:
        self.tell("before", "read", key)
        data = super().read(key)
        self.tell("after", "read", key)
        return data

    def exists(self, key: str) -> bool:
        self.tell("before", "exists", key)
        found = super().exists(key)
        self.tell("after", "exists", key)
        return found

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        self.tell("before", "list", folder)
        names = super().list(folder, after=after)
        self.tell("after", "list", folder)
        return names

    def delete(self, key: str) -> None:
        self.tell("before", "delete", key)
        index = key.split("/")[1]
        if key.split("/")[2] in ("segment", "deletions") and key in self._named(f"index/{index}/manifest"):
            self.broken.append(f"{key} is deleted, and named")
        super().delete(key)
        self.tell("after", "delete", key)

    def _named(self, folder: str) -> set[str]:
        """Every object that the newest manifest names."""
        name = list(super().list(folder))[-1]
        if name not in self._manifests:
            meta = unpack(super().read(f"{folder}/{name}"), Kind.MANIFEST).meta
            manifest = Manifest.model_validate(meta)
            named = {segment_key(folder.removesuffix("/manifest"), one.id) for one in manifest.segments()}
            named |= {one.deletions.object for one in manifest.segments() if one.deletions}
            self._manifests[name] = named
        return self._manifests[name]


class World:
    """Processes on one store: each with an engine and a clock of its own, and all clocks go at one pace."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.settings = {"grace_s": GRACE_S, "results_s": GRACE_S, "compaction_fanout": 2} | settings
        self.store = WatchedStore(folder / "store")
        self.clocks: list[HandClock] = []
        #: What an acknowledged mutation wrote; None: it is deleted.
        self.held: dict[str, float | None] = {}
        #: Ids of mutations that were never acknowledged: nobody can say.
        self.unknown: set[str] = set()
        make_index(self.process(), shards=1)
        self.writer = Client(self.index())

    def process(self) -> Engine:
        """A new process; its clock shows whatever it likes."""
        clock = HandClock()
        clock.seconds = 1000.0 * (1 + len(self.clocks) % 7)
        self.clocks.append(clock)
        return make_engine(self.folder, clock=clock, store=self.store, **self.settings)

    def index(self) -> Index:
        return self.process().find("default", "index")

    def pass_s(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.pass_s(seconds)

    def write(self, number: int, *gone: int, client: Client | None = None) -> None:
        """Upsert three rows, and delete others."""
        names = [f"v{number}-{n}" for n in range(3)]
        deleted = [f"v{one}-0" for one in gone]
        changesets = [upsert(*((name, (number, 0)) for name in names))]
        if deleted:
            changesets.append(delete(*deleted))
        try:
            (client or self.writer).append(*changesets)
        except (Unavailable, NotFound):
            self.unknown |= {*names, *deleted}
            return
        self.held |= dict.fromkeys(names, float(number)) | dict.fromkeys(deleted)

    def commit(self, number: int, *gone: int) -> None:
        """The same, drained by a process of its own."""
        self.write(number, *gone)
        drain(engine := self.process(), engine.find("default", "index"))

    def check(self) -> None:
        """Nothing was broken, lost or doubled."""
        self.store.hook = None
        assert self.store.broken == []
        engine = self.process()
        index = engine.find("default", "index")
        drain(engine, index)
        assert self.store.broken == []
        found = {name: values[0] for (_, name), (values, _) in contents(index).items()}
        assert len(search(index.newest.get(), np.zeros(2, np.float32), 1_000)) == len(found)
        assert list(index.head.refresh().failures) == []
        expected = {name: value for name, value in self.held.items() if value is not None}
        assert {name: value for name, value in found.items() if name not in self.unknown} == {
            name: value for name, value in expected.items() if name not in self.unknown
        }


@pytest.fixture(autouse=True)
def _every_commit_leaves_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    # Nobody pulls the plug here.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def collect_for(index: Index, world: World, seconds: float, every_s: float) -> None:
    for _ in range(int(seconds / every_s)):
        world.pass_s(every_s)
        index.collector.collect()


# What goes on while a process sleeps.


def long_collected(world: World) -> None:
    collect_for(world.index(), world, 4 * GRACE_S, GRACE_S / 10)


def collected_just_shorter_than_trusted(world: World) -> None:
    collect_for(world.index(), world, GRACE_S / 2 - 1, GRACE_S / 10)


def collected_by_two(world: World) -> None:
    one, two = world.index(), world.index()
    for _ in range(16):
        collect_for(one, world, GRACE_S / 4, GRACE_S / 4)
        two.collector.collect()


def collected_rarely(world: World) -> None:
    """With so long between two looks that a suspect is past half a period and past a whole one at once."""
    collect_for(world.index(), world, 6 * GRACE_S, 1.5 * GRACE_S)


def drained(world: World) -> None:
    world.commit(50, 1, 2)


def drained_and_collected(world: World) -> None:
    drained(world)
    long_collected(world)
    world.commit(51, 0)


def merged_by_another(world: World) -> None:
    engine = world.process()
    engine.compact(engine.find("default", "index").record.id, 0)


def merged_by_another_and_collected(world: World) -> None:
    merged_by_another(world)
    collected_by_two(world)


def all_at_once(world: World) -> None:
    drained(world)
    merged_by_another(world)
    collected_just_shorter_than_trusted(world)
    world.commit(51, 3)


MEANWHILE = [
    long_collected,
    collected_just_shorter_than_trusted,
    collected_by_two,
    collected_rarely,
    drained,
    drained_and_collected,
    merged_by_another,
    merged_by_another_and_collected,
    all_at_once,
]


def compaction(world: World) -> Callable[[], object]:
    engine = world.process()
    index = engine.find("default", "index")
    index.newest.get()
    return lambda: engine.compact(index.record.id, 0)


def one_drain(world: World) -> Callable[[], object]:
    engine = world.process()
    index = engine.find("default", "index")
    index.newest.get()
    world.write(40, 0, 3)
    return lambda: engine.apply_batch(index.record.id, lambda: True)


def fence(world: World) -> Callable[[], object]:
    """A collector that is about to delete what a merge left behind."""
    merged_by_another(world)
    index = world.index()
    collect_for(index, world, GRACE_S - 10, 10)
    world.pass_s(11)
    return index.collector.collect


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("sleeper", [compaction, one_drain, fence])
def test_a_process_may_sleep_at_any_call(
    tmp_path: Path, sleeper: Callable[[World], Callable[[], object]], meanwhile: Callable[[World], None]
) -> None:
    """At each call in turn, before it and after it, until the work is done without coming to another."""
    place, reached = 0, True
    while reached:
        world = World(tmp_path / str(place))
        for number in range(4):
            world.commit(number, *([number - 1] if number == 3 else []))
        work, left = sleeper(world), place
        reached = False

        def sleep(*_: str, world: World = world) -> None:
            nonlocal left, reached
            left -= 1
            if left == -1:
                reached, world.store.hook = True, None
                meanwhile(world)

        world.store.hook = sleep
        try:
            work()
        except (Fenced, NotFound):
            assert reached
        world.check()
        collect_for(world.index(), world, 4 * GRACE_S, GRACE_S / 10)
        world.check()
        place += 1
    assert place > 10


# Any interleaving, by a schedule made from a seed.


class Turns:
    """Actors in threads of their own, of which one at a time goes on, from one call of the store to the next."""

    def __init__(self, world: World, seed: int, *, time_passes_in_collectors: bool) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._main = threading.Semaphore(0)
        self._turn: dict[int, threading.Semaphore] = {}
        self._actors: list[threading.Thread] = []
        self._rank: dict[threading.Thread, float] = {}
        self._collecting = 0
        self._time_passes_in_collectors = time_passes_in_collectors
        self.errors: list[BaseException] = []

    def add(self, work: Callable[[], None]) -> None:
        def act() -> None:
            self._wait()
            try:
                work()
            except BaseException as error:  # noqa: BLE001  told to the main thread
                self.errors.append(error)
            finally:
                del self._turn[threading.get_ident()]
                self._main.release()

        thread = threading.Thread(target=act, daemon=True)
        self._actors.append(thread)

    def collecting(self, index: Index) -> None:
        self._collecting += 1
        try:
            index.collector.collect()
        finally:
            self._collecting -= 1

    def run(self) -> None:
        for actor in self._actors:
            self._rank[actor] = self._random.random()
            actor.start()
            self._main.acquire()
        self._world.store.hook = lambda *_: self._wait()
        while self._turn:
            # The one of the highest rank goes on, so that others sleep for long; now and then ranks change.
            living = [actor for actor in self._actors if actor.ident in self._turn]
            chosen = max(living, key=self._rank.__getitem__)
            if self._random.random() < 0.1:
                self._rank[chosen] = self._random.random()
            may_pass = self._time_passes_in_collectors or not self._collecting
            if may_pass and self._random.random() < 0.08:
                self._world.pass_s(self._random.choice([5, 20, 30, 49, 52, 101]))
            assert chosen.ident is not None
            self._turn[chosen.ident].release()
            self._main.acquire()
        self._world.store.hook = None

    def _wait(self) -> None:
        mine = self._turn.setdefault(threading.get_ident(), threading.Semaphore(0))
        self._main.release()
        mine.acquire()


def interleaved(folder: Path, seed: int, *, time_passes_in_collectors: bool = False) -> None:  # noqa: C901  a script of five parts
    world = World(folder)
    for number in range(4):
        world.commit(number)
    turns = Turns(world, seed, time_passes_in_collectors=time_passes_in_collectors)

    def write() -> None:
        client = Client(writer)
        for number in range(10, 14):
            world.write(number, number - 9, client=client)

    def drain_often(engine: Engine, index: Index) -> None:
        for _ in range(4):
            try:
                engine.apply_batch(index.record.id, lambda: True)
            except (Fenced, NotFound):
                continue

    def compact_often(engine: Engine, index: Index) -> None:
        for _ in range(3):
            try:
                engine.compact(index.record.id, 0)
            except (Fenced, NotFound):
                continue

    def collect_often(engine: Engine, index: Index) -> None:
        for _ in range(8):
            # A pass may end early; the next one goes on.
            with contextlib.suppress(NotFound):
                turns.collecting(index)

    writer = world.index()
    turns.add(write)
    for often in (drain_often, compact_often, compact_often, collect_often, collect_often):
        engine = world.process()
        turns.add(partial(often, engine, engine.find("default", "index")))
    turns.run()
    if turns.errors:
        raise turns.errors[0]
    world.check()


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_any_interleaving_of_processes_that_sleep(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 40):
        interleaved(tmp_path / str(seed), seed)


# Attacks by hand. First of all, on what a collector believes to know since when.


def asleep(world: World, work: Callable[[], object], *at: str) -> Callable[[], None]:
    """Begin ``work`` in a process that falls asleep at the call that ``at`` describes. Returns what wakes it, and sees it end."""
    sleeps, wakes = threading.Semaphore(0), threading.Semaphore(0)

    def sleep(when: str, call: str, key: str) -> None:
        if (when, call) == at[:2] and key.endswith(at[2]):
            world.store.hook = None
            sleeps.release()
            wakes.acquire()

    def wake() -> None:
        wakes.release()
        thread.join()

    thread = threading.Thread(target=work, daemon=True)
    world.store.hook = sleep
    thread.start()
    assert sleeps.acquire(timeout=10)
    return wake


def interrupted(world: World, *steps: tuple[str, str, str, Callable[[], object]]) -> None:
    """At the calls that ``steps`` describe (when, call, part of the key), in that order, something is done, once."""
    left = list(steps)

    def interrupt(when: str, call: str, key: str) -> None:
        if left and (when, call) == left[0][:2] and left[0][2] in key:
            world.store.hook = None
            left.pop(0)[3]()
            world.store.hook = interrupt if left else None

    world.store.hook = interrupt


DATED_EARLY = "a collector dates what it sees by the beginning of its pass, before it saw it"


def test_a_segment_is_not_suspected_since_before_it_was_there(tmp_path: Path) -> None:
    """Else the fence comes at once, while the merger may still name it in the version after."""
    world = World(tmp_path)
    for number in range(2):
        world.commit(number)
    index, merging = world.index(), world.process()
    wake = asleep(world, index.collector.collect, "before", "list", "/segment")
    world.pass_s(2 * GRACE_S)

    def suspect_and_fence() -> None:
        wake()
        world.pass_s(5)
        index.collector.collect()

    def delete_it() -> None:
        world.pass_s(5)
        index.collector.collect()

    interrupted(
        world,
        ("after", "create", "/segment/", suspect_and_fence),
        ("before", "create", "/manifest/", delete_it),
    )
    merging.compact(index.record.id, 0)
    world.check()


def test_a_log_entry_is_kept_for_a_grace_period_since_it_was_seen_applied(tmp_path: Path) -> None:
    """Else a writer that has trusted its position for a few seconds may write it once more, where no drain looks."""
    world = World(tmp_path)
    world.commit(0)
    index, slow = world.index(), Client(world.index())
    world.write(1, client=slow)
    drain(draining := world.process(), draining.find("default", "index"))
    wake = asleep(world, index.collector.collect, "before", "list", "/manifest")
    world.pass_s(2 * GRACE_S)
    world.write(2, client=slow)

    def overtake() -> None:
        world.commit(3)
        wake()
        world.pass_s(5)
        index.collector.collect()

    interrupted(world, ("before", "create", "/log/", overtake))
    world.write(4, client=slow)
    world.check()


def test_a_payload_is_not_suspected_since_before_it_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is deleted while its writer adds the entry that names it, and acknowledges."""
    monkeypatch.setattr(log_writer, "INLINE_BYTES_MAX", 0)
    world = World(tmp_path)
    world.commit(0)
    index = world.index()
    collect_for(index, world, 4 * GRACE_S, GRACE_S / 10)
    wake = asleep(world, index.collector.collect, "before", "list", "/payload")
    world.pass_s(2 * GRACE_S)

    def collect_twice() -> None:
        wake()
        world.pass_s(5)
        index.collector.collect()

    interrupted(world, ("after", "create", "/payload/", collect_twice))
    world.write(1)
    world.pass_s(5)
    index.collector.collect()
    world.check()


def test_an_index_that_got_its_name_while_the_collector_slept_is_not_deleted(tmp_path: Path) -> None:
    world = World(tmp_path)
    creating, collecting = world.process(), world.process()
    wakes: list[Callable[[], None]] = []

    def collect_it() -> None:
        assert collecting.collect_dead_indexes() == 0
        world.pass_s(1)
        work = collecting.collect_dead_indexes
        wakes.append(asleep(world, work, "after", "list", "catalog/default"))

    interrupted(world, ("before", "create", "catalog/", collect_it))
    made = make_index(creating, "new")
    world.pass_s(GRACE_S)
    wakes[0]()
    assert contents(world.process().index(made.record.id)) == {}


def test_collectors_do_not_remember_what_others_deleted(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = world.index(), world.index()
    for number in range(12):
        world.commit(number)
        merged_by_another(world)
        for index in (one, two):
            world.pass_s(GRACE_S / 4)
            index.collector.collect()
    for _ in range(20):
        world.pass_s(GRACE_S / 4)
        one.collector.collect()
        two.collector.collect()
    world.check()
    assert [len(one.collector._suspects), len(two.collector._suspects)] == [0, 0]


def test_a_compaction_that_came_too_late_gives_up_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(2):
        world.commit(number)
    engine = world.process()
    turns = []

    def late() -> None:
        world.commit(2, 0)
        world.pass_s(GRACE_S)

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        turns.append(1)
        yield

    interrupted(world, ("after", "create", "/segment/", late))
    with pytest.raises(Fenced):
        engine.compact(engine.find("default", "index").record.id, 0, turn=turn)
    written = list(world.store.list(f"{world.index().record.folder}/deletions"))
    assert (len(turns), len(written)) == (1, 1)


def test_a_query_that_sleeps_between_a_versions_name_and_its_content_looks_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.commit(0)
    index, other = world.index(), world.index()

    def sweep_it() -> None:
        world.commit(1)
        collect_for(other, world, 4 * GRACE_S, GRACE_S / 10)

    interrupted(world, ("before", "read", "/manifest/", sweep_it))
    assert len(contents(index)) == 6


def test_an_old_view_answers_while_its_files_are_deleted(tmp_path: Path) -> None:
    """Nothing of it but its manifest was read when the files went: what it needs is mapped all the same."""
    world = World(tmp_path)
    for number in range(4):
        world.commit(number, *([number - 1] if number else []))
    names = [f"v{number}-{n}" for number in range(4) for n in range(3)]
    folder = f"{world.index().record.folder}/segment"
    view, before = world.index().newest.get(), set(world.store.list(folder))
    expected = {name for name, value in world.held.items() if value is not None}
    for number in range(5, 9):
        world.commit(number, number - 1)
        merged_by_another(world)
    long_collected(world)
    assert before.isdisjoint(world.store.list(folder))
    hits = search(view, np.zeros(2, np.float32), 100)
    assert {hit.found.id for hit in hits} == {found.id for found in lookup(view, names)} == expected
    assert all(hit.found.values.tolist() == [float(hit.found.id[1]), 0] for hit in hits)
    world.check()


def test_a_view_that_is_being_opened_while_it_is_swept_is_opened_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(4):
        world.commit(number)
    reader = world.index()

    def replace_all() -> None:
        merged_by_another(world)
        long_collected(world)

    interrupted(world, ("before", "read", "/segment/", replace_all))
    assert len(contents(reader)) == 12
    world.check()


def test_a_fence_that_loses_its_race_deletes_nothing_and_comes_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(2):
        world.commit(number)
    merged_by_another(world)
    index = world.index()
    folder = index.record.folder
    collect_for(index, world, GRACE_S - 10, 10)
    world.pass_s(20)
    before = list(world.store.list(f"{folder}/segment"))
    interrupted(world, ("before", "create", "/manifest/", lambda: world.commit(5)))
    index.collector.collect()
    assert set(before) <= set(world.store.list(f"{folder}/segment"))
    index.collector.collect()
    assert len(set(before) & set(world.store.list(f"{folder}/segment"))) == 1
    world.check()
