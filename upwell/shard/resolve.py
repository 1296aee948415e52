"""What a batch of mutations comes to, decided in order against one view, shard by shard. Pure: reads segments, writes nothing.

Every row of the batch gets a *code*, the number of its key among the batch's distinct keys. Whether a key is alive, and
which row of the batch holds it now, are two arrays over codes; each mutation updates them in one vectorised step, in
order. What remains at the end is what must be written: the surviving rows, and the rows of the view they put out.

Keys of different shards have nothing to do with one another. So each shard is decided by itself, by whichever process; what a
mutation counts is the sum over the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Operation
from upwell.log.entry import problem_to_json
from upwell.manifest import MutationResult
from upwell.shard.batch import Pending
from upwell.shard.keys import Hashes, Rows, hash_keys, keys_of, shard_of
from upwell.shard.rows import SegmentRows, concat_rows, written_by
from upwell.shard.vectors import Vectors
from upwell.shard.view import LiveSegment, View

#: In ``_Outcome.holder``: the key's row, if it is alive, is the view's own.
FROM_VIEW = -1
#: What a mutation counts, in this order.
COUNTED = ("inserted", "replaced", "skipped", "updated", "deleted")
#: int64 (mutations of the batch, COUNTED).
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KeyedBatch:
    """A batch and its keys. ``codes`` (rows of the batch, in order) number the distinct ``keys``; the rest are over those."""

    batch: Sequence[Pending]
    codes: Rows
    keys: pa.Array
    hashes: Hashes
    shard: Rows

    @property
    def rows(self) -> int:
        """Rows of all mutations: vectors, and ids to delete."""
        return len(self.codes)


@dataclass(frozen=True, slots=True, eq=False)
class ShardChange:
    """What happens to one shard: rows to add (None: none), the rows put out, per segment id, and what each mutation counts."""

    added: SegmentRows | None
    deleted: dict[str, Rows]
    counts: Counts


def keyed(view: View, batch: Sequence[Pending]) -> KeyedBatch:
    """A batch's keys, hashed and assigned to shards."""
    scope = view.record.key_scope
    keys = [
        keys_of(one.changeset.ids, one.changeset.namespaces, scope)
        for one in batch
        if one.changeset is not None
    ]
    numbered = pc.dictionary_encode(pa.concat_arrays(keys) if keys else pa.array([], pa.binary()))
    hashes = hash_keys(numbered.dictionary)
    codes = numbered.indices.to_numpy().astype(np.int64)
    return KeyedBatch(batch, codes, numbered.dictionary, hashes, shard_of(hashes, len(view.shards)))


def resolve(view: View, keys: KeyedBatch, shard: int) -> ShardChange:
    """Decide a batch for one shard of ``view``, exactly as if its mutations were applied one after the other."""
    here = np.flatnonzero(keys.shard == shard)
    # Codes of this shard alone, so that the arrays over them are as small as its share.
    own = np.full(len(keys.keys), -1, np.int64)
    own[here] = np.arange(len(here))
    codes = own[keys.codes]
    located = _locate(view, view.shards[shard], keys, here)
    outcome = _Outcome(located.alive)
    counts = np.zeros((len(keys.batch), len(COUNTED)), np.int64)
    start = row = 0
    for number, one in enumerate(keys.batch):
        if one.changeset is None:
            continue
        its = codes[start : start + len(one.changeset)]
        mine = np.flatnonzero(its >= 0)
        if len(mine):
            counted = outcome.apply(one.changeset.operation, its[mine], row + mine)
            counts[number] = [counted.get(name, 0) for name in COUNTED]
        start += len(one.changeset)
        row += 0 if one.changeset.vectors is None else len(one.changeset)
    return _change(view.shards[shard], keys.batch, located, outcome, counts)


