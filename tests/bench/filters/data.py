"""Vectors with properties, queries with filters, and the exact answers, for every store alike.

    python -m tests.bench.filters.data --out FOLDER [--vectors N] [--dimensions D] [--queries Q]

The vectors are the harness's: of unit length around 64 centres. An answer is found by comparing a query with every row that its filter
lets through.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.filters.cases import CASES, Columns, Condition, Draw, Where, holds, make_columns
from tests.bench.harness import Clusters, Matrix

NEIGHBOURS = 10
CLUSTERS = 64
SEED = 29
#: Queries whose products with all vectors are held at a time.
BLOCK = 50

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    """A case: for each query its filter, the rows that are its answer (best first), and how many rows the filter lets through."""

    wheres: list[Where]
    truth: list[list[int]]
    matching: list[int]


@dataclass(frozen=True, slots=True)
class Data:
    """All that a store is given, and what it is asked."""

    vectors: Matrix
    columns: Columns
    queries: Matrix
    cases: dict[str, Asked]

    def write(self, folder: Path) -> None:
        """Write it for the measuring processes."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "queries.npy", self.queries)
        np.savez(folder / "columns.npz", allow_pickle=False, **self.columns)
        (folder / "cases.json").write_text(
            json.dumps({name: asdict(one) for name, one in self.cases.items()})
        )

    @staticmethod
    def read(folder: Path) -> Data:
        """What ``write`` wrote."""
        found: dict[str, Any] = json.loads((folder / "cases.json").read_text())
        with np.load(folder / "columns.npz") as columns:
            return Data(
                np.load(folder / "vectors.npy"),
                dict(columns),
                np.load(folder / "queries.npy"),
                {name: _asked(one) for name, one in found.items()},
            )


def _asked(found: dict[str, Any]) -> Asked:
    wheres = [
        tuple(Condition(one["column"], one["operator"], tuple(one["values"])) for one in where)
        for where in found["wheres"]
    ]
    return Asked(wheres, found["truth"], found["matching"])


def generate(vectors: int, dimensions: int, queries: int) -> Data:
    """Seeded: the same numbers give the same data."""
    source, generator = Clusters(dimensions), np.random.default_rng(SEED)
    points, clusters = source.numbered(vectors)
    columns = make_columns(generator, clusters)
    asking, own = source.numbered(queries)
    draw = Draw(generator, vectors, CLUSTERS)
    wheres = {name: [make(draw, one) for one in own.tolist()] for name, make in CASES.items()}
    return Data(points, columns, asking, answers(points, columns, asking, wheres))


def answers(
    vectors: Matrix, columns: Columns, queries: Matrix, wheres: dict[str, list[Where]]
) -> dict[str, Asked]:
    """The exact answers, case by case."""
    cases = {name: Asked(some, [], []) for name, some in wheres.items()}
    for start in range(0, len(queries), BLOCK):
        closeness = queries[start : start + BLOCK] @ vectors.T
        for asked in cases.values():
            for near, where in zip(closeness, asked.wheres[start : start + BLOCK], strict=True):
                rows = np.flatnonzero(holds(where, columns, len(vectors)))
                asked.truth.append(nearest(near, rows))
                asked.matching.append(len(rows))
    return cases


def nearest(closeness: npt.NDArray[np.float32], rows: Rows) -> list[int]:
    """Of these rows the closest, best first."""
    among = closeness[rows]
    if len(rows) > NEIGHBOURS:
        kept = np.argpartition(-among, NEIGHBOURS - 1)[:NEIGHBOURS]
        rows, among = rows[kept], among[kept]
    found: Sequence[int] = rows[np.argsort(-among, kind="stable")].tolist()
    return list(found)


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    generate(options.vectors, options.dimensions, options.queries).write(options.out)


if __name__ == "__main__":
    main()
