"""Attacks by hand on what processes believe to know since when: collectors, writers, compactions, views that are open."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.making import Client, contents, drain, make_index
from tests.racing import GRACE_S, World, collect_for, long_collected, merged_by_another
from upwell.errors import Fenced
from upwell.log import writer as log_writer
from upwell.query.lookup import lookup
from upwell.query.search import search
from upwell.shard import merge


@pytest.fixture(autouse=True)
def _every_commit_leaves_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    # Nobody pulls the plug here.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


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
    assert sleeps.acquire(timeout=60)
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
