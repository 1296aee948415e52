"""An object store as a bucket may be on a bad day, over a real one: what its requests meet, one by one.

    FAILS      5xx: nothing happened
    LOST       a time-out: it happened, and the answer was lost
    RESENT     the same, and the client library sent it again: it met its own object, and says that it exists
    LATE       a time-out, and the object is written a while later, if the name is free then
    SLOW       it takes long, by the clock
    FINE       nothing

Reads fail or are slow. Buckets that answer reads with old bytes are none that Upwell runs on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from enum import Enum, auto

from tests.making import HandClock
from upwell.errors import AlreadyExists, NotFound, Unavailable
from upwell.store import Store
from upwell.streamed import Part, joined


class Day(Enum):
    """What a request meets."""

    FINE = auto()
    FAILS = auto()
    LOST = auto()
    RESENT = auto()
    LATE = auto()
    SLOW = auto()


class FaultyStore:
    """A store on which ``meets`` decides what each request meets. For one thread."""

    def __init__(
        self, store: Store, clock: HandClock, meets: Callable[[str, str], Day], slow_s: float = 20
    ) -> None:
        self._store = store
        self._clock = clock
        self._meets = meets
        self._slow_s = slow_s
        #: What is still on its way.
        self.late: list[tuple[str, bytes]] = []
        self.met: dict[Day, int] = dict.fromkeys(Day, 0)

    def create(self, key: str, *parts: Part) -> None:
        day = self._meet("create", key)
        match day:
            case Day.FAILS:
                raise Unavailable("500 Internal Server Error", key=key)
            case Day.LATE:
                self.late.append((key, joined(parts)))
                raise Unavailable("timed out", key=key)
            case _:
                self._store.create(key, *parts)
        if day is Day.LOST:
            raise Unavailable("timed out", key=key)
        if day is Day.RESENT:
            raise AlreadyExists(key=key)

    def land(self, rng: random.Random, chance: float) -> None:
        """Some of what is on its way arrives, in any order."""
        rng.shuffle(self.late)
        waiting, self.late = self.late, []
        for key, data in waiting:
            if rng.random() >= chance:
                self.late.append((key, data))
                continue
            # Where its folder went with all that was in it, a bucket would keep a stray object that nothing names.
            with contextlib.suppress(AlreadyExists, NotFound):
                self._store.create(key, data)

    def confirm(self, key: str) -> None:
        self._look("confirm", key)
        self._store.confirm(key)

    def read(self, key: str) -> memoryview:
        self._look("read", key)
        return self._store.read(key)

    def exists(self, key: str) -> bool:
        self._look("exists", key)
        return self._store.exists(key)

    def size_bytes(self, key: str) -> int:
        self._look("size", key)
        return self._store.size_bytes(key)

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        self._look("list", folder)
        return self._store.list(folder, after=after)

    def delete(self, key: str) -> None:
        if self._meet("delete", key) is Day.FAILS:
            raise Unavailable("500 Internal Server Error", key=key)
        self._store.delete(key)

    def delete_folder(self, folder: str) -> None:
        self._look("delete_folder", folder)
        self._store.delete_folder(folder)

    def _look(self, call: str, key: str) -> None:
        if self._meet(call, key) in (Day.FAILS, Day.LOST):
            raise Unavailable("500 Internal Server Error", key=key)

    def _meet(self, call: str, key: str) -> Day:
        day = self._meets(call, key)
        self.met[day] += 1
        if day is Day.SLOW:
            self._clock.pass_s(self._slow_s)
        return day
