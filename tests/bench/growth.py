"""Does an upsert cost the same in a large index as in a small one? Time to visible and bytes written at three sizes.

    make bench-growth              or: python -m tests.bench.growth [--sizes 10000,100000,1000000] [--repeats 40] [--json FILE]

One index of 128 dimensions is grown to each size. There, upserts of 5,000 vectors are measured one after another: half replace
ids chosen at random over the whole index, half are new. After each, and not measured, as many ids chosen at random are deleted
as were new, so that the index keeps its size. What is written for each is told by kind of object: everything that appears below
the store between the sending of the upsert and its becoming visible. The processor time that the service took is told too: other
programs on the machine lengthen the time to visible, and that much less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.harness import (
    MIB,
    RESULTS,
    Calls,
    Clusters,
    Others,
    Serving,
    Written,
    connected,
    disk_bytes,
    ndjson,
    percentiles,
    print_row,
    serving,
    write_result,
)
from upwell.shard.compact import MERGED

DIMENSIONS = 128
BODY_LINES = 5_000
INDEX = "growth"
BAR = 1.5
#: The ratios that the bar is for; the others are told beside them.
#: What an upsert itself writes: log, segments, deletion vectors, manifest. What merging adds later grows with the logarithm.
BARRED = ("visible_p50_ms", "bytes_per_upsert", "bytes_without_deletions")
KINDS = ("log", "segment", "deletions", "manifest", "compaction", "other")
WIDTHS = (10, 9, 9, 9, 11, 9, 9, 11, 10, 12, 12, 10)


def kind_of(path: str) -> str:
    """The kind of an object, from its path below the store: ``index/<id>/<folder>/<name>``."""
    pieces = path.split("/")
    folder = pieces[2] if len(pieces) > 3 and pieces[0] == "index" else "other"
    if is_compaction(path):
        return "compaction"
    return {"payload": "log"}.get(folder, folder if folder in KINDS else "other")


def is_compaction(path: str) -> bool:
    """Did background compaction write this object, and no mutation?"""
    return path.endswith(MERGED)


def by_kind(objects: Iterable[tuple[str, int]]) -> Counter[str]:
    """Bytes by kind of object."""
    counted: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for path, size in objects:
        counted[kind_of(path)] += size
    return counted


class Grown:
    """The index under test, and which ids it holds."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._clusters = Clusters(DIMENSIONS)
        self._generator = np.random.default_rng(5)
        self._live = np.zeros(0, np.int64)
        self._leaving: list[str] = []
        self._next_id = 0
        #: Vectors sent so far, replacements included.
        self.sent = 0

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return len(self._live)

    async def grow(self, size: int) -> float:
        """Add vectors until there are ``size``; returns the seconds until all were visible."""
        mutation, seconds = "", 0.0
        while self.size < size:
            ids = self._new_ids(min(BODY_LINES, size - self.size))
            body = self._body(ids)
            began = time.perf_counter()
            mutation = await self._calls.upsert(INDEX, body)
            seconds += time.perf_counter() - began
            self._live = np.concatenate([self._live, ids])
        began = time.perf_counter()
        if mutation:
            await self._calls.visible(INDEX, mutation)
        return seconds + time.perf_counter() - began

    async def upsert_half(self) -> float:
        """One measured upsert, half replacing and half new; returns the seconds to visible."""
        half = BODY_LINES // 2
        places = self._generator.choice(self.size, BODY_LINES, replace=False)
        new = self._new_ids(half)
        leaving = self._live[places[half:]]
        body = self._body(self._generator.permutation(np.concatenate([self._live[places[:half]], new])))
        began = time.perf_counter()
        await self._calls.visible(INDEX, await self._calls.upsert(INDEX, body))
        seconds = time.perf_counter() - began
        self._live[places[half:]] = new
        self._leaving = _names(leaving)
        return seconds

    async def delete_as_many(self) -> None:
        """Delete as many as the last upsert added."""
        await self._calls.visible(INDEX, await self._calls.delete(INDEX, self._leaving))

    def _new_ids(self, count: int) -> npt.NDArray[np.int64]:
        self._next_id += count
        return np.arange(self._next_id - count, self._next_id)

    def _body(self, ids: npt.NDArray[np.int64]) -> bytes:
        self.sent += len(ids)
        return ndjson(_names(ids), self._clusters.points(len(ids)))


def _names(ids: npt.NDArray[np.int64]) -> list[str]:
    return [f"doc-{id}" for id in ids]


