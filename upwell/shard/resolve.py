"""What a batch of mutations comes to, decided in order against one view. Pure: reads segments, writes nothing.

Every row of the batch gets a *code*, the number of its key among the batch's distinct keys. Whether a key is alive, and
which row of the batch holds it now, are two arrays over codes; each mutation updates them in one vectorised step, in
order. What remains at the end is what must be written: the surviving rows, and the rows of the view they put out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Changeset, Operation
from upwell.log.entry import Mutation, problem_to_json
from upwell.manifest import MutationResult
from upwell.shard.keys import Hashes, Rows, hash_keys, keys_of, shard_of
from upwell.shard.rows import SegmentRows, concat_rows
from upwell.shard.vectors import Vectors
from upwell.shard.view import View

#: In ``_Outcome.holder``: the key's row, if it is alive, is the view's own.
FROM_VIEW = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pending:
    """A mutation to be applied: its rows, or (``changeset`` None) why it cannot be."""

    position: int
    place: int
    mutation: Mutation
    changeset: Changeset | None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ShardChange:
    """What happens to one shard: rows to add (None: none), and the rows put out, per segment id."""

    added: SegmentRows | None
    deleted: dict[str, Rows]


@dataclass(frozen=True, slots=True, eq=False)
class Resolution:
    """What a batch comes to: one change per shard, and one result per mutation, in order."""

    shards: tuple[ShardChange, ...]
    results: tuple[MutationResult, ...]


def resolve(view: View, batch: Sequence[Pending]) -> Resolution:
    """Decide a batch against ``view``, exactly as if its mutations were applied one after the other."""
    scope = view.record.key_scope
    changesets = [one.changeset for one in batch if one.changeset is not None]
    keys = [keys_of(changeset.ids, changeset.namespaces, scope) for changeset in changesets]
    numbered = pc.dictionary_encode(pa.concat_arrays(keys) if keys else pa.array([], pa.binary()))
    codes = numbered.indices.to_numpy().astype(np.int64)
    located = _locate(view, numbered.dictionary)
    outcome = _Outcome(located.alive)
    results, start, row = [], 0, 0
    for one in batch:
        counts: dict[str, int] = {}
        if one.changeset is not None:
            end = start + len(one.changeset)
            counts = outcome.apply(one.changeset.operation, codes[start:end], row)
            start = end
            row += 0 if one.changeset.vectors is None else len(one.changeset)
        results.append(_result(one, counts))
    return Resolution(_changes(view, changesets, located, outcome), tuple(results))


@dataclass(frozen=True, slots=True, eq=False)
class _Located:
    """Where the batch's distinct keys are in the view; arrays over codes."""

    shard: Rows
    alive: npt.NDArray[np.bool_]
    #: Place of the segment in its shard, and row in the segment; meaningless where not alive.
    segment: Rows
    row: Rows


def _locate(view: View, keys: pa.Array) -> _Located:
    hashes: Hashes = hash_keys(keys)
    shard = shard_of(hashes, len(view.shards))
    located = _Located(
        shard, np.zeros(len(keys), dtype=bool), np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    )
    for number, segments in enumerate(view.shards):
        codes = np.flatnonzero(shard == number)
        if len(codes) == 0 or not segments:
            continue
        its_keys, its_hashes = keys.take(pa.array(codes)), hashes[codes]
        for place, live in enumerate(segments):
            asked, rows = live.find(its_keys, its_hashes, view.record)
            found = codes[asked]
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

    def apply(self, operation: Operation, codes: Rows, row: int) -> dict[str, int]:
        """Apply one mutation, whose first row among those the batch writes is ``row``; returns what it counted."""
        match operation:
            case Operation.INSERT:
                first, where = np.unique(codes, return_index=True)
                absent = ~self.alive[first]
                self._hold(first[absent], row + where[absent])
                inserted = int(absent.sum())
                return {"inserted": inserted, "skipped": len(codes) - inserted}
            case Operation.UPSERT:
                last, where = np.unique(codes[::-1], return_index=True)
                inserted = int((~self.alive[last]).sum())
                self._hold(last, row + len(codes) - 1 - where)
                # An id given twice in one body replaces itself: received = inserted + replaced.
                return {"inserted": inserted, "replaced": len(codes) - inserted}
            case Operation.DELETE:
                gone = np.unique(codes)
                deleted = int(self.alive[gone].sum())
                self.alive[gone] = False
                return {"deleted": deleted}

    def _hold(self, codes: Rows, rows: Rows) -> None:
        self.alive[codes] = True
        self.holder[codes] = rows


def _changes(
    view: View, changesets: Sequence[Changeset], located: _Located, outcome: _Outcome
) -> tuple[ShardChange, ...]:
    kept = outcome.alive & (outcome.holder != FROM_VIEW)
    put_out = located.alive & (kept | ~outcome.alive)
    written = _rows_written(changesets) if kept.any() else None
    changes = []
    for number, segments in enumerate(view.shards):
        here = located.shard == number
        rows = np.sort(outcome.holder[kept & here])
        added = written.take(rows) if written is not None and len(rows) else None
        gone = np.flatnonzero(put_out & here)
        deleted = {
            segments[place].ref.id: np.sort(located.row[gone[located.segment[gone] == place]])
            for place in np.unique(located.segment[gone]).tolist()
        }
        changes.append(ShardChange(added, deleted))
    return tuple(changes)


def _rows_written(changesets: Sequence[Changeset]) -> SegmentRows:
    """The rows that the batch's inserts and upserts bring, as one table, in order."""
    return concat_rows(
        [
            SegmentRows(
                changeset.ids, Vectors.of(changeset.vectors), changeset.namespaces, changeset.metadata
            )
            for changeset in changesets
            if changeset.vectors is not None
        ]
    )


def _result(one: Pending, counts: dict[str, int]) -> MutationResult:
    mutation = one.mutation
    return MutationResult(
        position=one.position,
        place=one.place,
        operation=mutation.operation,
        accepted_at=mutation.accepted_at,
        received=mutation.received,
        discarded=mutation.discarded_count,
        discarded_lines=tuple(problem_to_json(problem) for problem in mutation.discarded),
        error=one.error,
        **counts,
    )
