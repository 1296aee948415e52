"""What names have stood for: each has a dense history of immutable events, ``catalog/{account}/{name}/{generation:020d}``.

    meta  {"event": "created" | "deleted", "index": identity, "folder": where it was written, "at": when,
           "writer": whoever wrote it, so that it knows its own, "to": of one that was taken away, the name that its index has instead,
           "yields": true of one that may be given to another index next (replacing.py)}

An event that is believed is on stable storage: what is acknowledged to be in an index would be lost with the index's name.
"""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from typing import Literal

from upwell.clock import Clock
from upwell.errors import AlreadyExists, Exists, Gone, Invalid, NotFound
from upwell.format import Kind, pack
from upwell.ids import new_identity, numbered, numbers_in
from upwell.store import Store, read_object

#: What may be a piece of a path. Doors allow less, each by its vendor's rules.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a name."""

    generation: int
    #: "another's": it is of a name that differs from the one asked for, but not to the file system.
    kind: Literal["created", "deleted", "another's"]
    index_id: str
    #: Of a name that was taken away: the one that its index has instead, if it was renamed.
    to: str | None = None
    #: The next event may give it to another index, which is made in this one's place.
    yields: bool = False

    def stands_for(self, index_id: str) -> bool:
        """Is it the one by which a name stands for this index?"""
        return self.kind == "created" and self.index_id == index_id


class Events:
    """The histories of a store's names. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str], Event] = {}

    def newest(self, account: str, name: str) -> Event | None:
        """The newest event of a name: from memory if no newer one exists, which is one look, else by listing. None: it has none."""
        if not NAME_PATTERN.fullmatch(account) or not NAME_PATTERN.fullmatch(name):
            return None
        folder = folder_of(account, name)
        with self._lock:
            known = self._newest.get((account, name))
        if known is not None and not self._store.exists(f"{folder}/{numbered(known.generation + 1)}"):
            return known
        generations = numbers_in(self._store.list(folder))
        if not generations:
            return None
        event = self._event(account, name, generations[-1])
        if event.kind != "another's":
            with self._lock:
                self._newest[account, name] = event
        return event

    def living(self, account: str, name: str) -> Event:
        """The event by which a name stands for an index now. Raises NotFound for a name that never was, Gone for a deleted one."""
        event = self.newest(account, name)
        if event is None or event.kind == "another's":
            raise NotFound("there is no such index", name=name)
        if event.kind == "deleted":
            raise Gone("the index was deleted", name=name)
        return event

    def free(self, account: str, name: str) -> int:
        """The number of the event that would give an index this name. Raises Exists if another has it."""
        last = self.newest(account, name)
        if last is not None and last.kind != "deleted":
            raise Exists("an index of this name exists", name=name)
        return last.generation + 1 if last else 1

    def identity(self, account: str, name: str) -> str | None:
        """The identity of the index that a name stands for now; None if it stands for none."""
        event = self.newest(account, name)
        return event.index_id if event is not None and event.kind == "created" else None

    def write(self, account: str, name: str, event: Event) -> None:
        """Make this the newest event. Raises AlreadyExists if somebody else was first."""
        folder, writer = folder_of(account, name), new_identity()
        key = f"{folder}/{numbered(event.generation)}"
        meta: dict[str, str | bool] = {
            "event": event.kind,
            "index": event.index_id,
            "folder": folder,
            "at": self._clock.now().isoformat(),
            "writer": writer,
        }
        if event.to is not None:
            meta["to"] = event.to
        if event.yields:
            meta["yields"] = True
        try:
            self._store.create(key, *pack(Kind.CATALOG_EVENT, meta))
        except AlreadyExists:
            # A client library may have sent ours twice.
            if read_object(self._store, key, Kind.CATALOG_EVENT).meta.get("writer") != writer:
                raise

    def take_away(self, account: str, name: str, living: Event, to: str | None) -> tuple[Event, bool]:
        """Take a name from the index that it stood for at ``living``, which is called ``to`` instead; returns the event by which it lost
        it, and whether that is ours. It may also have been given to another index."""
        generation = living.generation
        while True:
            generation += 1
            ours = Event(generation, "deleted", living.index_id, to)
            try:
                self.write(account, name, ours)
            except AlreadyExists:
                there = self._event(account, name, generation)
                if there.kind == "deleted" or (there.kind == "created" and there.index_id != living.index_id):
                    return there, False
                # It changed nothing.
                continue
            return ours, True

    def fence(self, account: str, name: str, generation: int, index_id: str) -> None:
        """Let nobody write this event of a name any more, for an index that is dead: by one that changes nothing."""
        while True:
            last = self.newest(account, name)
            if last is not None and (last.generation >= generation or last.kind == "another's"):
                return
            fence = Event(1, "deleted", index_id)
            if last is not None:
                fence = Event(last.generation + 1, last.kind, last.index_id, last.to)
            with contextlib.suppress(AlreadyExists):
                self.write(account, name, fence)

    def _event(self, account: str, name: str, generation: int) -> Event:
        """An event that there is, on stable storage. Raises Corrupt."""
        folder = folder_of(account, name)
        key = f"{folder}/{numbered(generation)}"
        box = read_object(self._store, key, Kind.CATALOG_EVENT)
        self._store.confirm(key)
        if box.meta.get("folder", folder) != folder:
            # A file system that does not tell A from a must not hand one account's index to another.
            return Event(generation, "another's", "")
        with box.understood():
            return Event(
                generation,
                box.meta["event"],
                box.meta["index"],
                box.meta.get("to"),
                bool(box.meta.get("yields")),
            )


def folder_of(account: str, name: str) -> str:
    """Where a name's events lie. Raises Invalid for what can be no name."""
    for piece, what in ((account, "account"), (name, "name")):
        if not NAME_PATTERN.fullmatch(piece):
            raise Invalid(f"an index's {what} must be letters, digits, _ and -", got=piece[:64])
    return f"catalog/{account}/{name}"
