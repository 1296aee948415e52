"""Compactions, drains, collectors and writers against one another, each a process of its own that may sleep at any store call.

The store watches: no object that the newest manifest names may be deleted, and no manifest may become the newest that names what
is gone. In the end everything acknowledged must be there, once. Whatever is random here has a seed: a failure repeats itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.making import Client
from tests.racing import (
    GRACE_S,
    World,
    all_at_once,
    collect_for,
    collected_by_two,
    collected_just_shorter_than_trusted,
    collected_rarely,
    drained,
    drained_and_collected,
    long_collected,
    merged_by_another,
    merged_by_another_and_collected,
)
from upwell.engine import Engine, Index
from upwell.errors import Fenced, NotFound
from upwell.shard import merge


@pytest.fixture(autouse=True)
def _every_commit_leaves_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    # Nobody pulls the plug here.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


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
