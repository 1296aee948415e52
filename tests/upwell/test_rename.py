"""Renaming an index: at each call of the store in turn somebody else does something, or the renamer dies, or sleeps for very long."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dict_store import DictStore
from tests.making import Client, HandClock, contents, drain, make_engine, make_index, upsert
from tests.racing import Hook, WatchedStore
from tests.simulated_disk import SimulatedDisk
from upwell.custody.check import check_store
from upwell.custody.findings import Severity
from upwell.engine import Engine
from upwell.errors import Exists, Gone, Invalid, NotFound, UpwellError
from upwell.outcome import State
from upwell.store import DirectoryStore, Store

GRACE_S = 100.0


class KilledError(BaseException):
    """The process was killed here."""


class World:
    """Processes on one store, each with a clock of its own; an index ``a`` with a row, and another, ``z``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = WatchedStore(folder / "store")
        engine = self.process()
        self.id = make_index(engine, "a").record.id
        self.other_id = make_index(engine, "z").record.id
        Client(engine.find("default", "a")).append(upsert(("row", (1, 1))))
        #: Of the store, since it was last said at which something is to be done.
        self.calls = 0

    def process(self) -> Engine:
        return make_engine(self.folder, store=self.store, clock=HandClock(), grace_s=GRACE_S)

    def names(self, index_id: str | None = None) -> list[str]:
        """What an index is called, by everybody who is asked."""
        engine, wanted = self.process(), index_id or self.id
        found = [record.name for record in engine.catalog.list("default") if record.id == wanted]
        assert found == [
            name
            for name in engine.catalog.names("default")
            if engine.catalog.identity("default", name) == wanted
        ]
        assert (wanted in engine.catalog.identities()) is bool(found)
        if found:
            assert engine.index(wanted).record.name in found
        else:
            with pytest.raises(NotFound):
                engine.index(wanted)
        for name in found:
            index = engine.find("default", name)
            assert (index.record.name, index.record.id) == (name, wanted)
            index.check_live()
        return found

    def collect_for_long(self) -> None:
        engine = self.process()
        for _ in range(4):
            engine.collect_dead_indexes()
            assert isinstance(engine.clock, HandClock)
            engine.clock.pass_s(GRACE_S)

    def whole(self, name: str) -> None:
        """The index of this name has its row, and takes others; and fsck has nothing against the store."""
        engine = self.process()
        index = engine.find("default", name)
        Client(index).append(upsert(("more", (2, 2))))
        drain(engine, engine.index(index.record.id))
        assert {one for _, one in contents(index)} == {"row", "more"}
        assert [one for one in check_store(self.store).findings if one.severity is not Severity.NOTE] == []

    def _told(self) -> Hook | None:
        return self.store.hook

    @contextmanager
    def at_call(self, number: int, doing: Callable[[], object]) -> Iterator[None]:
        """Have something done before the call of the store with this number."""
        self.calls = 0

        def hook(when: str, _call: str, _key: str) -> None:
            if when == "before":
                self.calls += 1
                if self.calls == number + 1:
                    self.store.hook = None
                    doing()
                    self.store.hook = self._told() or hook

        self.store.hook = hook
        try:
            yield
        finally:
            self.store.hook = None


def tried(doing: Callable[[], object]) -> UpwellError | None:
    """What it raised."""
    try:
        doing()
    except UpwellError as error:
        return error
    return None


def calls_of_a_rename(folder: Path) -> int:
    world = World(folder)
    renaming = world.process()
    with world.at_call(-1, lambda: None):
        renaming.catalog.rename("default", "a", "b")
    return world.calls


def at_each_call(tmp_path: Path) -> Iterator[tuple[int, World]]:
    for at in range(calls_of_a_rename(tmp_path / "counted")):
        yield at, World(tmp_path / str(at))


