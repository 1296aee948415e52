"""Queries with filters: Upwell beside other vector stores, on the same vectors with the same properties, in one run.

    make bench-filters             or: python -m tests.bench.filters [--vectors 100000] [--dimensions 384] [--only …] [--json FILE]

Each store runs in a process of its own, one after the other, with its own indexes of properties. When all is loaded, indexed and
merged, every case asks 500 queries one after the other over one connection, each with a filter of its own; a slow store gets
fewer, in half a minute. A store is asked in the ways
that its documentation offers, of each with the cheapest settings that reach recall@10 of 0.97 against exact search among the rows
that the filter lets through; of these the fastest counts, case by case, the others are in the JSON under ``tried``. Upwell has nothing
to set. ``back`` is how many of the ten came back, of those there are; ``first`` is the first query of a case, before any was tuned.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.filters.base import STORES
from tests.bench.harness import RESULTS, Others, print_row, write_result
from tests.bench.peers.__main__ import THREADS, made_by, python_of, run
from tests.bench.peers.base import RECALL_WANTED
from tests.bench.peers.install import ensure

WIDTHS = (28, 10, 10, 9, 9, 10, 4)
HEADING = ("", "p50 ms", "p99 ms", "recall", "back", "first ms", "")
#: prctl's PR_SET_CHILD_SUBREAPER.
SUBREAPER = 36


def adopt_orphans() -> None:
    """Be the parent of servers that detach from theirs, as PostgreSQL does: what they take is then known to be ours."""
    with contextlib.suppress(OSError, AttributeError):  # where there is no glibc
        ctypes.CDLL("libc.so.6").prctl(SUBREAPER, 1, 0, 0, 0)


def bury_orphans() -> None:
    """Take note of the processor time of adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def measure(name: str, build: str, data: Path, scratch: Path) -> dict[str, Any]:
    """One store with one kind of index, in a process of its own; why not, if that did not work."""
    listing = STORES[name]
    about: dict[str, Any] = {"name": listing.title, "kind": listing.kind, "build": build}
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch, ignore_cleanup_errors=True) as folder:
        own, result = Path(folder) / "data", Path(folder) / "result.json"
        own.mkdir()
        command = [str(python_of(name)), "-m", "tests.bench.filters.ask", "--store", name, "--build", build]
        command += ["--data", str(data), "--folder", str(own), "--result", str(result)]
        with Others() as others:
            problem = run([*command, "--threads", str(THREADS)])
            bury_orphans()
        if problem is None:
            about |= json.loads(result.read_text())
        else:
            about["error"] = problem
    return about | {"others_cores": others.cores and round(others.cores, 3)}


def show(row: dict[str, Any]) -> None:
    """Print what a store told."""
    print(f"\n{row['name']}, {row['build']}: ", end="")
    if "error" in row:
        print(row["error"], flush=True)
        return
    print(
        f"{row['version']}, loaded in {row['load_s']:.1f} s; others took {row['others_cores'] or 0:.2f} cores"
    )
    print_row(HEADING, WIDTHS)
    for case, found in row["cases"].items():
        times = [f"{found[name]:.2f}" for name in ("p50_ms", "p99_ms")]
        shares = [f"{found['recall_at_10']:.4f}", f"{found['returned']:.1%}"]
        query = " ".join(f"{name}={value}" for name, value in found["query"].items())
        print_row((case, *times, *shares, f"{found['first_ms']:.2f}", f"  {query}"), WIDTHS)


def options_of() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=500, help="of each case")
    parser.add_argument("--only", default=",".join(STORES), help="names of stores, with commas between")
    parser.add_argument("--json", type=Path, default=RESULTS / "filters.json", help="where figures go")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(STORES)
    if unknown:
        parser.error(f"no such stores: {', '.join(sorted(unknown))}; there are {', '.join(STORES)}")
    return options


def measure_all(names: Sequence[str], data: Path, scratch: Path) -> list[dict[str, Any]]:
    """A row for each store and each kind of index, printed as soon as it is known."""
    rows = []
    for name in names:
        for build in STORES[name].builds():
            rows.append(measure(name, build, data, scratch))
            show(rows[-1])
    return rows


def main() -> None:
    """Run it as a command."""
    options = options_of()
    missing = {} if options.only == "upwell" else ensure()
    for package, reason in missing.items():
        print(f"{package} could not be installed: {reason}")
    numbers = {name: getattr(options, name) for name in ("vectors", "dimensions", "queries")}
    adopt_orphans()
    with (
        tempfile.TemporaryDirectory(prefix="upwell-filters-", ignore_cleanup_errors=True) as scratch,
        Others() as others,
    ):
        made_by("tests.bench.filters.data", numbers, Path(scratch) / "data")
        rows = measure_all(options.only.split(","), Path(scratch) / "data", Path(scratch))
    print()
    others.tell()
    about = numbers | {"metric": "cosine", "recall_wanted": RECALL_WANTED, "threads": THREADS}
    about |= {"not_installed": missing, "others_cores": others.cores}
    write_result(options.json, "filters", about, rows)


if __name__ == "__main__":
    main()
