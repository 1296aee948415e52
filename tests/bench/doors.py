"""How do the three doors compare, with the same vectors in each vendor's own JSON?

    make bench-doors               or: python -m tests.bench.doors [--vectors 100000] [--dimensions 384] [--rounds 3] [--json FILE]

cloudflare  NDJSON to /client/v4/…/upsert, queries with topK 10
upstash     arrays to /upstash/…/upsert, queries with topK 10
milvus      {"data": […]} to /v2/vectordb/entities/upsert, searches with limit 10, Int64 keys, Bounded

5,000 rows with two metadata values a request, over two connections. The clock stops when all is visible. Then one vector after the other is asked
for over one connection, once the index is merged. Each door in each round has a service of its own; doors take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.bench.harness import (
    BASE,
    RESULTS,
    TOKEN,
    Clusters,
    Matrix,
    Others,
    percentiles,
    print_row,
    serving,
    write_result,
)

DOORS = ("cloudflare", "upstash", "milvus")
NAME = "doors"
ROWS_A_REQUEST = 5_000
CONNECTIONS = 2
QUERIES = 500
NEAREST = 10
MERGED_WAIT_S = 120.0
#: An index that rests is merged further after two seconds.
SETTLED_S = 4.0
WIDTHS = (20, 12, 12, 14, 10)
STATUS = f"{BASE}/{NAME}"
UPSERTS = {
    "cloudflare": f"{BASE}/{NAME}/upsert",
    "upstash": f"/upstash/default/{NAME}/upsert",
    "milvus": "/v2/vectordb/entities/upsert",
}
QUESTIONS = {
    "cloudflare": f"{BASE}/{NAME}/query",
    "upstash": f"/upstash/default/{NAME}/query",
    "milvus": "/v2/vectordb/entities/search",
}


@dataclass(frozen=True, slots=True)
class Door:
    """One door, over a session of its own."""

    name: str
    session: aiohttp.ClientSession

    async def create(self, dimensions: int) -> None:
        """Make a cosine index by the door's own words, where it has any."""
        if self.name == "milvus":
            made = {"collectionName": NAME, "dimension": dimensions, "metricType": "COSINE"}
            await self._post("/v2/vectordb/collections/create", encode(made))
            return
        config = {"dimensions": dimensions, "metric": "cosine"}
        await self._post(BASE, encode({"name": NAME, "config": config}))

    async def upsert(self, body: bytes) -> str:
        """Send rows; returns the mutationId."""
        said, headers = await self._post(UPSERTS[self.name], body)
        return str(said["result"]["mutationId"] if self.name == "cloudflare" else headers["X-Mutation-Id"])

    async def visible(self, mutation: str) -> None:
        """Return once a mutation is visible."""
        while True:
            async with self.session.get(f"{STATUS}/mutations/{mutation}?wait=60") as answer:
                state = (await answer.json())["result"]["state"]
            if state == "visible":
                return
            if state == "failed":
                raise RuntimeError(f"mutation {mutation} failed")

    async def merged(self, rows: int) -> None:
        """Return once the index holds so many rows, and has not been merging for a while."""
        until, quiet_since = time.monotonic() + MERGED_WAIT_S, time.monotonic()
        while time.monotonic() - quiet_since < SETTLED_S:
            async with self.session.get(f"{STATUS}/info") as answer:
                info = (await answer.json())["result"]
            if info["vectorCount"] != rows:
                raise RuntimeError(f"{info['vectorCount']} rows are visible, there should be {rows}")
            if info["compaction"]["pending"] or info["compaction"]["unindexed"]:
                quiet_since = time.monotonic()
            if time.monotonic() > until:
                raise RuntimeError("the index was not merged in time")
            await asyncio.sleep(0.1)

    async def ask(self, body: bytes) -> int:
        """Ask for the nearest rows; returns how many came."""
        said, _ = await self._post(QUESTIONS[self.name], body)
        found = (
            said["result"]["matches"] if self.name == "cloudflare" else said.get("result", said.get("data"))
        )
        return len(found)

    async def _post(self, path: str, body: bytes) -> tuple[Any, Any]:
        async with self.session.post(path, data=body) as answer:
            said = orjson.loads(await answer.read())
            if answer.status >= 300 or said.get("code", 0) != 0:
                raise RuntimeError(f"{path}: {said}")
            return said, answer.headers


