"""Qdrant Edge: points in batches, then ``optimize`` builds the HNSW index, then ``flush``.

Without a write-ahead log updates are durable once ``flush`` returns, which is within the time measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from tests.bench.peers.base import TOP_K, Effort, Matrix, Quiet, Task, Variant, batches

EFFORTS = [{"hnsw_ef": ef} for ef in (16, 32, 48, 64, 80, 100, 128, 192, 256, 384, 512, 800)]
VARIANTS = {
    "hnsw-int8": Variant({"m": 16, "ef_construct": 64, "quantization": "int8", "wal": False}, EFFORTS),
    "hnsw": Variant({"m": 16, "ef_construct": 100, "wal": False}, EFFORTS),
}
BATCH = 5_000
LARGEST_SEGMENT_KB = 10_000_000


class QdrantEdge(Quiet):
    """One shard in this process."""

    #: Below so many KB of vectors, it compares them one by one.
    full_scan_kb = 100

    def __init__(self, task: Task) -> None:
        self._task = task
        self._edge: Any = importlib.import_module("qdrant_edge")
        self._points: list[list[Any]] = []
        self._shard: Any = None
        self._params: Any = None

    def prepare(self) -> None:
        edge, build = self._edge, VARIANTS[self._task.variant].settings
        quantization = None
        if "quantization" in build:
            quantization = edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, always_ram=True)
        vectors = edge.EdgeVectorParams(size=self._task.dimensions, distance=edge.Distance.Cosine)
        config = edge.EdgeConfig(
            vectors=vectors,
            hnsw_config=edge.HnswIndexConfig(
                m=build["m"],
                ef_construct=build["ef_construct"],
                full_scan_threshold=self.full_scan_kb,
                max_indexing_threads=self._task.threads,
            ),
            quantization_config=quantization,
            optimizers=edge.EdgeOptimizersConfig(
                default_segment_number=1, max_segment_size=LARGEST_SEGMENT_KB, indexing_threshold=1_000
            ),
            wal_enabled=build["wal"],
        )
        self._shard = edge.EdgeShard.create(str(self._task.folder), config)
        self._points = [[self._point(row) for row in rows] for rows in batches(self._task.rows, BATCH)]

    def _point(self, row: int) -> Any:
        return self._edge.Point(id=row, vector=self._task.vectors[row].tolist())

    def load(self) -> None:
        for points in self._points:
            self._shard.update(self._edge.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._shard.flush()
        info = self._shard.info()
        if info.points_count != self._task.rows or info.indexed_vectors_count < self._task.rows:
            raise RuntimeError(f"{info.indexed_vectors_count} of {info.points_count} points are indexed")

    def release(self) -> None:
        self._points.clear()

    def tune(self, effort: Effort) -> None:
        self._params = self._edge.SearchParams(**effort)

    def search(self, query: Matrix) -> Sequence[int]:
        nearest = self._edge.Query.Nearest(query.tolist())
        found = self._shard.search(self._edge.SearchRequest(query=nearest, limit=TOP_K, params=self._params))
        return [point.id for point in found]

    def version(self) -> str:
        return metadata.version("qdrant-edge-py")

    def notes(self) -> dict[str, Any]:
        return {"segments": self._shard.info().segments_count}

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()


def make(task: Task) -> QdrantEdge:
    return QdrantEdge(task)
