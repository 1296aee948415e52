"""What a batch of mutations comes to, decided in order against one view, shard by shard. Pure: reads segments, writes nothing.

Every row of the batch gets a *code*, the number of its key among the batch's distinct keys. Whether a key is alive, and
which row of the batch holds it now, are two arrays over codes; each mutation updates them in one vectorised step, in
order. What remains at the end is what must be written: the surviving rows, and the rows of the view they put out.

Keys of different shards have nothing to do with one another. So each shard is decided by itself, by whichever process; what a
mutation counts is the sum over the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Changeset, KeyScope, Operation
from upwell.log.entry import problem_to_json
from upwell.manifest import MutationResult
from upwell.shard.batch import Pending
from upwell.shard.deletions import Mask
from upwell.shard.keys import Hashes, Rows, hash_keys, keys_of, shard_of
from upwell.shard.namespaces import Settled, settle_namespaces
from upwell.shard.rows import SegmentRows, concat_rows, written_by
from upwell.shard.selected import Selected
from upwell.shard.view import LiveSegment, View
from upwell.shard.written import BatchRows, has_rows, updated

#: In ``_Outcome.holder``: the key's row, if it is alive, is the view's own.
FROM_VIEW = -1
#: What a mutation counts, in this order.
COUNTED = ("inserted", "replaced", "skipped", "updated", "deleted")
#: int64 (mutations of the batch, COUNTED).
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KeyedBatch:
    """A batch and its keys. ``codes`` (rows of the batch, in order) number the distinct ``keys``; the rest are over those.

    ``settled`` is the batch itself, its namespaces decided.
    """

    settled: Settled
    codes: Rows
    keys: pa.Array
    hashes: Hashes
    shard: Rows

    @property
    def batch(self) -> Sequence[Pending]:
        """The mutations."""
        return self.settled.batch

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
    settled = settle_namespaces(view, batch)
    keys = [
        keys_of(one.changeset.ids, one.changeset.namespaces, settled.scope)
        for one in settled.batch
        if one.changeset is not None
    ]
    numbered = pc.dictionary_encode(pa.concat_arrays(keys) if keys else pa.array([], pa.binary()))
    hashes = hash_keys(numbered.dictionary)
    codes = numbered.indices.to_numpy().astype(np.int64)
    return KeyedBatch(settled, codes, numbered.dictionary, hashes, shard_of(hashes, len(view.shards)))


def resolve(
    view: View, keys: KeyedBatch, shard: int, go_on: Callable[[], None] = lambda: None
) -> ShardChange:
    """Decide a batch for one shard of ``view``, exactly as if its mutations were applied one after the other. ``go_on`` is called now and
    then by what takes long."""
    here = np.flatnonzero(keys.shard == shard)
    # Codes of this shard alone, so that the arrays over them are as small as its share.
    own = np.full(len(keys.keys), -1, np.int64)
    own[here] = np.arange(len(here))
    codes = own[keys.codes]
    located = _locate(view, shard, keys, here)
    rows = BatchRows(keys.batch, keys.settled.sequences, view.record.dimensions)
    outcome = _Outcome(view.shards[shard], located, rows, keys.settled.scope, go_on=go_on)
    counts = np.zeros((len(keys.batch), len(COUNTED)), np.int64)
    start = row = 0
    for number, one in enumerate(keys.batch):
        changeset = one.changeset
        if changeset is None:
            continue
        its = codes[start : start + len(changeset)]
        mine = np.flatnonzero(its >= 0)
        if changeset.details.selection is not None or len(mine):
            counted = outcome.apply(one, changeset, its[mine], _Numbers(mine, row + mine))
            counts[number] = [counted.get(name, 0) for name in COUNTED]
        start += len(changeset)
        row += len(changeset) if has_rows(changeset.operation) else 0
    return outcome.change(counts)


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


class _Numbers(NamedTuple):
    """Rows of a mutation: their places in it, and which of the rows that the batch has they are."""

    place: Rows
    row: Rows


def _locate(view: View, shard: int, keys: KeyedBatch, here: Rows) -> _Located:
    located = _Located(
        np.zeros(len(here), dtype=bool), np.zeros(len(here), np.int64), np.zeros(len(here), np.int64)
    )
    if len(here) == 0 or not view.shards[shard]:
        return located
    its_keys, its_hashes = keys.keys.take(pa.array(here)), keys.hashes[here]
    for place, live in enumerate(view.shards[shard]):
        found, rows = live.find(its_keys, its_hashes, keys.settled.scope)
        located.alive[found] = True
        located.segment[found] = place
        located.row[found] = rows
    return located


class _Outcome:
    """Where each key of a shard stands after the mutations applied so far."""

    def __init__(
        self,
        segments: Sequence[LiveSegment],
        located: _Located,
        rows: BatchRows,
        scope: KeyScope,
        *,
        go_on: Callable[[], None],
    ) -> None:
        self._segments = segments
        self._go_on = go_on
        self._located = located
        self._rows = rows
        self._scope = scope
        self._alive = located.alive.copy()
        #: The row, of all those the batch writes, that holds the key; or FROM_VIEW.
        self._holder = np.full(len(located.alive), FROM_VIEW, np.int64)
        #: By a segment's place: rows whose keys the batch does not name, and that a selection has removed.
        self._removed: dict[int, Mask] = {}

    def apply(self, one: Pending, changeset: Changeset, codes: Rows, rows: _Numbers) -> dict[str, int]:
        """Apply one mutation: the codes of those of its rows that are of this shard; returns what it counted."""
        match changeset.operation:
            case Operation.INSERT:
                first, where = np.unique(codes, return_index=True)
                absent = ~self._alive[first]
                self._hold(first[absent], rows.row[where[absent]])
                inserted = int(absent.sum())
                return {"inserted": inserted, "skipped": len(codes) - inserted}
            case Operation.UPSERT:
                last, where = np.unique(codes[::-1], return_index=True)
                inserted = int((~self._alive[last]).sum())
                self._hold(last, rows.row[len(codes) - 1 - where])
                # An id given twice in one body replaces itself: received = inserted + replaced.
                return {"inserted": inserted, "replaced": len(codes) - inserted}
            case Operation.UPDATE:
                return self._update(one, changeset, codes, rows)
            case Operation.DELETE:
                gone = np.unique(codes[self._meant(changeset, codes, rows.place)])
                self._alive[gone] = False
                return {"deleted": len(gone)}
            # All that select have become this (namespaces.py).
            case Operation.DELETE_MATCHING:
                assert changeset.details.selection is not None
                return {"deleted": self._remove(Selected.of(changeset.details.selection))}
            case _:
                raise AssertionError(f"{changeset.operation} has no rows")

    def _hold(self, codes: Rows, rows: Rows) -> None:
        self._alive[codes] = True
        self._holder[codes] = rows

    def _meant(self, changeset: Changeset, codes: Rows, places: Rows) -> Mask:
        """Which of the codes, given at these places of the mutation, are alive and mean a row: bool (codes,).

        A door where ids are unique per namespace means the row in the namespace that it names, and so does an update that says so. In an
        index where they are unique in all of it the row may be in another.
        """
        meant: Mask = self._alive[codes]
        alive = np.flatnonzero(meant)
        is_of_one = changeset.details.inside or changeset.details.scope is not KeyScope.INDEX
        if not len(alive) or self._scope is KeyScope.NAMESPACE or not is_of_one:
            return meant
        asked = changeset.namespaces
        said = pa.nulls(len(alive), pa.utf8()) if asked is None else asked.take(pa.array(places[alive]))
        there = self._content(codes[alive]).namespaces
        its = pa.nulls(len(alive), pa.utf8()) if there is None else there
        same = pc.equal(pc.fill_null(said, ""), pc.fill_null(its, "")).to_numpy(zero_copy_only=False)
        meant[alive] = same
        return meant

    def _update(self, one: Pending, changeset: Changeset, codes: Rows, rows: _Numbers) -> dict[str, int]:
        """Update rows that are alive, and add the others if it may. Of an id given twice in one body each counts, in order."""
        counts = dict.fromkeys(("inserted", "replaced", "skipped", "updated"), 0)
        while len(codes):
            # Those that come for the first time; the others see what these make of their rows.
            _, first = np.unique(codes, return_index=True)
            first.sort()
            meant = self._meant(changeset, codes[first], rows.place[first])
            here, others = first[meant], first[~meant]
            if len(here):
                its, numbers = codes[here], rows.row[here]
                before = self._content(its)
                made = updated(before, changeset, rows.place[here], written_by(one.position, one.place))
                self._rows.forget(self._holder[its])
                self._rows.put(numbers, made)
                self._hold(its, numbers)
                counts["updated"] += len(its)
            if changeset.details.adds:
                # What has their key all the same lies in a namespace that they do not mean: it is moved, as by an upsert.
                its = codes[others]
                known = int(np.count_nonzero(self._alive[its]))
                self._hold(its, rows.row[others])
                counts["replaced"] += known
                counts["inserted"] += len(its) - known
            else:
                counts["skipped"] += len(others)
            codes = np.delete(codes, first)
            rows = _Numbers(np.delete(rows.place, first), np.delete(rows.row, first))
        return counts

    def _content(self, codes: Rows) -> SegmentRows:
        """The rows of keys that are alive, as they are now, in order."""
        held = self._holder[codes] != FROM_VIEW
        parts, order = [], []
        if held.any():
            parts.append(self._rows.take(self._holder[codes[held]]))
            order.append(np.flatnonzero(held))
        for number in np.unique(self._located.segment[codes[~held]]).tolist():
            here = np.flatnonzero(~held & (self._located.segment[codes] == number))
            parts.append(self._segments[number].segment.copy(self._located.row[codes[here]]))
            order.append(here)
        return concat_rows(parts).take(np.argsort(np.concatenate(order)))

    def _remove(self, selected: Selected) -> int:
        """Remove what is selected; returns how many rows that were."""
        count = 0
        for place, live in enumerate(self._segments):
            count += self._remove_of(place, live, selected.in_segment(live, self._go_on))
        held = np.flatnonzero(self._alive & (self._holder != FROM_VIEW))
        if len(held):
            gone = held[selected.among(self._content(held), self._go_on)]
            self._alive[gone] = False
            count += len(gone)
        return count

    def _remove_of(self, place: int, live: LiveSegment, matching: Mask) -> int:
        """Remove rows of a segment that the view has; returns how many of them were still there."""
        mask = matching if live.deleted is None else matching & ~live.deleted
        named = np.flatnonzero(self._located.alive & (self._located.segment == place))
        its_rows = self._located.row[named]
        hit = mask[its_rows] & self._alive[named] & (self._holder[named] == FROM_VIEW)
        self._alive[named[hit]] = False
        mask[its_rows] = False
        removed = self._removed.get(place)
        if removed is not None:
            mask &= ~removed
        count = int(np.count_nonzero(mask))
        if count:
            self._removed[place] = mask if removed is None else mask | removed
        return count + int(np.count_nonzero(hit))

    def change(self, counts: Counts) -> ShardChange:
        """What all of it comes to."""
        located, segments = self._located, self._segments
        kept = self._alive & (self._holder != FROM_VIEW)
        put_out = np.flatnonzero(located.alive & (kept | ~self._alive))
        rows = np.sort(self._holder[kept])
        added = self._rows.take(rows) if len(rows) else None
        deleted = {}
        for place in {*np.unique(located.segment[put_out]).tolist(), *self._removed}:
            its = [located.row[put_out[located.segment[put_out] == place]]]
            if place in self._removed:
                its.append(np.flatnonzero(self._removed[place]))
            deleted[segments[place].ref.id] = np.sort(np.concatenate(its))
        return ShardChange(added, deleted, counts)


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
