"""Reads along in the store while the others are killed: every log entry, and every manifest's results, before they are swept."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass

import numpy as np

from tests.crash.door_history import DoorLogged
from tests.crash.history import Applied, Counts, Logged, Operation
from tests.plain_index import plain_of
from upwell.changeset import Changeset
from upwell.changeset import Operation as Kind
from upwell.engine import Engine, Index
from upwell.errors import NotFound
from upwell.log.entry import Entry
from upwell.manifest import MutationResult

EVERY_S = 0.05
#: Generations lie in a vector's third dimension, scaled so that they hardly matter to distances, and exact in float32.
SCALE = 2.0**-20
PLACE = 2
OPERATIONS: dict[Kind, Operation] = {
    Kind.UPSERT: "upsert",
    Kind.INSERT: "insert",
    Kind.DELETE: "delete",
    Kind.CREATE_METADATA_INDEX: "declare",
    Kind.DELETE_METADATA_INDEX: "declare",
}


@dataclass(slots=True)
class _Followed:
    index: Index
    #: None: it is written to at the Upstash door.
    members: int | None
    position: int = 0
    version: int = 1


class Witness(threading.Thread):
    """Follows indexes until it is stopped. It has to be quicker than the collectors, and says so if it was not."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="witness", daemon=True)
        self._engine = engine
        self._followed: dict[str, _Followed] = {}
        self._halt = threading.Event()
        self.logged: list[Logged] = []
        self.door_logged: list[DoorLogged] = []
        self.applied: list[Applied] = []
        #: Why it knows less than it should.
        self.failure: str | None = None
        self.slowest_s = 0.0

    def follow(self, name: str, members: int | None) -> Index:
        """Read along in an index from now on; it must be new. ``members`` None: it is written to at the Upstash door."""
        index = self._engine.find("default", name)
        self._followed[name] = _Followed(index, members)
        return index

    def run(self) -> None:
        began = time.monotonic()
        try:
            while not self._halt.wait(EVERY_S):
                self.look()
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                began = time.monotonic()
        except Exception as error:  # noqa: BLE001  the run is void then, and says why
            self.failure = repr(error)

    def stop(self) -> None:
        """End after the look under way."""
        self._halt.set()
        self.join()

    def look(self) -> None:
        """Read what is new."""
        for name, followed in list(self._followed.items()):
            while followed.index.log.exists(followed.position + 1):
                followed.position += 1
                self._read_entry(name, followed)
            while followed.index.head.chain.exists(followed.version + 1):
                followed.version += 1
                results = followed.index.head.chain.results(followed.version)
                self.applied += [_applied(name, followed.version, one) for one in results]

    def _read_entry(self, name: str, followed: _Followed) -> None:
        entry = followed.index.log.read(followed.position)
        for place, mutation in enumerate(entry.mutations):
            if followed.members is None:
                changeset = self._changeset(entry, place)
                found = DoorLogged(
                    index=name, receipt=(followed.position, place), mutation=plain_of(changeset)
                )
                self.door_logged.append(found)
                continue
            group, generation, whole = "", 0, True
            if mutation.metadata_index is not None:
                # Whoever deletes the index of a property has the number after that of its creator.
                deletes = mutation.operation is Kind.DELETE_METADATA_INDEX
                generation = int(mutation.metadata_index.property.removeprefix("p")) + deletes
            else:
                changeset = self._changeset(entry, place)
                group, generation, whole = described(changeset, followed.members)
            self.logged.append(
                Logged(
                    index=name,
                    receipt=(followed.position, place),
                    operation=OPERATIONS[mutation.operation],
                    group=group,
                    generation=generation,
                    whole=whole,
                )
            )

    def _changeset(self, entry: Entry, place: int) -> Changeset:
        try:
            return entry.changeset(place, self._engine.store.read)
        except NotFound:
            raise AssertionError("the witness was slower than the collectors") from None


def described(changeset: Changeset, members: int) -> tuple[str, int, bool]:
    """Group and generation of a mutation, and whether it is whole."""
    ids = changeset.ids.to_pylist()
    group = ids[0].rpartition("/")[0]
    wanted = [f"{group}/{number}" for number in range(members)]
    if changeset.vectors is None:
        mark = re.fullmatch(r"mark/(\d+)", ids[-1])
        return group, int(mark[1]) if mark else -1, mark is not None and ids[:-1] == wanted
    generations = np.unique(changeset.vectors[:, PLACE] / np.float32(SCALE))
    return group, int(generations[0]), len(generations) == 1 and ids == wanted


def _applied(name: str, version: int, one: MutationResult) -> Applied:
    return Applied(
        index=name,
        version=version,
        receipt=(one.position, one.place),
        counts=Counts(one.inserted, one.replaced, one.skipped, one.deleted, one.updated),
        duplicate=one.duplicate,
        error=one.error,
    )