def results_of(batch: Sequence[Pending], counts: Counts) -> tuple[MutationResult, ...]:
    """One result per mutation, in order; ``counts`` are summed over all shards."""
    return tuple(_result(one, row) for one, row in zip(batch, counts.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Located:
    """Where a shard's keys are in the view; arrays over its codes."""

    alive: npt.NDArray[np.bool_]
    #: Place of the segment in its shard, and row in the segment; meaningless where not alive.
    segment: Rows
    row: Rows


def _locate(view: View, segments: Sequence[LiveSegment], keys: KeyedBatch, here: Rows) -> _Located:
    located = _Located(
        np.zeros(len(here), dtype=bool), np.zeros(len(here), np.int64), np.zeros(len(here), np.int64)
    )
    if len(here) == 0 or not segments:
        return located
    its_keys, its_hashes = keys.keys.take(pa.array(here)), keys.hashes[here]
    for place, live in enumerate(segments):
        found, rows = live.find(its_keys, its_hashes, view.record)
        located.alive[found] = True
        located.segment[found] = place
        located.row[found] = rows
    return located


class _Outcome:
    """Where each key stands after the mutations applied so far."""

    def __init__(self, alive: npt.NDArray[np.bool_]) -> None:
        self.alive = alive.copy()
        #: The row, of all those the batch writes, that holds the key; or FROM_VIEW.
        self.holder = np.full(len(alive), FROM_VIEW, np.int64)

    def apply(self, operation: Operation, codes: Rows, rows: Rows) -> dict[str, int]:
        """Apply one mutation: its codes, and which of the rows that the batch writes they are; returns what it counted."""
        match operation:
            case Operation.INSERT:
                first, where = np.unique(codes, return_index=True)
                absent = ~self.alive[first]
                self._hold(first[absent], rows[where[absent]])
                inserted = int(absent.sum())
                return {"inserted": inserted, "skipped": len(codes) - inserted}
            case Operation.UPSERT:
                last, where = np.unique(codes[::-1], return_index=True)
                inserted = int((~self.alive[last]).sum())
                self._hold(last, rows[len(codes) - 1 - where])
                # An id given twice in one body replaces itself: received = inserted + replaced.
                return {"inserted": inserted, "replaced": len(codes) - inserted}
            case Operation.DELETE:
                gone = np.unique(codes)
                deleted = int(self.alive[gone].sum())
                self.alive[gone] = False
                return {"deleted": deleted}
            case Operation.CREATE_METADATA_INDEX | Operation.DELETE_METADATA_INDEX:
                raise AssertionError(f"{operation} has no rows")

    def _hold(self, codes: Rows, rows: Rows) -> None:
        self.alive[codes] = True
        self.holder[codes] = rows


def _change(
    segments: Sequence[LiveSegment],
    batch: Sequence[Pending],
    located: _Located,
    outcome: _Outcome,
    counts: Counts,
) -> ShardChange:
    kept = outcome.alive & (outcome.holder != FROM_VIEW)
    put_out = np.flatnonzero(located.alive & (kept | ~outcome.alive))
    rows = np.sort(outcome.holder[kept])
    added = _rows_written(batch).take(rows) if len(rows) else None
    deleted = {
        segments[place].ref.id: np.sort(located.row[put_out[located.segment[put_out] == place]])
        for place in np.unique(located.segment[put_out]).tolist()
    }
    return ShardChange(added, deleted, counts)


def _rows_written(batch: Sequence[Pending]) -> SegmentRows:
    """The rows that the batch's inserts and upserts bring, as one table, in order."""
    return concat_rows(
        [
            SegmentRows(
                one.changeset.ids,
                Vectors.of(one.changeset.vectors),
                one.changeset.namespaces,
                one.changeset.metadata,
                np.full(len(one.changeset), written_by(one.position, one.place), np.uint64),
            )
            for one in batch
            if one.changeset is not None and one.changeset.vectors is not None
        ]
    )


def _result(one: Pending, counted: list[int]) -> MutationResult:
    mutation = one.mutation
    if mutation is None:
        return MutationResult(
            position=one.position,
            place=one.place,
            operation=None,
            accepted_at=None,
            received=0,
            error=one.error,
        )
    return MutationResult(
        position=one.position,
        place=one.place,
        operation=mutation.operation,
        accepted_at=mutation.accepted_at,
        received=mutation.received,
        discarded=mutation.discarded_count,
        discarded_lines=tuple(problem_to_json(problem) for problem in mutation.discarded),
        error=one.error,
        duplicate=one.duplicate,
        **dict(zip(COUNTED, counted, strict=True)),
    )