def test_it_is_called_so_from_then_on_by_everybody_who_has_it_open(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = world.process(), world.process()
    before = [engine.find("default", "a") for engine in (one, two)]
    assert before[0].webhooks is before[0].webhooks
    assert one.rename("default", "a", "b").name == "b"
    for engine, index in zip((one, two), before, strict=True):
        assert index.record.name == "a" and engine.catalog.is_live(index.record)
        index.check_live()
        found = engine.index(world.id)
        assert found.record.name == "b" and found.newest is index.newest and found.head is index.head
        assert engine.find("default", "b") is found
        # What is told of it bears its new name.
        assert found.webhooks is not index.webhooks
        assert [record.name for record in engine.catalog.everything()] == ["b", "z"]
        with pytest.raises(Gone):
            engine.find("default", "a")
        assert engine.forget_dead() == set()
    assert world.names() == ["b"]
    # What was acknowledged by the old name.
    receipt = Client(before[1]).append(upsert(("late", (3, 3))))[0]
    drain(one, one.index(world.id))
    assert one.find("default", "b").outcomes.of(receipt).state is State.VISIBLE


def test_its_old_name_is_free_and_it_may_come_back_to_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    engine = world.process()
    engine.rename("default", "a", "b")
    assert make_index(engine, "a").record.id != world.id
    with pytest.raises(Exists):
        engine.rename("default", "b", "a")
    engine.catalog.delete("default", "a")
    for old, new in (("b", "a"), ("a", "b"), ("b", "c"), ("c", "a")):
        assert engine.rename("default", old, new).name == new
        assert world.names() == [new]
    world.collect_for_long()
    world.whole("a")
    engine.catalog.delete("default", "a")
    world.collect_for_long()
    assert world.names() == [] and list(world.store.list("index")) == [world.other_id]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("a", "a", Invalid),
        ("a", "", Invalid),
        ("a", "x/y", Invalid),
        ("a", "z", Exists),
        ("never", "b", NotFound),
        ("never", "z", NotFound),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    tmp_path: Path, old: str, new: str, error: type[UpwellError]
) -> None:
    world = World(tmp_path)
    with pytest.raises(error):
        world.process().catalog.rename("default", old, new)
    assert world.names() == ["a"] and world.names(world.other_id) == ["z"]


def test_done_again_by_whoever_finds_it_half_done_it_is_completed(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):

        def killed() -> None:
            raise KilledError

        renaming = world.process()
        with world.at_call(at, killed), pytest.raises(KilledError):
            renaming.catalog.rename("default", "a", "b")
        left = world.names()
        assert left in (["a"], ["a", "b"], ["b"])
        world.collect_for_long()
        assert world.names() == left
        if "a" in left:
            world.process().catalog.rename("default", "a", "b")
        assert world.names() == ["b"]
        world.whole("b")


def raced(
    world: World, at: int, theirs: Callable[[Engine], object]
) -> tuple[UpwellError | None, UpwellError | None]:
    """What our renaming of a to b came to, and what another did at one of our calls."""
    ours, other, said = world.process(), world.process(), list[UpwellError | None]()
    with world.at_call(at, lambda: said.append(tried(lambda: theirs(other)))):
        ended = tried(lambda: ours.catalog.rename("default", "a", "b"))
    return ended, said[0]


def test_of_two_who_rename_it_at_once_one_wins_and_nothing_is_left_of_the_other(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):
        ours, theirs = raced(world, at, lambda other: other.catalog.rename("default", "a", "c"))
        assert isinstance(ours or theirs, Gone) and None in (ours, theirs)
        assert world.names() == (["b"] if ours is None else ["c"])


def test_two_who_do_the_very_same_do_it_once(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):
        ours, theirs = raced(world, at, lambda other: other.catalog.rename("default", "a", "b"))
        assert None in (ours, theirs) and isinstance(ours or theirs or Gone(), Gone)
        assert world.names() == ["b"]


def test_deleted_meanwhile_it_is_deleted_or_renamed(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):
        ours, theirs = raced(world, at, lambda other: other.catalog.delete("default", "a"))
        assert isinstance(ours or theirs, Gone) and None in (ours, theirs)
        assert world.names() == (["b"] if ours is None else [])
        assert (tried(lambda world=world: make_index(world.process(), "b")) is None) is (ours is not None)  # type: ignore[misc]


def test_where_another_is_made_of_the_new_name_one_of_the_two_has_it(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):
        ours, theirs = raced(world, at, lambda other: make_index(other, "b"))
        assert isinstance(ours or theirs, Exists) and None in (ours, theirs)
        assert world.names() == (["b"] if ours is None else ["a"])


def test_a_renamer_who_slept_until_the_index_was_collected_names_nothing(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):

        def meanwhile(other: Engine, world: World = world) -> None:
            other.catalog.delete("default", "a")
            world.collect_for_long()

        ours, theirs = raced(world, at, meanwhile)
        assert isinstance(ours or theirs, Gone) and None in (ours, theirs)
        world.collect_for_long()
        assert world.names() == (["b"] if ours is None else [])
        left = {world.other_id} | ({world.id} if ours is None else set())
        assert set(world.store.list("index")) == left
        assert make_index(world.process(), "a").record.name == "a"
        assert (tried(lambda world=world: make_index(world.process(), "b")) is None) is (ours is not None)  # type: ignore[misc]


