"""Sparse vectors turned round: for each dimension that any row has, which rows, and with what value. For searching a segment.

sections  "terms"           int32 (dimensions used,), ascending
          "starts"          int64 (dimensions used + 1,): dimension i has the postings from starts[i] to starts[i + 1]
          "posting_rows"    uint32 (postings,), ascending within a dimension
          "posting_values"  float32 (postings,): of an index that a row has twice, the sum
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse

from upwell.sparse import Sparse

#: Of float32.
LARGEST = float(np.finfo(np.float32).max)

#: Postings that are added up at once: each takes about 20 bytes meanwhile.
ADDED_AT_ONCE = 1 << 20

Sections = list[tuple[str, list[memoryview]]]


@dataclass(frozen=True, eq=False)
class Postings:
    """The postings of one segment; arrays as the module says."""

    terms: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    @classmethod
    def build(cls, sparse: Sparse) -> Self:
        """Turn sparse rows round. Values of one row and dimension are added up; what comes to nothing is no posting, and what no float32
        holds is the largest that one does."""
        terms, column = np.unique(sparse.indices, return_inverse=True)
        row = np.repeat(np.arange(len(sparse)), np.diff(sparse.indptr))
        matrix = scipy.sparse.coo_array(
            (sparse.values.astype(np.float64), (row, column)), shape=(len(sparse), max(1, len(terms)))
        ).tocsc()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        starts = np.asarray(matrix.indptr, np.int64)[: len(terms) + 1]
        return cls(
            np.asarray(terms, np.int32),
            np.ascontiguousarray(starts),
            np.asarray(matrix.indices, np.uint32),
            np.clip(matrix.data, -LARGEST, LARGEST).astype(np.float32),
        )

    def sections(self) -> Sections:
        """As sections of a segment."""
        return [
            ("terms", [self.terms.data]),
            ("starts", [self.starts.data]),
            ("posting_rows", [self.rows.data]),
            ("posting_values", [self.values.data]),
        ]

    @classmethod
    def from_sections(
        cls, terms: memoryview, starts: memoryview, rows: memoryview, values: memoryview
    ) -> Self:
        """The inverse of ``sections``. Raises ValueError if they do not fit together."""
        found = cls(
            np.frombuffer(terms, np.int32),
            np.frombuffer(starts, np.int64),
            np.frombuffer(rows, np.uint32),
            np.frombuffer(values, np.float32),
        )
        if len(found.starts) != len(found.terms) + 1 or len(found.rows) != len(found.values):
            raise ValueError("postings do not fit together")
        if found.starts[-1] != len(found.rows):
            raise ValueError("postings do not fit their dimensions")
        return found

    def of(
        self, terms: npt.NDArray[np.int32]
    ) -> Iterator[tuple[int, npt.NDArray[np.uint32], npt.NDArray[np.float32]]]:
        """For each of ``terms`` that any row has: its place in ``terms``, and its rows and values."""
        places = np.searchsorted(self.terms, terms)
        for asked, place in enumerate(places.tolist()):
            if place < len(self.terms) and self.terms[place] == terms[asked]:
                start, end = int(self.starts[place]), int(self.starts[place + 1])
                yield asked, self.rows[start:end], self.values[start:end]

    @cached_property
    def has_negative(self) -> bool:
        """Has any row a value below zero? Looks at all of them, once."""
        return len(self.values) > 0 and bool(self.values.min() < 0)

    def lengths(self, rows: int) -> npt.NDArray[np.float64]:
        """The sum of the values of each of the segment's ``rows`` rows; values below zero are left out."""
        found = np.zeros(rows)
        for start in range(0, len(self.rows), ADDED_AT_ONCE):
            some = slice(start, start + ADDED_AT_ONCE)
            counts = np.maximum(self.values[some], 0)
            found += np.bincount(self.rows[some], weights=counts, minlength=rows)
        return found
