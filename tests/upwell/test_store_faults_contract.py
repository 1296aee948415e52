"""A store whose answers get lost: no mutation is there twice, none that was acknowledged is missing, and what is ours is known for ours.

There is no bucket store yet; ``tests/faulty_store.py`` behaves like a bad one. The house of ``tests/house.py`` lives on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faulty_store import Day, FaultyStore
from tests.house import GRACE_S, ROOT, House
from tests.making import Client, HandClock, contents, drain, make_engine, make_index, prepared, upsert
from tests.simulated_disk import SimulatedDisk
from upwell.catalog.tokens import Access
from upwell.engine import Engine, Index
from upwell.errors import Exists, Fenced, Gone, NotFound, Unauthenticated, Unavailable
from upwell.log.receipt import Receipt
from upwell.log.request import Request
from upwell.store import DirectoryStore, Store
from upwell.webhook.model import Event, Progress

CHANCES = {Day.FINE: 20, Day.FAILS: 1, Day.LOST: 1, Day.RESENT: 3, Day.LATE: 1, Day.SLOW: 0.1}


@pytest.fixture(autouse=True)
def same_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random.Random(7)
    monkeypatch.setattr("secrets.token_hex", lambda nbytes=16: ids.randbytes(nbytes).hex())


class Bucket:
    """The store of one process or of all, and what its requests meet next."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = HandClock()
        self.next: dict[str, list[Day]] = {}
        self.store = FaultyStore(DirectoryStore(tmp_path / "store"), self.clock, self._meets)
        self.engine: Engine = make_engine(
            tmp_path, clock=self.clock, store=self.store, grace_s=GRACE_S, results_s=GRACE_S
        )
        self.index: Index = make_index(self.engine)
        self.client = Client(self.index)

    def _meets(self, call: str, key: str) -> Day:
        for wanted, days in self.next.items():
            if call == "create" and wanted in key and days:
                return days.pop(0)
        return Day.FINE

    def other(self, folder: Path) -> Engine:
        """Another process, whose requests meet nothing."""
        return make_engine(folder, clock=self.clock, grace_s=GRACE_S, results_s=GRACE_S)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path)


def ids(index: Index) -> set[str]:
    return {name for _, name in contents(index)}


# The log.


def test_an_entry_that_was_sent_twice_is_there_once(bucket: Bucket) -> None:
    bucket.next["/log/"] = [Day.RESENT]
    bucket.client.append(upsert(("a", (1, 1))))
    bucket.client.append(upsert(("b", (1, 1))))
    assert bucket.index.log.tail(0) == 2
    assert drain(bucket.engine, bucket.index) == 1 and ids(bucket.index) == {"a", "b"}
    assert bucket.index.head.refresh().totals.vector_bytes == 2 * 8


def test_a_race_that_was_really_lost_is_no_success(bucket: Bucket, tmp_path: Path) -> None:
    """The same writer's entry of before, in the place where another one is wanted, is not ours either."""
    other = bucket.other(tmp_path)
    Client(other.find("default", "index")).append(upsert(("theirs", (1, 1))))
    for number, _ in enumerate(range(3), 2):
        bucket.client.writer._expect(1, bucket.clock.monotonic())
        assert bucket.client.writer.append([prepared(upsert((f"o{number}", (1, 1))))]) == number
    assert bucket.index.log.tail(0) == 4


@pytest.mark.parametrize("day", [Day.FAILS, Day.LOST, Day.LATE])
def test_an_entry_of_unknown_outcome_is_not_tried_again(bucket: Bucket, day: Day) -> None:
    bucket.next["/log/"] = [day]
    with pytest.raises(Unavailable):
        bucket.client.append(upsert(("unknown", (1, 1))))
    bucket.client.append(upsert(("sure", (2, 2))))
    bucket.store.land(random.Random(1), 1)
    drain(bucket.engine, bucket.index)
    # One that was late has found its place taken, and one whose answer was lost is there.
    assert ids(bucket.index) == ({"unknown", "sure"} if day is Day.LOST else {"sure"})


def test_a_late_entry_that_finds_its_place_free_is_whole_and_in_order(bucket: Bucket) -> None:
    bucket.next["/log/"] = [Day.LATE]
    with pytest.raises(Unavailable):
        bucket.client.append(upsert(("late", (1, 1)), ("too", (1, 1))))
    bucket.store.land(random.Random(1), 1)
    assert bucket.client.writer.append([prepared(upsert(("next", (2, 2))))]) == 2
    drain(bucket.engine, bucket.index)
    assert ids(bucket.index) == {"late", "too", "next"}


