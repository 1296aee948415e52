"""A view: an index at one manifest version, open and immutable.

Queries hold a view for as long as they need it; a newer version is another view that shares the segments they have in
common. Files that a view holds may be unlinked meanwhile: what is mapped stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.catalog.record import IndexRecord
from upwell.changeset import KeyScope
from upwell.errors import Corrupt
from upwell.ids import numbered
from upwell.manifest import Manifest, Namespaces, NamespaceTables, SegmentRef
from upwell.shard.deletions import Mask, decode_deletions
from upwell.shard.keys import Hashes, Rows
from upwell.shard.segment import Segment
from upwell.shard.spaces import counts_of, sums_of
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

    def find(self, keys: pa.Array, hashes: Hashes, scope: KeyScope) -> tuple[Rows, Rows]:
        """Which of ``keys`` are alive here: (places in ``keys``, rows)."""
        places, rows = self.segment.find(keys, hashes, scope)
        if self.deleted is not None and len(rows):
            alive = ~self.deleted[rows]
            places, rows = places[alive], rows[alive]
        return places, rows

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many live rows each namespace has, "" for those in none; by the identities that rows have."""
        if self.deleted is None:
            return {name: space.rows for name, space in self.segment.spaces.items()}
        gone = np.flatnonzero(self.deleted)
        namespaces = self.segment.namespaces
        lost = counts_of(None if namespaces is None else namespaces.take(pa.array(gone)), len(gone))
        left = {name: space.rows - lost.get(name, 0) for name, space in self.segment.spaces.items()}
        return {name: rows for name, rows in left.items() if rows}

    @cached_property
    def totals(self) -> dict[str, float]:
        """How many terms the live rows of each namespace have in all, where sparse vectors are counts of them."""
        lengths = self.segment.lengths
        alive = lengths if self.deleted is None else np.where(self.deleted, 0, lengths)
        return sums_of(self.segment.namespaces, alive)

    def last_sequence(self, namespace: str) -> int:
        """The largest sequence among the live rows of a namespace, 0 if it has none."""
        if namespace not in self.counts:
            return 0
        last = self.segment.spaces[namespace].last
        if self.deleted is None or not self.deleted[last]:
            return int(self.segment.sequence[last])
        known = self._last_sequences.get(namespace)
        if known is None:
            alive = self.segment.in_namespace(namespace) & ~self.deleted
            known = self._last_sequences[namespace] = int(self.segment.sequence[alive].max())
        return known

    @cached_property
    def _last_sequences(self) -> dict[str, int]:
        """Those that had to be looked for."""
        return {}

    def live_rows(self) -> Rows:
        """The rows not deleted, ascending."""
        if self.deleted is None:
            return np.arange(self.segment.rows)
        return np.flatnonzero(~self.deleted)


@dataclass(frozen=True, eq=False)
class View:
    """One version of an index. Safe to share between threads."""

    record: IndexRecord
    manifest: Manifest
    shards: tuple[tuple[LiveSegment, ...], ...]
    namespaces: Namespaces

    @property
    def key_scope(self) -> KeyScope:
        """What ids are unique in, as far as that is decided."""
        return self.manifest.key_scope or self.record.key_scope

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many rows each namespace has, by the identities that rows have; "" for those in none."""
        counts: dict[str, int] = {}
        for live in self.segments():
            for identity, rows in live.counts.items():
                counts[identity] = counts.get(identity, 0) + rows
        return counts

    def segments(self) -> Iterator[LiveSegment]:
        """Every segment of every shard."""
        return (live for segments in self.shards for live in segments)

    def has_namespace(self, name: str) -> bool:
        """Is there a namespace of this name, if only an empty one?"""
        return name in self.namespaces.identities or self.namespaces.identity(name) in self.counts


def segment_key(folder: str, segment_id: str) -> str:
    """The name of a segment's object."""
    return f"{folder}/segment/{segment_id}"


def named_by(manifest: Manifest, folder: str) -> set[str]:
    """The names of all objects that a version of the index in ``folder`` cannot do without."""
    segments = {segment_key(folder, ref.id) for ref in manifest.segments()}
    deletions = {ref.deletions.object for ref in manifest.segments() if ref.deletions is not None}
    namespaces = set() if manifest.namespaces is None else {manifest.namespaces}
    return segments | deletions | namespaces | {page.object for page in manifest.failure_pages}


class ViewOpener:
    """Opens views of one index, and keeps the segments of the last one open so that the next costs only what is new."""

    def __init__(self, store: Store, record: IndexRecord) -> None:
        self._store = store
        self._record = record
        self._lock = Lock()
        self._namespaces = NamespaceTables(store, record.folder)
        self._segments: dict[str, LiveSegment] = {}

    def open(self, manifest: Manifest) -> View:
        """The view of ``manifest``. Raises Corrupt, or NotFound if its segments were swept meanwhile."""
        if manifest.index_id != self._record.id:
            key = f"{self._record.folder}/manifest/{numbered(manifest.version)}"
            raise Corrupt("a manifest is that of another index", key=key, got=manifest.index_id)
        with self._lock:
            shards = tuple(tuple(self.live(ref) for ref in shard.segments) for shard in manifest.shards)
            self._segments = {live.ref.id: live for segments in shards for live in segments}
        return View(self._record, manifest, shards, self._namespaces.of(manifest))

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
