"""Vectors per second, acknowledged and visible, beside the time of the bare parts measured in the same run.

    make bench-ack                 or: python -m tests.bench.ack_and_visible [--vectors N] [--json FILE]

Bulk: 100,000 × 384 (seeded, clustered, unit length, with metadata) in bodies of 5,000 lines, one connection, one request at a time.
Small: one vector per request from 32 connections. The service runs as a user would run it, ``upwell serve`` with one worker, on a
directory of its own. The bare parts: reading the same bodies with aiohttp and doing nothing; parsing them; writing and fsyncing
the same float32 bytes. Nothing can be faster than those; what is above them is Upwell's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from ingest.body import Rules, parse_upload
from tests.bench.harness import Calls, Clusters, connected, ndjson, serving
from upwell.changeset import Operation

DIMENSIONS = 384
BODY_LINES = 5_000
CONNECTIONS = 32


def make_bodies(count: int) -> list[bytes]:
    """NDJSON of ``count`` clustered unit vectors, BODY_LINES to a body."""
    clusters = Clusters(DIMENSIONS)
    starts = range(0, count, BODY_LINES)
    pieces = [range(start, min(start + BODY_LINES, count)) for start in starts]
    return [ndjson([f"doc-{row}" for row in piece], clusters.points(len(piece))) for piece in pieces]


async def bench_bulk(calls: Calls, bodies: list[bytes], count: int) -> dict[str, float]:
    await calls.create("bulk", DIMENSIONS)
    began, mutation = time.perf_counter(), ""
    for body in bodies:
        mutation = await calls.upsert("bulk", body)
    acknowledged_s = time.perf_counter() - began
    await calls.visible("bulk", mutation)
    visible_s = time.perf_counter() - began
    if (there := await calls.count("bulk")) != count:
        raise RuntimeError(f"{there} vectors are visible, {count} were sent")
    return {"acknowledged_s": acknowledged_s, "visible_s": visible_s}


async def bench_small(calls: Calls, bodies: list[bytes], count: int) -> dict[str, float]:
    await calls.create("small", DIMENSIONS)
    lines = iter([line for body in bodies for line in body.split(b"\n")][:count])
    acknowledged_ms: list[float] = []
    last: list[str] = []

    async def client() -> None:
        for line in lines:
            sent = time.perf_counter()
            mutation = await calls.upsert("small", line)
            acknowledged_ms.append((time.perf_counter() - sent) * 1000)
            last[:] = [max(mutation, *last)] if last else [mutation]

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    acknowledged_s = time.perf_counter() - began
    await calls.visible("small", last[0])
    return {
        "acknowledged_s": acknowledged_s,
        "visible_s": time.perf_counter() - began,
        "acknowledged_p50_ms": statistics.median(acknowledged_ms),
        "acknowledged_p99_ms": float(np.percentile(acknowledged_ms, 99)),
    }


@contextlib.asynccontextmanager
async def bare_reader() -> AsyncIterator[str]:
    """An aiohttp server that reads bodies and throws them away."""

    async def read(request: web.Request) -> web.Response:
        async for _ in request.content.iter_any():
            pass
        return web.Response()

    app = web.Application()
    app.router.add_post("/", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def time_reading(bodies: list[bytes]) -> float:
    async with bare_reader() as url, aiohttp.ClientSession() as session:
        began = time.perf_counter()
        for body in bodies:
            async with session.post(url, data=body) as answer:
                await answer.read()
        return time.perf_counter() - began


def time_parsing(bodies: list[bytes]) -> float:
    rules = Rules(dimensions=DIMENSIONS, vectors_max=BODY_LINES, bytes_max=1 << 30)
    began = time.perf_counter()
    for body in bodies:
        parse_upload(body, content_type=None, content_encoding=None, operation=Operation.UPSERT, rules=rules)
    return time.perf_counter() - began


def time_writing(bodies: list[bytes], folder: Path, count: int) -> float:
    """Write and fsync the same float32 bytes, a file a body."""
    matrix = np.zeros((BODY_LINES, DIMENSIONS), np.float32)
    began, left = time.perf_counter(), count
    for number in range(len(bodies)):
        rows, left = min(BODY_LINES, left), left - BODY_LINES
        fd = os.open(folder / f"bare-{number}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, matrix[:rows].data)
        os.fsync(fd)
        os.close(fd)
    return time.perf_counter() - began


async def measure(count: int, small: int, workers: int) -> dict[str, Any]:
    bodies = make_bodies(count)
    with serving(workers) as service:
        async with connected(service.url, CONNECTIONS) as calls:
            bulk = await bench_bulk(calls, bodies, count)
            one_by_one = await bench_small(calls, bodies, small)
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as folder:
        bare = {
            "read_s": await time_reading(bodies),
            "parse_s": time_parsing(bodies),
            "write_s": time_writing(bodies, Path(folder), count),
        }
    return {
        "vectors": count,
        "small_mutations": small,
        "dimensions": DIMENSIONS,
        "body_lines": BODY_LINES,
        "connections": CONNECTIONS,
        "workers": workers,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ndjson_bytes": sum(map(len, bodies)),
        "bulk": bulk,
        "small": one_by_one,
        "bare": bare,
    }


def report(found: dict[str, Any]) -> str:
    count, small = found["vectors"], found["small_mutations"]
    bulk, one, bare = found["bulk"], found["small"], found["bare"]
    limit_s = sum(bare.values())
    rows = [
        ("bulk: acknowledged", bulk["acknowledged_s"], count),
        ("bulk: visible", bulk["visible_s"], count),
        ("bare: read the bodies (aiohttp)", bare["read_s"], count),
        ("bare: parse them", bare["parse_s"], count),
        ("bare: write and fsync the float32 bytes", bare["write_s"], count),
        ("bare: all three, one after the other", limit_s, count),
        ("small: acknowledged", one["acknowledged_s"], small),
        ("small: visible", one["visible_s"], small),
    ]
    done = (
        f"{count:,} x {found['dimensions']} in bodies of {found['body_lines']:,} lines "
        f"({found['ndjson_bytes'] / 1e6:,.0f} MB of NDJSON); {small:,} single-vector requests, "
        f"{found['connections']} connections; {found['workers']} worker(s), {found['cores']} cores"
    )
    share = (
        f"bulk reaches {limit_s / bulk['acknowledged_s']:.0%} (acknowledged) and {limit_s / bulk['visible_s']:.0%} "
        "(visible) of the bare parts' rate"
    )
    lines = [
        done,
        f"{'':42}{'seconds':>9}{'vectors/s':>12}",
        *(f"{what:42}{seconds:9.2f}{rows_done / seconds:12,.0f}" for what, seconds, rows_done in rows),
        share,
        f"small: acknowledged p50 {one['acknowledged_p50_ms']:.1f} ms, p99 {one['acknowledged_p99_ms']:.1f} ms",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=5_000, help="single-vector requests")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found = asyncio.run(measure(options.vectors, options.small, options.workers))
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
