"""A view: an index at one manifest version, open and immutable.

Queries hold a view for as long as they need it; a newer version is another view that shares the segments they have in
common. Files that a view holds may be unlinked meanwhile: what is mapped stays readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.catalog.record import IndexRecord
from upwell.errors import Corrupt
from upwell.ids import numbered
from upwell.manifest import Manifest, SegmentRef
from upwell.shard.deletions import Mask, decode_deletions
from upwell.shard.keys import Hashes, Rows
from upwell.shard.segment import Segment
from upwell.store import Store


@dataclass(frozen=True, eq=False)
class LiveSegment:
    """A segment and what is deleted of it at one version. ``deleted``: bool (rows,), or None when nothing is."""

    ref: SegmentRef
    segment: Segment
    deleted: Mask | None

    @cached_property
    def alive_bits(self) -> npt.NDArray[np.uint8] | None:
        """The rows not deleted as FAISS's bitmap, the first row lowest; None when that is all."""
        return None if self.deleted is None else np.packbits(~self.deleted, bitorder="little")

    @property
    def live(self) -> int:
        """Rows not deleted."""
        return self.ref.live

    def find(self, keys: pa.Array, hashes: Hashes, record: IndexRecord) -> tuple[Rows, Rows]:
        """Which of ``keys`` are alive here: (places in ``keys``, rows)."""
        places, rows = self.segment.find(keys, hashes, record.key_scope)
        if self.deleted is not None and len(rows):
            alive = ~self.deleted[rows]
            places, rows = places[alive], rows[alive]
        return places, rows

    def live_rows(self) -> Rows:
        """The rows not deleted, ascending."""
        if self.deleted is None:
            return np.arange(self.segment.rows)
        return np.flatnonzero(~self.deleted)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One version of an index. Safe to share between threads."""

    record: IndexRecord
    manifest: Manifest
    shards: tuple[tuple[LiveSegment, ...], ...]


def segment_key(folder: str, segment_id: str) -> str:
    """The name of a segment's object."""
    return f"{folder}/segment/{segment_id}"


def named_by(manifest: Manifest, folder: str) -> set[str]:
    """The names of all objects that a version of the index in ``folder`` cannot do without."""
    segments = {segment_key(folder, ref.id) for ref in manifest.segments()}
    deletions = {ref.deletions.object for ref in manifest.segments() if ref.deletions is not None}
    return segments | deletions | {page.object for page in manifest.failure_pages}


class ViewOpener:
    """Opens views of one index, and keeps the segments of the last one open so that the next costs only what is new."""

    def __init__(self, store: Store, record: IndexRecord) -> None:
        self._store = store
        self._record = record
        self._lock = Lock()
        self._segments: dict[str, LiveSegment] = {}

    def open(self, manifest: Manifest) -> View:
        """The view of ``manifest``. Raises Corrupt, or NotFound if its segments were swept meanwhile."""
        if manifest.index_id != self._record.id:
            key = f"{self._record.folder}/manifest/{numbered(manifest.version)}"
            raise Corrupt("a manifest is that of another index", key=key, got=manifest.index_id)
        with self._lock:
            shards = tuple(tuple(self.live(ref) for ref in shard.segments) for shard in manifest.shards)
            self._segments = {live.ref.id: live for segments in shards for live in segments}
        return View(self._record, manifest, shards)

    def live(self, ref: SegmentRef) -> LiveSegment:
        """A segment and what is deleted of it, opened unless the last view has it. Raises Corrupt or NotFound."""
        known = self._segments.get(ref.id)
        if known is not None and known.ref == ref:
            return known
        if known is None:
            key = segment_key(self._record.folder, ref.id)
            segment = Segment(self._store.read(key), key)
            if (segment.id, segment.rows, segment.dimensions, segment.metric) != (
                ref.id, ref.rows, self._record.dimensions, self._record.metric,
            ):  # fmt: skip
                raise Corrupt("a segment is not the one that its index names", key=key, got=segment.id)
        else:
            segment = known.segment
        return LiveSegment(ref, segment, self._deletions(ref))

    def _deletions(self, ref: SegmentRef) -> Mask | None:
        if ref.deletions is None:
            return None
        data = self._store.read(ref.deletions.object)
        return decode_deletions(
            data, ref.deletions.section, ref.rows, ref.deletions.count, ref.deletions.object
        )
