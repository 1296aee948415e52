"""Applying the log: read the next batch, decide it, write segments and deletion vectors, commit one manifest.

Everything written before the commit has a name nobody knows, so a crash or a lost race leaves only garbage. One commit
covers all shards of the index; that is what makes a mutation visible all at once. Shards of a large batch may be written by
other processes meanwhile (part.py); the commit is always that of the one who holds the batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from upwell.catalog.record import IndexRecord
from upwell.changeset import Operation
from upwell.clock import Clock
from upwell.errors import Fenced
from upwell.failpoint import Step, reached
from upwell.ids import new_identity
from upwell.log.kept import KeptMutations
from upwell.log.receipt import Receipt
from upwell.manifest import Failure, Failures, Manifest, NamespaceTables, ShardState, Totals
from upwell.manifest.state import NEWEST_BY_KEPT, DeclaredIndex, FailurePage, NewestBy
from upwell.shard.batch import BatchLimits, BatchReader, Broken, Pending
from upwell.shard.declare import declare
from upwell.shard.embedding import Embedding, NoClaims, TextClaims, has_texts
from upwell.shard.namespaces import Settled
from upwell.shard.newest import NewestView
from upwell.shard.part import DeletionsWriter, Part, PartTask, PartWriter, Sharing
from upwell.shard.resolve import KeyedBatch, keyed, resolve, results_of
from upwell.shard.view import View
from upwell.store import Store

log = structlog.get_logger()

#: A batch of fewer rows is written sooner than help could come.
SHARED_ROWS_MIN = 10_000
#: How long a part that another process has claimed is waited for: so many times as long as our own longest took, at least.
HELP_FACTOR = 3.0
HELP_LEAST_S = 0.5
HELP_POLL_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one commit made visible."""

    version: int
    first_position: int
    through_position: int
    mutations: int
    vectors: int


