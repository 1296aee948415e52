"""Measures one peer with one kind of index, in a process of its own; writes what it found as JSON.

python -m tests.bench.peers.measure --peer NAME --variant NAME --data FOLDER --folder FOLDER --result FILE
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.peers.base import PEERS, RECALL_WANTED, TOP_K, Effort, Matrix, Peer, Task
from tests.bench.peers.footprint import PROC, disk_mib, own_memory, tree_memory

#: Query settings whose recall is this far below what is wanted in the first queries are not tried with all.
GLANCE, GLANCE_MARGIN = 100, 0.02


def run_queries(
    peer: Peer, queries: Matrix, truth: npt.NDArray[np.int64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Ask one query after the other; recall@10, and each one's milliseconds."""
    taken_ms, hits = np.empty(len(queries)), 0
    for number, query in enumerate(queries):
        began = time.perf_counter()
        found = peer.search(query)
        taken_ms[number] = (time.perf_counter() - began) * 1000
        hits += len(set(found) & set(truth[number].tolist()))
    return hits / (len(queries) * min(TOP_K, truth.shape[1])), taken_ms


def sweep(peer: Peer, efforts: list[Effort], queries: Matrix, truth: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The cheapest query settings that reach the recall wanted, or the dearest there are."""
    for effort in efforts:
        peer.tune(effort)
        glance, _ = run_queries(peer, queries[:GLANCE], truth[:GLANCE])  # warms up as well
        if glance < RECALL_WANTED - GLANCE_MARGIN and effort is not efforts[-1]:
            continue
        recall, taken_ms = run_queries(peer, queries, truth)
        if recall >= RECALL_WANTED or effort is efforts[-1]:
            break
    else:
        raise ValueError("no query settings to try")
    return {
        "recall_at_10": round(recall, 4),
        "p50_ms": round(float(np.percentile(taken_ms, 50)), 3),
        "p99_ms": round(float(np.percentile(taken_ms, 99)), 3),
        "query": effort,
    }


def measure(name: str, variant: str, data: Path, folder: Path, threads: int) -> dict[str, Any]:
    queries: Matrix = np.load(data / "queries.npy")
    truth: npt.NDArray[np.int64] = np.load(data / "truth.npy")
    task = Task(np.load(data / "vectors.npy"), folder, variant, threads)
    listing = PEERS[name]
    peer, build = listing.make(task), listing.variants()[variant]
    before = own_memory()
    try:
        peer.prepare()
        began = time.perf_counter()
        peer.load()
        load_s = time.perf_counter() - began
        peer.release()
        found = sweep(peer, list(build.efforts), queries, truth)
        roots = peer.processes()
        memory = tree_memory(roots) if roots else own_memory() - before
        return {
            "version": peer.version(),
            "load_s": round(load_s, 3),
            "vectors_per_s": round(task.rows / load_s),
            **{key: value for key, value in found.items() if key != "query"},
            **{key: round(value, 1) for key, value in asdict(memory).items() if PROC.is_dir()},
            "disk_mib": round(disk_mib(folder), 1),
            "settings": {"index": variant, **build.settings, **found["query"]},
            **peer.notes(),
        }
    finally:
        peer.close()


def confine(cores: int) -> None:
    """Let this process, and what it starts, have so many cores, and end in good order when it is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # servers are stopped on the way out
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    confine(options.threads)
    found = measure(options.peer, options.variant, options.data, options.folder, options.threads)
    options.result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
