"""Folding small segments into the one being written, so that a stream of small mutations does not become a heap of
tiny segments.

Newest first, a segment is folded in while it is not much larger than what is being written already. Sizes so grow
geometrically: a row is rewritten O(log) times before it lies in a segment of FOLDED_BYTES_MAX, and a shard holds O(log)
segments below that size. Bytes written by one commit stay bounded by the batch plus FOLDED_BYTES_MAX.

Ceiling: segments above FOLDED_BYTES_MAX are never merged here; that is background compaction's work.
"""

from __future__ import annotations

from collections.abc import Sequence

from upwell.shard.view import LiveSegment

FOLDED_BYTES_MAX = 4 << 20
#: A segment up to this many times larger than what is being written is folded in.
GROWTH = 2


def to_fold(segments: Sequence[LiveSegment], rows_added: int, row_bytes: int) -> list[LiveSegment]:
    """Which of a shard's segments (oldest first) to fold into a new one of ``rows_added`` rows."""
    folded: list[LiveSegment] = []
    rows = rows_added
    for live in reversed(segments):
        if live.live > GROWTH * rows or (rows + live.live) * row_bytes > FOLDED_BYTES_MAX:
            break
        folded.append(live)
        rows += live.live
    folded.reverse()
    return folded