class Applier:
    """Applies one index's log. One batch at a time per process; between processes the manifest decides."""

    def __init__(
        self,
        store: Store,
        record: IndexRecord,
        newest: NewestView,
        clock: Clock,
        limits: BatchLimits,
        *,
        embedding: Embedding,
        metadata_indexes_max: int,
    ) -> None:
        self._store = store
        self._record = record
        self._newest = newest
        self._reader = BatchReader(store, record, limits, clock)
        self._embedding = embedding
        self._parts = PartWriter(store, record)
        self._kept = KeptMutations(store, record.folder, clock)
        self._failures = Failures(store, record.folder)
        self._namespaces = NamespaceTables(store, record.folder)
        self._clock = clock
        self._metadata_indexes_max = metadata_indexes_max
        self._writer = new_identity()
        self._lock = threading.Lock()

    def apply_batch(
        self,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None] = lambda _: None,
        sharing: Sharing | None = None,
        broken: Broken | None = None,
        *,
        claims: TextClaims | None = None,
    ) -> Applied | None:
        """Apply and commit the next batch; None if there is nothing to apply. ``applying`` is told the position that the
        batch goes through, before the work begins; ``sharing`` may find others to write parts of a large one. With ``broken``
        the batch is the next log entry, and the mutations that it names fail for the reasons it gives. ``claims`` say who makes which
        texts' vectors, and are told that the work goes on; without them all are made here.

        Raises Fenced when another worker committed first or ``still_ours`` said no before the commit, Unavailable when the
        store failed (with the outcome unknown: look again) or a model is away, Corrupt when the index itself cannot be read.
        """
        claims = claims or NoClaims()
        with self._lock:
            # Before the look, and our own: the head's may be renewed by another thread for a version newer than our view.
            known_newest_at = self._clock.monotonic()
            view = self._newest.get()
            batch = self._reader.next(view.manifest.applied_through, broken)
            if not batch:
                return None
            reached(Step.BATCH_READ)
            if has_texts(batch):
                shared = sharing is not None and sum(one.rows for one in batch) >= SHARED_ROWS_MIN
                behind = self._reader.goes_on_after(batch[-1].position)
                batch = self._embedding.completed(batch, claims, keep=shared, behind=behind)
                known_newest_at, view = self._looked_again(view)
            applying(batch[-1].position)
            left_out = tuple((one.position, one.place) for one in batch if one.is_left_out)
            declared, batch = declare(view.manifest.metadata_indexes, batch, self._metadata_indexes_max)
            keys, properties = keyed(view, batch), tuple(one.index.property for one in declared)
            deletions = DeletionsWriter(self._record.folder)
            if sharing is not None and len(view.shards) > 1 and keys.rows >= SHARED_ROWS_MIN:
                task = self._task(view, keys, left_out, properties)
                parts = self._write_shared(view, keys, deletions, task, sharing, go_on=claims.went_on)
            else:
                parts = [
                    self._write(view, keys, shard, deletions, properties, go_on=claims.went_on)
                    for shard in range(len(view.shards))
                ]
            nbytes = deletions.write(self._store) + sum(part.nbytes for part in parts)
            batch = list(keys.batch)
            results = results_of(batch, np.sum([part.counts for part in parts], axis=0))
            after = self._after(view, keys.settled, parts, nbytes, declared)
            if not still_ours():
                raise Fenced("the lease was lost before the commit", index=self._record.id)
            self._newest.head.chain.commit(view.manifest, after, results, known_newest_at)
        self._log_failures(batch)
        return Applied(
            version=after.version,
            first_position=batch[0].position,
            through_position=after.applied_through,
            mutations=len(batch),
            vectors=sum(one.rows for one in batch),
        )

    def help(self, task: PartTask, sharing: Sharing) -> int:
        """Write parts of a batch that another process holds, as long as there are any unclaimed; returns how many."""
        view = self._newest.get()
        if view.manifest.version != task.version:
            return 0
        batch = self._embedding.kept(self._reader.again(view.manifest.applied_through, task.through))
        if batch is None or {(one.position, one.place) for one in batch if one.is_left_out} != set(
            task.left_out
        ):
            return 0
        keys, done = keyed(view, batch), 0
        for shard in reversed(range(len(view.shards))):
            if sharing.claim(task.token, shard):
                reached(Step.PART_CLAIMED)
                deletions = DeletionsWriter(self._record.folder)
                part = self._write(view, keys, shard, deletions, task.properties, go_on=lambda: None)
                written = deletions.write(self._store)
                self._parts.publish(
                    Part(part.segments, part.counts, part.nbytes + written), task.token, shard
                )
                done += 1
        return done

    def unembedded(self) -> Iterator[list[Pending]]:
        """The entries that are not applied, and whose texts, if they have any, have no vectors yet."""
        return self._reader.unembedded_after(self._newest.head.refresh().applied_through)

    def _looked_again(self, before: View) -> tuple[float, View]:
        """The newest view, and when it was looked for: making vectors may have taken longer than what is known of a version is good for, and
        merges may have been committed meanwhile. Raises Fenced if somebody else has applied the batch."""
        known_newest_at = self._clock.monotonic()
        view = self._newest.get()
        if view.manifest.applied_through != before.manifest.applied_through:
            raise Fenced("another worker applied it meanwhile", index=self._record.id)
        return known_newest_at, view

    def _write(
        self,
        view: View,
        keys: KeyedBatch,
        shard: int,
        deletions: DeletionsWriter,
        properties: tuple[str, ...],
        *,
        go_on: Callable[[], None],
    ) -> Part:
        reached(Step.APPLY_ROWS)
        change = resolve(view, keys, shard, go_on)
        return self._parts.write(view.shards[shard], change, deletions, keys.settled.scope, properties)

    def _task(
        self,
        view: View,
        keys: KeyedBatch,
        left_out: tuple[tuple[int, int], ...],
        properties: tuple[str, ...],
    ) -> PartTask:
        return PartTask(
            token=new_identity(),
            version=view.manifest.version,
            through=keys.batch[-1].position,
            left_out=left_out,
            properties=properties,
        )

    def _write_shared(
        self,
        view: View,
        keys: KeyedBatch,
        deletions: DeletionsWriter,
        task: PartTask,
        sharing: Sharing,
        *,
        go_on: Callable[[], None],
    ) -> list[Part]:
        """All parts: those we claim, and those that others wrote; what does not come in time we write ourselves."""
        shards, properties = len(view.shards), task.properties
        sharing.offer(task, shards)
        parts: dict[int, Part] = {}
        longest_s = 0.0
        for shard in range(shards):
            if sharing.claim(task.token, shard):
                began = time.monotonic()
                parts[shard] = self._write(view, keys, shard, deletions, properties, go_on=go_on)
                longest_s = max(longest_s, time.monotonic() - began)
        deadline = time.monotonic() + max(HELP_LEAST_S, HELP_FACTOR * longest_s)
        for shard in range(shards):
            while shard not in parts:
                part = self._parts.published(task.token, shard)
                if part is not None:
                    parts[shard] = part
                elif time.monotonic() > deadline:
                    log.info("a helper did not finish in time", index=self._record.id, shard=shard)
                    parts[shard] = self._write(view, keys, shard, deletions, properties, go_on=go_on)
                else:
                    time.sleep(HELP_POLL_S)
        return [parts[shard] for shard in range(shards)]

    def _after(
        self,
        view: View,
        settled: Settled,
        parts: Sequence[Part],
        nbytes: int,
        declared: tuple[DeclaredIndex, ...],
    ) -> Manifest:
        """The manifest after ``view``'s. What failed is copied out of the log first, and namespaces are written if they changed."""
        before, batch = view.manifest, settled.batch
        last = batch[-1].position
        vector_bytes = sum(
            one.changeset.vector_bytes for one in batch if one.changeset and one.changeset.brings_rows
        )
        failures, failure_pages = self._failures_after(before, batch)
        namespaces = before.namespaces
        if settled.namespaces is not view.namespaces:
            namespaces = self._namespaces.write(settled.namespaces)
        return Manifest(
            version=before.version + 1,
            index_id=self._record.id,
            writer=self._writer,
            committed_at=self._clock.now(),
            applied_through=last,
            applied_places=sum(one.position == last for one in batch),
            shards=tuple(ShardState(segments=part.segments) for part in parts),
            failures=failures,
            failure_pages=failure_pages,
            totals=before.totals + Totals(vector_bytes=vector_bytes, applied_bytes=nbytes),
            metadata_indexes=declared,
            newest_by=_newest_by(before, batch),
            key_scope=None if settled.scope is self._record.key_scope else settled.scope,
            namespaces=namespaces,
        )

    def _failures_after(
        self, before: Manifest, batch: Sequence[Pending]
    ) -> tuple[tuple[Failure, ...], tuple[FailurePage, ...]]:
        """The failures after a batch."""
        failed = _failed(batch)
        if not failed:
            return before.failures, before.failure_pages
        kept = self._kept.keep(Receipt(one.position, one.place) for one, _ in failed)
        failures = [
            Failure(position=one.position, place=one.place, places=one.places, reason=reason, kept=kept)
            for one, reason in failed
        ]
        return self._failures.added(before, failures)

    def _log_failures(self, batch: Sequence[Pending]) -> None:
        failed = _failed(batch)
        if not failed:
            return
        unusual = [(one, reason) for one, reason in failed if not _is_usual(one)]
        first, reason = (unusual or failed)[0]
        log.log(
            logging.ERROR if unusual else logging.INFO,
            "mutations failed",
            index=self._record.id,
            count=len(failed),
            first=(first.position, first.place),
            error=reason,
        )


def _failed(batch: Sequence[Pending]) -> list[tuple[Pending, str]]:
    """The mutations that cannot be applied, and why."""
    return [(one, one.error) for one in batch if one.error is not None]


def _is_usual(one: Pending) -> bool:
    """Has it failed for a name that is taken, or is none? Then its sender is told, and the operator has nothing to do."""
    names = {Operation.RENAME_NAMESPACE, Operation.CREATE_METADATA_INDEX}
    return one.mutation is not None and one.mutation.operation in names


def _newest_by(before: Manifest, batch: Sequence[Pending]) -> tuple[NewestBy, ...]:
    """Each token's newest mutation after a batch, those of the latest writers."""
    newest = {one.by: one for one in before.newest_by}
    for one in batch:
        by = None if one.mutation is None else one.mutation.by
        if by is not None and not one.duplicate:
            newest.pop(by, None)
            newest[by] = NewestBy(by=by, position=one.position, place=one.place)
    return tuple(newest.values())[-NEWEST_BY_KEPT:]
