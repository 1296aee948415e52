"""The power is cut at any operation of the disk, and whatever of the unsynced happens to survive: nothing that was promised is lost.

``tests/house.py`` lives on a simulated disk: processes that write, apply, ask, merge, collect, create and delete, inside each other's
calls, and some are killed there. The disk's journal is then cut at every change in turn, and on what is left everything starts anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.house import GRACE_S, ROOT, Aftermath, House, KilledError, Process
from tests.making import drain, prepared, upsert
from tests.simulated_disk import SimulatedDisk
from upwell.errors import AlreadyExists, Corrupt
from upwell.format import Kind, unpack
from upwell.ids import numbered
from upwell.log.receipt import PLACES_MAX, Receipt, mint
from upwell.log.request import Request
from upwell.outcome import State
from upwell.store import DirectoryStore, Store, create_own
from upwell.streamed import Part
from upwell.webhook.model import Event

#: What chance a name that was not synced has to survive: none, all, and each its own.
SURVIVE = (0.0, 0.5, 1.0)


@pytest.fixture(autouse=True)
def same_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities from a seed, so that a failure can be looked at again."""
    ids = random.Random(7)
    monkeypatch.setattr("secrets.token_hex", lambda nbytes=16: ids.randbytes(nbytes).hex())


def lived(seed: int, actions: int, pretends: frozenset[str] = frozenset(), nested: float = 0.03) -> House:
    """A house that did so many things, on a disk that may only pretend to sync some of what it is told to."""
    disk = SimulatedDisk()
    disk.pretends = pretends
    house = House(disk, random.Random(seed), nested=nested)
    house.live(actions)
    disk.hook = None
    return house


def linked(house: House) -> set[str]:
    """In which folders of an index objects have come to be."""
    return {change[2].parent.name for change in house.disk.journal if change[0] == "link"}


def cut(house: House, at: int, survive: float, *, lives_on: bool) -> None:
    """Cut the power behind so many changes, and see what is left."""
    left = house.disk.after_power_loss(at, random.Random(f"{at} {survive}"), survive)
    try:
        house.check(left, at, lives_on=lives_on)
    except Exception as error:
        raise AssertionError(f"after {at}, survive {survive}: {house.disk.journal[at - 1 : at]}") from error


