"""Reading all vectors of one view, some at a time: memory stays that of a few of them, however many there are.

Order is that of shards, segments and rows, as listings have it. A view's files stay readable for as long as it is held, whatever is
written, merged or collected meanwhile; so a reader may take all the time it wants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from upwell.changeset import Matrix
from upwell.shard.keys import Rows
from upwell.shard.view import LiveSegment, View


@dataclass(frozen=True, slots=True, eq=False)
class Some:
    """Some vectors, one at each place: ids; values as they were sent; namespaces and metadata (JSON) where they have one."""

    ids: Sequence[str]
    vectors: Matrix
    namespaces: Sequence[str | None]
    metadata: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.ids)


class Scan:
    """All vectors of a view, or those in one namespace. Making one counts them. Blocking; for one thread at a time."""

    def __init__(self, view: View, namespace: str | None = None) -> None:
        self.view = view
        self._namespace = namespace
        self._segments = [live for shard in view.shards for live in shard]
        #: How many there are.
        self.vectors = (
            view.manifest.vectors
            if namespace is None
            else sum(len(self._rows_of(live)) for live in self._segments)
        )

    def some(self, rows_each: int) -> Iterator[Some]:
        """The vectors, at most ``rows_each`` at a time. Raises Corrupt, before it hands out anything damaged."""
        for live in self._segments:
            rows = self._rows_of(live)
            for start in range(0, len(rows), rows_each):
                yield _read(live, rows[start : start + rows_each])

    def _rows_of(self, live: LiveSegment) -> Rows:
        if self._namespace is None:
            return live.live_rows()
        inside = live.segment.in_namespace(self._namespace)
        return np.flatnonzero(inside if live.deleted is None else inside & ~live.deleted)


def _read(live: LiveSegment, rows: Rows) -> Some:
    taken, nothing = pa.array(rows), [None] * len(rows)
    segment = live.segment
    return Some(
        segment.ids.take(taken).to_pylist(),
        segment.take_vectors(rows),
        nothing if segment.namespaces is None else segment.namespaces.take(taken).to_pylist(),
        nothing if segment.metadata is None else segment.metadata.take(taken).to_pylist(),
    )
