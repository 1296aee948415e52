"""Upwell as a user starts it: ``upwell serve``, NDJSON bodies of 5,000 lines over HTTP, queries over one kept connection."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.bench.peers.base import TOP_K, Effort, Matrix, Task, Variant, batches
from tests.bench.peers.footprint import memory_of, title, tree

TOKEN = "bench-token-0123456789"
BASE = "/client/v4/accounts/default/vectorize/v2/indexes"
NAME = "peers"
BODY_BYTES = 90_000_000
CONNECTIONS = 4
INDEXED_WITHIN_S = 600
#: Nothing to merge for so long: longer than a service rests before it merges further.
SETTLED_S = 4.0

VARIANTS = {"default": Variant({"body_lines": 5_000, "connections": CONNECTIONS, "workers": 1})}


class UpwellService:
    """``upwell serve`` on a directory of its own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._bodies: list[bytes] = []
        self._process: subprocess.Popen[str] | None = None
        self._address = ""
        self._kept: http.client.HTTPConnection | None = None
        self.acknowledged_s = 0.0
        self._visible_s = self._encoded_s = self._merged_s = 0.0

    def prepare(self) -> None:
        command = [sys.executable, "-c", "from ingest.cli import main; main()", "serve"]
        options = ["--port", "0", "--data", str(self._task.folder)]
        environment = os.environ | {"UPWELL_TOKEN": TOKEN, "UPWELL_LOG_LEVEL": "warning"}
        self._process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, env=environment, text=True
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().strip()
        self._address = urlsplit(ready.removeprefix("upwell ready on ")).netloc
        if not self._address:
            raise RuntimeError("upwell serve did not start")
        began = time.perf_counter()
        self._bodies = [self._encode(rows) for rows in batches(self._task.rows, self._body_lines())]
        self._encoded_s = time.perf_counter() - began
        self._kept = self._connect()
        self._create()

    def _create(self) -> None:
        config = {"dimensions": self._task.dimensions, "metric": "cosine"}
        self._call(self._kept_connection(), "POST", "", orjson.dumps({"name": NAME, "config": config}))

    def _body_lines(self) -> int:
        """5,000, or as many as a body's 100 MB hold."""
        return min(5_000, BODY_BYTES // (15 * self._task.dimensions))

    def _encode(self, rows: range) -> bytes:
        vectors = self._task.vectors
        return b"\n".join(
            orjson.dumps({"id": str(row), "values": vectors[row]}, option=orjson.OPT_SERIALIZE_NUMPY)
            for row in rows
        )

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=120)

    @staticmethod
    def _call(
        connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
    ) -> Any:
        connection.request(method, BASE + path, body, {"Authorization": f"Bearer {TOKEN}"})
        envelope = orjson.loads(connection.getresponse().read())
        if not envelope["success"]:
            raise RuntimeError(f"{method} {path}: {envelope['errors']}")
        return envelope["result"]

    def load(self) -> None:
        began = time.perf_counter()
        waiting = iter(self._bodies)

        def upload(_: int) -> list[str]:
            with contextlib.closing(self._connect()) as connection:
                return [self._send(connection, body) for body in waiting]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            mutations = sorted(one for some in pool.map(upload, range(CONNECTIONS)) for one in some)
        self.acknowledged_s = time.perf_counter() - began
        assert self._kept is not None
        for mutation in reversed(mutations):
            path = f"/{NAME}/mutations/{mutation}?wait=60"
            while self._call(self._kept, "GET", path)["state"] != "visible":
                pass
        self._visible_s = time.perf_counter() - began
        self._wait_for("unindexed")

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> str:
        """Upload a body; returns the mutationId."""
        return str(self._call(connection, "POST", f"/{NAME}/upsert", body)["mutationId"])

    def _wait_for(self, what: str) -> None:
        """Wait until ``info`` tells 0 of something about segments."""
        assert self._kept is not None
        deadline = time.monotonic() + INDEXED_WITHIN_S
        while True:
            info = self._call(self._kept, "GET", f"/{NAME}/info")
            if info["vectorCount"] != self._task.rows:
                raise RuntimeError(f"{info['vectorCount']} vectors are visible, not {self._task.rows}")
            if info["compaction"][what] == 0:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {INDEXED_WITHIN_S} s: {info['compaction']}")
            time.sleep(0.02)

    def settle(self) -> None:
        """Let it merge its segments, as it does of itself when nothing is written for a while; every one has an index already."""
        began = time.perf_counter()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < SETTLED_S:
            self._wait_for("pending")
            time.sleep(0.1)
            info = self._call(self._kept_connection(), "GET", f"/{NAME}/info")
            if info["compaction"]["pending"]:
                quiet_since = time.monotonic()
        self._merged_s = time.perf_counter() - began

    def _kept_connection(self) -> http.client.HTTPConnection:
        assert self._kept is not None
        return self._kept

    def release(self) -> None:
        self._bodies.clear()
        self.settle()

    def tune(self, effort: Effort) -> None:
        """There is nothing to tune."""

    def search(self, query: Matrix) -> Sequence[int]:
        assert self._kept is not None
        body = orjson.dumps({"vector": query, "topK": TOP_K}, option=orjson.OPT_SERIALIZE_NUMPY)
        matches = self._call(self._kept, "POST", f"/{NAME}/query", body)["matches"]
        return [int(match["id"]) for match in matches]

    def version(self) -> str:
        return metadata.version("upwell")

    def processes(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid]

    def notes(self) -> dict[str, Any]:
        """When all was visible, and what the parts of the service hold."""
        assert self._process is not None
        parts: dict[str, dict[str, float]] = {}
        for pid in tree(self._process.pid):
            part = re.match(r"upwell:? (api|worker)\b", title(pid))
            if part:
                memory = memory_of(pid)
                parts[part[1]] = {
                    "rss_mib": round(memory.rss_mib, 1),
                    "rss_anon_mib": round(memory.rss_anon_mib, 1),
                }
        return {
            "acknowledged_s": round(self.acknowledged_s, 3),
            "visible_s": round(self._visible_s, 3),
            "merged_after_s": round(self._merged_s, 3),
            "client_encoding_s": round(self._encoded_s, 3),
            "parts": parts,
        }

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            if self._process.stdout is not None:
                self._process.stdout.close()


def make(task: Task) -> UpwellService:
    return UpwellService(task)
