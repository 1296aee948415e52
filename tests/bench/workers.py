"""What does a second worker bring? Backlogs applied and segments merged, by one worker process and by two.

    make bench-workers             or: python -m tests.bench.workers [--vectors 200000] [--dimensions 384] [--rounds 3] [--json FILE]

apply             a backlog of one index with two shards; its lease lets one worker at a time apply it
apply, 4 indexes  the same backlog, spread over four indexes
compaction        many small segments in the two shards of one index, merged until nothing is left to merge

Rounds with one and with two workers take turns, each on a fresh service. No start-up is in the figures: the bench claims the
leases of the work, as a worker would, prepares it over HTTP beside workers that have shown in other indexes that they are
ready, and the clock starts when it drops the leases and rings. The small segments are made by a worker that is gone by then.

The processor time of the workers is told too, and what the rest of the machine used. One worker applies several indexes, and merges
beside them, in threads: where it keeps all cores busy by itself, a second one cannot bring more; and front end, Valkey and
whatever else runs want some of the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.harness import (
    RESULTS,
    TICKS_PER_S,
    TOKEN,
    Calls,
    Clusters,
    connected,
    ndjson,
    print_row,
    usage,
    write_result,
)
from tests.service import Service
from upwell.doorbell.connection import connect
from upwell.doorbell.lease import Lease, enqueue_compaction, enqueue_drain
from upwell.engine import open_engine
from upwell.manifest import Manifest
from upwell.settings import Settings

BODY_LINES = 5_000
SHARDS = 2
SPREAD = 4
WORKERS = (1, 2)
BAR = 1.7
#: The worker that makes small segments takes two bodies to a commit: 5,000 rows a segment, too many to be folded into the next.
#: A worker is held to one job at a time, and so to one core: by itself it would use several for several shards or indexes.
ONE_JOB = {"UPWELL_WORKER_JOBS": "1"}
#: How long leases are kept at most, should nobody drop them. Workers are told, and believe in leases of that length.
HELD_S = 3600.0
HELD = {"UPWELL_LEASE_TTL_S": str(HELD_S)}
SMALL_COMMITS = {"UPWELL_BATCH_VECTORS_MAX": str(2 * BODY_LINES)}
#: How long workers are left alone before the clock starts.
CALM_S = 2.0
#: Other programs are waited for, so long and until they take no more than this.
QUIET_WAIT_S = 20.0
QUIET_CORES = 0.2
POLL_S = 0.02
WORK_S = 900
WIDTHS = (20, 10, 12, 12, 12, 14, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is uploaded."""

    vectors: int
    dimensions: int


class Round:
    """One fresh service, its workers, and work that is held back until the clock starts."""

    def __init__(self, service: Service, calls: Calls) -> None:
        self._service = service
        self._calls = calls
        self._redis = connect(service.valkey.url)
        self._held: list[tuple[Lease, str, int | None]] = []
        self._workers: list[int] = []

    async def start_workers(self, count: int, dimensions: int) -> None:
        """Start workers, one after another, so that each must have applied an index of its own to be ready."""
        for number in range(count):
            before = list(self._workers)
            for pid in before:
                os.kill(pid, signal.SIGSTOP)
            self._workers.append(self._service.start_worker().pid)
            name = f"ready-{number}"
            await self._calls.create(name, dimensions)
            ids = [f"ready-{row}" for row in range(BODY_LINES)]
            body = ndjson(ids, Clusters(dimensions).points(BODY_LINES))
            await self._calls.visible(name, await self._calls.upsert(name, body))
            for pid in before:
                os.kill(pid, signal.SIGCONT)

    async def hold(self, name: str, shard: int | None = None) -> None:
        """Keep workers from applying an index, or from merging one of its shards."""
        engine = open_engine(Settings.model_validate({"data": self._service.data}))
        index_id = engine.find("default", name).record.id
        lease = Lease(self._redis, index_id, HELD_S, shard)
        if not await lease.claim():
            raise RuntimeError(f"somebody works on {name} already")
        self._held.append((lease, index_id, shard))

    async def let_go(self) -> Clock:
        """Start the clock, and let the workers have everything that was held."""
        await quiet()
        clock = Clock(self._workers)
        for lease, index_id, shard in self._held:
            await lease.drop()
            if shard is None:
                await enqueue_drain(self._redis, index_id)
            else:
                await enqueue_compaction(self._redis, index_id, shard, HELD_S)
        return clock

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose(close_connection_pool=True)