def encode(value: Any) -> bytes:
    """A value as JSON."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def body_of(door: str, first: int, points: Matrix) -> bytes:
    """An upload's body in a door's words."""
    rows = range(first, first + len(points))
    match door:
        case "cloudflare":
            given = zip(rows, points, strict=True)
            return b"\n".join(
                encode({"id": str(row), "values": point, "metadata": {"row": row, "topic": "wells"}})
                for row, point in given
            )
        case "upstash":
            return encode(
                [
                    {"id": str(row), "vector": point, "metadata": {"row": row, "topic": "wells"}}
                    for row, point in zip(rows, points, strict=True)
                ]
            )
        case _:
            data = [
                {"id": row, "vector": point, "row": row, "topic": "wells"}
                for row, point in zip(rows, points, strict=True)
            ]
            return encode({"collectionName": NAME, "data": data})


def question_of(door: str, point: Any) -> bytes:
    """A query's body in a door's words."""
    match door:
        case "milvus":
            return encode({"collectionName": NAME, "data": [point], "limit": NEAREST})
        case _:
            return encode({"vector": point, "topK": NEAREST})


async def measure_once(name: str, points: Matrix, questions: Matrix) -> dict[str, Any]:
    """One round of one door."""
    bodies = [
        body_of(name, first, points[first : first + ROWS_A_REQUEST])
        for first in range(0, len(points), ROWS_A_REQUEST)
    ]
    asked = [question_of(name, point) for point in questions]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = aiohttp.ClientTimeout(total=None)
    # Upstash itself takes a thousand rows a request.
    with serving(UPWELL_UPSTASH_VECTORS_MAX=str(ROWS_A_REQUEST)) as service:
        async with aiohttp.ClientSession(service.url, headers=headers, timeout=timeout) as session:
            door = Door(name, session)
            await door.create(points.shape[1])
            began = time.perf_counter()
            mutations = await _sent(door, bodies)
            acknowledged_s = time.perf_counter() - began
            for mutation in mutations:
                await door.visible(mutation)
            visible_s = time.perf_counter() - began
            await door.merged(len(points))
            took_ms = []
            for body in asked:
                asked_at = time.perf_counter()
                if await door.ask(body) != NEAREST:
                    raise RuntimeError("an answer has too few rows")
                took_ms.append(1_000 * (time.perf_counter() - asked_at))
    return {
        "acknowledged_per_s": len(points) / acknowledged_s,
        "visible_per_s": len(points) / visible_s,
        "query_ms": percentiles(took_ms),
        "body_mib": sum(map(len, bodies)) / (1 << 20),
    }


async def _sent(door: Door, bodies: Sequence[bytes]) -> list[str]:
    """Send all bodies, a few at a time; returns their mutations."""
    left, mutations = list(reversed(bodies)), []

    async def some() -> None:
        while left:
            mutations.append(await door.upsert(left.pop()))

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))
    return mutations


def measure(vectors: int, dimensions: int, rounds: int) -> list[dict[str, Any]]:
    """All doors in turns; a row of medians for each."""
    clusters = Clusters(dimensions)
    points, questions = clusters.points(vectors), clusters.points(QUERIES)
    found: dict[str, list[dict[str, Any]]] = {door: [] for door in DOORS}
    for _ in range(rounds):
        for door in DOORS:
            found[door].append(asyncio.run(measure_once(door, points, questions)))
            _print(door, found[door][-1])
    rows = []
    for door in DOORS:
        names = ("acknowledged_per_s", "visible_per_s", "body_mib")
        medians: dict[str, Any] = {
            name: statistics.median(one[name] for one in found[door]) for name in names
        }
        medians["query_ms"] = {
            part: statistics.median(one["query_ms"][part] for one in found[door]) for part in ("p50", "p99")
        }
        rows.append({"door": door} | medians | {"rounds": found[door]})
        _print(f"{door}, median", rows[-1])
    return rows


def _print(door: str, one: dict[str, Any]) -> None:
    cells = (
        door,
        f"{one['acknowledged_per_s']:,.0f}",
        f"{one['visible_per_s']:,.0f}",
        f"{one['query_ms']['p50']:.2f}",
        f"{one['query_ms']['p99']:.2f}",
    )
    print_row(cells, WIDTHS)


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000, help="vectors of a round")
    parser.add_argument("--dimensions", type=int, default=384, help="their dimensions")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each door")
    parser.add_argument("--json", type=Path, default=RESULTS / "doors.json", help="where figures go")
    options = parser.parse_args()
    if options.vectors < NEAREST or options.dimensions < 1 or options.rounds < 1:
        parser.error(f"there must be at least {NEAREST} vectors of 1 dimension, and 1 round")
    print(
        f"{options.vectors:,} x {options.dimensions}, {ROWS_A_REQUEST:,} rows a request, {CONNECTIONS} connections"
    )
    print_row(("door", "acked/s", "visible/s", "query p50 ms", "p99 ms"), WIDTHS)
    with Others() as others:
        rows = measure(options.vectors, options.dimensions, options.rounds)
    others.tell()
    data = {"vectors": options.vectors, "dimensions": options.dimensions, "rounds": options.rounds}
    write_result(options.json, "doors", data | {"other_programs_cores": others.cores}, rows)


if __name__ == "__main__":
    main()
