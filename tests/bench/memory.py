"""How little memory does it take to serve a million vectors? What a front end and a worker hold, on which disk, and under a cap.

    make bench-memory              or: python -m tests.bench.memory [--vectors 1000000] [--dimensions 768] [--json FILE]

A worker stands still while the engine's own writer fills the log, chunk by chunk; then it applies all and merges. A fresh front end
is asked, and its memory told as the kernel counts it: RssAnon is what it holds; RssFile what of the mapped segments happens to be in
memory, which the kernel takes back whenever it likes. Then garbage is collected, and the disk's use told. Another fresh front
end gets a cap below the raw size, and must answer the same. Last: by how much one large upload raises a front end's peak.

The cap is a cgroup's memory.max, which counts files in memory too, where we may make one (cgroup v2, as a child of our own);
elsewhere RLIMIT_DATA, which counts private writable memory whether it is used or not, and files not at all. An idle front end has
reserved some hundred MiB of that without using it: the cap is at least that, and 96 MiB for threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from tests.bench.harness import (
    MIB,
    RESULTS,
    TOKEN,
    Calls,
    Clusters,
    Matrix,
    Others,
    connected,
    disk_bytes,
    ndjson,
    percentiles,
    write_result,
)
from tests.forked import Process
from tests.service import Api, Service
from upwell.changeset import Changeset, Operation
from upwell.clock import SystemClock
from upwell.engine import Index, open_engine
from upwell.log.entry import prepare
from upwell.log.receipt import Receipt, mint
from upwell.settings import Settings

INDEX = "memory"
CHUNK = 5_000
TOP_K, CAPPED_QUERIES = 10, 50
#: Bars: of the raw size, of the live data, of the upload.
ANON_BAR, DISK_BAR, UPLOAD_BAR = 0.2, 1.5, 3.0
#: What a cap leaves beside a fifth of the raw size; and RLIMIT_DATA, at least, beside what an idle front end has reserved.
CAP_BYTES, CAP_GROWTH_BYTES = 200_000_000, 96 << 20
UPLOAD_DIMENSIONS, UPLOAD_LINE = 1_536, 20_000
#: Batches and merges take longer than a short grace period vouches for: only the collecting gets one.
COLLECTING = {"UPWELL_GRACE_S": "5", "UPWELL_RESULTS_S": "5"}
#: Nothing may be collected for half a minute: the worker with the usual grace period may have left a mark that it was just done.
FIRST_S, QUIET_S = 60.0, 12.0
#: Longer than an index rests before its segments are merged as far as they can be.
SETTLE_S = 3.0
WORK_S = 3_600
STOP_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is loaded and asked."""

    vectors: int
    dimensions: int
    queries: int
    upload_bytes: int

    @property
    def raw_bytes(self) -> int:
        """The vectors as float32."""
        return 4 * self.vectors * self.dimensions


def memory(pid: int) -> dict[str, int]:
    """Of a process, in bytes: RssAnon, RssFile, VmRSS, VmHWM (its peak), VmData (what RLIMIT_DATA counts)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return {name: kib[name] * 1024 for name in ("RssAnon", "RssFile", "VmRSS", "VmHWM", "VmData")}


class Peak:
    """The most RssAnon that a process held meanwhile, looked at every 20 ms. A context manager."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, memory(self._pid)["RssAnon"])


def load(index: Index, size: Size, clusters: Clusters) -> str:
    """Append the vectors to the log; returns the last mutationId."""
    writer, clock, position = index.log_writer(), SystemClock(), 0
    for start in range(0, size.vectors, CHUNK):
        rows = min(CHUNK, size.vectors - start)
        metadata = [b'{"row":%d,"topic":"wells"}' % row for row in range(start, start + rows)]
        changeset = Changeset(
            operation=Operation.UPSERT,
            ids=pa.array([f"doc-{row}" for row in range(start, start + rows)], pa.utf8()),
            vectors=clusters.points(rows),
            metadata=pa.array(metadata, pa.binary()),
            received=rows,
        )
        position = writer.append([prepare(changeset, clock.now())])
    return mint(index.record.receipt_key, Receipt(position, 0))


