"""One shard's part of a batch, written: by the process that commits the batch, or by another that helps it.

A part that another process wrote is an object of its own, which names what it wrote; only the commit makes any of it count. So a
helper that dies, is late, or did the same as somebody else leaves garbage and no more.

    meta  {"segments": [SegmentRef, ...], "counts": [[int, ...], ...], "nbytes": bytes written}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from upwell.catalog.record import IndexRecord
from upwell.changeset import KeyScope
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.ids import new_identity
from upwell.manifest import DeletionRef, SegmentRef
from upwell.shard.deletions import Mask, encode_deletions
from upwell.shard.keys import Rows
from upwell.shard.merge import to_fold
from upwell.shard.resolve import Counts, ShardChange
from upwell.shard.rows import SegmentRows, concat_rows
from upwell.shard.segment import encode_segment
from upwell.shard.view import LiveSegment, segment_key
from upwell.store import Store, create_own, read_object
from upwell.streamed import nbytes_of


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A shard's segments after the batch, what each mutation counts in it, and how many bytes that took to write."""

    segments: tuple[SegmentRef, ...]
    counts: Counts
    nbytes: int


class PartTask(BaseModel):
    """What a helper must know: the batch after ``version`` that ends at log position ``through``."""

    model_config = ConfigDict(frozen=True)

    token: str
    version: int
    through: int
    #: Position and place of mutations that are not applied: a helper must come to the same ones.
    left_out: tuple[tuple[int, int], ...]
    #: The properties that get columns.
    properties: tuple[str, ...]


class Sharing(Protocol):
    """Other processes that may help with a batch. Blocking; never raises: without help a batch is written alone."""

    def offer(self, task: PartTask, shards: int) -> None:
        """Ask for help with a batch of so many shards."""
        ...

    def claim(self, token: str, shard: int) -> bool:
        """Is this part ours? True for exactly one who asks, as long as Redis is there; for everyone when it is away."""
        ...


def part_key(folder: str, token: str, shard: int) -> str:
    """The name of the object that tells of a part."""
    return f"{folder}/part/{token}-{shard}"


class PartWriter:
    """Writes parts of one index's batches."""

    def __init__(self, store: Store, record: IndexRecord) -> None:
        self._store = store
        self._record = record

    def write(
        self,
        segments: Sequence[LiveSegment],
        change: ShardChange,
        deletions: DeletionsWriter,
        scope: KeyScope,
        properties: Sequence[str],
    ) -> Part:
        """Write one shard's new segment, with columns of ``properties``; what is deleted of others is gathered in ``deletions``,
        for the caller to write."""
        folded = [] if change.added is None else to_fold(segments, change.added)
        refs = [
            ref
            for live in segments
            if live not in folded
            and (ref := deletions.add(live, change.deleted.get(live.ref.id))) is not None
        ]
        rows = [_remaining(live, change.deleted.get(live.ref.id)) for live in folded]
        if change.added is not None:
            rows.append(change.added)
        rows = [some for some in rows if len(some)]
        nbytes = 0
        if rows:
            refs.append(self._write_segment(concat_rows(rows), scope, properties))
            nbytes = refs[-1].nbytes
        return Part(tuple(refs), change.counts, nbytes)

    def _write_segment(self, rows: SegmentRows, scope: KeyScope, properties: Sequence[str]) -> SegmentRef:
        encoded = encode_segment(new_identity(), rows, self._record.metric, scope, properties=properties)
        create_own(self._store, segment_key(self._record.folder, encoded.ref.id), *encoded.parts)
        reached(Step.SEGMENT_WRITTEN)
        return encoded.ref

    def publish(self, part: Part, token: str, shard: int) -> None:
        """Write the object that tells of a part, for the process that commits."""
        meta = {
            "segments": [ref.model_dump(mode="json") for ref in part.segments],
            "counts": part.counts.tolist(),
            "nbytes": part.nbytes,
        }
        create_own(self._store, part_key(self._record.folder, token, shard), *pack(Kind.PART, meta))
        reached(Step.PART_PUBLISHED)

    def published(self, token: str, shard: int) -> Part | None:
        """A part that a helper has written; None if it is not there yet."""
        key = part_key(self._record.folder, token, shard)
        if not self._store.exists(key):
            return None
        box = read_object(self._store, key, Kind.PART)
        with box.understood():
            meta = box.meta
            segments = tuple(SegmentRef.model_validate(fields) for fields in meta["segments"])
            return Part(segments, np.array(meta["counts"], np.int64), meta["nbytes"])


class DeletionsWriter:
    """Gathers the deletion vectors that one process changes in one commit, and writes them as one object."""

    def __init__(self, folder: str) -> None:
        self._key = f"{folder}/deletions/{new_identity()}"
        self._masks: dict[str, Mask] = {}

    def add(self, live: LiveSegment, put_out: Rows | None) -> SegmentRef | None:
        """The segment's reference after ``put_out`` rows are deleted; None if nothing of it is left."""
        if put_out is None:
            return live.ref
        mask = np.zeros(live.segment.rows, dtype=bool) if live.deleted is None else live.deleted.copy()
        mask[put_out] = True
        return self.mark(live.ref, mask)

    def mark(self, ref: SegmentRef, deleted: Mask) -> SegmentRef | None:
        """A segment's reference when these of its rows are ``deleted``; None if nothing of it is left."""
        count = int(np.count_nonzero(deleted))
        if count == ref.rows:
            return None
        if count == 0:
            return ref
        self._masks[ref.id] = deleted
        deletions = DeletionRef(object=self._key, section=ref.id, count=count)
        return ref.model_copy(update={"deletions": deletions})

    def write(self, store: Store) -> int:
        """Write what was gathered, if anything was; returns how many bytes."""
        if not self._masks:
            return 0
        parts = encode_deletions(self._masks)
        create_own(store, self._key, *parts)
        reached(Step.DELETIONS_WRITTEN)
        return nbytes_of(parts)


def _remaining(live: LiveSegment, put_out: Rows | None) -> SegmentRows:
    """The rows of a segment that survive this batch."""
    rows = live.live_rows()
    if put_out is not None:
        rows = rows[~np.isin(rows, put_out)]
    return live.segment.take(rows)
