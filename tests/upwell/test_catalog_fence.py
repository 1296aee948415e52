"""Creating an index while a collector makes sure that a dead one of the same name stays dead: neither keeps the other from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import HandClock, make_engine, make_index
from tests.racing import WatchedStore
from upwell.engine import Engine
from upwell.errors import Exists, NotFound, Unavailable

GRACE_S = 100.0


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


def process(tmp_path: Path, store: WatchedStore, clock: HandClock | None = None) -> Engine:
    return make_engine(tmp_path, store=store, clock=clock, grace_s=GRACE_S)


def before_a_name_is_given(store: WatchedStore, doing: list[object]) -> None:
    """Have each of ``doing`` done, in turn, just before an event of the catalog is written."""

    def hook(when: str, call: str, key: str) -> None:
        if (when, call) == ("before", "create") and key.startswith("catalog/") and doing:
            store.hook = None
            one = doing.pop(0)
            assert callable(one)
            one()
            store.hook = hook

    store.hook = hook


def test_a_fence_for_a_dead_index_does_not_take_its_name_from_a_new_one(
    tmp_path: Path, store: WatchedStore
) -> None:
    creating, collecting = process(tmp_path, store), process(tmp_path, store)
    dead = []
    for _ in range(2):
        dead.append(make_index(creating).record.id)
        creating.catalog.delete("default", "index")
    before_a_name_is_given(
        store, [lambda: collecting.catalog.retire(dead[0]), lambda: collecting.catalog.retire(dead[0])]
    )
    made = make_index(creating)
    assert collecting.find("default", "index").record.id == made.record.id
    assert collecting.catalog.identities() == {made.record.id}


def test_of_two_who_create_it_at_once_one_is_refused_also_behind_a_fence(
    tmp_path: Path, store: WatchedStore
) -> None:
    creating, other = process(tmp_path, store), process(tmp_path, store)
    dead = make_index(creating).record.id
    creating.catalog.delete("default", "index")
    second = make_index(creating).record.id
    creating.catalog.delete("default", "index")
    assert second != dead
    made: list[str] = []
    before_a_name_is_given(
        store,
        [lambda: other.catalog.retire(dead), lambda: made.append(make_index(other).record.id)],
    )
    with pytest.raises(Exists):
        make_index(creating)
    assert other.find("default", "index").record.id == made[0]


def test_a_creator_that_slept_until_its_index_was_retired_gives_it_no_name(
    tmp_path: Path, store: WatchedStore
) -> None:
    clock = HandClock()
    creating, collecting = process(tmp_path, store, clock), process(tmp_path, store)

    def sleep_and_be_retired() -> None:
        clock.pass_s(2 * GRACE_S)
        (nameless,) = store.list("index")
        assert collecting.catalog.retire(nameless)

    before_a_name_is_given(store, [sleep_and_be_retired])
    with pytest.raises(Unavailable):
        make_index(creating)
    with pytest.raises(NotFound):
        collecting.find("default", "index")