async def ready_worker(service: Service, calls: Calls, dimensions: int) -> Process:
    """Start a worker and have it apply a little: all that it imports is there."""
    process = service.start_worker()
    await calls.create("ready", dimensions)
    ids = [f"ready-{row}" for row in range(10)]
    await calls.visible("ready", await calls.upsert("ready", ndjson(ids, Clusters(dimensions).points(10))))
    await asyncio.sleep(1)
    return process


async def fill(service: Service, size: Size, clusters: Clusters) -> dict[str, Any]:
    """Load, apply and merge; returns what the worker held and how long it took."""
    api = service.start_api()
    async with connected(api.url) as calls, asyncio.timeout(WORK_S):
        worker = await ready_worker(service, calls, size.dimensions)
        idle = memory(worker.pid)["RssAnon"]
        worker.send_signal(signal.SIGSTOP)
        await calls.create(INDEX, size.dimensions)
        began = time.perf_counter()
        last = await asyncio.to_thread(load, find(service), size, clusters)
        loaded = time.perf_counter()
        with Peak(worker.pid) as applying:
            worker.send_signal(signal.SIGCONT)
            await calls.visible(INDEX, last)
        applied = time.perf_counter()
        with Peak(worker.pid) as merging:
            await asyncio.sleep(SETTLE_S)
            while (await calls.call("GET", f"/{INDEX}/info"))["compaction"]["pending"]:  # noqa: ASYNC110  others do it
                await asyncio.sleep(0.1)
        merged = time.perf_counter()
    stop(worker)
    stop(api.process)
    return {
        "load_s": loaded - began,
        "apply_s": applied - loaded,
        "merge_s": merged - applied,
        "worker_idle_anon_bytes": idle,
        "worker_apply_peak_anon_bytes": applying.bytes,
        "worker_merge_peak_anon_bytes": merging.bytes,
        "store_bytes_before_collecting": disk_bytes(service.data / "store"),
    }


def find(service: Service) -> Index:
    """The index, opened here beside the service."""
    return open_engine(Settings.model_validate({"data": service.data})).find("default", INDEX)


def stop(process: Process) -> None:
    """End a process and wait for it."""
    process.terminate()
    process.wait(STOP_S)


async def ask(url: str, queries: Matrix) -> tuple[list[list[str]], list[float]]:
    """Ask one query after another; returns the ids and the milliseconds of each."""
    ids: list[list[str]] = []
    took: list[float] = []
    async with connected(url) as calls:
        for query in queries:
            body = b'{"vector":[%s],"topK":%d}' % (",".join(map(str, query.tolist())).encode(), TOP_K)
            began = time.perf_counter()
            result = await calls.call("POST", f"/{INDEX}/query", body)
            took.append((time.perf_counter() - began) * 1000)
            ids.append([match["id"] for match in result["matches"]])
    return ids, took


async def serve(service: Service, queries: Matrix) -> tuple[list[list[str]], dict[str, Any]]:
    """Ask a fresh front end; returns the ids, and what it held before and after."""
    api = service.start_api()
    before = memory(api.process.pid)
    ids, took = await ask(api.url, queries)
    after = memory(api.process.pid)
    stop(api.process)
    return ids, {"idle": before, "after": after, "first_query_ms": took[0]} | {
        f"query_{name}_ms": value for name, value in percentiles(took[1:]).items()
    }


async def collect(service: Service) -> dict[str, Any]:
    """Have garbage collected with a short grace period; returns what is left on the disk, and what of that is alive."""
    usual, store = dict(service.settings), service.data / "store"
    service.settings.update(COLLECTING)
    worker = service.start_worker()
    service.settings = usual
    held, until = disk_bytes(store), time.perf_counter() + FIRST_S
    while time.perf_counter() < until:
        await asyncio.sleep(0.5)
        if abs((now := disk_bytes(store)) - held) > MIB:
            until = time.perf_counter() + QUIET_S
        held = now
    stop(worker)
    manifest = find(service).head.refresh()
    return {
        "store_bytes": held,
        "live_bytes": sum(segment.nbytes for segment in manifest.segments()),
        "segments": len(list(manifest.segments())),
        "write_amplification": manifest.totals.write_amplification,
    }


