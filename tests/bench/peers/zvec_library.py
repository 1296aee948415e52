"""zvec: documents in batches, then ``optimize`` builds the index, then ``flush``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from tests.bench.peers.base import TOP_K, Effort, Matrix, Quiet, Task, Variant, batches

DEPTHS = [{"ef": ef} for ef in (16, 32, 48, 64, 80, 100, 128, 192, 256, 384, 512)]
PROBES = [{"nprobe": probes} for probes in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
VARIANTS = {
    "hnsw-int8": Variant({"m": 16, "ef_construction": 100, "quantize": "INT8", "refine": True}, DEPTHS),
    "ivf": Variant({"n_list": 316, "n_iters": 10}, PROBES),
    "ivf-rabitq": Variant({"nlist": 316, "refine": True}, PROBES),
}
BATCH = 1_000


class Zvec(Quiet):
    """One collection in this process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._zvec: Any = importlib.import_module("zvec")
        self._docs: list[list[Any]] = []
        self._collection: Any = None
        self._param: Any = None

    def _index(self) -> Any:
        zvec, build = self._zvec, dict(VARIANTS[self._task.variant].settings)
        build.pop("refine", None)
        kinds: dict[str, Callable[..., Any]] = {
            "hnsw": zvec.HnswIndexParam,
            "hnsw-int8": zvec.HnswIndexParam,
            "ivf": zvec.IVFIndexParam,
            "ivf-rabitq": zvec.IvfRabitqIndexParam,
        }
        if "quantize" in build:
            build["quantize_type"] = getattr(zvec.QuantizeType, build.pop("quantize"))
        return kinds[self._task.variant](metric_type=zvec.MetricType.COSINE, **build)

    def prepare(self) -> None:
        zvec, threads = self._zvec, self._task.threads
        zvec.init(query_threads=threads, optimize_threads=threads, log_level=zvec.LogLevel.ERROR)
        field = zvec.VectorSchema(
            "embedding", zvec.DataType.VECTOR_FP32, self._task.dimensions, self._index()
        )
        schema = zvec.CollectionSchema(name="items", fields=self._fields(), vectors=field)
        self._collection = zvec.create_and_open(str(self._task.folder / "items"), schema)
        self._docs = [[self._doc(row) for row in rows] for rows in batches(self._task.rows, BATCH)]

    def _fields(self) -> list[Any]:
        """What the schema has beside id and vector: nothing."""
        return []

    def _doc(self, row: int) -> Any:
        return self._zvec.Doc(id=str(row), vectors={"embedding": self._task.vectors[row]})

    def load(self) -> None:
        for docs in self._docs:
            for status in self._collection.insert(docs):
                if not status.ok():
                    raise RuntimeError(str(status))
        self._collection.optimize(self._zvec.OptimizeOption(concurrency=self._task.threads))
        self._collection.flush()
        stats = self._collection.stats
        if stats.doc_count != self._task.rows:
            raise RuntimeError(f"{stats.doc_count} vectors are there")

    def release(self) -> None:
        self._docs.clear()

    def tune(self, effort: Effort) -> None:
        kinds: dict[str, Callable[..., Any]] = {
            "hnsw": self._zvec.HnswQueryParam,
            "hnsw-int8": self._zvec.HnswQueryParam,
            "ivf": self._zvec.IVFQueryParam,
            "ivf-rabitq": self._zvec.IvfRabitqQueryParam,
        }
        refine = VARIANTS[self._task.variant].settings.get("refine", False)
        self._param = kinds[self._task.variant](**effort, is_using_refiner=refine)

    def search(self, query: Matrix) -> Sequence[int]:
        asked = self._zvec.Query(field_name="embedding", vector=query, param=self._param)
        return [int(doc.id) for doc in self._collection.query(asked, topk=TOP_K, output_fields=[])]

    def version(self) -> str:
        return metadata.version("zvec")

    def notes(self) -> dict[str, Any]:
        return {"index_completeness": dict(self._collection.stats.index_completeness)}

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()


def make(task: Task) -> Zvec:
    return Zvec(task)
