"""LanceDB: one Arrow table, then ``create_index``, waited for until it leaves no row out."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from tests.bench.peers.base import TOP_K, Effort, Matrix, Quiet, Task, Variant

PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FLAT_EFFORTS = [{"nprobes": probes} for probes in PROBES]
REFINED_EFFORTS = [{"nprobes": probes, "refine_factor": factor} for probes in PROBES for factor in (2, 4, 8)]
GRAPH_EFFORTS = [
    {"nprobes": probes, "ef": ef, "refine_factor": 2} for probes in (1, 2, 4, 8) for ef in (32, 64, 128, 256)
]
VARIANTS = {
    "IVF_FLAT": Variant({"num_partitions": 316}, FLAT_EFFORTS),
    "IVF_SQ": Variant({"num_partitions": 316}, REFINED_EFFORTS),
    "IVF_RQ": Variant({"num_partitions": 316}, REFINED_EFFORTS),
    "IVF_HNSW_SQ": Variant({"num_partitions": 1, "m": 16, "ef_construction": 100}, GRAPH_EFFORTS),
}
INDEX = "embedding_idx"


class Lance(Quiet):
    """One table in this process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._database: Any = None
        self._data: Any = None
        self._table: Any = None
        self._effort: Effort = {}

    def prepare(self) -> None:
        arrow: Any = importlib.import_module("pyarrow")
        self._database = importlib.import_module("lancedb").connect(str(self._task.folder))
        flat = arrow.array(self._task.vectors.reshape(-1))
        vectors = arrow.FixedSizeListArray.from_arrays(flat, self._task.dimensions)
        ids = arrow.array(range(self._task.rows), arrow.int64())
        self._data = arrow.table({"id": ids, "embedding": vectors})

    def load(self) -> None:
        self._table = self._database.create_table("items", self._data)
        build = VARIANTS[self._task.variant].settings
        self._table.create_index(
            metric="cosine",
            vector_column_name="embedding",
            index_type=self._task.variant,
            name=INDEX,
            **build,
        )
        self._table.wait_for_index([INDEX], dt.timedelta(minutes=30))
        left_out = self._table.index_stats(INDEX).num_unindexed_rows
        if left_out or self._table.count_rows() != self._task.rows:
            raise RuntimeError(f"{left_out} rows are not indexed")

    def release(self) -> None:
        self._data = None

    def tune(self, effort: Effort) -> None:
        self._effort = effort

    def search(self, query: Matrix) -> Sequence[int]:
        asked = self._table.search(query, vector_column_name="embedding").distance_type("cosine")
        asked = asked.select(["id"]).limit(TOP_K)
        for name, value in self._effort.items():
            asked = getattr(asked, name)(value)
        ids: list[int] = asked.to_arrow()["id"].to_pylist()
        return ids

    def version(self) -> str:
        return metadata.version("lancedb")

    def close(self) -> None:
        self._table = self._database = None


def make(task: Task) -> Lance:
    return Lance(task)
