"""The catalog: which index an account's name stands for, now.

Each name has a dense history of immutable events, ``catalog/{account}/{name}/{generation:020d}``: created (with an
identity), deleted, created again … The newest event tells; writing the next one, create-if-absent, is how two people who
create or delete the same name at once are told apart. "Is my copy still true?" is one look for generation + 1. An event that is
believed is on stable storage: what is acknowledged to be in an index would be lost with the index's name.

    meta  {"event": "created" | "deleted", "index": identity, "folder": where it was written, "at": when,
           "writer": whoever wrote it, so that it knows its own}
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import structlog

from upwell.catalog.record import IndexRecord, read_record, write_record
from upwell.changeset import KeyScope
from upwell.clock import Clock
from upwell.errors import AlreadyExists, Corrupt, Exists, Gone, Invalid, NotFound, TooNew, Unavailable
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.ids import new_identity, numbered, numbers_in
from upwell.kinds import IndexKind
from upwell.manifest import ManifestChain
from upwell.schema import RowSchema
from upwell.shard.metric import Metric
from upwell.store import Store, read_object

log = structlog.get_logger()

#: What may be a piece of a path. Doors allow less, each by its vendor's rules.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")


@dataclass(frozen=True, slots=True)
class _Event:
    generation: int
    #: "another's": it is of a name that differs from the one asked for, but not to the file system.
    kind: Literal["created", "deleted", "another's"]
    index_id: str


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


class Catalog:
    """Indexes by account and name. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._clock = clock
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], _Event] = {}
        self._records: dict[str, IndexRecord] = {}

    def create(self, account: str, new: NewIndex) -> IndexRecord:
        """Make an index, empty and at version 1, and give it its name. Raises Exists, Invalid or Unavailable."""
        _folder(account, new.name)
        began_at = self._clock.monotonic()
        last = self._newest_event(account, new.name)
        if last is not None and last.kind != "deleted":
            raise Exists("an index of this name exists", name=new.name)
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
            created_at=self._clock.now(),
            secret=new_identity(),
        )
        write_record(self._store, record)
        reached(Step.CATALOG_RECORD_WRITTEN)
        ManifestChain(self._store, record.folder, self._clock, self._grace_s).begin(record.id, record.shards)
        reached(Step.CATALOG_BEGUN)
        self._name(record, last, began_at)
        reached(Step.CATALOG_NAMED)
        return record

    def _name(self, record: IndexRecord, last: _Event | None, began_at: float) -> None:
        """Give an index its name after ``last``. Raises Exists if another has it by then."""
        while True:
            # After the look: whoever retires an index that took so long has written his fence by then, or will win the next number.
            if self._clock.monotonic() - began_at > self._grace_s / 2:
                raise Unavailable("the index took too long to make; try again")
            number = last.generation + 1 if last else 1
            try:
                self._write_event(_folder(record.account, record.name), _Event(number, "created", record.id))
            except AlreadyExists:
                # Another may have it now; or only a fence was written, to retire another index that once had this name.
                last = self._newest_event(record.account, record.name)
                if last is not None and last.kind != "deleted":
                    raise Exists("an index of this name exists", name=record.name) from None
                continue
            return

    def next_generation(self, account: str, name: str) -> int:
        """The number of the event that would give an index this name. Raises Exists if another has it, or Invalid."""
        _folder(account, name)
        last = self._newest_event(account, name)
        if last is not None and last.kind != "deleted":
            raise Exists("an index of this name exists", name=name)
        return last.generation + 1 if last else 1

    def give_name(self, record: IndexRecord, generation: int) -> None:
        """Give an index that is all there its name. ``generation`` was the next one before its record was written. Raises Exists if
        another took the name since, or if this took so long that the index was taken for dead (``retire``)."""
        try:
            self._write_event(_folder(record.account, record.name), _Event(generation, "created", record.id))
        except AlreadyExists:
            raise Exists(
                "the name was taken meanwhile, or this took too long; nothing was made", name=record.name
            ) from None

    def find(self, account: str, name: str) -> IndexRecord:
        """The index that ``name`` stands for now. Raises NotFound for a name that never was, Gone for a deleted one."""
        return self.record(self._living_event(account, name).index_id)

    def _living_event(self, account: str, name: str) -> _Event:
        event = self._newest_event(account, name)
        if event is None or event.kind == "another's":
            raise NotFound("there is no such index", name=name)
        if event.kind == "deleted":
            raise Gone("the index was deleted", name=name)
        return event

    def delete(self, account: str, name: str) -> None:
        """Take the name away from its index. Raises NotFound or Gone."""
        while True:
            # Its record is not asked for: an index that is damaged can be deleted all the same.
            last = self._living_event(account, name)
            try:
                self._write_event(
                    _folder(account, name), _Event(last.generation + 1, "deleted", last.index_id)
                )
            except AlreadyExists:
                continue
            reached(Step.CATALOG_UNNAMED)
            return

    def list(self, account: str) -> Iterator[IndexRecord]:
        """The account's indexes by name, ascending."""
        if not NAME_PATTERN.fullmatch(account):
            return
        for name in self._store.list(f"catalog/{account}"):
            try:
                yield self.find(account, name)
            except NotFound:
                continue

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
                event = self._newest_event(account, name)
                if event is not None and event.kind == "created":
                    found.add(event.index_id)
        return found

    def record(self, index_id: str) -> IndexRecord:
        """The record of an identity, whether it still has its name or not. Raises NotFound."""
        with self._lock:
            record = self._records.get(index_id)
        if record is None:
            record = read_record(self._store, index_id)
            with self._lock:
                self._records[index_id] = record
        return record

    def is_live(self, record: IndexRecord) -> bool:
        """Does this index still have its name?"""
        event = self._newest_event(record.account, record.name)
        return event is not None and event.kind == "created" and event.index_id == record.id

    def retire(self, index_id: str) -> bool:
        """Make sure that no name will come to stand for an identity that none stands for now; False if one does.

        Its creator may be asleep, just about to give it its name. The event it would write has the number after the one that it saw
        before it made the index; so a later event, of whomever, or one that we write and that changes nothing, has beaten it (a fence).
        """
        try:
            record = read_record(self._store, index_id)
        except NotFound:
            # Its creator did not come that far, and cannot go on in a folder that is gone; or another collector was here.
            return True
        except (Corrupt, TooNew) as error:
            log.error("an index without a name cannot be read, and is kept", index=index_id, error=str(error))
            return False
        while True:
            last = self._newest_event(record.account, record.name)
            if last is not None and last.index_id == index_id:
                return last.kind == "deleted"
            fence = _Event(1, "deleted", index_id)
            if last is not None:
                fence = _Event(last.generation + 1, last.kind, last.index_id)
            try:
                self._write_event(_folder(record.account, record.name), fence)
            except AlreadyExists:
                continue
            return True

    def _newest_event(self, account: str, name: str) -> _Event | None:
        """The newest event of a name: from memory if no newer one exists, which is one look, else by listing."""
        if not NAME_PATTERN.fullmatch(account) or not NAME_PATTERN.fullmatch(name):
            return None
        folder = _folder(account, name)
        with self._lock:
            known = self._events.get((account, name))
        if known is not None and not self._store.exists(f"{folder}/{numbered(known.generation + 1)}"):
            return known
        generations = numbers_in(self._store.list(folder))
        if not generations:
            return None
        newest = generations[-1]
        key = f"{folder}/{numbered(newest)}"
        box = read_object(self._store, key, Kind.CATALOG_EVENT)
        self._store.confirm(key)
        if box.meta.get("folder", folder) != folder:
            # A file system that does not tell A from a must not hand one account's index to another.
            return _Event(newest, "another's", "")
        with box.understood():
            event = _Event(newest, box.meta["event"], box.meta["index"])
        with self._lock:
            self._events[account, name] = event
        return event

    def _write_event(self, folder: str, event: _Event) -> None:
        """Make this the newest event. Raises AlreadyExists if somebody else was first."""
        key, writer = f"{folder}/{numbered(event.generation)}", new_identity()
        meta = {
            "event": event.kind,
            "index": event.index_id,
            "folder": folder,
            "at": self._clock.now().isoformat(),
            "writer": writer,
        }
        try:
            self._store.create(key, *pack(Kind.CATALOG_EVENT, meta))
        except AlreadyExists:
            # A client library may have sent ours twice.
            if read_object(self._store, key, Kind.CATALOG_EVENT).meta.get("writer") != writer:
                raise


def _folder(account: str, name: str) -> str:
    for piece, what in ((account, "account"), (name, "name")):
        if not NAME_PATTERN.fullmatch(piece):
            raise Invalid(f"an index's {what} must be letters, digits, _ and -", got=piece[:64])
    return f"catalog/{account}/{name}"