def test_an_entry_that_lands_where_all_is_applied_and_swept_is_seen_by_nobody(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.next["/log/"] = [Day.LATE]
    with pytest.raises(Unavailable):
        bucket.client.append(upsert(("late", (1, 1))))
    engine = bucket.other(tmp_path)
    index = engine.find("default", "index")
    for number in range(3):
        Client(index).append(upsert((f"v{number}", (1, 1))))
    drain(engine, index)
    for _ in range(4):
        bucket.clock.pass_s(GRACE_S)
        engine.collect_garbage(index.record.id)
    assert not index.log.exists(1)
    bucket.store.land(random.Random(1), 1)
    assert index.log.exists(1)
    assert bucket.client.writer.append([prepared(upsert(("next", (2, 2))))]) == 4
    drain(engine, index)
    assert ids(index) == {"v0", "v1", "v2", "next"}
    engine.collect_garbage(index.record.id)
    assert not index.log.exists(1)


def test_a_payload_that_was_sent_twice_is_ours(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.log.writer.INLINE_BYTES_MAX", 0)
    bucket.next["/payload/"] = [Day.RESENT]
    bucket.client.append(upsert(("a", (1, 1))))
    drain(bucket.engine, bucket.index)
    assert ids(bucket.index) == {"a"}


# Commits.


def test_a_commit_that_was_sent_twice_is_no_lost_race(bucket: Bucket) -> None:
    bucket.client.append(upsert(("a", (1, 1))))
    for kind in ("/segment/", "/deletions/", "/manifest/"):
        bucket.next[kind] = [Day.RESENT] * 3
    applied = bucket.engine.apply_batch(bucket.index.record.id, lambda: True)
    assert applied is not None and applied.version == 2
    assert ids(bucket.index) == {"a"}


def test_another_commit_of_the_same_worker_is_a_lost_race(bucket: Bucket, tmp_path: Path) -> None:
    """Its writer alone does not make it ours: the first try landed late, and names other segments."""
    bucket.client.append(upsert(("a", (1, 1))))
    bucket.next["/manifest/"] = [Day.LATE]
    with pytest.raises(Unavailable):
        bucket.engine.apply_batch(bucket.index.record.id, lambda: True)

    def lands() -> bool:
        bucket.store.land(random.Random(1), 1)
        return True

    with pytest.raises(Fenced):
        bucket.engine.apply_batch(bucket.index.record.id, lands)
    assert bucket.engine.apply_batch(bucket.index.record.id, lambda: True) is None
    assert ids(bucket.index) == {"a"}
    assert bucket.index.head.refresh().totals.vector_bytes == 8


@pytest.mark.parametrize("day", [Day.FAILS, Day.LOST, Day.LATE])
def test_a_commit_of_unknown_outcome_counts_once(bucket: Bucket, day: Day) -> None:
    bucket.client.append(upsert(("a", (1, 1))))
    bucket.next["/manifest/"] = [day]
    with pytest.raises(Unavailable):
        bucket.engine.apply_batch(bucket.index.record.id, lambda: True)
    again = bucket.engine.apply_batch(bucket.index.record.id, lambda: True)
    assert (again is None) is (day is Day.LOST)
    bucket.store.land(random.Random(1), 1)
    assert bucket.index.head.refresh().totals.vector_bytes == 8
    assert ids(bucket.index) == {"a"}


# The catalog.


def test_an_index_whose_event_was_sent_twice_is_created_and_deleted(bucket: Bucket) -> None:
    bucket.next = {"catalog/": [Day.RESENT, Day.RESENT], "/record": [Day.RESENT], "/manifest/": [Day.RESENT]}
    made = make_index(bucket.engine, "other")
    assert made.head.refresh().version == 1
    bucket.engine.catalog.delete("default", "other")
    with pytest.raises(Gone):
        bucket.engine.find("default", "other")


def test_of_two_creators_one_is_told_that_the_name_is_taken(bucket: Bucket, tmp_path: Path) -> None:
    other = bucket.other(tmp_path)
    write = bucket.engine.catalog._events.write

    def later(*what: object) -> None:
        make_index(other, "other")
        write(*what)  # type: ignore[arg-type]

    bucket.engine.catalog._events.write = later  # type: ignore[method-assign, assignment]
    with pytest.raises(Exists):
        make_index(bucket.engine, "other")


@pytest.mark.parametrize("was_there_before", [False, True])
def test_a_name_never_comes_to_stand_for_an_index_that_was_collected(
    bucket: Bucket, tmp_path: Path, was_there_before: bool
) -> None:
    """Its creator sleeps for very long, just about to give the index its name; whoever collected the nameless index has made sure."""
    other = bucket.other(tmp_path)
    if was_there_before:
        make_index(other, "other")
        other.catalog.delete("default", "other")
    write = bucket.engine.catalog._events.write

    def asleep(*what: object) -> None:
        for _ in range(3):
            other.collect_dead_indexes()
            bucket.clock.pass_s(GRACE_S)
        write(*what)  # type: ignore[arg-type]

    bucket.engine.catalog._events.write = asleep  # type: ignore[method-assign, assignment]
    with pytest.raises((Exists, Unavailable)):
        make_index(bucket.engine, "other")
    bucket.engine.catalog._events.write = write  # type: ignore[method-assign]
    assert len(list(bucket.store.list("index"))) == 1
    # The name is as free as it was, and so is the way on.
    with pytest.raises(NotFound):
        bucket.engine.find("default", "other")
    index = make_index(bucket.engine, "other")
    Client(index).append(upsert(("a", (1, 1))))
    for _ in range(3):
        other.collect_dead_indexes()
        bucket.clock.pass_s(GRACE_S)
    assert drain(other, other.find("default", "other")) == 1


def test_an_index_that_got_its_name_at_the_last_moment_is_kept(bucket: Bucket, tmp_path: Path) -> None:
    other = bucket.other(tmp_path)
    dead = other._dead
    live = dead._live

    def named_after_the_look() -> set[str]:
        found = live()
        bucket.engine.catalog._events.write = write  # type: ignore[method-assign]
        write(*said[0])  # type: ignore[arg-type]
        dead._live = live
        return found

    write, said = bucket.engine.catalog._events.write, []

    def asleep(*what: object) -> None:
        said.append(what)
        raise Unavailable("asleep")

    bucket.engine.catalog._events.write = asleep  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        make_index(bucket.engine, "other")
    other.collect_dead_indexes()
    bucket.clock.pass_s(GRACE_S + 1)
    dead._live = named_after_the_look
    assert other.collect_dead_indexes() == 0
    assert other.find("default", "other").head.refresh().version == 1


def test_an_index_whose_record_is_gone_can_be_deleted(bucket: Bucket) -> None:
    index = make_index(bucket.engine, "other")
    bucket.store.delete(f"{index.record.folder}/record")
    fresh = make_engine(Path("/nowhere"), clock=bucket.clock, store=bucket.store)
    with pytest.raises(NotFound):
        fresh.find("default", "other")
    fresh.catalog.delete("default", "other")
    make_index(fresh, "other")


# Tokens, requests and webhooks.


def test_tokens_whose_objects_were_sent_twice_are_good(bucket: Bucket) -> None:
    bucket.next = {"token/": [Day.RESENT] * 2, "rotated/": [Day.RESENT], "revoked/": [Day.RESENT]}
    tokens = bucket.engine.tokens
    first, _ = tokens.issue(name="t", account="*", index="*", access=Access.READ, lasts=None)
    second, grant = tokens.rotate(first, timedelta(0))
    assert tokens.grant_of(second).id == grant.id
    tokens.revoke(second)
    for token in (first, second):
        with pytest.raises(Unauthenticated):
            tokens.grant_of(token)


def test_a_request_whose_record_was_sent_twice_is_what_it_was_meant_to_be(bucket: Bucket) -> None:
    bucket.next["/request/"] = [Day.RESENT]
    request = Request.of("sender", "key", b"said")
    assert bucket.index.requests.settle(request, Receipt(3, 1)).receipt == Receipt(3, 1)
    assert bucket.index.requests.settle(request, Receipt(4, 0)).receipt == Receipt(3, 1)


def test_a_webhook_and_its_step_that_were_sent_twice_are_ours(bucket: Bucket) -> None:
    bucket.next = {"/webhook/": [Day.RESENT], "/delivery/": [Day.RESENT]}
    webhook = bucket.index.webhooks.create("https://example.com/", [Event.VISIBLE], None)
    ledger = bucket.index.webhooks._ledger
    ledger.step(webhook.id, 1, Progress(position=3, place=0))
    assert ledger.progress(webhook)[0] == 1
    with pytest.raises(Fenced):
        ledger.step(webhook.id, 1, Progress(position=4, place=0))


# All of it at once.


def bad_bucket(house_rng: random.Random) -> Callable[[SimulatedDisk], Store]:
    def make(disk: SimulatedDisk) -> Store:
        days = [*CHANCES]

        def meets(call: str, _key: str) -> Day:
            if disk.hook is None:
                return Day.FINE
            day = house_rng.choices(days, [*CHANCES.values()])[0]
            return day if call == "create" or house_rng.random() < 0.1 else Day.FINE

        store = FaultyStore(DirectoryStore(ROOT, disk), HandClock(), meets)
        STORES.append(store)
        return store

    return make


STORES: list[FaultyStore] = []


def live_on_a_bad_bucket(seed: int, actions: int) -> dict[Day, int]:
    """A life; returns what its requests met."""
    STORES.clear()
    rng = random.Random(seed)
    house = House(SimulatedDisk(), rng, nested=0.02, store=bad_bucket(rng))
    for store in STORES:
        store._clock = house.clock
    for _ in range(actions):
        house.live(1)
        for store in STORES:
            store._clock = house.clock
            with house.quiet():
                store.land(rng, 0.2)
    house.disk.hook = None
    house.check(house.disk.after_power_loss(house.now, rng, 1.0), house.now, lives_on=True)
    # The rest lands when all is long over.
    for store in STORES:
        store.land(rng, 1)
    house.check(house.disk.after_power_loss(house.now, rng, 0.0), house.now, lives_on=True)
    return {day: sum(store.met[day] for store in STORES) for day in Day}


@pytest.mark.parametrize("seed", range(12))
def test_a_house_on_a_bad_bucket_loses_and_doubles_nothing(seed: int) -> None:
    met = live_on_a_bad_bucket(seed, 40)
    assert all(met[day] for day in Day if day is not Day.SLOW), met


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_houses_on_bad_buckets() -> None:
    for seed in range(100, 500):
        live_on_a_bad_bucket(seed, 60)
