"""Texts found by their words: Upwell's Milvus door beside other stores that rank by BM25, with the same texts, analyzed alike, in one run.

    make bench-full-text           or: python -m tests.bench.full_text [--texts 100000] [--queries 500] [--only …] [--json FILE]

Each store runs in a process of its own, one after the other, on two cores. The clock starts at the first text handed over; texts are
acknowledged when all are durable, and visible when all are found and covered by the store's index. Once it is merged, queries of three words
are asked one after the other, and then by 1, 4 and 16 clients that are threads of one process. All rank by Okapi BM25 with k1 1.2 and b 0.75, of
words in lower case, without stop words or stems, as far as they can be told; how well their first ten agree with exact BM25 is told. Settings
and answers of each are in the JSON. Libraries answer in the asking process, without a connection.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.full_text.ask import CLIENTS
from tests.bench.full_text.base import STORES
from tests.bench.full_text.data import K1, TOP_K, B, Data, Exact, judge
from tests.bench.harness import RESULTS, Others, print_row, write_result
from tests.bench.peers.__main__ import THREADS, made_by, python_of, run
from tests.bench.peers.install import ensure

WIDTHS = (16, 9, 9, 9, 9, 11, 11, *(11 for _ in CLIENTS))
HEADING = ("", "p50 ms", "p95 ms", "p99 ms", "first ms", "agreeing", "scores off", *(f"{one} clients" for one in CLIENTS))  # fmt: skip


def measure(name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """One store in a process of its own; why not, if that did not work."""
    listing = STORES[name]
    about: dict[str, Any] = {"name": listing.title, "kind": listing.kind}
    if hasattr(os, "getloadavg"):
        about["load_average_before"] = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch, ignore_cleanup_errors=True) as folder:
        own, result = Path(folder) / "data", Path(folder) / "result.json"
        own.mkdir()
        command = [str(python_of(name)), "-m", "tests.bench.full_text.ask", "--store", name]
        command += ["--data", str(data), "--folder", str(own), "--result", str(result)]
        with Others() as others:
            problem = run([*command, "--threads", str(THREADS)])
        if problem is None:
            about |= json.loads(result.read_text())
        else:
            about["error"] = problem
    return about | {"others_cores": others.cores and round(others.cores, 3)}


def judged(row: dict[str, Any], data: Data, exact: Exact) -> dict[str, Any]:
    """What a store told, with how its answers agree with the exact ones in place of them."""
    for case, found in row.get("cases", {}).items():
        told = judge(exact, data.queries[case], found.pop("answers"))
        found["agreeing"] = round(told.agreeing, 4)
        found["scores_off"] = float(f"{told.scores_off:.2g}")
    return row


def show(row: dict[str, Any]) -> None:
    """Print what a store told."""
    print(f"\n{row['name']}: ", end="")
    if "error" in row:
        print(row["error"], flush=True)
        return
    settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
    print(f"{row['version']}; {settings}")
    print(
        f"{row['acknowledged_per_s']:,} texts/s acknowledged, {row['visible_per_s']:,} visible; "
        f"{row.get('rss_mib', 0):,.0f} MiB of memory, {row['disk_mib']:,.0f} on disk; "
        f"load average before {row.get('load_average_before', 0)}, others took {row['others_cores'] or 0:.2f} cores"
    )
    print_row(HEADING, WIDTHS)
    for case, found in row["cases"].items():
        times = [f"{found[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms", "first_ms")]
        throughput = [f"{found['per_s'][str(clients)]:,.0f}/s" for clients in CLIENTS]
        print_row(
            (case, *times, f"{found['agreeing']:.2%}", f"{found['scores_off']:.1g}", *throughput), WIDTHS
        )


def options_of() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500, help="of each case")
    parser.add_argument("--only", default=",".join(STORES), help="names of stores, with commas between")
    parser.add_argument("--json", type=Path, default=RESULTS / "full_text.json", help="where figures go")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(STORES)
    if unknown:
        parser.error(f"no such stores: {', '.join(sorted(unknown))}; there are {', '.join(STORES)}")
    if options.texts < 1 or options.queries < 1:
        parser.error("there must be at least 1 text and 1 query")
    return options


def measure_all(names: Sequence[str], data: Data, folder: Path, scratch: Path) -> list[dict[str, Any]]:
    """A row for each store, printed as soon as it is known."""
    exact, rows = Exact(data.texts), []
    for name in names:
        rows.append(judged(measure(name, folder, scratch), data, exact))
        show(rows[-1])
    return rows


def main() -> None:
    """Run it as a command."""
    options = options_of()
    missing = {} if options.only == "upwell" else ensure()
    for package, reason in missing.items():
        print(f"{package} could not be installed: {reason}")
    numbers = {name: getattr(options, name) for name in ("texts", "queries")}
    print(f"{options.texts:,} texts, {options.queries} queries of three words a case, the first {TOP_K}")
    with tempfile.TemporaryDirectory(prefix="upwell-full-text-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "data"
        made_by("tests.bench.full_text.data", numbers, folder)
        rows = measure_all(options.only.split(","), Data.read(folder), folder, Path(scratch))
    about = numbers | {"k1": K1, "b": B, "threads": THREADS, "not_installed": missing}
    write_result(options.json, "full_text", about, rows)


if __name__ == "__main__":
    main()
