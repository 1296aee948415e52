"""Rows on their way into a segment: columns of equal length, joined and chosen without copying their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.columns import encode_batch
from upwell.shard.keys import Rows
from upwell.shard.vectors import Vectors, concat_vectors

#: Which mutation wrote a row: its position and place as one number that grows along the log. 0: before that was kept.
Written = npt.NDArray[np.uint64]
PLACE_BITS = 12


def written_by(position: int, place: int) -> int:
    """The number of a mutation among all of its index."""
    return position << PLACE_BITS | place


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """Rows to make a segment of, each key once.

    ``ids`` utf8; ``namespaces`` utf8 with nulls or None; ``metadata`` binary JSON with nulls or None; ``written`` uint64 (rows,).
    """

    ids: pa.Array
    vectors: Vectors
    namespaces: pa.Array | None
    metadata: pa.Array | None
    written: Written

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> SegmentRows:
        """The given rows, in the given order."""
        indices = pa.array(rows)
        return SegmentRows(
            self.ids.take(indices),
            self.vectors.take(rows),
            None if self.namespaces is None else self.namespaces.take(indices),
            None if self.metadata is None else self.metadata.take(indices),
            self.written[rows],
        )


def concat_rows(parts: Sequence[SegmentRows]) -> SegmentRows:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    return SegmentRows(
        pa.concat_arrays([part.ids for part in parts]),
        concat_vectors([part.vectors for part in parts]),
        _concat_optional([part.namespaces for part in parts], parts, pa.utf8()),
        _concat_optional([part.metadata for part in parts], parts, pa.binary()),
        np.concatenate([part.written for part in parts]),
    )


def _concat_optional(
    columns: Sequence[pa.Array | None], parts: Sequence[SegmentRows], kind: pa.DataType
) -> pa.Array | None:
    if all(column is None for column in columns):
        return None
    filled = (
        pa.nulls(len(part), kind) if column is None else column
        for column, part in zip(columns, parts, strict=True)
    )
    return pa.concat_arrays(list(filled))


def encode_columns(rows: SegmentRows) -> pa.Buffer:
    """Everything but the vectors; a column without a value is left out."""
    columns: dict[str, pa.Array] = {"id": rows.ids}
    if rows.namespaces is not None and rows.namespaces.null_count < len(rows):
        columns["namespace"] = rows.namespaces
    if rows.metadata is not None and rows.metadata.null_count < len(rows):
        columns["metadata"] = rows.metadata
    return encode_batch(columns)
