"""Which segments of a shard to merge next: a pure function of what the manifest says of them.

Size-tiered. Segments are sorted into levels, each FANOUT times larger than the one below; a level with FANOUT segments is merged
into one of the next. So a row is rewritten once a level, and a shard has at most FANOUT - 1 segments a level at rest: both
are logarithmic in its size. A segment with many deleted rows is rewritten by itself, and in an index that has settled one with fewer
lists than its size deserves.

In an index that has *settled*, for want of new mutations, segments are merged further, towards one: the largest only if the
others come to a quarter of it, so that a trickle of mutations does not have the same rows rewritten again and again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from upwell.manifest import SegmentRef
from upwell.shard.ann import lists_for
from upwell.shard.merge import FOLDED_BYTES_MAX

#: Deleted rows beyond this share of a segment are worth rewriting it for: they cost disk, and attention in every query.
DELETED_SHARE_MAX = 0.2
#: In a settled index a segment is merged with smaller ones that come to at least this share of it.
SETTLED_SHARE = 0.25
#: Ids, metadata, data and the like of one merged segment: they are held in memory while it is written, and Arrow's columns of text,
#: of which each is a part of that, hold 2 GiB at most.
COLUMNS_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """How merges are chosen."""

    #: Of a row's dense vector; 0 in a sparse index.
    row_bytes: int
    fanout: int
    rows_max: int


def plan(segments: Sequence[SegmentRef], limits: PlanLimits, *, settled: bool) -> tuple[str, ...]:
    """Ids of the segments to be merged into one next, none if all is well."""
    return (
        _full_level(segments, limits)
        or (_tail(segments, limits) if settled else ())
        or _dirty(segments, limits, settled)
    )


def _full_level(segments: Sequence[SegmentRef], limits: PlanLimits) -> tuple[str, ...]:
    levels: dict[int, list[SegmentRef]] = defaultdict(list)
    for segment in segments:
        levels[_level(segment, limits)].append(segment)
    for _, members in sorted(levels.items()):
        if len(members) >= limits.fanout:
            chosen = _within(sorted(members, key=_live), limits)
            if len(chosen) > 1:
                return tuple(segment.id for segment in chosen)
    return ()


def _dirty(segments: Sequence[SegmentRef], limits: PlanLimits, settled: bool) -> tuple[str, ...]:
    for segment in segments:
        # Drains make segments of one list, because training takes time. A sparse index has no lists at all.
        wanted = lists_for(segment.live) if limits.row_bytes else 0
        if settled and segment.lists < wanted > 1 and segment.live <= limits.rows_max:
            return (segment.id,)
        # Small ones are folded into the next commit of their shard anyway.
        if segment.live < (1 - DELETED_SHARE_MAX) * segment.rows and (settled or _level(segment, limits) > 0):
            return (segment.id,)
    return ()


def _tail(segments: Sequence[SegmentRef], limits: PlanLimits) -> tuple[str, ...]:
    """The longest run of smallest segments in which each is not too large for those before it."""
    by_size = sorted(segments, key=_live)
    total, best = 0, 0
    for number, segment in enumerate(by_size):
        if number and total >= SETTLED_SHARE * segment.live:
            best = number + 1
        total += segment.live
    chosen = _within(by_size[:best], limits)
    return tuple(segment.id for segment in chosen) if len(chosen) > 1 else ()


def _level(segment: SegmentRef, limits: PlanLimits) -> int:
    base = max(1, FOLDED_BYTES_MAX // (limits.row_bytes or max(1, segment.nbytes // segment.rows)))
    if segment.live <= base:
        return 0
    return 1 + int(math.log(segment.live / base, limits.fanout))


def _live(segment: SegmentRef) -> int:
    return segment.live


def _within(segments: Sequence[SegmentRef], limits: PlanLimits) -> list[SegmentRef]:
    """As many of ``segments`` as one segment may hold. Those with little beside their vectors first: one whose few rows have a lot must
    not keep all others from being merged."""
    chosen: list[SegmentRef] = []
    rows = columns_bytes = 0
    besides = {one.id: max(0, one.nbytes - one.rows * limits.row_bytes) for one in segments}
    for segment in sorted(segments, key=lambda one: besides[one.id]):
        more = besides[segment.id]
        if rows + segment.live <= limits.rows_max and columns_bytes + more <= COLUMNS_BYTES_MAX:
            chosen.append(segment)
            rows, columns_bytes = rows + segment.live, columns_bytes + more
    return chosen
