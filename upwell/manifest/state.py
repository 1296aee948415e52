"""A manifest as a value: segments per shard, how far the log is applied, and what must hold from one to the next.

Small whatever the size of the index: it names segments and deletion vectors, and holds no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from upwell.changeset import KeyScope, Operation
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
    """A mutation that could not be applied. Kept for as long as the index, so that ``failed`` never turns into ``visible``."""

    position: int
    place: int
    #: How many from ``place`` on: more than one where an entry cannot be read, so that nobody knows how many it has.
    places: int = Field(1, ge=1)
    reason: str
    #: The object that keeps what the mutation was to do (log/kept.py). Formats 1 to 3 have none.
    kept: str | None = None

    def covers(self, position: int, place: int) -> bool:
        """Is this the failure of that mutation?"""
        return self.position == position and self.place <= place < self.place + self.places


class FailurePage(_Frozen):
    """Older failures, in an object of their own (manifest/failures.py), so that the manifest stays small however many there are."""

    object: str
    #: Position and place of its first and of its last failure.
    first: tuple[int, int]
    last: tuple[int, int]
    count: int = Field(ge=1)


class MutationResult(_Frozen):
    """What became of one mutation; or, without an operation, of all mutations of an entry that cannot be read."""

    position: int
    place: int
    operation: Operation | None
    accepted_at: datetime | None
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
    #: The newest failures, in the log's order; older ones are in pages, oldest first. Formats 1 to 3 have all of them here.
    failures: tuple[Failure, ...] = ()
    failure_pages: tuple[FailurePage, ...] = ()
    #: Format 1 has none.
    totals: Totals = Totals()
    #: In order of their creation. Formats 1 and 2 have none of these.
    metadata_indexes: tuple[DeclaredIndex, ...] = ()
    #: By the tokens that wrote last, the last one at the end.
    newest_by: tuple[NewestBy, ...] = ()
    #: What ids are unique in, once that is decided. Formats 1 to 4 have neither this nor the next.
    key_scope: KeyScope | None = None
    #: The object that tells of its namespaces (manifest/namespaces.py); None: there never was one.
    namespaces: str | None = None

    @property
    def vectors(self) -> int:
        """Live vectors in all shards."""
        return sum(segment.live for shard in self.shards for segment in shard.segments)

    @property
    def unindexed(self) -> int:
        """Live vectors that queries compare one by one."""
        return sum(segment.live for segment in self.segments() if segment.lists == 0)

    @property
    def failed(self) -> int:
        """Mutations, or whole entries, that could not be applied."""
        return len(self.failures) + sum(page.count for page in self.failure_pages)

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
    if after.failure_pages == before.failure_pages:
        return after.failures[: len(before.failures)] == before.failures
    paged = after.failure_pages[: len(before.failure_pages)] == before.failure_pages
    added = sum(page.count for page in after.failure_pages[len(before.failure_pages) :])
    return paged and added + len(after.failures) >= len(before.failures)


def key_scope_stays(before: Manifest, after: Manifest) -> bool:
    return before.key_scope in (None, after.key_scope)


def only_the_log_changes_what_there_is(before: Manifest, after: Manifest) -> bool:
    same = all(
        getattr(after, name) == getattr(before, name)
        for name in ("vectors", "metadata_indexes", "key_scope", "namespaces")
    )
    return after.applied_through > before.applied_through or same


INVARIANTS: tuple[Callable[[Manifest, Manifest], bool], ...] = (
    version_is_the_next,
    index_stays_itself,
    applied_never_goes_back,
    every_segment_is_listed_once,
    deletions_only_grow,
    failures_are_kept,
    key_scope_stays,
    only_the_log_changes_what_there_is,
)
