"""The stores that are servers: Upwell, Chroma, PostgreSQL with pgvector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import orjson

from tests.bench.filters.base import Build, Effort, FilteredTask
from tests.bench.filters.cases import Condition, Where
from tests.bench.peers import chroma, pgvector, upwell_service
from tests.bench.peers.base import TOP_K, Matrix, batches

INDEXED = {"n": "number", "cat": "string", "flag": "boolean", "cluster": "string"}


class FilteredUpwell(upwell_service.UpwellService):
    """``upwell serve`` as it comes; metadata indexes are made before the upload, or not at all."""

    BUILDS: ClassVar = {
        "metadata indexes": Build({"metadata indexes": ", ".join(INDEXED)}),
        "no metadata index": Build(),
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._properties = task.properties

    def prepare(self) -> None:
        """Also make the metadata indexes."""
        super().prepare()
        path, kept = f"/{upwell_service.NAME}", self._kept_connection()
        for name, kind in INDEXED.items() if self._task.variant == "metadata indexes" else ():
            body = orjson.dumps({"propertyName": name, "indexType": kind})
            mutation = self._call(kept, "POST", path + "/metadata_index/create", body)["mutationId"]
            while self._call(kept, "GET", f"{path}/mutations/{mutation}?wait=60")["state"] != "visible":
                pass

    def _encode(self, rows: range) -> bytes:
        lines = (
            {"id": str(row), "values": self._task.vectors[row], "metadata": self._properties(row)}
            for row in rows
        )
        return b"\n".join(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) for line in lines)

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A query over the kept connection."""
        asked: dict[str, Any] = {"vector": query, "topK": TOP_K}
        if where:
            asked["filter"] = {one.column: self._condition(one) for one in where}
        body = orjson.dumps(asked, option=orjson.OPT_SERIALIZE_NUMPY)
        found = self._call(self._kept_connection(), "POST", f"/{upwell_service.NAME}/query", body)
        return [int(match["id"]) for match in found["matches"]]

    @staticmethod
    def _condition(one: Condition) -> Any:
        match one.operator:
            case "range":
                return {"$gte": one.values[0], "$lt": one.values[1]}
            case "in":
                return {"$in": one.values}
            case "!=":
                return {"$ne": one.values[0]}
        return one.values[0]


