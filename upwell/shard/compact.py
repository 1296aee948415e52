"""Compaction: several segments of one shard become one, beside drains that go on, and no query sees a difference.

The new segment is made from a view that may be old by the time it is finished. So the commit *rebases*: whatever was deleted or
replaced since is marked deleted in the new segment, row by row, against the newest manifest; a segment that vanished
meanwhile (folded into another, or merged by somebody else) counts as deleted whole. A row is never brought back to life, and
never there twice. A commit that loses its race is rebased again; the costly part, building the index, is done once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import structlog

from upwell.catalog.record import IndexRecord
from upwell.changeset import KeyScope
from upwell.clock import Clock
from upwell.errors import Fenced
from upwell.failpoint import Step, reached
from upwell.ids import new_identity
from upwell.manifest import Manifest, SegmentRef, ShardState, Totals
from upwell.shard.ann import lists_for
from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.newest import NewestView
from upwell.shard.part import DeletionsWriter
from upwell.shard.plan import PlanLimits, plan
from upwell.shard.rows import concat_rows
from upwell.shard.segment import encode_segment
from upwell.shard.view import LiveSegment, View, segment_key
from upwell.store import Store, create_own

log = structlog.get_logger()

#: What a merged segment's name ends in, for those who look at a store.
MERGED = "-merged"
#: A commit that loses this many races in a row is given up; the merge begins anew when its turn comes again.
COMMIT_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What one compaction did."""

    version: int
    shard: int
    segments: int
    rows: int
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """A new segment, and where its rows came from: row i was row ``rows[i]`` of the source numbered ``source[i]``."""

    ref: SegmentRef
    sources: tuple[LiveSegment, ...]
    source: Rows
    rows: Rows
    #: When its object began to be written: from then on it may be taken for garbage.
    created_at: float


class Compactor:
    """Merges the segments of one index. Any number of processes may: the manifest decides."""

    def __init__(
        self,
        store: Store,
        record: IndexRecord,
        newest: NewestView,
        clock: Clock,
        *,
        limits: PlanLimits,
        settle_s: float,
    ) -> None:
        self._store = store
        self._record = record
        self._newest = newest
        self._clock = clock
        self._limits = limits
        self._settle_s = settle_s
        self._writer = new_identity()

    def due(self) -> list[int]:
        """The shards that have something to merge. One look at the store."""
        manifest = self._newest.head.refresh()
        return [number for number in range(len(manifest.shards)) if self._plan(manifest, number)]

    def compact(
        self,
        shard: int,
        alive: Callable[[], None] = lambda: None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Compacted | None:
        """Merge what is due next in a shard; None if nothing is. ``alive`` is called now and then, and may raise to end it;
        ``turn`` is entered for each try at the commit, so that drains can be kept away from it.

        Raises Fenced if the commit lost too often or came too late, Unavailable when the store failed.
        """
        view = self._newest.get()
        chosen = self._plan(view.manifest, shard)
        if not chosen:
            return None
        sources = tuple(live for live in view.shards[shard] if live.ref.id in chosen)
        properties = [one.index.property for one in view.manifest.metadata_indexes]
        merged = self._merge(sources, view.key_scope, properties, alive)
        for _ in range(COMMIT_TRIES):
            alive()
            with turn():
                now = self._newest.get()
                if not self._newest.head.chain.trusts(merged.created_at):
                    raise Fenced(
                        "a compaction took longer than its segment is kept for", index=self._record.id
                    )
                after = self._rebase(now, shard, merged)
                if after is None:
                    return None
                reached(Step.COMPACT_COMMIT_BEFORE)
                try:
                    # Known since before its objects were written: what is older than the chain trusts is not committed.
                    self._newest.head.chain.commit(now.manifest, after, (), merged.created_at)
                except Fenced as lost:
                    log.debug("compaction will be rebased", index=self._record.id, reason=str(lost))
                    continue
                reached(Step.COMPACT_COMMIT_AFTER)
            return Compacted(
                version=after.version,
                shard=shard,
                segments=len(sources),
                rows=merged.ref.rows,
                nbytes=merged.ref.nbytes,
            )
        raise Fenced("a compaction could not be committed", index=self._record.id, shard=shard)

    def _plan(self, manifest: Manifest, shard: int) -> tuple[str, ...]:
        settled = (self._clock.now() - manifest.committed_at).total_seconds() >= self._settle_s
        return plan(manifest.shards[shard].segments, self._limits, settled=settled)

    def _merge(
        self,
        sources: tuple[LiveSegment, ...],
        scope: KeyScope,
        properties: list[str],
        alive: Callable[[], None],
    ) -> _Merged:
        live = [one.live_rows() for one in sources]
        rows = concat_rows([one.segment.take(its) for one, its in zip(sources, live, strict=True)])
        encoded = encode_segment(
            new_identity() + MERGED,
            rows,
            self._record.metric,
            scope,
            lists=lists_for(len(rows)),
            properties=properties,
            alive=alive,
        )
        reached(Step.COMPACT_BUILT)
        created_at = self._clock.monotonic()
        create_own(self._store, segment_key(self._record.folder, encoded.ref.id), *encoded.parts)
        reached(Step.COMPACT_WRITTEN)
        source, its_rows = np.repeat(np.arange(len(live)), list(map(len, live))), np.concatenate(live)
        if encoded.order is not None:
            source, its_rows = source[encoded.order], its_rows[encoded.order]
        return _Merged(encoded.ref, sources, source, its_rows, created_at)

    def _rebase(self, view: View, shard: int, merged: _Merged) -> Manifest | None:
        """The manifest after ``view``'s with the merged segment in place of its sources; None if none of them is left."""
        segments = view.shards[shard]
        now = {live.ref.id: live for live in segments}
        if not any(source.ref.id in now for source in merged.sources):
            return None
        deletions = DeletionsWriter(self._record.folder)
        ref = deletions.mark(merged.ref, _deleted_since(merged, now))
        deletions.write(self._store)
        sources = {source.ref.id for source in merged.sources}
        place = next(n for n, live in enumerate(segments) if live.ref.id in sources)
        kept = [live.ref for live in segments if live.ref.id not in sources]
        if ref is not None:
            kept.insert(place, ref)
        shards = list(view.manifest.shards)
        shards[shard] = ShardState(segments=tuple(kept))
        before = view.manifest
        return before.model_copy(
            update={
                "version": before.version + 1,
                "writer": self._writer,
                "shards": tuple(shards),
                "totals": before.totals + Totals(compacted_bytes=merged.ref.nbytes),
            }
        )


def _deleted_since(merged: _Merged, now: dict[str, LiveSegment]) -> Mask:
    """Which rows of the merged segment are alive no more: bool (rows,)."""
    gone = np.zeros(merged.ref.rows, dtype=bool)
    for number, source in enumerate(merged.sources):
        here = merged.source == number
        live = now.get(source.ref.id)
        if live is None:
            gone[here] = True
        elif live.deleted is not None:
            gone[here] = live.deleted[merged.rows[here]]
    return gone
