"""Float32 rows that lie in several matrices, mapped or in memory, read a chunk at a time: what segments are made from.

Choosing rows copies nothing; a chunk is copied when it is read, unless it lies whole and in order in one matrix. So a batch of
many mutations is copied once, and a compaction of more rows than fit in memory not more than a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from upwell.changeset import Matrix
from upwell.shard.keys import Rows

#: What one chunk is about as large as, in bytes: many blocks of a segment (blocks.py), and little beside a segment.
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Rows of ``parts`` (each float32 (n, dimensions)): those that ``chosen`` numbers in their concatenation; None: all."""

    parts: tuple[Matrix, ...]
    dimensions: int
    chosen: Rows | None = None

    @classmethod
    def of(cls, matrix: Matrix) -> Self:
        """All rows of one matrix."""
        return cls((matrix,), int(matrix.shape[1]))

    def __len__(self) -> int:
        return sum(map(len, self.parts)) if self.chosen is None else len(self.chosen)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return 4 * self.dimensions

    def take(self, rows: Rows) -> Self:
        """The given rows of these, in the given order."""
        return type(self)(self.parts, self.dimensions, rows if self.chosen is None else self.chosen[rows])

    def read(self, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows ``start`` to ``stop`` as float32 (n, dimensions), C-contiguous; perhaps a read-only view."""
        stop = len(self) if stop is None else min(stop, len(self))
        numbers = np.arange(start, stop) if self.chosen is None else self.chosen[start:stop]
        ends = np.cumsum([len(part) for part in self.parts])
        place = np.searchsorted(ends, numbers, side="right")
        if len(numbers) and (place[0] == place).all():
            part = self.parts[place[0]]
            own = numbers - (ends[place[0]] - len(part))
            in_order = len(own) == 1 or bool((np.diff(own) == 1).all())
            return np.asarray(part[own[0] : own[0] + len(own)] if in_order else part[own])
        rows = np.empty((len(numbers), self.dimensions), np.float32)
        for number in np.unique(place).tolist():
            here = place == number
            rows[here] = self.parts[number][numbers[here] - (ends[number] - len(self.parts[number]))]
        return rows

    def chunks(self, rows_each: int | None = None) -> Iterator[Matrix]:
        """All rows, ``rows_each`` at a time (None: about CHUNK_BYTES)."""
        step = rows_each or max(1, CHUNK_BYTES // max(1, self.row_bytes))
        for start in range(0, len(self), step):
            yield self.read(start, start + step)


def concat_vectors(those: Sequence[Vectors]) -> Vectors:
    """The rows of all, in order. Copied only if they are few, as the vectors of a thousand small mutations are."""
    if len(those) == 1:
        return those[0]
    dimensions = those[0].dimensions
    if sum(one.nbytes for one in those) <= CHUNK_BYTES:
        return Vectors.of(np.concatenate([one.read() for one in those]))
    parts = tuple(part for one in those for part in one.parts)
    if all(one.chosen is None for one in those):
        return Vectors(parts, dimensions)
    numbers, before = [], 0
    for one in those:
        total = sum(map(len, one.parts))
        numbers.append((np.arange(total) if one.chosen is None else one.chosen) + before)
        before += total
    return Vectors(parts, dimensions, np.concatenate(numbers))
