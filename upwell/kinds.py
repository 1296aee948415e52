"""What an index holds of each row: a dense vector, a sparse one, or both."""

from __future__ import annotations

from enum import StrEnum


class IndexKind(StrEnum):
    """Fixed when an index is created."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"

    @property
    def has_dense(self) -> bool:
        """Has each row a dense vector?"""
        return self is not IndexKind.SPARSE

    @property
    def has_sparse(self) -> bool:
        """Has each row a sparse vector?"""
        return self is not IndexKind.DENSE
