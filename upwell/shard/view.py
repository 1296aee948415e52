"""A view: an index at one manifest version, open and immutable.

Queries hold a view for as long as they need it; a newer version is another view that shares the segments they have in
common. Files that a view holds may be unlinked meanwhile: what is mapped stays readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np

from upwell.catalog.record import IndexRecord
from upwell.manifest import DeletionRef, Manifest, SegmentRef
from upwell.shard.deletions import Mask, decode_deletions
from upwell.shard.keys import Hashes, Rows
from upwell.shard.segment import Segment
from upwell.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class LiveSegment:
    """A segment and what is deleted of it at one version. ``deleted``: bool (rows,), or None when nothing is."""

    ref: SegmentRef
    segment: Segment
    deleted: Mask | None

    @property
    def live(self) -> int:
        """Rows not deleted."""
        return self.ref.live

    def find(self, keys: list[bytes], hashes: Hashes, record: IndexRecord) -> tuple[Rows, Rows]:
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


class ViewOpener:
    """Opens views of one index, and keeps the segments of the last one open so that the next costs only what is new."""

    def __init__(self, store: Store, record: IndexRecord) -> None:
        self._store = store
        self._record = record
        self._lock = Lock()
        self._segments: dict[str, Segment] = {}
        self._deleted: dict[tuple[str, DeletionRef], Mask] = {}

    def open(self, manifest: Manifest) -> View:
        """The view of ``manifest``. Raises Corrupt, or NotFound if its segments were swept meanwhile."""
        with self._lock:
            shards = tuple(tuple(self._live(ref) for ref in shard.segments) for shard in manifest.shards)
            wanted = {ref.id for ref in manifest.segments()}
            vectors = {(ref.id, ref.deletions) for ref in manifest.segments() if ref.deletions}
            for segment_id in self._segments.keys() - wanted:
                del self._segments[segment_id]
            for key in self._deleted.keys() - vectors:
                del self._deleted[key]
        return View(self._record, manifest, shards)

    def _live(self, ref: SegmentRef) -> LiveSegment:
        segment = self._segments.get(ref.id)
        if segment is None:
            segment = Segment(self._store.read(segment_key(self._record.folder, ref.id)))
            self._segments[ref.id] = segment
        return LiveSegment(ref, segment, self._deletions(ref))

    def _deletions(self, ref: SegmentRef) -> Mask | None:
        if ref.deletions is None:
            return None
        key = (ref.id, ref.deletions)
        mask = self._deleted.get(key)
        if mask is None:
            data = self._store.read(ref.deletions.object)
            mask = decode_deletions(data, ref.deletions.section, ref.rows, ref.deletions.count)
            self._deleted[key] = mask
        return mask
