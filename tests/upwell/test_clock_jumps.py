"""Wall clocks that jump, each process's its own: back an hour or a day, ahead a day. Nothing is lost or doubled, and all goes on.

What decides here goes by elapsed time, so nearly everything must not even notice. Where wall time has to decide, since it outlives processes
(a listing's end, a webhook's next try), a jump must cost no more than what is said there.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from tests.making import Client, HandClock, contents, make_engine
from tests.racing import GRACE_S, World, collect_for, merged_by_another
from tests.webhook_house import make_house, turn
from upwell.errors import Gone
from upwell.shard import merge
from upwell.webhook import Event

JUMPS = [
    timedelta(hours=-1),
    timedelta(days=-1),
    timedelta(days=1),
    timedelta(days=400),
    timedelta(days=-400),
]


@pytest.fixture(autouse=True)
def _every_commit_leaves_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    # Nobody pulls the plug here.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.parametrize("seed", range(8))
def test_writes_drains_merges_and_collections_do_not_notice(tmp_path: Path, seed: int) -> None:
    world, dice = World(tmp_path), random.Random(seed)
    writers = [Client(world.index()) for _ in range(2)]
    collectors = [world.index() for _ in range(2)]
    for number in range(30):
        for clock in world.clocks:
            if dice.random() < 0.5:
                clock.wall += dice.choice(JUMPS)
        match dice.randrange(5):
            case 0:
                merged_by_another(world)
            case 1:
                collect_for(dice.choice(collectors), world, GRACE_S, GRACE_S / 4)
            case 2:
                world.write(number, client=dice.choice(writers))
            case _:
                world.commit(number, *([number - 1] if number else []))
    world.check()
    for collector in collectors:
        collect_for(collector, world, 5 * GRACE_S, GRACE_S / 4)
    world.check()
    assert world.held, "nothing was tried"


@pytest.mark.parametrize("jump", JUMPS)
def test_a_listing_ends_early_or_late_and_says_so(tmp_path: Path, jump: timedelta) -> None:
    """Of two pages the second is of the same version, or 410; never of what was swept."""
    world = World(tmp_path)
    for number in range(4):
        world.commit(number)
    clock = HandClock()
    reader = make_engine(tmp_path, clock=clock, store=world.store, **world.settings).find("default", "index")
    place = reader.pinned.begin()
    first = reader.pinned.page(place, 5)
    assert len(first.ids) == 5 and first.following is not None
    clock.wall += jump
    if jump > timedelta(0):
        with pytest.raises(Gone, match="expired"):
            reader.pinned.page(first.following, 100)
    else:
        second = reader.pinned.page(first.following, 100)
        assert sorted([*first.ids, *second.ids]) == sorted(name for name in world.held)
    # Another front end, which has nothing open yet, once all of it is swept.
    for number in range(5, 8):
        world.commit(number)
    merged_by_another(world)
    collect_for(world.index(), world, 6 * GRACE_S, GRACE_S / 10)
    late = make_engine(tmp_path, clock=clock, store=world.store, **world.settings).find("default", "index")
    with pytest.raises(Gone):
        late.pinned.page(first.following, 100)
    world.check()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_webhooks_next_try_is_never_put_off_by_more_than_the_longest_wait(
    tmp_path: Path, jump: timedelta
) -> None:
    house = make_house(tmp_path)
    hook = house.hook(Event.VISIBLE)
    (made,) = house.write()
    going = turn(house.index, hook)
    due = going.due()
    assert due is not None
    going.failed(due.messages[0], "not taken")
    going.save()
    house.clock.wall += jump
    waited = timedelta(0)
    while (again := turn(house.reopened(), hook).due()) is None:
        house.clock.wall += timedelta(minutes=10)
        waited += timedelta(minutes=10)
        assert waited <= timedelta(hours=2)
    assert again.messages[0].mutation_id == made


def test_counts_and_times_of_a_mutation_outlast_any_jump(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    for jump in JUMPS:
        house.clock.wall += jump
        (made,) = house.write()
        house.index.collector.collect()
        outcome = house.reopened().outcomes.of(made)
        assert outcome.state.value == "visible" and outcome.result is not None
    assert len(contents(house.index)) == 1
