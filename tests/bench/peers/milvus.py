"""Milvus Lite through MilvusClient: insert in batches, flush, create the index, load.

Its segments are as large as its memory table, which the environment sets; one segment makes one index, which is faster to build
and to ask than several.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from tests.bench.peers.base import TOP_K, Effort, Matrix, Quiet, Task, Variant, batches

PROBES = [{"nprobe": probes} for probes in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
VARIANTS = {
    "IVF_FLAT": Variant({"nlist": 316}, PROBES),
    "IVF_SQ8": Variant({"nlist": 316}, PROBES),
}
BATCH = 10_000
BATCH_BYTES = 32 << 20
SEGMENT_BYTES = 4 << 30


class MilvusLite(Quiet):
    """One collection; the library serves it from threads of this process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._rows: list[list[dict[str, Any]]] = []
        self._client: Any = None
        self._params: dict[str, Any] = {}

    def prepare(self) -> None:
        os.environ["MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES"] = str(SEGMENT_BYTES)
        os.environ["MILVUS_LITE_WAL_SIZE_LIMIT_BYTES"] = str(SEGMENT_BYTES)
        pymilvus: Any = importlib.import_module("pymilvus")
        self._client = pymilvus.MilvusClient(str(self._task.folder / "peers.db"))
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("embedding", pymilvus.DataType.FLOAT_VECTOR, dim=self._task.dimensions)
        self._add_fields(schema, pymilvus.DataType)
        self._client.create_collection("items", schema=schema)
        batch = min(BATCH, BATCH_BYTES // (4 * self._task.dimensions))
        self._rows = [[self._item(row) for row in rows] for rows in batches(self._task.rows, batch)]

    def _add_fields(self, schema: Any, types: Any) -> None:
        """What the schema has beside id and vector: nothing."""

    def _item(self, row: int) -> dict[str, Any]:
        return {"id": row, "embedding": self._task.vectors[row]}

    def _add_indexes(self, index: Any) -> None:
        """What indexes there are beside the vectors': none."""

    def load(self) -> None:
        for rows in self._rows:
            self._client.insert("items", rows)
        self._client.flush("items")
        index = self._client.prepare_index_params()
        # pymilvus takes one level off, and the library looks for them there (3.0.2, 3.2.2); else it takes its defaults, and says nothing.
        build = {"params": VARIANTS[self._task.variant].settings}
        index.add_index("embedding", index_type=self._task.variant, metric_type="COSINE", params=build)
        self._add_indexes(index)
        self._client.create_index("items", index)
        self._client.load_collection("items")
        counted = self._client.get_collection_stats("items")["row_count"]
        if int(counted) != self._task.rows:
            raise RuntimeError(f"{counted} vectors are there")

    def release(self) -> None:
        self._rows.clear()

    def tune(self, effort: Effort) -> None:
        self._params = {"metric_type": "COSINE", "params": effort}

    def search(self, query: Matrix) -> Sequence[int]:
        found = self._client.search(
            "items", data=[query], anns_field="embedding", limit=TOP_K, search_params=self._params
        )
        return [hit["id"] for hit in found[0]]

    def version(self) -> str:
        return metadata.version("milvus-lite")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def make(task: Task) -> MilvusLite:
    return MilvusLite(task)
