"""Vectors, queries and exact answers for the comparison: generated, or from an ann-benchmarks HDF5 file.

    python -m tests.bench.peers.dataset --out FOLDER [--vectors N] [--dimensions D] [--dataset FILE.hdf5]

Generated vectors are clustered as embeddings are: 1,000 clusters of Zipf-like sizes whose centres lie in a subspace of 128
dimensions; inside a cluster, points spread over 64 dimensions of its own, wider than the centres are long; a little noise goes
in all directions; everything is scaled to unit length. HNSW (m 16) needs an ef of about 100 and IVF some tens of probes for
recall 0.97. Queries are drawn together with the vectors and held out.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

SEED = 7
CLUSTERS = 1_000
ZIPF = 0.7
CENTRE_RANK = 128
RANK = 64
SPREAD = 1.6
NOISE = 0.25
QUERIES = 1_000
NEIGHBOURS = 10
BLOCK = 4_096


def unit(matrix: Matrix) -> Matrix:
    """Rows at unit length; rows of zeros stay."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(lengths == 0, 1, lengths), dtype=np.float32)


def generate(
    vectors: int, dimensions: int, queries: int = QUERIES, seed: int = SEED
) -> tuple[Matrix, Matrix]:
    """Seeded clustered unit vectors, and queries of the same distribution."""
    generator = np.random.default_rng(seed)
    rows, clusters = vectors + queries, min(CLUSTERS, max(1, vectors // 20))

    def normal(count: int, width: int) -> Matrix:
        return generator.standard_normal((count, width), dtype=np.float32)

    weights = 1 / np.arange(1, clusters + 1) ** ZIPF
    labels = generator.choice(clusters, size=rows, p=weights / weights.sum())
    centres = unit(normal(clusters, CENTRE_RANK) @ normal(CENTRE_RANK, dimensions))
    directions = normal(4 * RANK, dimensions) / np.float32(np.sqrt(dimensions))
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(clusters + 1))
    points = np.empty((rows, dimensions), np.float32)
    for cluster in range(clusters):
        members = order[bounds[cluster] : bounds[cluster + 1]]
        own = directions[generator.permutation(4 * RANK)[:RANK]]
        within = normal(len(members), RANK) @ own * np.float32(SPREAD / np.sqrt(RANK))
        around = normal(len(members), dimensions) * np.float32(NOISE / np.sqrt(dimensions))
        points[members] = centres[cluster] + within + around
    points = unit(points)
    return points[:vectors], points[vectors:]


def read_hdf5(path: Path, vectors: int | None) -> tuple[Matrix, Matrix]:
    """The train and test sets of an ann-benchmarks file, at unit length."""
    h5py: Any = importlib.import_module("h5py")
    with h5py.File(path, "r") as file:
        train = np.asarray(file["train"][:vectors], dtype=np.float32)
        test = np.asarray(file["test"][:QUERIES], dtype=np.float32)
    return unit(train), unit(test)


def exact(vectors: Matrix, queries: Matrix) -> npt.NDArray[np.int64]:
    """Row numbers of the nearest by cosine, best first, a block of vectors at a time."""
    scores = np.full((len(queries), 0), -np.inf, np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = queries @ vectors[start : start + BLOCK].T
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        kept = min(NEIGHBOURS, scores.shape[1])
        best = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1)


def write(folder: Path, vectors: Matrix, queries: Matrix) -> None:
    """Write what a measuring process reads."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", exact(vectors, queries))
    rows, dimensions = vectors.shape
    shape = {"vectors": rows, "dimensions": dimensions, "queries": len(queries), "neighbours": NEIGHBOURS}
    (folder / "shape.json").write_text(json.dumps(shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vectors", type=int)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--dataset", type=Path)
    options = parser.parse_args()
    if options.dataset:
        found = read_hdf5(options.dataset, options.vectors)
    else:
        found = generate(options.vectors or 100_000, options.dimensions)
    write(options.out, *found)


if __name__ == "__main__":
    main()
