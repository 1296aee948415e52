"""The engine: one store opened, and for each index in it the parts that front ends and workers stand on.

The composition root of this package: settings, store and clock meet here and nowhere else. It knows no HTTP, no Redis and
no event loop; everything blocks, and is called from threads. ``ingest`` asks for ``index()``; ``workers`` apply batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import structlog

from upwell.catalog.names import Catalog
from upwell.catalog.record import IndexRecord
from upwell.catalog.tokens import Tokens
from upwell.clock import Clock, SystemClock
from upwell.embed.models import Models
from upwell.errors import Corrupt, Gone, NotFound, TooNew
from upwell.garbage import Collected, Collector, DeadIndexes
from upwell.log.backlog import Backlog, BacklogSize
from upwell.log.embedded import EmbeddedEntries
from upwell.log.kept import KeptMutations
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt
from upwell.log.request import Requests
from upwell.log.writer import LogWriter
from upwell.manifest import Failures, ManifestChain, ManifestHead
from upwell.outcome import Outcomes
from upwell.query.listing import PinnedViews
from upwell.sent import SentMutations
from upwell.settings import Settings
from upwell.shard.apply import Applied, Applier
from upwell.shard.batch import BatchLimits, Broken
from upwell.shard.compact import Compacted, Compactor
from upwell.shard.embedding import Embedding, TextClaims
from upwell.shard.newest import NewestView
from upwell.shard.part import PartTask, Sharing
from upwell.shard.plan import PlanLimits
from upwell.shard.view import ViewOpener
from upwell.store import Store, open_store
from upwell.webhook import Delivery, Ledger, Webhooks

log = structlog.get_logger()

#: Vectors of one merged segment: it must be written within half a grace period.
MERGED_BYTES_MAX = 4 << 30


@dataclass(frozen=True, slots=True)
class Load:
    """How far an index lags behind what it was sent."""

    #: What is not applied yet.
    backlog: BacklogSize
    #: The most segments that any of its shards has.
    segments: int


class Index:
    """The parts of one index, made when first needed and shared by all threads of the process."""

    def __init__(self, engine: Engine, record: IndexRecord) -> None:
        self.record = record
        self._engine = engine
        chain = ManifestChain(engine.store, record.folder, engine.clock, engine.settings.grace_s)
        self.head = ManifestHead(chain, engine.clock, engine.settings.grace_s)
        self.log = LogReader(engine.store, record.folder)
        self.backlog = Backlog(self.log, row_bytes=4 * record.dimensions)

    @cached_property
    def newest(self) -> NewestView:
        """The newest view."""
        return NewestView(self.head, ViewOpener(self._engine.store, self.record))

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of each mutation."""
        return Outcomes(self.record, self.head, self.log, self.requests, self.failures)

    @cached_property
    def failures(self) -> Failures:
        """Which mutations failed, and why."""
        return Failures(self._engine.store, self.record.folder)

    @cached_property
    def kept(self) -> KeptMutations:
        """What failed mutations were to do."""
        return KeptMutations(self._engine.store, self.record.folder, self._engine.clock)

    @cached_property
    def sent(self) -> SentMutations:
        """What mutations were sent to do."""
        return SentMutations(self.record, self.head, self.log, self.failures, self.kept)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Who is told of outcomes."""
        return Webhooks(
            Ledger(self._engine.store, self.record.folder),
            self.record,
            self.outcomes,
            self._engine.clock,
            is_live=lambda: self._engine.catalog.is_live(self.record),
            tries_max=self._engine.settings.webhook_tries_max,
        )

    @cached_property
    def applier(self) -> Applier:
        """Applies the log."""
        settings = self._engine.settings
        limits = BatchLimits(
            vectors_max=settings.batch_vectors_max,
            mutations_max=settings.batch_mutations_max,
            bytes_max=settings.batch_bytes_max,
        )
        return Applier(
            self._engine.store,
            self.record,
            self.newest,
            self._engine.clock,
            limits,
            embedding=self.embedding,
            metadata_indexes_max=settings.metadata_indexes_max,
        )

    @cached_property
    def embedding(self) -> Embedding:
        """Makes vectors of texts."""
        engine = self._engine
        return Embedding(
            EmbeddedEntries(engine.store, self.record.folder),
            self.record,
            lambda: engine.models,
            engine.clock,
            engine.settings.embedding_patience_s,
        )

    @cached_property
    def compactor(self) -> Compactor:
        """Merges segments."""
        settings = self._engine.settings
        limits = PlanLimits(
            row_bytes=4 * self.record.dimensions,
            fanout=settings.compaction_fanout,
            rows_max=max(
                1, min(settings.compaction_rows_max, MERGED_BYTES_MAX // max(1, 4 * self.record.dimensions))
            ),
        )
        return Compactor(
            self._engine.store,
            self.record,
            self.newest,
            self._engine.clock,
            limits=limits,
            settle_s=settings.compaction_settle_s,
        )

    @cached_property
    def collector(self) -> Collector:
        """Collects the index's garbage."""
        settings = self._engine.settings
        return Collector(
            self._engine.store,
            self.record,
            self.head,
            self.log,
            self._engine.clock,
            grace_s=settings.grace_s,
            results_s=settings.results_s,
            requests_s=settings.idempotency_s,
            failed_s=settings.failed_s,
        )

    @cached_property
    def requests(self) -> Requests:
        """Requests that count once, however often they are sent."""
        return Requests(self._engine.store, self.record.folder, self._engine.clock)

    @cached_property
    def pinned(self) -> PinnedViews:
        """Older versions, for those who read page by page."""
        return PinnedViews(
            self._engine.store, self.record, self.head, self._engine.clock, self._engine.settings.grace_s
        )

    def log_writer(self) -> LogWriter:
        """A new writer of the log; a process should have one per index."""
        return LogWriter(
            self._engine.store,
            self.record.folder,
            lambda: self.head.refresh().applied_through,
            self._engine.clock,
            self._engine.settings.grace_s,
        )

    def load(self) -> Load:
        """How far applying and merging lag behind, looked up now."""
        manifest = self.head.refresh()
        return Load(
            self.backlog.look(manifest.applied_through), max(len(shard.segments) for shard in manifest.shards)
        )

    def check_live(self) -> None:
        """Raise Gone if the index has lost its name. One look at the store."""
        if not self._engine.catalog.is_live(self.record):
            raise Gone("the index was deleted", name=self.record.name)

    def has_backlog(self) -> bool:
        """Is there a log entry that is not applied yet? Two looks at the store."""
        return self.log.exists(self.head.refresh().applied_through + 1)


class Engine:
    """One store and everything in it."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.catalog = Catalog(store, clock, settings.grace_s)
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

    def find(self, account: str, name: str) -> Index:
        """The index that a name stands for now. Raises NotFound or Gone."""
        return self._open(self.catalog.find(account, name))

    def index(self, index_id: str) -> Index:
        """The index of an identity. Raises NotFound, also for one whose name was taken away: it is as good as gone."""
        record = self.catalog.record(index_id)
        if not self.catalog.is_live(record):
            with self._lock:
                self._indexes.pop(index_id, None)
            raise NotFound("the index was deleted", id=index_id)
        return self._open(record)

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
        """Delete indexes that have had no name for a grace period; returns how many. For one thread at a time."""
        self.forget_dead()
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
            return index


def open_engine(settings: Settings, clock: Clock | None = None) -> Engine:
    """Open the store that ``settings`` name. Raises Invalid for an address it cannot use, Unavailable if it is away."""
    return Engine(open_store(settings.store, settings.data), settings, clock or SystemClock())
