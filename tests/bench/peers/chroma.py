"""Chroma: a real ``chroma run`` server, asked through its HttpClient, in batches as large as it allows.

Its write-ahead log (SQLite) makes an add durable and the HNSW index takes the rows up in the same call. ``sync_threshold`` is how
often the index file is written; the default of 1,000 writes it a hundred times in a bulk load.
"""

from __future__ import annotations

import importlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bench.peers.base import TOP_K, Effort, Matrix, Quiet, Task, Variant, batches

EFFORTS = [{"ef_search": ef} for ef in (20, 40, 60, 80, 100, 150, 200, 300, 500, 800)]
VARIANTS = {
    "hnsw-bulk": Variant({"max_neighbors": 16, "ef_construction": 64, "sync_threshold": 50_000}, EFFORTS),
}
START_S = 60


class Chroma(Quiet):
    """A Chroma server and one collection."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self._collection: Any = None
        self._client: Any = None
        self._ids: list[str] = []

    def prepare(self) -> None:
        chromadb: Any = importlib.import_module("chromadb")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(self._task.folder)]
        log = (self._task.folder.parent / "chroma.log").open("wb")
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log
        )
        settings = chromadb.Settings(anonymized_telemetry=False)
        deadline = time.monotonic() + START_S
        while self._client is None:
            try:
                self._client = chromadb.HttpClient("127.0.0.1", port, settings=settings)
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        build = VARIANTS[self._task.variant].settings
        self._collection = self._client.create_collection(
            "peers",
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "num_threads": self._task.threads, **build}},
        )
        self._ids = [str(row) for row in range(self._task.rows)]

    def load(self) -> None:
        for rows in batches(self._task.rows, self._client.get_max_batch_size()):
            self._collection.add(
                ids=self._ids[rows.start : rows.stop],
                embeddings=self._task.vectors[rows.start : rows.stop],
            )
        if self._collection.count() != self._task.rows:
            raise RuntimeError("not all vectors are there")
        self.search(self._task.vectors[0])  # takes up what the index lacks, if anything

    def release(self) -> None:
        self._ids.clear()

    def tune(self, effort: Effort) -> None:
        self._collection.modify(configuration={"hnsw": effort})

    def search(self, query: Matrix) -> Sequence[int]:
        found = self._collection.query(query_embeddings=[query], n_results=TOP_K, include=[])
        return [int(id) for id in found["ids"][0]]

    def version(self) -> str:
        return metadata.version("chromadb")

    def processes(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid]

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()


def make(task: Task) -> Chroma:
    return Chroma(task)