async def serve_capped(
    service: Service, queries: Matrix, raw_bytes: int
) -> tuple[list[list[str]], dict[str, Any]]:
    """Ask a fresh front end under a cap; returns the ids, which cap it was, and what was held."""
    api = service.start_api()
    with capped(api, raw_bytes // 5 + CAP_BYTES) as (how, cap):
        ids, took = await ask(api.url, queries)
        after = memory(api.process.pid)
        stop(api.process)
    return ids, {"how": how, "cap_bytes": cap, "after": after, "query_p50_ms": percentiles(took[1:])["p50"]}


@contextlib.contextmanager
def capped(api: Api, wanted: int) -> Iterator[tuple[str, int]]:
    """Cap a running front end's memory; yields how, and at how many bytes."""
    group = _own_group()
    if group is not None:
        (group / "memory.max").write_text(str(wanted))
        (group / "cgroup.procs").write_text(str(api.process.pid))
        try:
            yield "cgroup v2 memory.max", wanted
        finally:
            api.process.wait(STOP_S)
            group.rmdir()
        return
    cap = max(wanted, memory(api.process.pid)["VmData"] + CAP_GROWTH_BYTES)
    resource.prlimit(api.process.pid, resource.RLIMIT_DATA, (cap, cap))
    yield "RLIMIT_DATA", cap


def _own_group() -> Path | None:
    """A new cgroup below our own, if version 2 has the controller of memory and lets us."""
    with contextlib.suppress(OSError, StopIteration):
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        root = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = root / next(line for line in lines if line.startswith("0::")).removeprefix("0::/")
        if "memory" not in (own / "cgroup.subtree_control").read_text().split():
            return None
        group = own / f"upwell-bench-{os.getpid()}"
        group.mkdir()
        return group
    return None


def large_body(nbytes: int) -> bytes:
    """NDJSON of about so many bytes, a vector of 1,536 dimensions to each line of 20,000 bytes."""
    generator = np.random.default_rng(7)
    values = [
        b",".join(b"%.9f" % one for one in generator.normal(scale=0.1, size=UPLOAD_DIMENSIONS))
        for _ in range(16)
    ]
    lines = []
    for row in range(nbytes // UPLOAD_LINE):
        line = b'{"id":"up-%d","values":[%s],"metadata":{"pad":"%%s"}}' % (row, values[row % 16])
        lines.append(line % (b"x" * (UPLOAD_LINE - 1 - len(line) + 2)))
    return b"\n".join(lines)


async def upload(service: Service, nbytes: int) -> dict[str, Any]:
    """Upload one large body to a front end that has had a small one, and see its peak."""
    api, body = service.start_api(), large_body(nbytes)
    async with connected(api.url) as calls:
        await calls.create("upload", UPLOAD_DIMENSIONS)
        await calls.upsert("upload", large_body(10 * UPLOAD_LINE))
        # Written to, this sets VmHWM back to what is held now.
        Path(f"/proc/{api.process.pid}/clear_refs").write_text("5")
        before, began = memory(api.process.pid), time.perf_counter()
        await calls.upsert("upload", body)
        seconds, after = time.perf_counter() - began, memory(api.process.pid)
    stop(api.process)
    rise = after["VmHWM"] - before["VmRSS"]
    return {
        "body_bytes": len(body), "seconds": seconds, "before": before, "after": after, "peak_rise_bytes": rise,
        "ratio": rise / len(body),
    }  # fmt: skip


async def measure(size: Size) -> dict[str, Any]:
    """All of it, on one service."""
    clusters = Clusters(size.dimensions)
    with Service({"UPWELL_TOKEN": TOKEN}, fresh=True) as service:
        filled = await fill(service, size, clusters)
        queries = clusters.points(size.queries)
        ids, served = await serve(service, queries)
        collected = await collect(service)
        capped_ids, under_cap = await serve_capped(service, queries[:CAPPED_QUERIES], size.raw_bytes)
        uploaded = await upload(service, size.upload_bytes)
    if any(len(one) != TOP_K for one in ids):
        raise RuntimeError("a query found fewer vectors than it asked for")
    under_cap["same_answers"] = capped_ids == ids[: len(capped_ids)]
    return {
        "fill": filled,
        "served": served,
        "disk": collected,
        "capped": under_cap,
        "upload": uploaded,
        "ratios": {
            "front end's RssAnon / raw": served["after"]["RssAnon"] / size.raw_bytes,
            "store / live data": collected["store_bytes"] / collected["live_bytes"],
            "peak's rise / upload": uploaded["ratio"],
        },
    }


def print_end(size: Size, found: dict[str, Any]) -> None:
    """What was found, and whether it is within the bars."""

    def mib(nbytes: float) -> str:
        return f"{nbytes / MIB:,.0f} MiB"

    fill, served, disk, cap, up = (found[name] for name in ("fill", "served", "disk", "capped", "upload"))
    print(f"{size.vectors:,} x {size.dimensions}, raw {mib(size.raw_bytes)}; loaded in {fill['load_s']:.0f} s, "
          f"applied in {fill['apply_s']:.1f} s, merged in {fill['merge_s']:.1f} s")  # fmt: skip
    for when in ("idle", "after"):
        cells = ", ".join(f"{name} {mib(served[when][name])}" for name in ("RssAnon", "RssFile", "VmRSS"))
        print(f"front end, {when + f' {size.queries} queries' if when == 'after' else when}: {cells}")
    print(f"queries: first {served['first_query_ms']:.0f} ms, then p50 {served['query_p50_ms']:.1f} ms, "
          f"p99 {served['query_p99_ms']:.1f} ms")  # fmt: skip
    print("worker's RssAnon: " + ", ".join(
        f"{title} {mib(fill[f'worker_{name}_anon_bytes'])}"
        for title, name in (("idle", "idle"), ("at most applying", "apply_peak"), ("merging", "merge_peak"))
    ))  # fmt: skip
    print(f"store: {mib(fill['store_bytes_before_collecting'])}, then {mib(disk['store_bytes'])} "
          f"({disk['store_bytes'] / size.raw_bytes:.2f} of raw), live {mib(disk['live_bytes'])} "
          f"in {disk['segments']} segments")  # fmt: skip
    print(f"capped by {cap['how']} at {mib(cap['cap_bytes'])}: RssAnon {mib(cap['after']['RssAnon'])}, counted "
          f"{mib(cap['after']['VmData'])}, answers {'the same' if cap['same_answers'] else 'DIFFER'}")  # fmt: skip
    print(f"upload of {mib(up['body_bytes'])} in {up['seconds']:.1f} s: peak + {mib(up['peak_rise_bytes'])}, "
          f"RssAnon {mib(up['before']['RssAnon'])} then {mib(up['after']['RssAnon'])}")  # fmt: skip
    for (name, ratio), bar in zip(found["ratios"].items(), (ANON_BAR, DISK_BAR, UPLOAD_BAR), strict=True):
        print(f"  {name:<28}{ratio:6.2f}  at most {bar}: {'met' if ratio <= bar else 'NOT MET'}")


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=1_000_000, help="vectors to load")
    parser.add_argument("--dimensions", type=int, default=768, help="their dimensions")
    parser.add_argument("--queries", type=int, default=200, help="queries to a fresh front end")
    parser.add_argument("--upload-bytes", type=int, default=100_000_000, help="size of the upload")
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json", help="where figures go")
    options = parser.parse_args()
    size = Size(
        vectors=options.vectors,
        dimensions=options.dimensions,
        queries=options.queries,
        upload_bytes=options.upload_bytes,
    )
    if size.queries < CAPPED_QUERIES or size.vectors < CHUNK:
        parser.error(f"there must be at least {CHUNK:,} vectors and {CAPPED_QUERIES} queries")
    with Others() as others:
        found = asyncio.run(measure(size))
    print_end(size, found)
    others.tell()
    more = {"raw_bytes": size.raw_bytes, "others_cores": others.cores, "ratios": found.pop("ratios")}
    data = asdict(size) | more
    rows = [{"part": part} | figures for part, figures in found.items()]
    write_result(options.json, "memory", data, rows)


if __name__ == "__main__":
    main()
