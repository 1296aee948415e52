"""A manifest as a value: segments per shard, how far the log is applied, and what must hold from one to the next.

Small whatever the size of the index: it names segments and deletion vectors, and holds no rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from upwell.changeset import Operation
from upwell.properties import MetadataIndex

#: Tokens whose newest mutation is remembered.
NEWEST_BY_KEPT = 64


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeletionRef(_Frozen):
    """Where a segment's deletion vector lies: a section of an object that one commit wrote."""

    object: str
    section: str
    #: Rows marked deleted.
    count: int = Field(ge=1)


class SegmentRef(_Frozen):
    """A segment as a manifest names it."""

    id: str
    rows: int = Field(ge=1)
    nbytes: int
    #: Lists that its index was meant to have; none if its rows are compared one by one.
    lists: int = 0
    deletions: DeletionRef | None = None

    @property
    def live(self) -> int:
        """Rows not deleted."""
        return self.rows - (self.deletions.count if self.deletions else 0)


class ShardState(_Frozen):
    """The segments of one shard, oldest first."""

    segments: tuple[SegmentRef, ...] = ()


class Failure(_Frozen):
    """A mutation that could not be applied. Kept in the state, so that ``failed`` never turns into ``visible``."""

    position: int
    place: int
    reason: str


class MutationResult(_Frozen):
    """What became of one mutation."""

    position: int
    place: int
    operation: Operation
    accepted_at: datetime
    received: int
    inserted: int = 0
    replaced: int = 0
    skipped: int = 0
    updated: int = 0
    deleted: int = 0
    discarded: int = 0
    #: The first discarded lines, as log entries keep them.
    discarded_lines: tuple[dict[str, Any], ...] = ()
    error: str | None = None
    #: Its request was in the log twice, and this is the one that does not count: its id was given to nobody.
    duplicate: bool = False


class DeclaredIndex(_Frozen):
    """A metadata index, and the mutation that created it: rows written before may be left out by it (settings)."""

    index: MetadataIndex
    position: int
    place: int


class NewestBy(_Frozen):
    """The newest mutation applied of those that one token sent."""

    by: str
    position: int
    place: int


class Totals(_Frozen):
    """What was written for an index since it was made, in bytes: how much is written for each byte that was sent."""

    #: Raw vectors of all rows that mutations brought.
    vector_bytes: int = 0
    #: Segments and deletion vectors that drains wrote.
    applied_bytes: int = 0
    #: Segments that compactions wrote.
    compacted_bytes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            vector_bytes=self.vector_bytes + other.vector_bytes,
            applied_bytes=self.applied_bytes + other.applied_bytes,
            compacted_bytes=self.compacted_bytes + other.compacted_bytes,
        )

    @property
    def write_amplification(self) -> float | None:
        """Bytes written into segments for each byte of vectors; the log's own copy comes on top. None for an empty index."""
        if self.vector_bytes == 0:
            return None
        return (self.applied_bytes + self.compacted_bytes) / self.vector_bytes


class Manifest(_Frozen):
    """An index at one version."""

    version: Annotated[int, Field(ge=1)]
    index_id: str
    #: The committer's token, so that an unknown outcome can be settled by reading back.
    writer: str
    #: When the newest mutation in it was committed; a version that only rearranges keeps its predecessor's.
    committed_at: datetime
    #: Every log entry up to this position is applied; nothing past it is.
    applied_through: Annotated[int, Field(ge=0)] = 0
    #: How many mutations the entry at ``applied_through`` holds.
    applied_places: int = 0
    shards: tuple[ShardState, ...]
    failures: tuple[Failure, ...] = ()
    #: Format 1 has none.
    totals: Totals = Totals()
    #: In order of their creation. Formats 1 and 2 have none of these.
    metadata_indexes: tuple[DeclaredIndex, ...] = ()
    #: By the tokens that wrote last, the last one at the end.
    newest_by: tuple[NewestBy, ...] = ()

    @property
    def vectors(self) -> int:
        """Live vectors in all shards."""
        return sum(segment.live for shard in self.shards for segment in shard.segments)

    @property
    def unindexed(self) -> int:
        """Live vectors that queries compare one by one."""
        return sum(segment.live for segment in self.segments() if segment.lists == 0)

    def failure_at(self, position: int, place: int) -> Failure | None:
        """Why a mutation failed; None if it did not."""
        # Failures are in the log's order, and may be many.
        at = bisect_left(self.failures, (position, place), key=lambda one: (one.position, one.place))
        found = self.failures[at] if at < len(self.failures) else None
        return found if found and (found.position, found.place) == (position, place) else None

    def segments(self) -> Iterable[SegmentRef]:
        """Every segment of every shard."""
        return (segment for shard in self.shards for segment in shard.segments)


# Invariants: plain predicates over what was and what is about to be committed. They run on every commit, in production
# too: a handful of comparisons, against the loss of an index.


def version_is_the_next(before: Manifest, after: Manifest) -> bool:
    return after.version == before.version + 1


def index_stays_itself(before: Manifest, after: Manifest) -> bool:
    return after.index_id == before.index_id and len(after.shards) == len(before.shards)


def applied_never_goes_back(before: Manifest, after: Manifest) -> bool:
    return after.applied_through >= before.applied_through


def every_segment_is_listed_once(_before: Manifest, after: Manifest) -> bool:
    ids = [segment.id for segment in after.segments()]
    return len(ids) == len(set(ids))


def deletions_only_grow(before: Manifest, after: Manifest) -> bool:
    lives = {segment.id: segment.live for segment in before.segments()}
    return all(0 < segment.live <= lives.get(segment.id, segment.rows) for segment in after.segments())


def failures_are_kept(before: Manifest, after: Manifest) -> bool:
    return after.failures[: len(before.failures)] == before.failures


def only_the_log_changes_what_there_is(before: Manifest, after: Manifest) -> bool:
    same = after.vectors == before.vectors and after.metadata_indexes == before.metadata_indexes
    return after.applied_through > before.applied_through or same


INVARIANTS: tuple[Callable[[Manifest, Manifest], bool], ...] = (
    version_is_the_next,
    index_stays_itself,
    applied_never_goes_back,
    every_segment_is_listed_once,
    deletions_only_grow,
    failures_are_kept,
    only_the_log_changes_what_there_is,
)