def test_whenever_the_power_fails_nothing_promised_is_lost() -> None:
    house = lived(37, 22)
    assert len(house.acknowledged) >= 10 and len(house.promises) >= 8
    assert {"namespaces", "embedded", "deletions", "request", "webhook"} <= linked(house), (
        "nothing much happened"
    )
    for at in range(house.promises[0].made_at, house.now + 1):
        cut(house, at, SURVIVE[at % 3], lives_on=at % 40 == 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("nested", [0, 0.03, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_whenever_the_power_fails_in_many_lives(
    seed: int, nested: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        # Columns in objects of their own.
        monkeypatch.setattr("upwell.log.writer.INLINE_BYTES_MAX", 0)
    house = lived(seed, 40, nested=nested)
    for at in range(house.promises[0].made_at, house.now + 1):
        cut(house, at, SURVIVE[at % 3], lives_on=at % 10 == 0)


@pytest.mark.parametrize("pretends", ["data", "names of files", "names of folders"])
def test_a_disk_that_only_pretends_to_sync_is_found_out(pretends: str) -> None:
    """The check can fail: without any one sort of fsync something promised is lost."""
    house = lived(3, 22, frozenset({pretends}))
    with pytest.raises(AssertionError):
        cut(house, house.now, 0.0, lives_on=False)


@pytest.mark.parametrize("left_out", ["sync", "sync_folder"])
def test_a_table_of_namespaces_that_does_not_last_is_found_out(
    left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with what a version names: here its bytes, or its name, are never made to last, and a commit names it all the same."""
    disk = SimulatedDisk()

    def carelessly(store: Store, key: str, *parts: Part) -> None:
        begun = len(disk.journal)
        create_own(store, key, *parts)
        disk.journal[begun:] = [change for change in disk.journal[begun:] if change[0] != left_out]

    monkeypatch.setattr("upwell.manifest.namespaces.create_own", carelessly)
    house = House(disk, random.Random(1), nested=0)
    one = house.processes[0]
    house.send(one, upsert(("x", (1, 1), "a")))
    assert one.engine.apply_batch(house.main.id, lambda: True) is not None
    disk.hook = None
    assert "namespaces" in linked(house)
    with pytest.raises(AssertionError):
        cut(house, house.now, 0.0, lives_on=False)


def test_bytes_that_were_never_synced_are_never_read_as_good() -> None:
    """Torn objects with lasting names, as a disk leaves them that lies about fsync: each is known for what it is."""
    house = lived(3, 16, frozenset({"data"}))
    whole = dict(house.disk.walk())
    torn = 0
    for seed in range(6):
        for path, content in house.disk.after_power_loss(house.now, random.Random(seed), 1.0).walk():
            kind = Kind(int.from_bytes(whole[path][8:10], "little"))
            wanted = sections_of(whole[path], kind)
            try:
                assert sections_of(content, kind) == wanted
            except Corrupt:
                torn += 1
    assert torn > 100


def sections_of(content: bytes, kind: Kind) -> list[bytes]:
    """All that an object says."""
    box = unpack(memoryview(content), kind)
    return [str(box.meta).encode(), *(bytes(box.section(name)) for name in box.sections)]


# What others see of an object before it is on stable storage: each of these lost something once.


@pytest.fixture
def house() -> House:
    """Three processes, which do nothing by themselves."""
    return House(SimulatedDisk(), random.Random(1), nested=0)


@contextmanager
def dying_at(house: House, call: str, folder: str) -> Iterator[None]:
    """Whoever comes to this call about a folder of this name, after having linked something, dies there."""

    def die(name: str, about: object) -> None:
        if name == call and str(about).endswith(folder) and house.disk.journal[-1][0] == "link":
            raise KilledError

    house.disk.hook = die
    with pytest.raises(KilledError):
        yield
    house.disk.hook = None


def nothing_unsynced_survives(house: House) -> Aftermath:
    """What is left when the power fails now, and no name survives that need not."""
    return Aftermath(house, house.disk.after_power_loss(house.now, random.Random(1), 0.0), house.now)


def acknowledged(house: House, process: Process, name: str) -> str:
    """A mutation in the log, and its id."""
    return mint(house.main.receipt_key, house.send(process, upsert((name, (1, 1)))))


def committed_and_died(house: House) -> str:
    """A mutation whose commit can be seen, and was not synced when its worker died."""
    one, two, _ = house.processes
    mutation = acknowledged(house, one, "a")
    with dying_at(house, "sync_folder", "/manifest"):
        two.engine.apply_batch(house.main.id, lambda: True)
    return mutation


def test_what_a_status_called_visible_is_visible_after_a_power_failure(house: House) -> None:
    mutation = committed_and_died(house)
    outcome = house.processes[0].index().outcomes.of(mutation)
    assert outcome.state is State.VISIBLE
    assert nothing_unsynced_survives(house).index.outcomes.of(mutation).state is State.VISIBLE


def test_a_query_waits_for_no_fsync_and_promises_nothing(house: House) -> None:
    committed_and_died(house)
    syncs = len([1 for change in house.disk.journal if change[0] == "sync_folder"])
    assert house.processes[0].index().newest.get().manifest.applied_through == 1
    assert len([1 for change in house.disk.journal if change[0] == "sync_folder"]) == syncs


def test_a_log_entry_is_not_collected_for_a_version_that_may_vanish(house: House) -> None:
    committed_and_died(house)
    collector = house.processes[0].index().collector
    for _ in range(4):
        house.clock.pass_s(GRACE_S)
        assert collector.collect() is not None
    assert not house.processes[0].index().log.exists(1)
    # The worst: that it is gone is on the disk, and what has made it superfluous is not.
    house.processes[0].engine.store.confirm(f"{house.main.folder}/log/{numbered(1)}")
    after = nothing_unsynced_survives(house)
    assert drain(after.engine, after.index) == 0
    assert after.index.head.refresh().applied_through == 1


def test_an_acknowledged_mutation_is_not_lost_with_its_index_name(house: House) -> None:
    one, two, _ = house.processes
    with dying_at(house, "sync_folder", "/other"):
        house.create_named(one, "other")
    mutation = two.index("other").log_writer().append([prepared(upsert(("a", (1, 1)), dimensions=2))])
    assert nothing_unsynced_survives(house).engine.find("default", "other").log.exists(mutation)


def test_a_request_that_was_answered_is_answered_so_for_ever(house: House) -> None:
    one, two, _ = house.processes
    request = Request.of("sender", "key", b"said")
    with dying_at(house, "sync_folder", "/request"):
        one.index().requests.settle(request, Receipt(7, 0))
    answer = two.index().requests.answer(request.name)
    assert answer is not None and answer.receipt == Receipt(7, 0)
    found = nothing_unsynced_survives(house).index.requests.find(request.name)
    assert found is not None and found.receipt == Receipt(7, 0)


def test_a_request_that_a_worker_counted_is_not_counted_again(house: House) -> None:
    one, two, _ = house.processes
    request = Request.of("sender", "key", b"said")
    with dying_at(house, "sync_folder", "/request"):
        one.index().requests.settle(request, Receipt(7, 0))
    assert two.index().requests.settle(request, Receipt(8, 0)).receipt == Receipt(7, 0)
    assert nothing_unsynced_survives(house).index.requests.find(request.name) is not None


def test_whoever_is_told_that_an_object_exists_may_rely_on_it(house: House) -> None:
    one, two, _ = house.processes
    with dying_at(house, "sync_folder", "/things"):
        one.engine.store.create("things/one", b"x")
    with pytest.raises(AlreadyExists):
        two.engine.store.create("things/one", b"y")
    assert bytes(nothing_unsynced_survives(house).store.read("things/one")) == b"x"


def test_a_deregistered_webhook_stays_away(house: House) -> None:
    webhooks = house.processes[0].index().webhooks
    webhook = webhooks.create("https://example.com/", [Event.VISIBLE], None)
    webhooks.delete(webhook.id)
    assert nothing_unsynced_survives(house).index.webhooks.everything() == []


@pytest.mark.parametrize("lost", [1, 2, 3, 5])
@pytest.mark.parametrize("starts_anew", [False, True])
def test_no_entry_survives_one_before_it_that_is_lost(house: House, lost: int, starts_anew: bool) -> None:
    """Writers whose entries were never synced, one after the other: a hole in the log would swallow all that comes after it."""
    processes = [Process(DirectoryStore(ROOT, house.disk), house.clock) for _ in range(lost + 1)]
    if not starts_anew:
        # They know where the log ends, or think so, and lose race after race.
        writers = [process.index().log_writer() for process in processes]
        for writer in writers:
            writer._expect(1, house.clock.monotonic())
    else:
        writers = [process.index().log_writer() for process in processes]
    for number, writer in enumerate(writers):
        with dying_at(house, "sync_folder", "/log"):
            writer.append([prepared(upsert((f"v{number}", (1, 1))))])
    for seed in range(8):
        left = house.disk.after_power_loss(house.now, random.Random(seed), 0.5)
        names = list(DirectoryStore(ROOT, left).list(f"{house.main.folder}/log"))
        assert names == [numbered(position) for position in range(1, len(names) + 1)]


# What was deleted comes back.


def test_swept_versions_and_entries_that_are_back_mislead_nobody(house: House) -> None:
    one = house.processes[0]
    index = one.index()
    mutations = []
    for number in range(12):
        mutations.append(acknowledged(house, one, f"v{number}"))
        drain(one.engine, index)
    for _ in range(4):
        house.clock.pass_s(GRACE_S)
        index.collector.collect()
    assert index.head.chain.oldest_version() >= index.head.refresh().version - 1
    after = Aftermath(house, house.disk.after_power_loss(house.now, random.Random(5), 0.6), house.now)
    chain = after.index.head.chain
    versions = [int(name) for name in after.store.list(f"{house.main.folder}/manifest")]
    assert len(versions) > 3 and versions != list(range(versions[0], versions[-1] + 1)), (
        "no gaps to be misled by"
    )
    newest = after.index.head.refresh()
    assert newest.applied_through == 12
    assert chain.oldest_version() == newest.version - next(
        n for n in range(99) if newest.version - n - 1 not in versions
    )
    for position in range(1, 13):
        version = chain.version_that_applied(position, newest)
        if version is not None:
            assert position in {result.position for result in chain.results(version)}
        outcome = after.index.outcomes.of(mutations[position - 1])
        assert outcome.state is State.VISIBLE
    after.write_and_check("new")
    assert after.index.head.refresh().applied_through == 13
    # A courier that is behind is told of a gap once, and goes on.
    known_from = after.index.outcomes.known_from()
    assert after.index.outcomes.applied_after(Receipt(known_from - 1, PLACES_MAX - 1), 100) is not None
    after.live_on()
