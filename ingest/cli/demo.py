"""``upwell demo``: the main job on a running service, with real input and measured answers.

Makes a file of 10,000 clustered vectors with metadata (seeded, so that everybody's is the same), uploads it, follows it to
visible, measures recall against exact search, and times small mutations from acknowledged to visible.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
import typer
from rich.console import Console
from rich.table import Table

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from ingest.cli.upload import Bar, Summary, upload_lines, wait_until_visible

DIMENSIONS = 384
CLUSTERS = 64
#: How far vectors stray from their cluster's centre.
SPREAD = 0.6
QUERIES = 100
TOP_K = 10
SMALL_MUTATIONS = 50
TOPICS = ("rivers", "springs", "wells", "tides", "rain", "ice", "clouds", "lakes")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a demo found. Milliseconds, but for the upload's seconds."""

    vectors: int
    file_megabytes: float
    upload_seconds_to_acknowledged: float
    upload_seconds_to_visible: float
    recall_at_10: float
    query_p50_ms: float
    query_p99_ms: float
    acknowledged_p50_ms: float
    visible_p50_ms: float
    visible_p99_ms: float


def demo(
    vectors: Annotated[int, typer.Option(help="How many vectors to upload.", min=100)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the generator.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete the index afterwards.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and no bar.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Show the main job on a running service: upload, follow, query, measure."""
    console = Console(stderr=json)
    name = f"demo-{secrets.token_hex(4)}"

    async def work() -> Measured:
        async with Client(url, token, account) as client:
            config = {"dimensions": DIMENSIONS, "metric": "cosine"}
            await client.call("POST", client.indexes(), json={"name": name, "config": config})
            console.print(f"created index [bold]{name}[/]: {DIMENSIONS} dimensions, cosine")
            try:
                return await _measure(client, name, vectors, seed, console, bar=not json)
            finally:
                if not keep:
                    await client.call("DELETE", client.indexes(f"/{name}"))

    measured = run(work())
    if json:
        Console().print_json(data=asdict(measured))
    else:
        console.print(_table(measured))


async def _measure(
    client: Client, name: str, count: int, seed: int, console: Console, *, bar: bool
) -> Measured:
    generator = np.random.default_rng(seed)
    corpus, queries = _clustered(generator, count)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.ndjson"
        _write(file, corpus, generator)
        console.print(f"wrote {count:,} vectors, {file.stat().st_size / 1e6:.1f} MB of NDJSON (seed {seed})")
        megabytes = file.stat().st_size / 1e6
        with file.open("rb") as source, Bar(str(file), shown=bar) as following:
            summary: Summary = await upload_lines(client, name, "upsert", source, following)
    recall, query_ms = await _query(client, name, corpus, queries)
    acknowledged_ms, visible_ms = await _small_mutations(client, name, corpus)
    return Measured(
        vectors=count,
        file_megabytes=round(megabytes, 1),
        upload_seconds_to_acknowledged=round(summary.seconds_to_acknowledged, 3),
        upload_seconds_to_visible=round(summary.seconds_to_visible, 3),
        recall_at_10=round(recall, 4),
        query_p50_ms=_percentile(query_ms, 50),
        query_p99_ms=_percentile(query_ms, 99),
        acknowledged_p50_ms=_percentile(acknowledged_ms, 50),
        visible_p50_ms=_percentile(visible_ms, 50),
        visible_p99_ms=_percentile(visible_ms, 99),
    )


Vectors = npt.NDArray[np.float32]


def _clustered(generator: np.random.Generator, count: int) -> tuple[Vectors, Vectors]:
    """Unit vectors around common centres, and as many queries from the same distribution as we ask."""
    centres = generator.normal(size=(CLUSTERS, DIMENSIONS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    total = count + QUERIES
    noise = generator.normal(size=(total, DIMENSIONS)) * SPREAD / np.sqrt(DIMENSIONS)
    points = centres[generator.integers(CLUSTERS, size=total)] + noise
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return points[:count], points[count:]


def _write(file: Path, corpus: Vectors, generator: np.random.Generator) -> None:
    topics, years = (
        generator.integers(len(TOPICS), size=len(corpus)),
        generator.integers(1990, 2027, size=len(corpus)),
    )
    with file.open("wb") as out:
        for number, vector in enumerate(corpus):
            topic = TOPICS[topics[number]]
            metadata = {"title": f"On {topic}, no. {number}", "topic": topic, "year": int(years[number])}
            line = {"id": f"doc-{number}", "values": vector, "metadata": metadata}
            out.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


async def _query(client: Client, name: str, corpus: Vectors, queries: Vectors) -> tuple[float, list[float]]:
    """Recall@10 against exact search over what was uploaded, and the time of each query."""
    exact = np.argsort(-(queries.astype(np.float64) @ corpus.astype(np.float64).T), axis=1)[:, :TOP_K]
    found, milliseconds = 0, []
    for query, nearest in zip(queries, exact, strict=True):
        body = {"vector": query.tolist(), "topK": TOP_K}
        began = time.perf_counter()
        answer = await client.call("POST", client.indexes(f"/{name}/query"), json=body)
        milliseconds.append((time.perf_counter() - began) * 1000)
        got = {match["id"] for match in answer.result["matches"]}
        found += len(got & {f"doc-{row}" for row in nearest.tolist()})
    return found / (len(queries) * TOP_K), milliseconds


async def _small_mutations(client: Client, name: str, corpus: Vectors) -> tuple[list[float], list[float]]:
    """One vector at a time: milliseconds from sent to acknowledged, and from acknowledged to visible."""
    acknowledged, visible = [], []
    for number in range(SMALL_MUTATIONS):
        line: dict[str, Any] = {"id": f"small-{number}", "values": corpus[number].tolist()}
        began = time.perf_counter()
        answer = await client.call("POST", client.indexes(f"/{name}/upsert"), ndjson=orjson.dumps(line))
        known = time.perf_counter()
        await wait_until_visible(client, name, answer.result["mutationId"])
        acknowledged.append((known - began) * 1000)
        visible.append((time.perf_counter() - known) * 1000)
    return acknowledged, visible


def _percentile(milliseconds: list[float], percent: float) -> float:
    return round(float(np.percentile(milliseconds, percent)), 2)


def _table(measured: Measured) -> Table:
    table = Table("what", "measured", title="Upwell demo")
    rate = measured.vectors / measured.upload_seconds_to_visible
    rows = (
        ("vectors uploaded", f"{measured.vectors:,} ({measured.file_megabytes} MB)"),
        ("acknowledged after", f"{measured.upload_seconds_to_acknowledged:.2f} s"),
        ("all visible after", f"{measured.upload_seconds_to_visible:.2f} s ({rate:,.0f} vectors/s)"),
        ("recall@10 against exact search", f"{measured.recall_at_10:.4f}"),
        (f"query, p50 / p99 of {QUERIES}", f"{measured.query_p50_ms} / {measured.query_p99_ms} ms"),
        (f"one vector, sent to acknowledged, p50 of {SMALL_MUTATIONS}", f"{measured.acknowledged_p50_ms} ms"),
        (
            f"one vector, acknowledged to visible, p50 / p99 of {SMALL_MUTATIONS}",
            f"{measured.visible_p50_ms} / {measured.visible_p99_ms} ms",
        ),
    )
    for row in rows:
        table.add_row(*row)
    return table
