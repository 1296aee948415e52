"""Measures one store with one kind of index, in a process of its own; writes what it found as JSON.

python -m tests.bench.filters.ask --store NAME --build NAME --data FOLDER --folder FOLDER --result FILE
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.filters.base import STORES, Effort, FilteredTask, Store
from tests.bench.filters.cases import Columns, Where
from tests.bench.filters.data import NEIGHBOURS, Asked, Data
from tests.bench.peers.base import RECALL_WANTED, Matrix
from tests.bench.peers.measure import GLANCE_MARGIN, confine

#: So many queries tell whether settings are worth being tried with all.
GLANCE = 50
#: A store that is slow is asked fewer: a case ends after so long, and not before so many queries.
CASE_S, CASE_QUERIES = 30.0, 100
#: With settings that take so many times as long as the best known, all queries are not asked.
HOPELESS = 3.0


@dataclass(frozen=True, slots=True)
class Told:
    """What a store told about a case: how well and how fast."""

    recall: float
    returned: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    queries: int


def ask(store: Store, queries: Matrix, asked: Asked, columns: Columns, count: int | None = None) -> Told:
    """One query after the other. Raises RuntimeError for an answer that its filter forbids, which no settings excuse."""
    taken_ms, hits, came, there = [], 0, 0, 0
    ends = time.perf_counter() + CASE_S
    for query, where, truth, matching in zip(
        queries[:count], asked.wheres[:count], asked.truth[:count], asked.matching[:count], strict=True
    ):
        began = time.perf_counter()
        found = store.ask(query, where)
        taken_ms.append((time.perf_counter() - began) * 1000)
        hits += len(set(found) & set(truth))
        came += len(found)
        there += min(NEIGHBOURS, matching)
        _check(found, where, columns)
        if time.perf_counter() > ends and len(taken_ms) >= CASE_QUERIES:
            break
    p50, p99 = np.percentile(taken_ms, [50, 99]).tolist()
    return Told(hits / there, came / there, p50, p99, taken_ms[0], len(taken_ms))


def _check(found: Sequence[int], where: Where, columns: Columns) -> None:
    rows = {name: column[list(found)] for name, column in columns.items()}
    if len(set(found)) != len(found):
        raise RuntimeError(f"an id came twice for {where}")
    for condition in where:
        if not condition.holds(rows).all():
            raise RuntimeError(f"an answer is not what {condition} lets through")


def best_way(
    store: Store, ways: Sequence[Sequence[Effort]], queries: Matrix, asked: Asked, columns: Columns
) -> dict[str, Any]:
    """A case by the fastest way that reaches the recall wanted, each with the cheapest settings that do; else of the best recall."""
    first_ms: float | None = None
    tried: list[tuple[Told, Effort]] = []
    for way in ways:
        for effort in way:
            store.tune(effort)
            glance = ask(store, queries, asked, columns, GLANCE)  # warms up as well
            first_ms = glance.first_ms if first_ms is None else first_ms
            if glance.recall < RECALL_WANTED - GLANCE_MARGIN and effort is not way[-1]:
                continue
            good = [told.p50_ms for told, _ in tried if told.recall >= RECALL_WANTED]
            if good and glance.p50_ms > HOPELESS * min(good):
                break
            told = ask(store, queries, asked, columns)
            if told.recall >= RECALL_WANTED or effort is way[-1]:
                tried.append((told, effort))
                break
    enough = [one for one in tried if one[0].recall >= RECALL_WANTED]
    if enough:
        chosen = min(enough, key=lambda one: one[0].p50_ms)
    else:
        chosen = max(tried, key=lambda one: one[0].recall)
    return _row(*chosen) | {
        "first_ms": first_ms and round(first_ms, 3),
        "tried": [_row(*one) for one in tried if one is not chosen],
    }


def _row(told: Told, effort: Effort) -> dict[str, Any]:
    return {
        "p50_ms": round(told.p50_ms, 3),
        "p99_ms": round(told.p99_ms, 3),
        "recall_at_10": round(told.recall, 4),
        "returned": round(told.returned, 4),
        "queries": told.queries,
        "query": dict(effort),
    }


def measure(name: str, build: str, data: Data, folder: Path, threads: int) -> dict[str, Any]:
    """Load a store and ask it all cases."""
    listing = STORES[name]
    store = listing.make(FilteredTask(data.vectors, folder, build, threads, data.columns))
    how = listing.builds()[build]
    try:
        store.prepare()
        began = time.perf_counter()
        store.load()
        load_s = time.perf_counter() - began
        store.release()
        cases = {}
        for case, asked in data.cases.items():
            cases[case] = best_way(store, how.ways, data.queries, asked, data.columns)
        return {
            "version": store.version(),
            "load_s": round(load_s, 3),
            "settings": {"index": build, **how.settings},
            "cases": cases,
        }
    finally:
        store.close()


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=STORES, required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    confine(options.threads)
    found = measure(options.store, options.build, Data.read(options.data), options.folder, options.threads)
    options.result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
