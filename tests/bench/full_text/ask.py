"""Measures one store in a process of its own; writes what it found, with all answers, as JSON.

python -m tests.bench.full_text.ask --store NAME --data FOLDER --folder FOLDER --result FILE
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.full_text.base import STORES, Answer, Store, TextTask
from tests.bench.full_text.data import Data
from tests.bench.peers.footprint import PROC, disk_mib, own_memory, tree_memory
from tests.bench.peers.measure import confine

CLIENTS = (1, 4, 16)
#: Asked before the clock runs; the first of all is told by itself.
WARM = 20
#: A slow store is asked fewer: one client after so long, and several after so long again.
CASE_S = 30.0
AT_LEAST = 20


def one_by_one(store: Store, queries: Sequence[str]) -> dict[str, Any]:
    """One query after the other."""
    ask = store.client()
    began = time.perf_counter()
    ask(queries[0])
    first_ms = (time.perf_counter() - began) * 1000
    for query in queries[1:WARM]:
        ask(query)
    taken_ms: list[float] = []
    answers: list[Answer] = []
    ends = time.perf_counter() + CASE_S
    for query in queries:
        began = time.perf_counter()
        answers.append(ask(query))
        taken_ms.append((time.perf_counter() - began) * 1000)
        if time.perf_counter() > ends and len(taken_ms) >= AT_LEAST:
            break
    p50, p95, p99 = np.percentile(taken_ms, [50, 95, 99]).tolist()
    return {
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "p99_ms": round(p99, 3),
        "first_ms": round(first_ms, 3),
        "queries": len(taken_ms),
        "answers": answers,
    }


def at_once(store: Store, queries: Sequence[str], clients: int) -> float:
    """Queries a second by several clients, each of which asks again once it is answered; every query is asked twice."""
    waiting = itertools.chain(queries, queries)
    ends = time.perf_counter() + CASE_S / len(CLIENTS)

    def some(_: int) -> int:
        ask, asked = store.client(), 0
        for query in waiting:
            ask(query)
            asked += 1
            if time.perf_counter() > ends:
                break
        return asked

    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        asked = sum(pool.map(some, range(clients)))
        return asked / (time.perf_counter() - began)


def measure(name: str, data: Data, folder: Path, threads: int) -> dict[str, Any]:
    """Load a store and ask it all queries."""
    task = TextTask.of(data.texts, folder, threads)
    store = STORES[name].make(task)
    before = own_memory()
    try:
        store.prepare()
        began = time.perf_counter()
        store.load()
        visible_s = time.perf_counter() - began
        store.release()
        cases = {}
        for case, queries in data.queries.items():
            cases[case] = one_by_one(store, queries)
            cases[case]["per_s"] = {
                str(clients): round(at_once(store, queries, clients), 1) for clients in CLIENTS
            }
        roots = store.processes()
        memory = tree_memory(roots) if roots else own_memory() - before
        return {
            "version": store.version(),
            "acknowledged_per_s": round(task.rows / store.acknowledged_s),
            "visible_per_s": round(task.rows / visible_s),
            "cases": cases,
            **{key: round(value, 1) for key, value in asdict(memory).items() if PROC.is_dir()},
            "disk_mib": round(disk_mib(folder), 1),
            "settings": dict(store.SETTINGS),
            **store.notes(),
        }
    finally:
        store.close()


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=STORES, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    confine(options.threads)
    found = measure(options.store, Data.read(options.data), options.folder, options.threads)
    options.result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
