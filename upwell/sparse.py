"""Sparse vectors: n of them as three arrays (compressed rows), just as they were sent.

A row's indices may come in any order, and twice: then their values count together. Comparing adds up products over equal indices, so
neither order nor repetition matters to it, and what a client reads back is what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Places of rows, int64.
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """n sparse vectors.

    ``indptr``   int64 (n + 1,), from 0, ascending: row i has the entries from indptr[i] to indptr[i + 1]
    ``indices``  int32 (entries,): dimensions
    ``values``   float32 (entries,)
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if (
            len(self.indices) != len(self.values)
            or self.indptr[0] != 0
            or self.indptr[-1] != len(self.values)
        ):
            raise ValueError("sparse rows do not fit their entries")

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[int], Sequence[float]]]) -> Self:
        """From pairs of indices and values, one pair a row."""
        lengths = [len(indices) for indices, _ in rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        indices = np.concatenate(
            [np.asarray(indices, np.int32) for indices, _ in rows] or [np.empty(0, np.int32)]
        )
        values = np.concatenate(
            [np.asarray(values, np.float32) for _, values in rows] or [np.empty(0, np.float32)]
        )
        return cls(indptr, indices, values)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all three arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def row(self, place: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """One row's indices and values."""
        start, end = int(self.indptr[place]), int(self.indptr[place + 1])
        return self.indices[start:end], self.values[start:end]

    def take(self, rows: _Rows) -> Self:
        """The given rows, in the given order."""
        starts, lengths = self.indptr[rows], np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        return type(self)(indptr, self.indices[entries], self.values[entries])

    def to_arrow(self) -> tuple[pa.Array, pa.Array]:
        """Indices and values as lists, ``large_list<int32>`` and ``large_list<float>``, one list a row."""
        offsets = pa.array(self.indptr)
        return (
            pa.LargeListArray.from_arrays(offsets, pa.array(self.indices)),
            pa.LargeListArray.from_arrays(offsets, pa.array(self.values)),
        )

    @classmethod
    def from_arrow(cls, indices: pa.Array, values: pa.Array) -> Self:
        """The inverse of ``to_arrow``; copies nothing of arrays that are no slices. Raises ValueError if they do not fit together."""
        indptr = indices.offsets.to_numpy()
        if len(indices) != len(values) or not np.array_equal(
            np.diff(indptr), np.diff(values.offsets.to_numpy())
        ):
            raise ValueError("sparse indices and values have other lengths")
        return cls(indptr - indptr[0], indices.flatten().to_numpy(), values.flatten().to_numpy())


def concat_sparse(those: Sequence[Sparse]) -> Sparse:
    """The rows of all, in order."""
    if len(those) == 1:
        return those[0]
    lengths = np.concatenate([np.diff(one.indptr) for one in those] or [np.empty(0, np.int64)])
    return Sparse(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([one.indices for one in those] or [np.empty(0, np.int32)]),
        np.concatenate([one.values for one in those] or [np.empty(0, np.float32)]),
    )