class Clock:
    """Time, and processor time of the workers and of everything else, since it was made."""

    def __init__(self, workers: list[int]) -> None:
        self._workers = workers
        self._began = time.perf_counter()
        self._workers_began, self._all_began = self._cpu_s()

    def read(self, vectors: float) -> dict[str, Any]:
        """What was done a second, and what it took."""
        seconds = time.perf_counter() - self._began
        workers, everything = self._cpu_s()
        used = [now - then for now, then in zip(workers, self._workers_began, strict=True)]
        rest = everything - self._all_began - sum(used)
        return {
            "vectors_per_s": vectors / seconds,
            "seconds": seconds,
            "cpu_s": sum(used),
            "cpu_s_each": used,
            "rest_cpu_s": max(0.0, rest),
        }

    def _cpu_s(self) -> tuple[list[float], float]:
        used = [usage(pid) for pid in self._workers]
        return [one.cpu_s for one in used if one is not None], machine_cpu_s()


def machine_cpu_s() -> float:
    """Processor time that all programs have taken so far."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / TICKS_PER_S


async def quiet() -> None:
    """Wait until workers are idle, and until the whole machine is if that does not take too long."""
    await asyncio.sleep(CALM_S)
    deadline = time.perf_counter() + QUIET_WAIT_S
    while time.perf_counter() < deadline:
        before = machine_cpu_s()
        await asyncio.sleep(1)
        if machine_cpu_s() - before < QUIET_CORES:
            return


@contextlib.asynccontextmanager
async def fresh_round(
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Round, Service, Calls]]:
    """A front end without workers, on fresh data; with ``more`` settings."""
    settings = {"UPWELL_TOKEN": TOKEN, "UPWELL_SHARDS": str(SHARDS), **ONE_JOB, **HELD}
    with Service(settings | dict(more or {}), fresh=True) as service:
        api = service.start_api()
        async with connected(api.url) as calls, asyncio.timeout(WORK_S):
            one = Round(service, calls)
            try:
                yield one, service, calls
            finally:
                await one.close()


async def upload(calls: Calls, names: list[str], size: Size) -> dict[str, str]:
    """Upload the vectors, not of unit length, to the indexes in turns; returns the last mutation of each."""
    clusters, generator = Clusters(size.dimensions), np.random.default_rng(3)
    last: dict[str, str] = {}
    for number, start in enumerate(range(0, size.vectors, BODY_LINES)):
        rows = min(BODY_LINES, size.vectors - start)
        lengths = generator.uniform(0.5, 2.0, size=(rows, 1)).astype(np.float32)
        ids = [f"doc-{start + row}" for row in range(rows)]
        name = names[number % len(names)]
        last[name] = await calls.upsert(name, ndjson(ids, clusters.points(rows) * lengths))
    return last


async def apply_round(workers: int, size: Size, indexes: int) -> dict[str, Any]:
    """One round of applying, the backlog in so many indexes."""
    names = [f"backlog-{number}" for number in range(indexes)]
    async with fresh_round() as (one, _, calls):
        await one.start_workers(workers, size.dimensions)
        for name in names:
            await calls.create(name, size.dimensions)
            await one.hold(name)
        last = await upload(calls, names, size)
        clock = await one.let_go()
        await asyncio.gather(*(calls.visible(name, mutation) for name, mutation in last.items()))
        found = clock.read(size.vectors)
        held = sum([await calls.count(name) for name in names])
    if held != size.vectors:
        raise RuntimeError(f"{held} vectors are visible, there should be {size.vectors}")
    return found


async def compaction_round(workers: int, size: Size) -> dict[str, Any]:
    """One round of merging an index of small segments."""
    name = "segments"
    async with fresh_round() as (one, service, calls):
        await calls.create(name, size.dimensions)
        for shard in range(SHARDS):
            await one.hold(name, shard)
        await apply_in_small_commits(service, calls, await upload(calls, [name], size))
        await one.start_workers(workers, size.dimensions)
        before = _manifest(service, name)
        clock = await one.let_go()
        while (await calls.call("GET", f"/{name}/info"))["compaction"]["pending"]:  # noqa: ASYNC110  others do it
            await asyncio.sleep(POLL_S)
        found = clock.read(size.vectors)
        after = _manifest(service, name)
    compacted = after.totals.compacted_bytes - before.totals.compacted_bytes
    segments = len(list(before.segments())), len(list(after.segments()))
    # Each row is written again once, which is all there is to merge.
    if segments[1] != SHARDS or after.vectors != size.vectors:
        raise RuntimeError(f"{segments[0]} segments became {segments[1]}, with {after.vectors} vectors")
    rewritten = compacted / sum(segment.nbytes for segment in after.segments())
    found["vectors_per_s"] *= rewritten
    return found | {"segments": segments, "compacted_bytes": compacted, "rewritten": rewritten}


async def apply_in_small_commits(service: Service, calls: Calls, last: dict[str, str]) -> None:
    """Have a backlog applied by a worker of its own, which leaves many small segments and goes."""
    usual = dict(service.settings)
    service.settings.update(SMALL_COMMITS)
    builder = service.start_worker()
    service.settings = usual
    for name, mutation in last.items():
        await calls.visible(name, mutation)
    builder.terminate()
    await asyncio.to_thread(builder.wait)


def _manifest(service: Service, name: str) -> Manifest:
    engine = open_engine(Settings.model_validate({"data": service.data}))
    return engine.find("default", name).head.refresh()


async def measure_once(task: str, workers: int, size: Size) -> dict[str, Any]:
    """One round of one task."""
    match task:
        case "apply":
            return await apply_round(workers, size, 1)
        case "compaction":
            return await compaction_round(workers, size)
        case _:
            return await apply_round(workers, size, SPREAD)


def measure(size: Size, rounds: int, tasks: list[str]) -> list[dict[str, Any]]:
    """All tasks, one worker and two in turns; a row of medians for each."""
    rows = []
    for task in tasks:
        found: dict[int, list[dict[str, Any]]] = {workers: [] for workers in WORKERS}
        for _ in range(rounds):
            for workers in WORKERS:
                found[workers].append(asyncio.run(measure_once(task, workers, size)))
                _print_round(task, str(workers), found[workers][-1])
        for workers in WORKERS:
            rows.append(_medians(task, workers, found[workers]))
            _print_round(task, f"{workers} median", rows[-1])
    return rows


def _medians(task: str, workers: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("vectors_per_s", "seconds", "cpu_s", "rest_cpu_s")
    medians = {name: statistics.median(one[name] for one in found) for name in names}
    return {"task": task, "workers": workers} | medians | {"rounds": found}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Two workers over one, by task."""
    speed = {(row["task"], row["workers"]): row["vectors_per_s"] for row in rows}
    least, most = WORKERS
    return {task: speed[task, most] / speed[task, least] for task, workers in speed if workers == most}


