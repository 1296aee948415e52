"""Raw vectors on disk, verified block by block when they are first touched.

A segment's vectors may be larger than memory, and a query looks at a few hundred rows of them: verifying the whole section for
those would read all of it from the disk. So each block of rows has a checksum of its own, in a section beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from upwell.changeset import Matrix
from upwell.errors import Corrupt
from upwell.shard.keys import Rows

#: A block is as many whole rows as fit into this, and at least one.
BLOCK_BYTES = 64 << 10


def rows_per_block(dimensions: int) -> int:
    """How many rows one checksum covers."""
    return max(1, BLOCK_BYTES // (4 * dimensions))


class Sums(NamedTuple):
    """xxh3_64 of each block, and of all of them together."""

    blocks: npt.NDArray[np.uint64]
    whole: int


def block_sums(chunks: Iterator[Matrix], dimensions: int) -> Sums:
    """The checksums of rows that are read once. Each chunk but the last must hold whole blocks."""
    step, blocks, whole = rows_per_block(dimensions), [], xxhash.xxh3_64()
    for chunk in chunks:
        whole.update(chunk.data)
        blocks += [
            xxhash.xxh3_64_intdigest(chunk[start : start + step].data) for start in range(0, len(chunk), step)
        ]
    return Sums(np.array(blocks, np.uint64), whole.intdigest())


class BlockChecked:
    """float32 (rows, dimensions), mapped, of which no row is handed out before its block was verified. For any thread."""

    def __init__(self, matrix: Matrix, sums: npt.NDArray[np.uint64], key: str) -> None:
        self._matrix = matrix
        self._sums = sums
        #: The segment's name in the store.
        self._key = key
        self._step = rows_per_block(matrix.shape[1])
        #: Set after a block was verified; that two threads verify one is no harm.
        self._verified = np.zeros(len(sums), dtype=bool)
        self._all_verified = False

    def take(self, rows: Rows) -> Matrix:
        """Copies of the given rows. Raises Corrupt."""
        if not self._all_verified:
            blocks = rows // self._step
            unverified = blocks[~self._verified[blocks]]
            if len(unverified):
                for block in np.unique(unverified).tolist():
                    self._verify(block)
                self._all_verified = bool(self._verified.all())
        return self._matrix[rows]

    def all(self) -> Matrix:
        """All rows, mapped, read-only. Raises Corrupt."""
        for block in np.flatnonzero(~self._verified).tolist():
            self._verify(block)
        return self._matrix

    def _verify(self, block: int) -> None:
        held = self._matrix[block * self._step : (block + 1) * self._step]
        if xxhash.xxh3_64_intdigest(held.data) != int(self._sums[block]):
            raise Corrupt("a block of vectors does not match its checksum", block=block, key=self._key)
        self._verified[block] = True
