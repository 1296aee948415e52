"""One index, and the parts of it that front ends and workers stand on: each is made when it is first needed, out of its engine's
settings, store and clock.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from upwell.catalog.names import Catalog
from upwell.catalog.notes import NOTES, Notes
from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.embed.models import Models
from upwell.errors import Gone
from upwell.garbage import Collector
from upwell.log.backlog import Backlog, BacklogSize
from upwell.log.embedded import EmbeddedEntries
from upwell.log.kept import KeptMutations
from upwell.log.reader import LogReader
from upwell.log.request import Requests
from upwell.log.writer import LogWriter
from upwell.manifest import Failures, ManifestChain, ManifestHead
from upwell.outcome import Outcomes
from upwell.query.listing import PinnedViews
from upwell.sent import SentMutations
from upwell.settings import Settings
from upwell.shard.apply import Applier
from upwell.shard.batch import BatchLimits
from upwell.shard.compact import Compactor
from upwell.shard.embedding import Embedding
from upwell.shard.newest import NewestView
from upwell.shard.plan import PlanLimits
from upwell.shard.view import ViewOpener
from upwell.store import Store
from upwell.webhook import Ledger, Webhooks

#: Vectors of one merged segment: it must be written within half a grace period.
MERGED_BYTES_MAX = 4 << 30


@dataclass(frozen=True, slots=True)
class Load:
    """How far an index lags behind what it was sent."""

    #: What is not applied yet.
    backlog: BacklogSize
    #: The most segments that any of its shards has.
    segments: int


class Surroundings(Protocol):
    """What an index needs of its engine."""

    store: Store
    settings: Settings
    clock: Clock
    catalog: Catalog

    @property
    def models(self) -> Models:
        """What makes vectors of texts."""
        ...


class Index:
    """The parts of one index, made when first needed and shared by all threads of the process."""

    def __init__(self, engine: Surroundings, record: IndexRecord) -> None:
        self.record = record
        self._engine = engine
        chain = ManifestChain(engine.store, record.folder, engine.clock, engine.settings.grace_s)
        self.head = ManifestHead(chain, engine.clock, engine.settings.grace_s)
        self.log = LogReader(engine.store, record.folder)
        self.backlog = Backlog(self.log, row_bytes=4 * record.dimensions)

    def called(self, record: IndexRecord) -> Index:
        """The same index under another name: it shares what the two would otherwise have twice."""
        self.newest  # noqa: B018  made now, if it is not yet
        other = copy.copy(self)
        other.record = record
        # Its messages tell the name.
        other.__dict__.pop("webhooks", None)
        return other

    @cached_property
    def notes(self) -> Notes:
        """What doors keep of the index and the engine does not care for."""
        engine = self._engine
        return Notes(engine.store, f"{self.record.folder}/{NOTES}", engine.clock, engine.settings.grace_s)

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

    @property
    def may_be_replaced(self) -> bool:
        """Might another index be made in its place? None is at most doors, and none once something was applied. Without a look."""
        seen = self.head.seen
        return self.record.row_schema is not None and (seen is None or seen.applied_through == 0)

    def hold(self) -> None:
        """Before something that is new in this index, and durable, is acknowledged, or its first entry applied: raise Gone if another index
        was given its place meanwhile, and see to it that none is from now on (catalog/replacing.py)."""
        if self.may_be_replaced:
            self._engine.catalog.hold(self.record)

    def has_backlog(self) -> bool:
        """Is there a log entry that is not applied yet? Two looks at the store."""
        return self.log.exists(self.head.refresh().applied_through + 1)
