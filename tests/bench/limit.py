"""How near does Upwell come to what the machine can do? Vectors a second, acknowledged and visible, as a share of the limit.

    make bench-limit               or: python -m tests.bench.limit [--dimensions 384,768] [--vectors 100000] [--json FILE]

The limit is a bare aiohttp server in one process of its own. It reads the same NDJSON bodies over the same connections, parses
every line with simdjson, the values going as a buffer into a float32 matrix made beforehand, in a thread, and answers once the
float32 bytes are written and fsynced. It checks nothing, keeps no id, and nobody can query what it wrote. Both are measured in
turns, each on a fresh start and after one small body to warm up, and the medians compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import uvloop
from aiohttp import web

from ingest.body.simd import simdjson
from tests.bench.harness import (
    RESULTS,
    ROOT,
    Clusters,
    Matrix,
    Others,
    connected,
    ndjson,
    percentiles,
    print_row,
    serving,
    write_result,
)

BODY_LINES = 5_000
WARM_LINES = 100
BARS = {"acknowledged": 0.50, "visible": 0.35}
INDEX = "limit"
WIDTHS = (34, 12, 12, 12, 14, 10)


def make_bodies(vectors: int, dimensions: int) -> list[bytes]:
    """NDJSON in bodies of 5,000 lines; the same each time."""
    clusters = Clusters(dimensions)
    bodies = []
    for start in range(0, vectors, BODY_LINES):
        rows = min(BODY_LINES, vectors - start)
        ids = [f"doc-{start + row}" for row in range(rows)]
        bodies.append(ndjson(ids, clusters.points(rows)))
    return bodies


class Bare:
    """The server that is the limit."""

    def __init__(self, folder: Path, dimensions: int, connections: int) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        # Parsing holds Python's lock: more threads for it only get into each other's way. The disk is waited for without it.
        self._parsing = ThreadPoolExecutor(1)
        self._writing = ThreadPoolExecutor(connections)
        self._matrices = [np.zeros((BODY_LINES, dimensions), np.float32) for _ in range(connections)]

    async def upload(self, request: web.Request) -> web.Response:
        """Read a body; answer when its float32 bytes are on disk."""
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
        loop, matrix = asyncio.get_running_loop(), self._matrices.pop()
        rows = await loop.run_in_executor(self._parsing, parse, body, matrix)
        path = self._folder / f"bare-{next(self._numbers)}"
        await loop.run_in_executor(self._writing, write_durably, path, matrix[:rows])
        self._matrices.append(matrix)
        return web.Response(text=str(rows))


def parse(body: bytearray, into: Matrix) -> int:
    """Parse every line, the values into ``into``; returns the number of lines."""
    parser = simdjson.Parser()
    row = -1
    for row, line in enumerate(bytes(body).split(b"\n")):
        document = parser.parse(line)
        into[row] = np.frombuffer(document["values"].as_buffer(of_type="d"))
        # The parser cannot be used again while anything of its last document lives.
        document = None
    return row + 1


def write_durably(path: Path, rows: Matrix) -> None:
    """Write and fsync."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        left = rows.view(np.uint8).data.cast("B")
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)


async def run_bare(folder: Path, dimensions: int, connections: int) -> None:
    """In a child: serve until told to stop; the address goes to standard output."""
    bare = Bare(folder, dimensions, connections)
    app = web.Application()
    app.router.add_post("/", bare.upload)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


@contextlib.contextmanager
def bare_server(dimensions: int, connections: int) -> Iterator[str]:
    """The limit as a process; yields its address."""
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as folder:
        command = [sys.executable, "-m", "tests.bench.limit", "--bare", folder]
        options = ["--dimensions", str(dimensions), "--connections", str(connections)]
        server = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


async def send(
    bodies: Sequence[bytes], connections: int, upload: Callable[[bytes], Awaitable[str]]
) -> list[str]:
    """Upload all bodies, each connection its next when the last was answered; returns the answers."""
    left = iter(bodies)
    answers: list[str] = []

    async def connection() -> None:
        for body in left:
            answers.append(await upload(body))  # noqa: PERF401  the iterator is shared

    await asyncio.gather(*(connection() for _ in range(connections)))
    return answers


