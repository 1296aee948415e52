"""The engine: one store opened, and for each index in it the parts that front ends and workers stand on.

The composition root of this package: settings, store and clock meet here and nowhere else. It knows no HTTP, no Redis and
no event loop; everything blocks, and is called from threads. ``ingest`` asks for ``index()``; ``workers`` apply batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import structlog

from upwell.catalog.databases import Databases
from upwell.catalog.names import Catalog, NewIndex
from upwell.catalog.record import IndexRecord
from upwell.catalog.replacing import MayReplace
from upwell.catalog.tokens import Tokens
from upwell.clock import Clock, SystemClock
from upwell.embed.models import Models
from upwell.errors import Corrupt, Exists, Gone, NotFound, TooNew
from upwell.garbage import Collected, DeadIndexes
from upwell.index import Index, Load
from upwell.log.receipt import Receipt
from upwell.settings import Settings
from upwell.shard.apply import Applied
from upwell.shard.batch import Broken
from upwell.shard.compact import Compacted
from upwell.shard.embedding import TextClaims
from upwell.shard.part import PartTask, Sharing
from upwell.store import Store, open_store
from upwell.webhook import Delivery, Ledger

__all__ = ["Engine", "Index", "Load", "open_engine"]

log = structlog.get_logger()


class Engine:
    """One store and everything in it."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.catalog = Catalog(store, clock, settings.grace_s)
        self.databases = Databases(store, clock, self.catalog, settings.grace_s)
        self.tokens = Tokens(store, clock, settings.token, settings.token_previous)
        self._dead = DeadIndexes(
            store, clock, settings.grace_s, live=self.catalog.identities, retire=self.catalog.retire
        )
        self._lock = threading.Lock()
        self._indexes: dict[str, Index] = {}

    @cached_property
    def models(self) -> Models:
        """What makes vectors of texts. Made when first needed: a process that embeds nothing loads nothing. Raises Invalid if the
        settings name what cannot be used."""
        return Models(self.settings, self.clock)

    def close(self) -> None:
        """Let go of models: who waits for one is told that it is away."""
        models = self.__dict__.get("models")
        if models is not None:
            models.close()

    def create(self, account: str, new: NewIndex) -> IndexRecord:
        """Make an index. Raises as Catalog.create does, and Exists for a name that stands for another index already, as an alias."""
        self._check_no_alias(account, new.name)
        return self.catalog.create(account, new)

    def rename(self, account: str, old: str, new: str) -> IndexRecord:
        """Give an index another name. Raises as Catalog.rename does, and Exists for a name that is an alias."""
        self._check_no_alias(account, new)
        return self.catalog.rename(account, old, new)

    def replace(self, index: Index, new: NewIndex, *, may: MayReplace = lambda _: None) -> Index:
        """Make an index in the place of one that was never written to. Raises as Catalog.replace does."""
        old = index.record
        return self._open(self.catalog.replace(old.account, old.name, old.id, new, may=may))

    def successor(self, index: Index) -> Index | None:
        """The index that was made in the place of this one, and stands where it stood; None if there is none."""
        old = index.record
        try:
            other = self.find(old.account, old.name)
        except NotFound:
            return None
        return other if old.id in other.record.replaces else None

    def _check_no_alias(self, account: str, name: str) -> None:
        meant = self.databases.meant_by(account, name)
        if meant is not None:
            raise Exists("an index has this name as an alias", name=name, index=meant)

    def find(self, account: str, name: str) -> Index:
        """The index that a name stands for now. Raises NotFound or Gone."""
        return self._open(self.catalog.find(account, name))

    def index(self, index_id: str) -> Index:
        """The index of an identity. Raises NotFound, also for one whose name was taken away: it is as good as gone."""
        try:
            return self._open(self.catalog.named(index_id))
        except NotFound:
            with self._lock:
                self._indexes.pop(index_id, None)
            raise

    def has_backlog(self, index_id: str) -> bool:
        """Does an index have log entries that are not applied? False for one that is deleted."""
        try:
            return self.index(index_id).has_backlog()
        except NotFound:
            return False

    def backlogged(self) -> Iterator[str]:
        """Identities of all indexes with a backlog. Five looks per index: 50 ms for a thousand of them on a local disk.

        Ceiling: some ten thousand indexes a store; beyond, the doorbell's word would have to narrow the search.
        """
        for record in self.catalog.everything():
            try:
                if self.has_backlog(record.id):
                    yield record.id
            except (Corrupt, TooNew) as error:
                # One damaged index must not keep the others from being swept.
                log.error("index cannot be read", index=record.id, error=str(error))

    def live_indexes(self) -> list[str]:
        """Identities of all indexes that have a name."""
        return [record.id for record in self.catalog.everything()]

    def apply_batch(
        self,
        index_id: str,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None] = lambda _: None,
        sharing: Sharing | None = None,
        broken: Broken | None = None,
        *,
        claims: TextClaims | None = None,
    ) -> Applied | None:
        """Apply and commit an index's next batch; None if there is none, or the index is deleted. See Applier."""
        index = self._live(index_id)
        if index is None:
            return None
        if index.may_be_replaced:
            if not index.has_backlog():
                # What comes now must not be applied before it is held: who sees that anything was applied holds the index no more.
                return None
            try:
                index.hold()
            except Gone:
                return None
        return index.applier.apply_batch(still_ours, applying, sharing, broken, claims=claims)

    def embed_ahead(self, index_id: str, claims: TextClaims) -> int:
        """Make and keep vectors of texts that an index's log has and nobody is at, some at once; returns of how many entries.
        Raises ModelAway."""
        index = self._live(index_id)
        return 0 if index is None else index.embedding.ahead(index.applier.unembedded(), claims)

    def next_entry(self, index_id: str) -> list[Receipt]:
        """The mutations of the log entry that an index applies next; none if there is no entry, or nothing of it can be read."""
        index = self._live(index_id)
        if index is None:
            return []
        position = index.head.refresh().applied_through + 1
        try:
            places = len(index.log.read(position).mutations)
        except (NotFound, Corrupt):
            return []
        return [Receipt(position, place) for place in range(places)]

    def help_apply(self, index_id: str, task: PartTask, sharing: Sharing) -> int:
        """Write parts of a batch that another process applies; returns how many. See Applier."""
        index = self._live(index_id)
        return 0 if index is None else index.applier.help(task, sharing)

    def compactions_due(self) -> Iterator[tuple[str, int]]:
        """Index and shard of all that have segments to merge. Looks, and has the same ceiling, as ``backlogged`` does."""
        for record in self.catalog.everything():
            try:
                for shard in self.index(record.id).compactor.due():
                    yield record.id, shard
            except NotFound:
                continue
            except (Corrupt, TooNew) as error:
                # One damaged index must not keep the others from being merged.
                log.error("index cannot be read", index=record.id, error=str(error))

    def compact(
        self,
        index_id: str,
        shard: int,
        alive: Callable[[], None] = lambda: None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Compacted | None:
        """Merge what is due next in a shard; None if nothing is, or the index is deleted. See Compactor."""
        index = self._live(index_id)
        return None if index is None else index.compactor.compact(shard, alive, turn)

    def webhook_indexes(self) -> list[str]:
        """Identities of all indexes with webhooks. Three looks per index, as ``backlogged`` has five, and asked for more rarely."""
        return [record.id for record in self.catalog.everything() if Ledger(self.store, record.folder).ids()]

    def webhooks_due(self, index_id: str) -> list[str]:
        """The webhooks of an index that there may be something to tell now; none if it is deleted."""
        index = self._live(index_id)
        return [] if index is None else index.webhooks.due()

    def webhook_delivery(self, index_id: str, webhook_id: str) -> Delivery | None:
        """A turn of delivering for one webhook; None if it or its index is deleted."""
        index = self._live(index_id)
        return None if index is None else index.webhooks.delivery(webhook_id)

    def collect_garbage(self, index_id: str) -> Collected:
        """Delete what nothing of an index can read any more. For one thread at a time."""
        try:
            return self.index(index_id).collector.collect()
        except NotFound:
            return Collected()

    def collect_dead_indexes(self) -> int:
        """Delete indexes that have had no name for a grace period; returns how many. And what was known of databases before. For one
        thread at a time."""
        self.forget_dead()
        self.databases.collect_old()
        return self._dead.collect()

    def forget_dead(self) -> set[str]:
        """Let go of what is open of indexes that lost their name, and of versions that nobody reads any more, so that their files can
        leave the disk; returns which indexes."""
        with self._lock:
            opened = list(self._indexes.values())
        for index in opened:
            index.pinned.forget_expired()
        dead = {index.record.id for index in opened if not self.catalog.is_live(index.record)}
        with self._lock:
            for index_id in dead:
                self._indexes.pop(index_id, None)
        return dead

    def _live(self, index_id: str) -> Index | None:
        """The index of an identity, None if it was deleted."""
        try:
            return self.index(index_id)
        except NotFound:
            return None

    def _open(self, record: IndexRecord) -> Index:
        with self._lock:
            index = self._indexes.get(record.id)
            if index is None:
                index = self._indexes[record.id] = Index(self, record)
            elif index.record.name != record.name:
                index = self._indexes[record.id] = index.called(record)
            return index


def open_engine(settings: Settings, clock: Clock | None = None) -> Engine:
    """Open the store that ``settings`` name. Raises Invalid for an address it cannot use, Unavailable if it is away."""
    return Engine(open_store(settings.store, settings.data), settings, clock or SystemClock())