async def measure(sizes: list[int], repeats: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole run: what holds for all of it, and a row a size."""
    rows = []
    with serving() as service, Written(service.store) as written:
        async with connected(service.url) as calls:
            await calls.create(INDEX, DIMENSIONS)
            grown = Grown(calls)
            print_head()
            for size in sizes:
                rows.append(await measure_size(size, repeats, grown, service, written))
                print_size(rows[-1])
            count = await calls.count(INDEX)
        if count != grown.size:
            raise RuntimeError(f"{count} vectors are visible, there should be {grown.size}")
        bytes_written = by_kind(written.since())
        on_disk = disk_bytes(service.store)
    ingested = grown.sent * DIMENSIONS * 4
    data = {
        "dimensions": DIMENSIONS,
        "body_lines": BODY_LINES,
        "repeats": repeats,
        "bytes_ingested": ingested,
        "bytes_written": dict(bytes_written),
        "write_amplification": sum(bytes_written.values()) / ingested,
        "disk_bytes": on_disk,
        "bar": BAR,
        "ratios": ratios(rows),
    }
    return data, rows


async def measure_size(
    size: int, repeats: int, grown: Grown, service: Serving, written: Written
) -> dict[str, Any]:
    """Grow to one size, and measure the upserts there."""
    held = grown.size
    grow_s = await grown.grow(size)
    seconds: list[float] = []
    cpu_s = 0.0
    counted: Counter[str] = Counter()
    manifest = 0
    for _ in range(repeats):
        mark, before = written.mark(), service.usage()
        seconds.append(await grown.upsert_half())
        after = service.usage()
        cpu_s += after.cpu_s - before.cpu_s if after and before else 0.0
        objects = written.since(mark)
        counted.update(by_kind(objects))
        manifest = max([nbytes for path, nbytes in objects if kind_of(path) == "manifest"], default=manifest)
        await grown.delete_as_many()
    found = percentiles([one * 1000 for one in seconds])
    each = {kind: counted[kind] / repeats for kind in KINDS}
    used = service.usage()
    return {
        "size": size,
        "repeats": repeats,
        "grow_vectors_per_s": (size - held) / grow_s if grow_s else 0.0,
        "visible_p50_ms": found["p50"],
        "visible_mean_ms": statistics.fmean(seconds) * 1000,
        "visible_max_ms": found["max"],
        "cpu_ms_per_upsert": cpu_s * 1000 / repeats,
        "bytes_per_upsert": sum(each.values()) - each["compaction"],
        "bytes_with_compaction": sum(each.values()),
        "bytes_by_kind": each,
        "bytes_without_deletions": sum(each.values()) - each["compaction"] - each["deletions"],
        "manifest_bytes": manifest,
        "rss_anon_mib": used and used.rss_anon_mib,
        "rss_mib": used and used.rss_mib,
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The largest size over the smallest."""
    first, last = rows[0], rows[-1]
    names = (*BARRED, "bytes_with_compaction", "visible_max_ms", "cpu_ms_per_upsert", "manifest_bytes")
    return {name: last[name] / first[name] for name in names if first[name]}


def print_head() -> None:
    """The head of the table."""
    print(f"upserts of {BODY_LINES:,} x {DIMENSIONS}, half replacing and half new; MiB written for each")
    titles = (
        "vectors", "p50 ms", "max ms", "CPU ms", "MiB each", "log", "segment", "deletions", "manifest", "compaction",
        "1 manifest", "RSS anon",
    )  # fmt: skip
    print_row(titles, WIDTHS)


def print_size(row: dict[str, Any]) -> None:
    """A line of the table."""
    each = row["bytes_by_kind"]
    cells = (
        f"{row['size']:,}",
        f"{row['visible_p50_ms']:.0f}",
        f"{row['visible_max_ms']:.0f}",
        f"{row['cpu_ms_per_upsert']:.0f}",
        f"{row['bytes_with_compaction'] / MIB:.2f}",
        *(f"{each[kind] / MIB:.2f}" for kind in ("log", "segment", "deletions", "manifest", "compaction")),
        f"{row['manifest_bytes'] / 1024:.1f} KiB",
        f"{row['rss_anon_mib'] or 0:.0f} MiB",
    )
    print_row(cells, WIDTHS)


def print_end(data: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The ratios, and whether they are within the bar."""
    print(f"{rows[-1]['size']:,} over {rows[0]['size']:,} (at most {data['bar']}):")
    for name, ratio in data["ratios"].items():
        verdict = "" if name not in BARRED else "met" if ratio <= data["bar"] else "NOT MET"
        print(f"  {name:<26}{ratio:8.2f}  {verdict}".rstrip())
    print(f"written over ingested, the whole run: {data['write_amplification']:.2f}")


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000,1000000", help="ascending, with commas between")
    parser.add_argument("--repeats", type=int, default=40, help="measured upserts at each size")
    parser.add_argument("--json", type=Path, default=RESULTS / "growth.json", help="where figures go")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if sizes != sorted(sizes) or sizes[0] < BODY_LINES or options.repeats < 1:
        parser.error(f"sizes must ascend from at least {BODY_LINES:,}, and repeats be at least 1")
    with Others() as others:
        data, rows = asyncio.run(measure(sizes, options.repeats))
    print_end(data, rows)
    others.tell()
    data["others_cores"] = others.cores
    write_result(options.json, "growth", data, rows)


if __name__ == "__main__":
    main()
