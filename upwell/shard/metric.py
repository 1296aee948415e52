"""Metrics: how two vectors compare. Inside Upwell a *closeness* is always better when larger; doors turn it into scores.

cosine        closeness = a·b / (|a| |b|)   searched as inner product of unit vectors; a zero vector is close to none; those that
                                            point the same way, but for what float32 does to them, are equally close
dot-product   closeness = a·b
euclidean     closeness = −|a − b|²
"""

from __future__ import annotations

from enum import StrEnum

import faiss
import numpy as np
import numpy.typing as npt

from upwell.changeset import Matrix

#: Squared length within this of 1 counts as unit: the error it can bring into a cosine is that of float32 itself.
UNIT_TOLERANCE = 1e-6
#: Cosines are multiples of this. Rounding float32 components turns a vector by less than 1e-7, which takes less than 1e-14 from a cosine of
#: 1; so copies of a vector in other lengths are equals, and not in an order that rounding made.
COSINE_STEP = 2.0**-40


class Metric(StrEnum):
    """What an index ranks by; fixed when it is created."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    DOT_PRODUCT = "dot-product"

    @property
    def faiss_metric(self) -> int:
        """The FAISS metric that ranks the same way over ``searchable`` vectors."""
        return int(faiss.METRIC_L2 if self is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT)


def searchable(metric: Metric, vectors: Matrix) -> Matrix:
    """The vectors as FAISS should see them, float32 of the same shape: unit length for cosine, unchanged otherwise.

    Returns the very array it was given where nothing needs changing, so that it need not be stored twice.
    """
    if metric is not Metric.COSINE:
        return vectors
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    if (np.abs(squares - 1) <= UNIT_TOLERANCE).all():
        return vectors
    lengths = np.sqrt(squares)
    lengths[lengths == 0] = 1
    return np.asarray(vectors / lengths[:, None], dtype=np.float32)


def closeness(metric: Metric, query: npt.NDArray[np.float32], vectors: Matrix) -> npt.NDArray[np.float64]:
    """Exact closeness of ``query`` (d,) to each of ``vectors`` (n, d), in float64."""
    rows, one = vectors.astype(np.float64), query.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        difference = rows - one
        return np.asarray(-np.einsum("ij,ij->i", difference, difference))
    # Not by BLAS: there the last bit of a row's product depends on how many rows are compared with it.
    products = np.einsum("ij,j->i", rows, one)
    if metric is Metric.DOT_PRODUCT:
        return np.asarray(products)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.sqrt(one @ one)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.asarray(np.clip(np.rint(cosines / COSINE_STEP) * COSINE_STEP, -1, 1))
