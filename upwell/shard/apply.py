"""Applying the log: read the next batch, decide it, write segments and deletion vectors, commit one manifest.

Everything written before the commit has a name nobody knows, so a crash or a lost race leaves only garbage. One commit
covers all shards of the index; that is what makes a mutation visible all at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from upwell.catalog.record import IndexRecord
from upwell.changeset import Changeset
from upwell.clock import Clock
from upwell.errors import Corrupt, Fenced, NotFound
from upwell.ids import new_identity
from upwell.log.entry import Entry
from upwell.log.reader import LogReader
from upwell.manifest import DeletionRef, Failure, Manifest, MutationResult, SegmentRef, ShardState, Totals
from upwell.shard.deletions import encode_deletions
from upwell.shard.merge import to_fold
from upwell.shard.newest import NewestView
from upwell.shard.resolve import Pending, Resolution, ShardChange, resolve
from upwell.shard.rows import SegmentRows, concat_rows
from upwell.shard.segment import encode_segment
from upwell.shard.view import LiveSegment, View, segment_key
from upwell.store import Store
from upwell.streamed import nbytes_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much one commit takes on: whichever is reached first. At least one log entry is always taken."""

    vectors_max: int
    mutations_max: int
    bytes_max: int


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
        self, store: Store, record: IndexRecord, newest: NewestView, clock: Clock, limits: BatchLimits
    ) -> None:
        self._store = store
        self._record = record
        self._newest = newest
        self._reader = LogReader(store, record.folder)
        self._clock = clock
        self._limits = limits
        self._writer = new_identity()
        self._lock = threading.Lock()

    def apply_batch(
        self, still_ours: Callable[[], bool], applying: Callable[[int], None] = lambda _: None
    ) -> Applied | None:
        """Apply and commit the next batch; None if there is nothing to apply. ``applying`` is told the position that the
        batch goes through, before the work begins.

        Raises Fenced when another worker committed first or ``still_ours`` said no before the commit, Unavailable when the
        store failed (with the outcome unknown: look again), Corrupt when the index itself cannot be read.
        """
        with self._lock:
            # Before the look, and our own: the head's may be renewed by another thread for a version newer than our view.
            known_newest_at = self._clock.monotonic()
            view = self._newest.get()
            batch = self._read_batch(view.manifest.applied_through)
            if not batch:
                return None
            applying(batch[-1].position)
            resolution = resolve(view, batch)
            after = self._write(view, batch, resolution)
            if not still_ours():
                raise Fenced("the lease was lost before the commit", index=self._record.id)
            self._newest.head.chain.commit(view.manifest, after, resolution.results, known_newest_at)
        return Applied(
            version=after.version,
            first_position=batch[0].position,
            through_position=after.applied_through,
            mutations=len(batch),
            vectors=sum(one.mutation.rows for one in batch),
        )

    def _read_batch(self, applied_through: int) -> list[Pending]:
        """The log's next mutations, whole entries, within the limits."""
        batch: list[Pending] = []
        vectors = nbytes = 0
        position = applied_through
        while self._reader.exists(position + 1):
            position += 1
            taken = self._read_entry(position)
            vectors += sum(one.mutation.rows for one in taken)
            nbytes += sum(one.changeset.nbytes for one in taken if one.changeset is not None)
            full = (
                vectors > self._limits.vectors_max
                or len(batch) + len(taken) > self._limits.mutations_max
                or nbytes > self._limits.bytes_max
            )
            if full and batch:
                break
            batch += taken
            if full:
                break
        return batch

    def _read_entry(self, position: int) -> list[Pending]:
        entry = self._reader.read(position)
        return [self._read_mutation(entry, place) for place in range(len(entry.mutations))]

    def _read_mutation(self, entry: Entry, place: int) -> Pending:
        """One mutation, or the reason why it can never be applied: that becomes its result, and the next ones go on."""
        changeset: Changeset | None = None
        error: str | None = None
        try:
            changeset = entry.changeset(place, self._store.read)
            dimensions = None if changeset.vectors is None else changeset.vectors.shape[1]
            if dimensions not in (None, self._record.dimensions):
                error = f"the mutation has {dimensions} dimensions, the index has {self._record.dimensions}"
        except (Corrupt, NotFound) as damage:
            # NotFound: a payload that was swept, so its entry came too late to be acknowledged.
            error = str(damage)
        if error is not None:
            log.error(
                "mutation failed", index=self._record.id, position=entry.position, place=place, error=error
            )
        return Pending(
            position=entry.position,
            place=place,
            mutation=entry.mutations[place],
            changeset=changeset if error is None else None,
            error=error,
        )

    def _write(self, view: View, batch: Sequence[Pending], resolution: Resolution) -> Manifest:
        """Write the batch's segments and deletion vectors, and return the manifest that names them."""
        deletions = _DeletionsWriter(f"{self._record.folder}/deletions/{new_identity()}")
        shards = tuple(
            self._write_shard(segments, change, deletions)
            for segments, change in zip(view.shards, resolution.shards, strict=True)
        )
        written = deletions.write(self._store)
        known = {segment.id for segment in view.manifest.segments()}
        written += sum(ref.nbytes for shard in shards for ref in shard.segments if ref.id not in known)
        received = sum(
            one.mutation.rows for one in batch if one.changeset and one.changeset.vectors is not None
        )
        last = batch[-1].position
        return Manifest(
            version=view.manifest.version + 1,
            index_id=self._record.id,
            writer=self._writer,
            committed_at=self._clock.now(),
            applied_through=last,
            applied_places=sum(one.position == last for one in batch),
            shards=shards,
            failures=view.manifest.failures + _failures(resolution.results),
            totals=view.manifest.totals
            + Totals(vector_bytes=received * self._row_bytes, applied_bytes=written),
        )

    def _write_shard(
        self, segments: Sequence[LiveSegment], change: ShardChange, deletions: _DeletionsWriter
    ) -> ShardState:
        folded = to_fold(segments, len(change.added), self._row_bytes) if change.added is not None else []
        refs = [
            ref
            for live in segments
            if live not in folded
            and (ref := deletions.add(live, change.deleted.get(live.ref.id))) is not None
        ]
        parts = [_remaining(live, change.deleted.get(live.ref.id)) for live in folded]
        if change.added is not None:
            parts.append(change.added)
        parts = [part for part in parts if len(part)]
        if parts:
            refs.append(self._write_segment(concat_rows(parts)))
        return ShardState(segments=tuple(refs))

    @property
    def _row_bytes(self) -> int:
        return 4 * self._record.dimensions

    def _write_segment(self, rows: SegmentRows) -> SegmentRef:
        segment_id = new_identity()
        parts, _ = encode_segment(segment_id, rows, self._record.metric, self._record.key_scope)
        self._store.create(segment_key(self._record.folder, segment_id), *parts)
        return SegmentRef(id=segment_id, rows=len(rows), nbytes=nbytes_of(parts))


