"""Folding small segments into the one being written, so that a stream of small mutations does not become a heap of
tiny segments.

Newest first, a segment is folded in while it is not much larger than what is being written already. Sizes so grow
geometrically: a row is rewritten O(log) times before it lies in a segment of FOLDED_BYTES_MAX, and a shard holds O(log)
segments below that size. Bytes written by one commit stay bounded by the batch plus FOLDED_BYTES_MAX.

Ceiling: segments above FOLDED_BYTES_MAX are never merged here; that is background compaction's work.
"""

from __future__ import annotations

from collections.abc import Sequence

from upwell.shard.rows import SegmentRows
from upwell.shard.view import LiveSegment

FOLDED_BYTES_MAX = 4 << 20
#: A segment up to this many times larger than what is being written is folded in.
GROWTH = 2
#: What a segment takes however few rows it has: its header, and the schemas of its columns.
SEGMENT_BYTES = 4096
#: What a row takes beside its dense vector when there is nothing special about it: an id, hashes, numbers. And a flat segment has its
#: vectors twice where they are not of unit length.
PLAIN_BYTES = 256
LARGER = 3


def to_fold(segments: Sequence[LiveSegment], added: SegmentRows) -> list[LiveSegment]:
    """Which of a shard's segments (oldest first) to fold into a new one of the rows ``added``."""
    folded: list[LiveSegment] = []
    vector_bytes = added.vectors.row_bytes
    rows, nbytes = len(added), _counted(added.nbytes, len(added), vector_bytes)
    for live in reversed(segments):
        whole = _counted(max(0, live.ref.nbytes - SEGMENT_BYTES), live.ref.rows, vector_bytes)
        its = whole * live.live // live.ref.rows
        if live.live > GROWTH * rows or nbytes + its > FOLDED_BYTES_MAX:
            break
        folded.append(live)
        rows, nbytes = rows + live.live, nbytes + its
    folded.reverse()
    return folded


def _counted(nbytes: int, rows: int, vector_bytes: int) -> int:
    """What rows of so many bytes count as: their dense vectors, unless metadata, data and the like are the larger part."""
    plain = rows * (LARGER * vector_bytes + PLAIN_BYTES)
    return rows * vector_bytes if vector_bytes and nbytes <= plain else nbytes