def _print_round(task: str, workers: str, one: dict[str, Any]) -> None:
    cells = (
        task,
        workers,
        f"{one['vectors_per_s']:,.0f}",
        f"{one['seconds']:.2f}",
        f"{one['cpu_s']:.2f}",
        f"{one['cpu_s'] / one['seconds']:.2f}",
        f"{one['rest_cpu_s'] / one['seconds']:.2f}",
    )
    print_row(cells, WIDTHS)


def print_end(rows: list[dict[str, Any]]) -> None:
    """The ratios, and whether they reach the bar."""
    cores = os.cpu_count()
    print(f"two workers over one (at least {BAR}), on {cores} cores that front end, Valkey and bench share:")
    busy = {(row["task"], row["workers"]): row["cpu_s"] / row["seconds"] for row in rows}
    for task, ratio in ratios(rows).items():
        verdict = "met" if ratio >= BAR else "NOT MET"
        least, most = (f"{busy[task, workers]:.2f}" for workers in WORKERS)
        print(f"  {task:<20}{ratio:6.2f}  {verdict}; cores kept busy by the workers: {least}, then {most}")


def main() -> None:
    """Run it as a command."""
    tasks = ["apply", f"apply, {SPREAD} indexes", "compaction"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=200_000, help="vectors of each backlog")
    parser.add_argument("--dimensions", type=int, default=384, help="their dimensions")
    parser.add_argument("--rounds", type=int, default=3, help="rounds with one worker, and with two")
    parser.add_argument("--task", choices=tasks, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS / "workers.json", help="where figures go")
    options = parser.parse_args()
    size = Size(vectors=options.vectors, dimensions=options.dimensions)
    # Fewer make too few segments for a merge to be due.
    if options.vectors < 16 * BODY_LINES or options.rounds < 1:
        parser.error(f"there must be at least {16 * BODY_LINES:,} vectors, and 1 round")
    titles = ("task", "workers", "vectors/s", "seconds", "CPU s", "their cores", "the rest's")
    print(
        f"{options.vectors:,} x {options.dimensions}, {SHARDS} shards; cores busy: by the workers; by others"
    )
    print_row(titles, WIDTHS)
    rows = measure(size, options.rounds, options.task or tasks)
    print_end(rows)
    data = {
        "vectors": options.vectors,
        "dimensions": options.dimensions,
        "shards": SHARDS,
        "rounds": options.rounds,
        "bar": BAR,
        "ratios": ratios(rows),
    }
    write_result(options.json, "workers", data, rows)


if __name__ == "__main__":
    main()