class _DeletionsWriter:
    """Gathers the deletion vectors that one commit changes, and writes them as one object."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._masks: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]] = {}

    def add(
        self, live: LiveSegment, put_out: np.ndarray[tuple[int], np.dtype[np.int64]] | None
    ) -> SegmentRef | None:
        """The segment's reference after ``put_out`` rows are deleted; None if nothing of it is left."""
        if put_out is None:
            return live.ref
        mask = np.zeros(live.segment.rows, dtype=bool) if live.deleted is None else live.deleted.copy()
        mask[put_out] = True
        count = int(mask.sum())
        if count == live.segment.rows:
            return None
        self._masks[live.ref.id] = mask
        ref = DeletionRef(object=self._key, section=live.ref.id, count=count)
        return live.ref.model_copy(update={"deletions": ref})

    def write(self, store: Store) -> int:
        """Write what was gathered, if anything was; returns how many bytes."""
        if not self._masks:
            return 0
        parts = encode_deletions(self._masks)
        store.create(self._key, *parts)
        return nbytes_of(parts)


def _remaining(live: LiveSegment, put_out: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> SegmentRows:
    """The rows of a segment that survive this batch."""
    rows = live.live_rows()
    if put_out is not None:
        rows = rows[~np.isin(rows, put_out)]
    return live.segment.take(rows)


def _failures(results: Sequence[MutationResult]) -> tuple[Failure, ...]:
    return tuple(
        Failure(position=result.position, place=result.place, reason=result.error)
        for result in results
        if result.error is not None
    )
