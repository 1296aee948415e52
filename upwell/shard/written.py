"""The rows that a batch brings, one after the other, as a table: whole ones as mutations sent them, and those that updates made.

Every row that a mutation has gets a number, in order. A row of an upsert is there from the start; one of an update comes to be when the
update is applied, from what the row was until then. Of an update that may add rows both are true: its row is there as one that it adds, and
gives way to what the update makes of a row that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Changeset, Operation
from upwell.shard.batch import Pending
from upwell.shard.keys import Rows
from upwell.shard.rows import SegmentRows, Sequenced, concat_rows, written_by
from upwell.shard.vectors import Vectors


class BatchRows:
    """The rows of one batch. For one thread."""

    def __init__(
        self, batch: Sequence[Pending], sequences: Sequence[Sequenced | None], dimensions: int
    ) -> None:
        self._dimensions = dimensions
        pairs = [
            (one, one.changeset, sequence)
            for one, sequence in zip(batch, sequences, strict=True)
            if one.changeset is not None and has_rows(one.changeset.operation)
        ]
        self._whole = [
            (one, changeset, sequence) for one, changeset, sequence in pairs if sequence is not None
        ]
        is_whole = np.concatenate(
            [np.empty(0, bool), *(np.full(len(changes), number is not None) for _, changes, number in pairs)]
        )
        #: By a row's number: the part that holds it, and its place there. All whole rows are the first part.
        self._part = np.zeros(len(is_whole), np.int64)
        self._place = np.cumsum(is_whole) - 1
        self._made: list[SegmentRows | None] = []
        #: How many rows of each made part nobody has forgotten.
        self._left: list[int] = []

    def take(self, rows: Rows) -> SegmentRows:
        """The rows with these numbers, in the given order."""
        parts, places = self._part[rows], self._place[rows]
        if not parts.any():
            return self._all_whole.take(places)
        several = np.unique(parts).tolist()
        order = np.concatenate([np.flatnonzero(parts == part) for part in several])
        taken = concat_rows([self._of(part).take(places[parts == part]) for part in several])
        return taken.take(np.argsort(order))

    def put(self, rows: Rows, made: SegmentRows) -> None:
        """Let the rows with these numbers be what an update has made."""
        self._made.append(made)
        self._left.append(len(made))
        self._part[rows] = len(self._made)
        self._place[rows] = np.arange(len(rows))

    def forget(self, rows: Rows) -> None:
        """Nobody will ask for these again: updates of one row a thousand times must not hold it a thousand times. Negative: none."""
        parts, counts = np.unique(self._part[rows[rows >= 0]], return_counts=True)
        for part, count in zip(parts.tolist(), counts.tolist(), strict=True):
            if part:
                self._left[part - 1] -= count
                if self._left[part - 1] == 0:
                    self._made[part - 1] = None

    def _of(self, part: int) -> SegmentRows:
        made = self._made[part - 1] if part else self._all_whole
        assert made is not None
        return made

    @cached_property
    def _all_whole(self) -> SegmentRows:
        return concat_rows([self._sent(*one) for one in self._whole])

    def _sent(self, one: Pending, changeset: Changeset, sequence: Sequenced) -> SegmentRows:
        vectors = changeset.vectors
        if vectors is None:
            vectors = np.empty((len(changeset), self._dimensions), np.float32)
        metadata = changeset.metadata
        if metadata is not None and changeset.details.patch:
            metadata = _patched(None, metadata, shallow=changeset.details.shallow)
        return SegmentRows(
            changeset.ids,
            Vectors.of(vectors),
            changeset.namespaces,
            metadata,
            np.full(len(changeset), written_by(one.position, one.place), np.uint64),
            sequence,
            changeset.data,
            changeset.sparse,
        )


def has_rows(operation: Operation) -> bool:
    """Do this operation's rows get numbers?"""
    return operation.brings_rows or operation is Operation.UPDATE


def updated(before: SegmentRows, update: Changeset, rows: Rows, written: int) -> SegmentRows:
    """Rows as an update leaves them: ``before[i]`` changed by the update's row ``rows[i]``. What that does not give stays."""
    after = replace(before, written=np.full(len(before), written, np.uint64))
    if update.vectors is not None:
        after = replace(after, vectors=Vectors.of(np.ascontiguousarray(update.vectors[rows])))
    if update.sparse is not None:
        after = replace(after, sparse=update.sparse.take(rows))
    taken = pa.array(rows)
    if update.data is not None:
        given = update.data.take(taken)
        after = replace(after, data=_where_given(given, before.data))
    if update.metadata is not None:
        given = update.metadata.take(taken)
        if update.details.patch:
            given = _patched(before.metadata, given, shallow=update.details.shallow)
        after = replace(after, metadata=_where_given(given, before.metadata))
    return after


def _where_given(given: pa.Array, before: pa.Array | None) -> pa.Array:
    """What is given, and where nothing is, what was before."""
    return given if before is None else pc.coalesce(given, before)


def _patched(before: pa.Array | None, given: pa.Array, *, shallow: bool) -> pa.Array:
    """Metadata with patches merged into it; null where no patch is given."""
    olds = [None] * len(given) if before is None else before.to_pylist()
    merge = shallow_patch if shallow else merge_patch
    merged = [
        None if patch is None else _merge_documents(old, patch, merge)
        for old, patch in zip(olds, given.to_pylist(), strict=True)
    ]
    return pa.array(merged, pa.binary())


def _merge_documents(old: bytes | None, patch: bytes, merge: Callable[[Any, Any], Any]) -> bytes:
    if old is None and b"null" not in patch:
        # Whatever the way: nothing to keep, and nothing to remove.
        return patch
    return orjson.dumps(merge({} if old is None else orjson.loads(old), orjson.loads(patch)))


def shallow_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A member that is null goes, any other takes the place of the target's own whole, with whatever is in it."""
    return {name: value for name, value in (target | patch).items() if value is not None or name not in patch}


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396): a member that is null goes, an object is merged into, anything else takes its place."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
