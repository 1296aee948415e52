"""Several processes on one store, each with a clock of its own, watched at every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.making import Client, HandClock, contents, delete, drain, make_engine, make_index, upsert
from upwell.engine import Engine, Index
from upwell.errors import NotFound, Unavailable
from upwell.format import Kind, unpack
from upwell.manifest import Manifest
from upwell.query.search import search
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