class FilteredChroma(chroma.Chroma):
    """A Chroma server; it indexes all metadata by itself."""

    BUILDS: ClassVar = {
        name: Build(variant.settings, [variant.efforts]) for name, variant in chroma.VARIANTS.items()
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._properties = task.properties
        self._metadatas: list[dict[str, Any]] = []

    def prepare(self) -> None:
        """Also make the metadata."""
        super().prepare()
        self._metadatas = [self._properties(row) for row in range(self._task.rows)]

    def load(self) -> None:
        """The peer's way, with metadata."""
        for rows in batches(self._task.rows, self._client.get_max_batch_size()):
            part = slice(rows.start, rows.stop)
            self._collection.add(
                ids=self._ids[part], embeddings=self._task.vectors[part], metadatas=self._metadatas[part]
            )
        if self._collection.count() != self._task.rows:
            raise RuntimeError("not all vectors are there")
        self.search(self._task.vectors[0])  # takes up what the index lacks, if anything

    def release(self) -> None:
        """Drop ids and metadata."""
        super().release()
        self._metadatas.clear()

    def tune(self, effort: Effort) -> None:
        """Settings are the collection's."""
        super().tune(dict(effort))

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A query with a ``where``."""
        parts = [part for one in where for part in self._conditions(one)]
        wanted = {"$and": parts} if len(parts) > 1 else parts[0] if parts else None
        found = self._collection.query(query_embeddings=[query], n_results=TOP_K, include=[], where=wanted)
        return [int(id) for id in found["ids"][0]]

    @staticmethod
    def _conditions(one: Condition) -> list[dict[str, Any]]:
        match one.operator:
            case "range":
                return [{one.column: {"$gte": one.values[0]}}, {one.column: {"$lt": one.values[1]}}]
            case "in":
                return [{one.column: {"$in": list(one.values)}}]
            case "!=":
                return [{one.column: {"$ne": one.values[0]}}]
        return [{one.column: one.values[0]}]


#: In an iterative scan so many rows may be looked at, and 32 times work_mem be taken, before it gives up: the defaults of 20,000 and 1
#: leave a selective filter with few answers or none.
SESSION = {
    "hnsw.max_scan_tuples": 1_000_000,
    "hnsw.scan_mem_multiplier": 32,
    # A plan for each query: one for all would not know how many rows a filter lets through.
    "plan_cache_mode": "force_custom_plan",
}
GRAPH_WAYS = [
    [{"hnsw.iterative_scan": order, **effort} for effort in pgvector.HNSW_EFFORTS]
    for order in ("strict_order", "relaxed_order")
]
LIST_WAYS = [[{"ivfflat.iterative_scan": "relaxed_order", **effort} for effort in pgvector.IVF_EFFORTS]]
#: The vectors' index kept from the planner: rows by a B-tree (or all of them), compared one by one.
COMPARED = [{"enable_indexscan": "off"}]


class FilteredPgvector(pgvector.Pgvector):
    """PostgreSQL with a B-tree index on every property; its planner, which knows the filter's values, chooses the index."""

    BUILDS: ClassVar = {
        "hnsw": Build(
            {**pgvector.VARIANTS["hnsw"].settings, "btree": ", ".join(INDEXED)}, [*GRAPH_WAYS, COMPARED]
        ),
        "ivfflat": Build(
            {**pgvector.VARIANTS["ivfflat"].settings, "btree": ", ".join(INDEXED)}, [*LIST_WAYS, COMPARED]
        ),
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._columns = task.columns

    def prepare(self) -> None:
        """Make COPY's bytes with the properties in them."""
        super().prepare()
        self._copy = self._copy_bytes()

    def _copy_bytes(self) -> bytes:
        """Rows in COPY's binary form: each value after the number of its bytes. All strings of a column are of one length."""
        rows, dimensions = self._task.rows, self._task.dimensions
        columns = {name: self._columns[name] for name in INDEXED}
        words = {
            name: np.char.encode(column, "ascii")
            for name, column in columns.items()
            if column.dtype.kind == "U"
        }
        kinds = {"n": ">i4", "flag": "u1"} | {name: column.dtype.str for name, column in words.items()}
        layout = [("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")]
        for name in columns:
            layout += [(f"{name}_bytes", ">i4"), (name, kinds[name])]
        vector = [
            ("vector_bytes", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("values", ">f4", (dimensions,)),
        ]
        table = np.zeros(rows, np.dtype([*layout, *vector]))
        table["columns"], table["id_bytes"], table["id"] = 2 + len(columns), 8, np.arange(rows)
        for name, column in columns.items():
            table[f"{name}_bytes"], table[name] = table.dtype[name].itemsize, words.get(name, column)
        table["vector_bytes"], table["dimensions"] = 4 + 4 * dimensions, dimensions
        table["values"] = self._task.vectors
        return pgvector.HEADER + table.tobytes() + pgvector.TRAILER

    def load(self) -> None:
        """COPY, the vectors' index, and a B-tree for each property."""
        run, task = self._connection.execute, self._task
        properties = "n integer, cat text, flag boolean, cluster text"
        with self._connection.transaction():
            run(f"CREATE TABLE items (id bigint, {properties}, embedding vector({task.dimensions}))")
            run("ALTER TABLE items ALTER COLUMN embedding SET STORAGE PLAIN")
            run(f"ALTER TABLE items SET (parallel_workers = {max(1, task.threads - 1)})")
            with self._connection.cursor().copy("COPY items FROM STDIN WITH (FORMAT BINARY, FREEZE)") as sink:
                view = memoryview(self._copy)
                for start in range(0, len(view), pgvector.BLOCK_BYTES):
                    sink.write(view[start : start + pgvector.BLOCK_BYTES])
        build = pgvector.VARIANTS[task.variant].settings
        options = ", ".join(f"{name} = {value}" for name, value in build.items())
        run(f"CREATE INDEX ON items USING {task.variant} (embedding vector_cosine_ops) WITH ({options})")
        for name in INDEXED:
            run(f"CREATE INDEX ON items ({name})")

    def tune(self, effort: Effort) -> None:
        """Settings are the session's."""
        self._connection.execute("RESET ALL")
        for name, value in {**SESSION, **effort}.items():
            self._connection.execute(f"SET {name} = {value}")

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A prepared SELECT."""
        texts: list[str] = []
        values: list[Any] = []
        for one in where:
            texts.append(self._condition(one))
            values += [list(one.values)] if one.operator == "in" else one.values
        clause = f"WHERE {' AND '.join(texts)}" if texts else ""
        select = f"SELECT id FROM items {clause} ORDER BY embedding <=> %b LIMIT {TOP_K}"
        rows = self._connection.execute(select, (*values, query), prepare=True, binary=True)
        return [row[0] for row in rows]

    @staticmethod
    def _condition(one: Condition) -> str:
        match one.operator:
            case "range":
                return f"{one.column} >= %b AND {one.column} < %b"
            case "in":
                return f"{one.column} = ANY(%b)"
            case "!=":
                return f"{one.column} <> %b"
        return f"{one.column} = %b"
