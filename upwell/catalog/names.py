"""The catalog: which index an account's name stands for, now.

Each name has a dense history of events (events.py): created (with an identity), deleted, created again … The newest tells; writing
the next one, create-if-absent, is how two people who create or delete the same name at once are told apart. "Is my copy still true?"
is one look for generation + 1.

An index is renamed by giving it its new name and then taking the old one away; in between both are its names. Its record says for ever what
it was called first. So before it gets another name, an object in its own folder says which, and with which event:
``index/{id}/names/{name}/{generation:020d}``. That is how its name is found of an identity, and how whoever makes sure that it gets none
any more finds a renamer who is asleep.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import structlog

from upwell.catalog.events import NAME_PATTERN, Event, Events, folder_of
from upwell.catalog.record import IndexRecord, index_folder, read_record, write_record
from upwell.catalog.replacing import NAMES, Given, MayReplace, Replacing, names_given
from upwell.changeset import KeyScope
from upwell.clock import Clock
from upwell.errors import AlreadyExists, Corrupt, Exists, Gone, Invalid, NotFound, TooNew, Unavailable
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.ids import new_identity, numbered
from upwell.kinds import IndexKind
from upwell.manifest import ManifestChain
from upwell.schema import RowSchema
from upwell.shard.metric import Metric
from upwell.store import Store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIndex:
    """What a client asks for when it creates an index."""

    name: str
    description: str | None
    dimensions: int
    metric: Metric
    shards: int
    kind: IndexKind = IndexKind.DENSE
    key_scope: KeyScope = KeyScope.OPEN
    embedding_model: str | None = None
    sparse_embedding_model: str | None = None
    row_schema: RowSchema | None = None

    @classmethod
    def like(cls, record: IndexRecord, metric: Metric) -> Self:
        """One like an index that there is, but for its metric."""
        same = {one.name: getattr(record, one.name) for one in fields(cls)}
        return cls(**same | {"metric": metric})


class Catalog:
    """Indexes by account and name. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._clock = clock
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._events = Events(store, clock)
        self._replacing = Replacing(store, self._events, clock, grace_s)
        self._records: dict[str, IndexRecord] = {}
        #: Of indexes that were renamed: a name that they had when last looked for.
        self._names: dict[str, str] = {}

    def create(self, account: str, new: NewIndex) -> IndexRecord:
        """Make an index, empty and at version 1, and give it its name. Raises Exists, Invalid or Unavailable."""
        folder_of(account, new.name)
        began_at = self._clock.monotonic()
        number = self._events.free(account, new.name)
        record = self._begun(account, new)
        self._name(record, number, began_at)
        reached(Step.CATALOG_NAMED)
        return record

    def _begun(self, account: str, new: NewIndex, replaces: tuple[str, ...] = ()) -> IndexRecord:
        """An index that is all there but for its name."""
        record = IndexRecord(
            id=new_identity(),
            account=account,
            name=new.name,
            description=new.description,
            kind=new.kind,
            dimensions=new.dimensions,
            metric=new.metric,
            shards=new.shards,
            key_scope=new.key_scope,
            embedding_model=new.embedding_model,
            sparse_embedding_model=new.sparse_embedding_model,
            row_schema=new.row_schema,
            replaces=replaces,
            created_at=self._clock.now(),
            secret=new_identity(),
        )
        write_record(self._store, record)
        reached(Step.CATALOG_RECORD_WRITTEN)
        ManifestChain(self._store, record.folder, self._clock, self._grace_s).begin(record.id, record.shards)
        reached(Step.CATALOG_BEGUN)
        return record

    def _name(self, record: IndexRecord, number: int, began_at: float) -> None:
        """Give an index its name by an event of this number, or a later one. Raises Exists if another has it by then."""
        while True:
            # After the look: whoever retires an index that took so long has written his fence by then, or will win the next number.
            if self._clock.monotonic() - began_at > self._grace_s / 2:
                raise Unavailable("the index took too long to make; try again")
            try:
                self._events.write(record.account, record.name, Event(number, "created", record.id))
            except AlreadyExists:
                # Another may have it now; or only a fence was written, to retire another index that once had this name.
                number = self._events.free(record.account, record.name)
                continue
            return

    def next_generation(self, account: str, name: str) -> int:
        """The number of the event that would give an index this name. Raises Exists if another has it, or Invalid."""
        folder_of(account, name)
        return self._events.free(account, name)

    def give_name(self, record: IndexRecord, generation: int) -> None:
        """Give an index that is all there its name. ``generation`` was the next one before its record was written. Raises Exists if
        another took the name since, or if this took so long that the index was taken for dead (``retire``)."""
        try:
            self._events.write(record.account, record.name, Event(generation, "created", record.id))
        except AlreadyExists:
            raise Exists(
                "the name was taken meanwhile, or this took too long; nothing was made", name=record.name
            ) from None

    def find(self, account: str, name: str) -> IndexRecord:
        """The index that ``name`` stands for now, called so. Raises NotFound for a name that never was, Gone for a deleted one."""
        return _called(self.record(self._events.living(account, name).index_id), name)

    def identity(self, account: str, name: str) -> str | None:
        """The identity of the index that ``name`` stands for now; None if it stands for none. Its record is not asked for."""
        return self._events.identity(account, name)

    def delete(self, account: str, name: str) -> None:
        """Take the name away from its index. Raises NotFound or Gone."""
        # Its record is not asked for: an index that is damaged can be deleted all the same.
        while True:
            event, ours = self._events.take_away(account, name, self._events.living(account, name), None)
            if ours:
                break
            if event.kind == "deleted":
                raise Gone("the index was deleted", name=name)
            # Another took its place meanwhile, and has the name.
        reached(Step.CATALOG_UNNAMED)

    def replace(
        self, account: str, name: str, old_id: str, new: NewIndex, *, may: MayReplace = lambda _: None
    ) -> IndexRecord:
        """Make an index, empty and at version 1, in the place of one that was never written to: with its name, notes and aliases. ``may``
        is asked of those notes, and raises if it must not be.

        Raises Gone if the name does not stand for that one any more, Conflict if it has been written to or has webhooks, Unavailable if
        it is being renamed, or this took too long. See replacing.py.
        """
        began_at, made = self._clock.monotonic(), self.record(old_id)
        old = _called(made, name)
        if old.account != account or new.name != name:
            raise Invalid("an index is replaced by one of its own name", name=name)
        if self._events.living(account, name).index_id != old_id:
            raise Gone("the index was deleted, or replaced by another", name=name)
        self._replacing.check_unused(old, made.name)
        record = self._begun(account, new, (*made.replaces, old_id))
        self._replacing.hand_over(old, made.name, record, began_at, may=may)
        return record

    def hold(self, record: IndexRecord) -> None:
        """Let nobody replace this index any more, which has something that is durable. Raises Gone if another has its place already, or
        it was deleted. Two looks. See replacing.py."""
        while True:
            name = self._name_of(record)
            if name is None:
                raise Gone(
                    "the index was deleted, or another was made in its place; send it again", name=record.name
                )
            if self._replacing.hold(record.account, name, record.id):
                return

    def is_or_replaces(self, index_id: str | None, identity: str) -> bool:
        """Is an index the one of this identity, or was it made in its place?"""
        if index_id is None or index_id == identity:
            return index_id is not None
        try:
            return identity in self.record(index_id).replaces
        except (NotFound, Corrupt, TooNew):
            # It is being deleted, or cannot say so: who asks is looking for another one.
            return False

    def rename(self, account: str, old: str, new: str) -> IndexRecord:
        """Give an index another name of the same account. Done again after a crash, it is completed.

        Raises NotFound or Gone if there is no index of the old name, or no more; Exists if the new one is taken, Invalid if it cannot be
        one. Of two who rename an index at once one is told Gone.
        """
        if old == new:
            raise Invalid("the new name is the old one", name=new)
        living = self._given_also(account, old, new)
        taken, _ = self._events.take_away(account, old, living, new)
        if taken.to == new:
            return _called(self.record(living.index_id), new)
        # By somebody else, who deleted it, or renamed it to something else: it is not to have our name.
        while (last := self._events.newest(account, new)) is not None and last.stands_for(living.index_id):
            self._events.take_away(account, new, last, None)
        raise Gone(f"the index was {'deleted' if taken.to is None else 'renamed'} meanwhile", name=old)

    def _given_also(self, account: str, old: str, new: str) -> Event:
        """Let the index that the old name stands for have the new one too; returns the old name's event."""
        folder_of(account, new)
        while True:
            living = self._events.living(account, old)
            if living.yields:
                self._replacing.hold(account, old, living.index_id)
                continue
            try:
                number = self._events.free(account, new)
            except Exists:
                if self._events.identity(account, new) == living.index_id:
                    # As another left it, who began the same.
                    return living
                raise
            with contextlib.suppress(AlreadyExists):
                key = f"{index_folder(living.index_id)}/{NAMES}/{new}/{numbered(number)}"
                self._store.create(key, *pack(Kind.CATALOG_EVENT, {}))
            reached(Step.CATALOG_RENAMING)
            # Looked at once that is said: whoever retires the index from now on knows of it.
            if self._events.living(account, old) != living:
                continue
            with contextlib.suppress(AlreadyExists):
                self._events.write(account, new, Event(number, "created", living.index_id))
                reached(Step.CATALOG_RENAMED)
                return living

    def list(self, account: str) -> Iterator[IndexRecord]:
        """The account's indexes by name, ascending."""
        if not NAME_PATTERN.fullmatch(account):
            return
        for name in self._store.list(f"catalog/{account}"):
            try:
                yield self.find(account, name)
            except NotFound:
                continue

    def names(self, account: str) -> Iterator[str]:
        """The names of the account's indexes, ascending. No record is asked for."""
        if NAME_PATTERN.fullmatch(account):
            names = self._store.list(f"catalog/{account}")
            yield from (name for name in names if self.identity(account, name) is not None)

    def accounts(self) -> Iterator[str]:
        """The accounts that have, or had, an index, by name, ascending."""
        return self._store.list("catalog")

    def everything(self) -> Iterator[IndexRecord]:
        """Every index of every account. One look per name: for sweeps, not for requests.

        One that is damaged is left out, and said in the log: the others must go on.
        """
        for account in self._store.list("catalog"):
            for name in self._store.list(f"catalog/{account}"):
                try:
                    yield self.find(account, name)
                except NotFound:
                    continue
                except (Corrupt, TooNew) as error:
                    log.error("index cannot be read", account=account, name=name, error=str(error))

    def identities(self) -> set[str]:
        """The identities that names stand for now. Raises Corrupt if that cannot be told of any name: whoever deletes what
        has no name must not take a damaged one for none."""
        found = set()
        for account in self._store.list("catalog"):
            for name in self._store.list(f"catalog/{account}"):
                if (index_id := self.identity(account, name)) is not None:
                    found.add(index_id)
        return found

    def named(self, index_id: str) -> IndexRecord:
        """The record of an identity, called by a name that it has now. Raises NotFound, also if it has none any more."""
        record = self.record(index_id)
        name = self._name_of(record)
        if name is None:
            raise NotFound("the index was deleted", id=index_id)
        return _called(record, name)

    def is_live(self, record: IndexRecord) -> bool:
        """Does this index still have a name?"""
        return self.identity(record.account, record.name) == record.id or self._name_of(record) is not None

    def _name_of(self, record: IndexRecord) -> str | None:
        """A name that stands for an index now; None if none does. One look, unless it was renamed or deleted since the last time."""
        with self._lock:
            known = self._names.get(record.id, record.name)
        if self.identity(record.account, known) == record.id:
            return known
        looked_at: Given | None = None
        # While we look at its names it may get another, and lose the one that was not looked at yet.
        while looked_at != (names := names_given(self._store, record.id)):
            for name in dict.fromkeys([record.name, *(name for name, _ in names)]):
                if self.identity(record.account, name) == record.id:
                    with self._lock:
                        self._names[record.id] = name
                    return name
            looked_at = names
        with self._lock:
            self._names.pop(record.id, None)
        return None

    def record(self, index_id: str) -> IndexRecord:
        """The record of an identity as it was made, whether it still has a name or not. Raises NotFound."""
        with self._lock:
            record = self._records.get(index_id)
        if record is None:
            record = read_record(self._store, index_id)
            with self._lock:
                self._records[index_id] = record
        return record

    def retire(self, index_id: str) -> bool:
        """Make sure that no name will come to stand for an identity that none stands for now; False if one does.

        Its creator may be asleep, just about to give it its name. The event it would write has the number after the one that it saw
        before it made the index; so a later event, of whomever, or one that we write and that changes nothing, has beaten it (a fence).
        And so may one be who renames it; which name, and which event, is said in the index's folder.
        """
        try:
            record = read_record(self._store, index_id)
        except NotFound:
            # Its creator did not come that far, and cannot go on in a folder that is gone; or another collector was here.
            return True
        except (Corrupt, TooNew) as error:
            log.error("an index without a name cannot be read, and is kept", index=index_id, error=str(error))
            return False
        fenced: Given | None = None
        while fenced != (given := names_given(self._store, index_id)):
            last = self._events.newest(record.account, record.name)
            if last is None or last.index_id != index_id:
                beyond = last.generation + 1 if last else 1
                self._events.fence(record.account, record.name, beyond, index_id)
            for name, generation in given:
                self._events.fence(record.account, name, generation, index_id)
            names = {record.name, *(name for name, _ in given)}
            if any(self.identity(record.account, name) == index_id for name in names):
                return False
            fenced = given
        return True


def _called(record: IndexRecord, name: str) -> IndexRecord:
    """The record as of an index of this name."""
    return record if record.name == name else record.model_copy(update={"name": name})
