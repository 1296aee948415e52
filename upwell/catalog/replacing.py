"""Giving the name of an index that was never written to, to another that is made in its place: what cannot be changed of an index is
chosen anew so.

Nothing that was acknowledged may be in the old one when it loses its name. Two events decide, both create-if-absent:

    1  the name still stands for the old index, and says that it ``yields``
    2  it stands for the new one, if between the two nothing was found in the old one: no other name, no entry of its log, no webhook

Whoever is about to acknowledge something that is in the index (an entry, notes, a webhook), or to apply its first entry, calls ``hold``
once that is durable: it looks at the name, and where that yields writes event 2 himself, which changes nothing but that it yields no
more. So, of an append A, followed by its look L, and of a replacing that writes 1, looks (K), and writes 2:

    A before K     K finds it: the index is not replaced
    A after K      so L is after 1, and sees it, or what came behind it. Either L's event 2 is the first one: the index is not replaced, and A is
                   acknowledged. Or the replacing's is: L finds that the index has no name, and A is not acknowledged; sent again
                   it finds the new index
    L before 1     then A is before K

A replacing that dies after 1 leaves a name that yields to nobody: who holds the index ends that by one event, and until then it is the index
that it was. One that dies after 2 is done. One that sleeps finds 2 taken, if anything was held, renamed, deleted or replaced meanwhile; and
one that slept so long that its new index may have been taken for dead does not write it at all (names.py, ``_name``). What is held
once cannot be replaced any more, since K looks at the same log: so indexes with an applied entry need not be held again.

Whoever renames an index says so in its folder before he looks whether its name yields, and holds it if it does. So he is found by K, which
fences off his event, or refuses for that it is there; or he looked after 1, and took 2. K asks for names before it asks for anything
else: an entry that was acknowledged while the index had a name that it has no more is found behind that.

The old index's name never comes back: it is as dead as a deleted one, and collected like it. Nobody has a receipt of it, since none of its mutations
was acknowledged, and it had no webhooks. Its notes are copied after 1, so their changes are held too. The new record says whose place
it took (``replaces``), by which aliases find it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from upwell.catalog.events import Event, Events
from upwell.catalog.notes import NOTES, Notes
from upwell.catalog.record import IndexRecord, index_folder
from upwell.clock import Clock
from upwell.errors import AlreadyExists, Conflict, Gone, Unavailable
from upwell.failpoint import Step, reached
from upwell.ids import numbers_in
from upwell.log.reader import LogReader
from upwell.manifest import ManifestChain, ManifestHead
from upwell.store import Store

#: In an index's folder: what it is called, or is about to be, beside what it was called first.
NAMES = "names"
#: Raises if an index with these notes may not be replaced.
MayReplace = Callable[[dict[str, Any]], None]
#: Names and the events that give them.
Given = list[tuple[str, int]]


class Replacing:
    """Hands names over. Blocking; safe to share between threads."""

    def __init__(self, store: Store, events: Events, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._events = events
        self._clock = clock
        self._grace_s = grace_s

    def hand_over(
        self, old: IndexRecord, made_as: str, new: IndexRecord, began_at: float, *, may: MayReplace
    ) -> None:
        """Give the name of ``old``, as it is called now, to ``new``, which is all there and was begun at ``began_at``. ``made_as``: the
        name that the old one was made with; ``may`` is asked of the very notes that the new one gets.

        Raises what ``may`` does, Gone if it has that name no more, Conflict if it has been used, Unavailable if it is being renamed, or this took too long.
        """
        account, name = old.account, old.name
        while True:
            living = self._events.living(account, name)
            if living.index_id != old.id:
                raise Gone("the index was deleted, or replaced by another", name=name)
            first = living.generation + 1
            try:
                self._events.write(account, name, Event(first, "created", old.id, yields=True))
            except AlreadyExists:
                continue
            reached(Step.CATALOG_YIELDING)
            self.check_unused(old, made_as)
            noted = self._notes(old).read()
            may(noted)
            self._notes(new).change(lambda _, noted=noted: noted)  # type: ignore[misc]
            # After event 1: whoever retires an index that took so long has written his fence by then, or will win event 2.
            if self._clock.monotonic() - began_at > self._grace_s / 2:
                raise Unavailable("the index took too long to make; try again")
            with contextlib.suppress(AlreadyExists):
                self._events.write(account, name, Event(first + 1, "created", new.id))
                reached(Step.CATALOG_REPLACED)
                return

    def hold(self, account: str, name: str, index_id: str) -> bool:
        """Let a name that stands for an index yield to nobody; False if it stands for it no more, or somebody else changed it."""
        last = self._events.newest(account, name)
        if last is None or not last.stands_for(index_id):
            return False
        if last.yields:
            try:
                self._events.write(account, name, Event(last.generation + 1, "created", index_id))
            except AlreadyExists:
                return False
        return True

    def check_unused(self, old: IndexRecord, made_as: str) -> None:
        """Raise Conflict if there is anything in an index that another in its place would not have, Unavailable if it is being renamed."""
        fenced: Given | None = None
        while fenced != (given := names_given(self._store, old.id)):
            for name, generation in given:
                self._events.fence(old.account, name, generation, old.id)
            others = {made_as, *(name for name, _ in given)} - {old.name}
            if any(self._events.identity(old.account, name) == old.id for name in others):
                raise Unavailable("the index is being renamed; try again", name=old.name)
            fenced = given
        chain = ManifestChain(self._store, old.folder, self._clock, self._grace_s)
        written = LogReader(self._store, old.folder).exists(1)
        if written or ManifestHead(chain, self._clock, self._grace_s).refresh().applied_through > 0:
            raise Conflict("the index was written to", name=old.name)
        if next(iter(self._store.list(f"{old.folder}/webhook")), None) is not None:
            raise Conflict("the index has webhooks", name=old.name)

    def _notes(self, record: IndexRecord) -> Notes:
        return Notes(self._store, f"{record.folder}/{NOTES}", self._clock, self._grace_s)


def names_given(store: Store, index_id: str) -> Given:
    """The names that an index has got, or may yet get, beside the one that it was made with; and by which event."""
    folder = f"{index_folder(index_id)}/{NAMES}"
    return [(name, one) for name in store.list(folder) for one in numbers_in(store.list(f"{folder}/{name}"))]
