"""Rows on their way into a segment: columns of equal length, joined and chosen without copying their dense vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.columns import encode_batch
from upwell.shard.keys import Rows
from upwell.shard.vectors import Vectors, concat_vectors
from upwell.sparse import Sparse, concat_sparse

#: Which mutation wrote a row: its position and place as one number that grows along the log. 0: before that was kept.
Written = npt.NDArray[np.uint64]
PLACE_BITS = 12


def written_by(position: int, place: int) -> int:
    """The number of a mutation among all of its index."""
    return position << PLACE_BITS | place


#: Which row of its namespace a row was, by the order of writing: from 1; the next one has a larger number. 0: before that was kept.
Sequenced = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """Rows to make a segment of, each key once.

    ``ids`` utf8; ``vectors`` (of no dimensions in a sparse index); ``namespaces`` utf8 with nulls or None; ``metadata`` binary JSON
    with nulls or None; ``written`` and ``sequence`` uint64 (rows,); ``data`` utf8 with nulls or None; ``sparse`` vectors or None.
    """

    ids: pa.Array
    vectors: Vectors
    namespaces: pa.Array | None
    metadata: pa.Array | None
    written: Written
    sequence: Sequenced
    data: pa.Array | None = None
    sparse: Sparse | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Roughly how many bytes its columns take."""
        columns = (self.ids, self.namespaces, self.metadata, self.data, self.sparse)
        return self.vectors.nbytes + sum(int(column.nbytes) for column in columns if column is not None)

    def take(self, rows: Rows) -> SegmentRows:
        """The given rows, in the given order."""
        indices = pa.array(rows)
        return SegmentRows(
            self.ids.take(indices),
            self.vectors.take(rows),
            None if self.namespaces is None else self.namespaces.take(indices),
            None if self.metadata is None else self.metadata.take(indices),
            self.written[rows],
            self.sequence[rows],
            None if self.data is None else self.data.take(indices),
            None if self.sparse is None else self.sparse.take(rows),
        )


def concat_rows(parts: Sequence[SegmentRows]) -> SegmentRows:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    sparse = [part.sparse for part in parts if part.sparse is not None]
    return SegmentRows(
        pa.concat_arrays([part.ids for part in parts]),
        concat_vectors([part.vectors for part in parts]),
        _concat_optional([part.namespaces for part in parts], parts, pa.utf8()),
        _concat_optional([part.metadata for part in parts], parts, pa.binary()),
        np.concatenate([part.written for part in parts]),
        np.concatenate([part.sequence for part in parts]),
        _concat_optional([part.data for part in parts], parts, pa.utf8()),
        concat_sparse(sparse) if sparse else None,
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
    """Everything but dense vectors and numbers; a column without a value is left out."""
    columns: dict[str, pa.Array] = {"id": rows.ids}
    optional = {"namespace": rows.namespaces, "metadata": rows.metadata, "data": rows.data}
    columns |= {
        name: column
        for name, column in optional.items()
        if column is not None and column.null_count < len(rows)
    }
    if rows.sparse is not None:
        columns["sparse_indices"], columns["sparse_values"] = rows.sparse.to_arrow()
    return encode_batch(columns)
