"""Reading all vectors of one view, some at a time: memory stays that of a few of them, however many there are.

Order is that of shards, segments and rows, as listings have it. A view's files stay readable for as long as it is held, whatever is
written, merged or collected meanwhile; so a reader may take all the time it wants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from upwell.changeset import Matrix
from upwell.query.scope import Names, identities_of, rows_in
from upwell.shard.keys import Rows
from upwell.shard.segment import Segment
from upwell.shard.view import View
from upwell.sparse import Sparse


@dataclass(frozen=True, slots=True, eq=False)
class Some:
    """Some rows, one at each place: ids; values as they were sent, dense (of no dimensions in a sparse index) and sparse (None in a
    dense one); namespaces by their names, metadata (JSON) and data where they have one."""

    ids: Sequence[str]
    vectors: Matrix
    namespaces: Sequence[str | None]
    metadata: Sequence[bytes | None]
    data: Sequence[str | None]
    sparse: Sparse | None

    def __len__(self) -> int:
        return len(self.ids)


class Scan:
    """All vectors of a view, or those in the namespaces of some names (``scope.Names``). Making one counts them. Blocking; for one thread at a time."""

    def __init__(self, view: View, namespace: Names = None) -> None:
        self.view = view
        self._identities = identities_of(view, namespace)
        self._segments = list(view.segments())
        #: How many there are.
        self.vectors = (
            view.manifest.vectors
            if namespace is None
            else sum(len(rows_in(live, self._identities)) for live in self._segments)
        )

    def some(self, rows_each: int) -> Iterator[Some]:
        """The vectors, at most ``rows_each`` at a time. Raises Corrupt, before it hands out anything damaged."""
        for live in self._segments:
            rows = rows_in(live, self._identities)
            for start in range(0, len(rows), rows_each):
                yield self._read(live.segment, rows[start : start + rows_each])

    def _read(self, segment: Segment, rows: Rows) -> Some:
        taken = pa.array(rows)
        identities, metadata, data = (
            [None] * len(rows) if column is None else column.take(taken).to_pylist()
            for column in (segment.namespaces, segment.metadata, segment.data)
        )
        named = self.view.namespaces.name
        return Some(
            segment.ids.take(taken).to_pylist(),
            segment.take_vectors(rows),
            [None if identity is None else named(identity) for identity in identities],
            metadata,
            data,
            None if segment.sparse is None else segment.sparse.take(rows),
        )