def test_nor_does_one_who_then_dies_before_he_can_take_the_name_back(tmp_path: Path) -> None:
    for at, world in at_each_call(tmp_path):
        ours = world.process()

        def asleep(world: World = world) -> None:
            if tried(lambda: world.process().catalog.delete("default", "a")) is None:
                world.collect_for_long()
                world.store.hook = killed

        def killed(when: str, call: str, key: str) -> None:
            if (when, call) == ("after", "create") and key.startswith("catalog/default/b/"):
                raise KilledError

        with world.at_call(at, asleep), contextlib.suppress(KilledError):
            tried(lambda ours=ours: ours.catalog.rename("default", "a", "b"))  # type: ignore[misc]
        if "b" not in world.names():
            assert make_index(world.process(), "b").record.id != world.id
            assert world.names() == []


def test_a_collector_amid_renames_takes_nothing_that_has_a_name(tmp_path: Path) -> None:
    """It looks at one name after the other, and the index is always called by one that it has looked at already."""
    world = World(tmp_path)
    collecting, renaming = world.process(), world.process()
    names = ["a", "b"]

    def hook(when: str, _call: str, key: str) -> None:
        if when == "before" and key.startswith(("catalog/", "index/")):
            world.store.hook = None
            renaming.catalog.rename("default", *names)
            names.reverse()
            world.store.hook = hook

    for _ in range(4):
        for lists in range(12):
            left = [lists]

            def sometimes(when: str, call: str, key: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    left[0] = 7
                    hook(when, call, key)
                    world.store.hook = sometimes

            world.store.hook = sometimes
            collecting.collect_dead_indexes()
            world.store.hook = None
        assert isinstance(collecting.clock, HandClock)
        collecting.clock.pass_s(GRACE_S)
    assert world.names() == [names[0]]
    world.whole(names[0])


def test_whenever_the_power_fails_it_has_a_name_and_the_new_one_once_that_was_said() -> None:
    disk, root = SimulatedDisk(), Path("/disk/store")

    def on(store: Store) -> Engine:
        return make_engine(Path(), store=store, clock=HandClock(), grace_s=GRACE_S)

    engine, reading = on(DirectoryStore(root, disk)), on(DirectoryStore(root, disk))
    index_id = make_index(engine, "a").record.id
    #: How far the disk was when somebody was told of a name.
    told: list[tuple[int, str]] = []

    def look(*_: object) -> None:
        disk.hook = None
        told.append((len(disk.journal), reading.index(index_id).record.name))
        disk.hook = look

    began, disk.hook = len(disk.journal), look
    engine.rename("default", "a", "b")
    disk.hook = None
    told.append((len(disk.journal), "b"))
    assert {name for _, name in told} == {"a", "b"}
    for at in range(began, len(disk.journal) + 1):
        for survive in (0.0, 0.5, 1.0):
            left = disk.after_power_loss(at, random.Random(f"{at} {survive}"), survive)
            after = on(DirectoryStore(root, left))
            names = list(after.catalog.names("default"))
            assert set(names) <= {"a", "b"} and after.index(index_id).record.name in names
            known = [name for when, name in told if when <= at]
            assert "b" in names or "b" not in known, (at, survive)
            if "a" in names:
                assert at < len(disk.journal)
                after.rename("default", "a", "b")
            assert list(after.catalog.names("default")) == ["b"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("create", "delete", "rename", "collect")),
            st.sampled_from("abc"),
            st.sampled_from("abc"),
            st.integers(0, 1),
        ),
        max_size=14,
    )
)
def test_names_stand_for_what_they_would_in_a_dictionary(steps: list[tuple[str, str, str, int]]) -> None:
    store = DictStore()
    processes = [make_engine(Path(), store=store, clock=HandClock(), grace_s=GRACE_S) for _ in range(2)]
    plain: dict[str, str] = {}
    for what, name, new, which in steps:
        engine = processes[which]
        match what:
            case "create":
                assert (tried(lambda: make_index(engine, name)) is None) is (name not in plain)  # noqa: B023
                plain.setdefault(name, engine.find("default", name).record.id)
            case "delete":
                assert (tried(lambda: engine.catalog.delete("default", name)) is None) is (name in plain)  # noqa: B023
                plain.pop(name, None)
            case "rename":
                done = tried(lambda: engine.rename("default", name, new)) is None  # noqa: B023
                assert done is (name in plain and new not in plain)
                if done:
                    plain[new] = plain.pop(name)
            case _:
                for _ in range(2):
                    engine.collect_dead_indexes()
                    assert isinstance(engine.clock, HandClock)
                    engine.clock.pass_s(GRACE_S)
        for one in processes:
            assert {record.name: record.id for record in one.catalog.everything()} == plain
            assert {one.index(index_id).record.name: index_id for index_id in plain.values()} == plain
        assert set(plain.values()) <= set(store.list("index"))
