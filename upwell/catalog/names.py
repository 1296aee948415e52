"""The catalog: which index an account's name stands for, now.

Each name has a dense history of immutable events, ``catalog/{account}/{name}/{generation:020d}``: created (with an
identity), deleted, created again … The newest event tells; writing the next one, create-if-absent, is how two people who
create or delete the same name at once are told apart. "Is my copy still true?" is one look for generation + 1.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import structlog

from upwell.catalog.record import IndexRecord, read_record, write_record
from upwell.clock import Clock
from upwell.errors import AlreadyExists, Corrupt, Exists, Gone, Invalid, NotFound, Unavailable
from upwell.format import Kind, pack, unpack
from upwell.ids import new_identity, numbered
from upwell.manifest import ManifestChain
from upwell.shard.keys import KeyScope
from upwell.shard.metric import Metric
from upwell.store import Store

log = structlog.get_logger()

#: What may be a piece of a path. Doors allow less, each by its vendor's rules.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")


@dataclass(frozen=True, slots=True)
class _Event:
    generation: int
    kind: Literal["created", "deleted"]
    index_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIndex:
    """What a client asks for when it creates an index."""

    name: str
    description: str | None
    dimensions: int
    metric: Metric
    shards: int
    key_scope: KeyScope = KeyScope.INDEX


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
        folder = _folder(account, new.name)
        began_at = self._clock.monotonic()
        last = self._newest_event(account, new.name)
        if last is not None and last.kind == "created":
            raise Exists("an index of this name exists", name=new.name)
        record = IndexRecord(
            id=new_identity(),
            account=account,
            name=new.name,
            description=new.description,
            dimensions=new.dimensions,
            metric=new.metric,
            shards=new.shards,
            key_scope=new.key_scope,
            created_at=self._clock.now(),
            secret=new_identity(),
        )
        write_record(self._store, record)
        ManifestChain(self._store, record.folder, self._clock, self._grace_s).begin(record.id, record.shards)
        if self._clock.monotonic() - began_at > self._grace_s / 2:
            # What has no name for so long may be collected as a dead index.
            raise Unavailable("the index took too long to make; try again")
        event = _Event(last.generation + 1 if last else 1, "created", record.id)
        try:
            self._write_event(folder, event)
        except AlreadyExists:
            raise Exists("an index of this name exists", name=new.name) from None
        return record

    def find(self, account: str, name: str) -> IndexRecord:
        """The index that ``name`` stands for now. Raises NotFound for a name that never was, Gone for a deleted one."""
        event = self._newest_event(account, name)
        if event is None:
            raise NotFound("there is no such index", name=name)
        if event.kind == "deleted":
            raise Gone("the index was deleted", name=name)
        return self.record(event.index_id)

    def delete(self, account: str, name: str) -> None:
        """Take the name away from its index. Raises NotFound or Gone."""
        while True:
            record = self.find(account, name)
            last = self._newest_event(account, name)
            if last is None or last.index_id != record.id or last.kind == "deleted":
                continue
            try:
                self._write_event(_folder(account, name), _Event(last.generation + 1, "deleted", record.id))
            except AlreadyExists:
                continue
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
                except Corrupt as error:
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

    def _newest_event(self, account: str, name: str) -> _Event | None:
        """The newest event of a name: from memory if no newer one exists, which is one look, else by listing."""
        if not NAME_PATTERN.fullmatch(account) or not NAME_PATTERN.fullmatch(name):
            return None
        folder = _folder(account, name)
        with self._lock:
            known = self._events.get((account, name))
        if known is not None and not self._store.exists(f"{folder}/{numbered(known.generation + 1)}"):
            return known
        names = list(self._store.list(folder))
        if not names:
            return None
        meta = unpack(self._store.read(f"{folder}/{names[-1]}"), Kind.CATALOG_EVENT).meta
        event = _Event(int(names[-1]), meta["event"], meta["index"])
        with self._lock:
            self._events[account, name] = event
        return event

    def _write_event(self, folder: str, event: _Event) -> None:
        meta = {"event": event.kind, "index": event.index_id, "at": self._clock.now().isoformat()}
        self._store.create(f"{folder}/{numbered(event.generation)}", *pack(Kind.CATALOG_EVENT, meta))


def _folder(account: str, name: str) -> str:
    for piece, what in ((account, "account"), (name, "name")):
        if not NAME_PATTERN.fullmatch(piece):
            raise Invalid(f"an index's {what} must be letters, digits, _ and -", got=piece[:64])
    return f"catalog/{account}/{name}"
