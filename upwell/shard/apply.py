"""Applying the log: read the next batch, decide it, write segments and deletion vectors, commit one manifest.

Everything written before the commit has a name nobody knows, so a crash or a lost race leaves only garbage. One commit
covers all shards of the index; that is what makes a mutation visible all at once. Shards of a large batch may be written by
other processes meanwhile (part.py); the commit is always that of the one who holds the batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.errors import Fenced
from upwell.failpoint import Step, reached
from upwell.ids import new_identity
from upwell.log.kept import KeptMutations
from upwell.log.receipt import Receipt
from upwell.manifest import Failure, Failures, Manifest, ShardState, Totals
from upwell.manifest.state import NEWEST_BY_KEPT, NewestBy
from upwell.shard.batch import BatchLimits, BatchReader, Broken, Pending
from upwell.shard.declare import declare
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
        metadata_indexes_max: int,
    ) -> None:
        self._store = store
        self._record = record
        self._newest = newest
        self._reader = BatchReader(store, record, limits, clock)
        self._parts = PartWriter(store, record)
        self._kept = KeptMutations(store, record.folder, clock)
        self._failures = Failures(store, record.folder)
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
    ) -> Applied | None:
        """Apply and commit the next batch; None if there is nothing to apply. ``applying`` is told the position that the
        batch goes through, before the work begins; ``sharing`` may find others to write parts of a large one. With ``broken``
        the batch is the next log entry, and the mutations that it names fail for the reasons it gives.

        Raises Fenced when another worker committed first or ``still_ours`` said no before the commit, Unavailable when the
        store failed (with the outcome unknown: look again), Corrupt when the index itself cannot be read.
        """
        with self._lock:
            # Before the look, and our own: the head's may be renewed by another thread for a version newer than our view.
            known_newest_at = self._clock.monotonic()
            view = self._newest.get()
            batch = self._reader.next(view.manifest.applied_through, broken)
            if not batch:
                return None
            reached(Step.BATCH_READ)
            applying(batch[-1].position)
            declared, batch = declare(view.manifest.metadata_indexes, batch, self._metadata_indexes_max)
            keys, properties = keyed(view, batch), tuple(one.index.property for one in declared)
            deletions = DeletionsWriter(self._record.folder)
            if sharing is not None and len(view.shards) > 1 and keys.rows >= SHARED_ROWS_MIN:
                parts = self._write_shared(view, keys, deletions, properties, sharing)
            else:
                parts = [
                    self._write(view, keys, shard, deletions, properties) for shard in range(len(view.shards))
                ]
            nbytes = deletions.write(self._store) + sum(part.nbytes for part in parts)
            results = results_of(batch, np.sum([part.counts for part in parts], axis=0))
            after = self._after(view.manifest, batch, parts, nbytes).model_copy(
                update={"metadata_indexes": declared} | self._with_failures(view.manifest, batch)
            )
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
        batch = self._reader.again(view.manifest.applied_through, task.through, task.left_out)
        if batch is None:
            return 0
        keys, done = keyed(view, batch), 0
        for shard in reversed(range(len(view.shards))):
            if sharing.claim(task.token, shard):
                reached(Step.PART_CLAIMED)
                deletions = DeletionsWriter(self._record.folder)
                part = self._write(view, keys, shard, deletions, task.properties)
                written = deletions.write(self._store)
                self._parts.publish(
                    Part(part.segments, part.counts, part.nbytes + written), task.token, shard
                )
                done += 1
        return done

    def _write(
        self,
        view: View,
        keys: KeyedBatch,
        shard: int,
        deletions: DeletionsWriter,
        properties: tuple[str, ...],
    ) -> Part:
        reached(Step.APPLY_ROWS)
        return self._parts.write(view.shards[shard], resolve(view, keys, shard), deletions, properties)

    def _write_shared(
        self,
        view: View,
        keys: KeyedBatch,
        deletions: DeletionsWriter,
        properties: tuple[str, ...],
        sharing: Sharing,
    ) -> list[Part]:
        """All parts: those we claim, and those that others wrote; what does not come in time we write ourselves."""
        left_out = tuple((one.position, one.place) for one in keys.batch if one.is_left_out)
        task = PartTask(
            token=new_identity(),
            version=view.manifest.version,
            through=keys.batch[-1].position,
            left_out=left_out,
            properties=properties,
        )
        shards = len(view.shards)
        sharing.offer(task, shards)
        parts: dict[int, Part] = {}
        longest_s = 0.0
        for shard in range(shards):
            if sharing.claim(task.token, shard):
                began = time.monotonic()
                parts[shard] = self._write(view, keys, shard, deletions, properties)
                longest_s = max(longest_s, time.monotonic() - began)
        deadline = time.monotonic() + max(HELP_LEAST_S, HELP_FACTOR * longest_s)
        for shard in range(shards):
            while shard not in parts:
                part = self._parts.published(task.token, shard)
                if part is not None:
                    parts[shard] = part
                elif time.monotonic() > deadline:
                    log.info("a helper did not finish in time", index=self._record.id, shard=shard)
                    parts[shard] = self._write(view, keys, shard, deletions, properties)
                else:
                    time.sleep(HELP_POLL_S)
        return [parts[shard] for shard in range(shards)]

    def _with_failures(self, before: Manifest, batch: Sequence[Pending]) -> dict[str, object]:
        """The failures of the manifest after ``before``; what failed is copied out of the log first."""
        failed = [one for one in batch if one.error is not None]
        if not failed:
            return {}
        kept = self._kept.keep(Receipt(one.position, one.place) for one in failed)
        failures = [
            Failure(position=one.position, place=one.place, places=one.places, reason=one.error, kept=kept)
            for one in failed
            if one.error is not None
        ]
        inline, pages = self._failures.added(before, failures)
        return {"failures": inline, "failure_pages": pages}

    def _log_failures(self, batch: Sequence[Pending]) -> None:
        failed = [one for one in batch if one.error is not None]
        if failed:
            log.error(
                "mutations failed",
                index=self._record.id,
                count=len(failed),
                first=(failed[0].position, failed[0].place),
                error=failed[0].error,
            )

    def _after(
        self,
        before: Manifest,
        batch: Sequence[Pending],
        parts: Sequence[Part],
        nbytes: int,
    ) -> Manifest:
        """The manifest after ``before``."""
        last = batch[-1].position
        received = sum(one.rows for one in batch if one.changeset and one.changeset.vectors is not None)
        vector_bytes = received * 4 * self._record.dimensions
        return Manifest(
            version=before.version + 1,
            index_id=self._record.id,
            writer=self._writer,
            committed_at=self._clock.now(),
            applied_through=last,
            applied_places=sum(one.position == last for one in batch),
            shards=tuple(ShardState(segments=part.segments) for part in parts),
            failures=before.failures,
            failure_pages=before.failure_pages,
            totals=before.totals + Totals(vector_bytes=vector_bytes, applied_bytes=nbytes),
            newest_by=_newest_by(before, batch),
        )


def _newest_by(before: Manifest, batch: Sequence[Pending]) -> tuple[NewestBy, ...]:
    """Each token's newest mutation after a batch, those of the latest writers."""
    newest = {one.by: one for one in before.newest_by}
    for one in batch:
        by = None if one.mutation is None else one.mutation.by
        if by is not None and not one.duplicate:
            newest.pop(by, None)
            newest[by] = NewestBy(by=by, position=one.position, place=one.place)
    return tuple(newest.values())[-NEWEST_BY_KEPT:]