async def time_bare(bodies: Sequence[bytes], warm: bytes, dimensions: int, connections: int) -> float:
    """Seconds until the limit had answered everything."""
    with bare_server(dimensions, connections) as url:
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(url, connector=connector) as session:

            async def upload(body: bytes) -> str:
                async with session.post("/", data=body) as answer:
                    answer.raise_for_status()
                    return await answer.text()

            await upload(warm)
            began = time.perf_counter()
            answers = await send(bodies, connections, upload)
            seconds = time.perf_counter() - began
    if sum(map(int, answers)) != sum(body.count(b"\n") + 1 for body in bodies):
        raise RuntimeError("the bare server did not read every line")
    return seconds


async def time_upwell(
    bodies: Sequence[bytes], warm: bytes, dimensions: int, connections: int
) -> tuple[float, float]:
    """Seconds until Upwell had acknowledged everything, and until all was visible."""
    with serving() as service:
        async with connected(service.url, connections) as calls:
            for name in ("warm", INDEX):
                await calls.create(name, dimensions)
            await calls.visible("warm", await calls.upsert("warm", warm))
            began = time.perf_counter()
            mutations = await send(bodies, connections, lambda body: calls.upsert(INDEX, body))
            acknowledged_s = time.perf_counter() - began
            await calls.visible(INDEX, max(mutations))
            visible_s = time.perf_counter() - began
            count = await calls.count(INDEX)
    if count != sum(body.count(b"\n") + 1 for body in bodies):
        raise RuntimeError(f"{count} vectors are visible, more were sent")
    return acknowledged_s, visible_s


async def measure(dimensions: int, vectors: int, connections: int, repeats: int) -> dict[str, Any]:
    """Both in turns; a row of medians."""
    bodies = make_bodies(vectors, dimensions)
    warm = b"\n".join(bodies[0].split(b"\n", WARM_LINES)[:WARM_LINES])
    runs: dict[str, list[float]] = {"limit": [], "acknowledged": [], "visible": []}
    for _ in range(repeats):
        runs["limit"].append(await time_bare(bodies, warm, dimensions, connections))
        acknowledged_s, visible_s = await time_upwell(bodies, warm, dimensions, connections)
        runs["acknowledged"].append(acknowledged_s)
        runs["visible"].append(visible_s)
    rates = {what: vectors / statistics.median(seconds) for what, seconds in runs.items()}
    shares = {what: rates[what] / rates["limit"] for what in BARS}
    return {
        "dimensions": dimensions,
        "vectors": vectors,
        "ndjson_bytes": sum(map(len, bodies)),
        **{f"{what}_vectors_per_s": rate for what, rate in rates.items()},
        **{f"{what}_share": share for what, share in shares.items()},
        "met": {what: shares[what] >= bar for what, bar in BARS.items()},
        "seconds": runs,
    }


def print_one(row: dict[str, Any]) -> None:
    """The lines of the table for one dimension."""
    for what in ("limit", *BARS):
        seconds = percentiles(row["seconds"][what])
        cells = [f"{row['dimensions']}: {what}", f"{row[f'{what}_vectors_per_s']:,.0f}"]
        cells += [f"{min(row['seconds'][what]):.2f}", f"{seconds['max']:.2f}"]
        if what in BARS:
            cells += [f"{row[f'{what}_share']:.0%} (≥ {BARS[what]:.0%})"]
            cells += ["met" if row["met"][what] else "NOT MET"]
        print_row(cells, WIDTHS[: len(cells)])


async def measure_all(options: argparse.Namespace) -> None:
    """Every dimension, a table, and the file."""
    print(
        f"{options.vectors:,} vectors in bodies of {BODY_LINES:,}, {options.connections} connections", end=""
    )
    print(f"; medians of {options.repeats}")
    print_row(("", "vectors/s", "fastest s", "slowest s", "of the limit", ""), WIDTHS)
    rows = []
    with Others() as others:
        for dimensions in map(int, options.dimensions.split(",")):
            rows.append(await measure(dimensions, options.vectors, options.connections, options.repeats))
            print_one(rows[-1])
    others.tell()
    data = {
        "others_cores": others.cores,
        "body_lines": BODY_LINES,
        "connections": options.connections,
        "repeats": options.repeats,
        "bars": BARS,
    }
    write_result(options.json, "limit", data, rows)


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dimensions", default="384,768", help="one or more, with commas between")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS / "limit.json", help="where figures go")
    options = parser.parse_args()
    if simdjson is None:
        parser.error("this Python has no simdjson, and the limit is measured with it")
    if options.bare:
        uvloop.run(run_bare(options.bare, int(options.dimensions), options.connections))
    else:
        uvloop.run(measure_all(options))


if __name__ == "__main__":
    main()
