"""How many texts a second become visible vectors, with one worker and with two?

    make bench-texts               or: python -m tests.bench.texts [--texts 40000] [--words 40] [--rounds 3] [--json FILE]

dense    upsert-data into an index with the built-in model (wordllama, 256 dimensions)
hybrid   the same into a hybrid index, whose sparse vectors BM25 makes
server   a dense index whose model is a server that takes 100 ms to answer with the vectors of up to 64 texts

Texts are sent through the Upstash door, 1,000 a request, and acknowledged before anything is embedded; the bench holds the index's
lease meanwhile. The clock starts when it lets go and rings, and stops when the last mutation is visible. Rounds with one and with
two workers take turns, each on a fresh service. Each worker is held to one thread that embeds, and to one drain.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.bench.harness import RESULTS, Calls, print_row, write_result
from tests.bench.workers import ONE_JOB, WORKERS, fresh_round

TEXTS_A_REQUEST = 1_000
TASKS = ("dense", "hybrid", "server")
NAME = "texts"
MODEL_S = 0.1
MODEL_TEXTS = 64
MODEL_DIMENSIONS = 384
#: The commonest words of English are a third of any text; the others are made up, from few to many as in a language.
COMMON = "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which"
SYLLABLES = "ba con dor el fin gar ho in jus ket lam mon nor op per qui ras sen tol un ver wis yan zor"
WIDTHS = (10, 10, 12, 12, 12, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is sent."""

    texts: int
    words: int


def texts_of(size: Size, seed: int = 5) -> list[str]:
    """Seeded texts."""
    generator = np.random.default_rng(seed)
    made = ["".join(generator.choice(SYLLABLES.split(), 1 + n % 3)) for n in range(5_000)]
    words = np.array([*COMMON.split(), *made])
    weights = 1 / np.arange(1, len(words) + 1)
    drawn = generator.choice(words, (size.texts, size.words), p=weights / weights.sum())
    return [" ".join(row) for row in drawn]


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """A model that is far away: it answers late, and to any number of requests at once."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(MODEL_S)
            rows = [
                {"index": n, "embedding": [float(1 + (len(text) + k) % 7) for k in range(MODEL_DIMENSIONS)]}
                for n, text in enumerate(asked["input"])
            ]
            body = orjson.dumps({"data": rows, "model": asked["model"]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/embeddings"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def create(calls: Calls, task: str) -> None:
    """Make the index of a task."""
    asked: dict[str, Any] = {"name": NAME, "config": {"metric": "cosine"}}
    match task:
        case "dense":
            asked["embeddingModel"] = "wordllama"
        case "hybrid":
            asked |= {"kind": "hybrid", "embeddingModel": "wordllama", "sparseEmbeddingModel": "bm25"}
        case _:
            asked["embeddingModel"] = "SERVER"
    await calls.call("POST", "", orjson.dumps(asked))


async def send(calls: Calls, texts: list[str]) -> str:
    """Send all texts; returns the last mutation."""
    last = ""
    for start in range(0, len(texts), TEXTS_A_REQUEST):
        some = texts[start : start + TEXTS_A_REQUEST]
        body = [{"id": f"text-{start + row}", "data": text} for row, text in enumerate(some)]
        last = await calls.upsert_data(NAME, orjson.dumps(body))
    return last


async def measure_once(task: str, workers: int, texts: list[str]) -> dict[str, Any]:
    """One round."""
    with contextlib.ExitStack() as stack:
        more = {}
        if task == "server":
            url = stack.enter_context(model_server())
            model = {
                "url": url,
                "model": "far-away",
                "dimensions": MODEL_DIMENSIONS,
                "texts_per_request": MODEL_TEXTS,
            }
            more["UPWELL_EMBEDDING_MODELS"] = orjson.dumps({"SERVER": model}).decode()
        async with fresh_round(more) as (one, _, calls):
            await one.start_workers(workers, 8)
            await create(calls, task)
            await one.hold(NAME)
            last = await send(calls, texts)
            clock = await one.let_go()
            await calls.visible(NAME, last)
            found = clock.read(len(texts))
            held = await calls.count(NAME)
    if held != len(texts):
        raise RuntimeError(f"{held} texts are visible, there should be {len(texts)}")
    found["texts_per_s"] = found.pop("vectors_per_s")
    return found


def measure(size: Size, rounds: int, tasks: list[str]) -> list[dict[str, Any]]:
    """All tasks, one worker and two in turns; a row of medians for each."""
    rows, texts = [], texts_of(size)
    for task in tasks:
        found: dict[int, list[dict[str, Any]]] = {workers: [] for workers in WORKERS}
        for _ in range(rounds):
            for workers in WORKERS:
                found[workers].append(asyncio.run(measure_once(task, workers, texts)))
                _print(task, str(workers), found[workers][-1])
        for workers in WORKERS:
            names = ("texts_per_s", "seconds", "cpu_s", "rest_cpu_s")
            medians = {name: statistics.median(one[name] for one in found[workers]) for name in names}
            rows.append({"task": task, "workers": workers} | medians | {"rounds": found[workers]})
            _print(task, f"{workers} median", rows[-1])
    return rows


def _print(task: str, workers: str, one: dict[str, Any]) -> None:
    cells = (
        task,
        workers,
        f"{one['texts_per_s']:,.0f}",
        f"{one['seconds']:.2f}",
        f"{one['cpu_s'] / one['seconds']:.2f}",
        f"{one['rest_cpu_s'] / one['seconds']:.2f}",
    )
    print_row(cells, WIDTHS)


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=40_000, help="texts of a round")
    parser.add_argument("--words", type=int, default=40, help="words of a text")
    parser.add_argument("--rounds", type=int, default=3, help="rounds with one worker, and with two")
    parser.add_argument("--task", choices=TASKS, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS / "texts.json", help="where figures go")
    options = parser.parse_args()
    if options.texts < 1 or options.words < 1 or options.rounds < 1:
        parser.error("there must be at least 1 text of 1 word, and 1 round")
    print(
        f"{options.texts:,} texts of {options.words} words; {ONE_JOB}; cores busy: by the workers; by others"
    )
    print_row(("task", "workers", "texts/s", "seconds", "their cores", "the rest's"), WIDTHS)
    size = Size(texts=options.texts, words=options.words)
    rows = measure(size, options.rounds, options.task or list(TASKS))
    speed = {(row["task"], row["workers"]): row["texts_per_s"] for row in rows}
    least, most = WORKERS
    ratios = {task: speed[task, most] / speed[task, least] for task, workers in speed if workers == most}
    for task, ratio in ratios.items():
        print(f"two workers over one, {task}: {ratio:.2f}")
    data = {"texts": options.texts, "words": options.words, "rounds": options.rounds, "ratios": ratios}
    write_result(options.json, "texts", data, rows)


if __name__ == "__main__":
    main()
