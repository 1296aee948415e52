"""What the tests of Upstash's clients share: a service, indexes made with the command as a user makes them, and clients."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from typer.testing import CliRunner
from upstash_vector import AsyncIndex, Index

from ingest.cli import app
from tests.service import TOKEN, Service, until

#: The five indexes of Upstash's own test suites: the options that make them.
KINDS = {
    "dense": ("--kind", "dense", "--dimensions", "2", "--metric", "cosine"),
    "sparse": ("--kind", "sparse"),
    "hybrid": ("--kind", "hybrid", "--dimensions", "2", "--metric", "cosine"),
    "embedding": ("--kind", "dense", "--metric", "cosine", "--embedding-model", "wordllama"),
    "hybrid-embedding": (
        "--kind",
        "hybrid",
        "--metric",
        "cosine",
        "--embedding-model",
        "wordllama",
        "--sparse-embedding-model",
        "bm25",
    ),
}
#: Far more than a worker needs to make a mutation visible.
SETTLED_S = 60.0


@dataclass
class Upstash:
    """A service with Upstash's door."""

    service: Service
    made: list[str] = field(default_factory=list)

    def command(self, *words: str) -> str:
        """Run ``upwell`` with these words; returns what it printed."""
        environment = {"UPWELL_URL": self.service.apis[0].url, "UPWELL_TOKEN": TOKEN, "COLUMNS": "200"}
        ran = CliRunner(env=environment).invoke(app, list(words))
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return ran.stdout

    def make(self, kind: str = "dense", options: Iterable[str] | None = None) -> str:
        """Make a new index; returns its URL, which is all that a client knows of it."""
        name = f"{kind}-{len(self.made)}"
        self.command("index", "create", name, *(KINDS[kind] if options is None else options))
        self.made.append(name)
        return f"{self.service.apis[0].url}/upstash/default/{name}"


@contextmanager
def client(url: str, token: str = TOKEN) -> Iterator[Index]:
    """Upstash's Python client, which has no way of its own to hang up."""
    index = Index(url, token, retries=0)
    with index._client:
        yield index


def settle(index: Index) -> None:
    """Wait as Upstash's own suites do, since queries may see a write later than fetches do."""
    for _ in until(SETTLED_S):
        if index.info().pending_vector_count == 0:
            return


async def settled(index: AsyncIndex) -> None:
    """The same for its asynchronous half."""
    deadline = time.monotonic() + SETTLED_S
    while (await index.info()).pending_vector_count:
        assert time.monotonic() < deadline, f"still pending after {SETTLED_S} s"
