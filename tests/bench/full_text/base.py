"""What a store offers that is asked for texts by their words."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.bench.peers.base import Task

#: Ids and scores, best first.
Answer = Sequence[tuple[int, float]]
Ask = Callable[[str], Answer]


@dataclass(frozen=True, slots=True)
class TextTask(Task):
    """A peer's task that has texts, and vectors without dimensions."""

    texts: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str], folder: Path, threads: int) -> TextTask:
        """The task of these texts."""
        return cls(np.empty((len(texts), 0), np.float32), folder, "default", threads, texts)


class Store(Protocol):
    """A store under test. The clock runs during ``load`` and while ``client``'s function answers."""

    #: As told in the results: the analyzer, k1 and b, and how it is loaded.
    SETTINGS: Mapping[str, Any]
    #: How long ``load`` took until all texts were durable.
    acknowledged_s: float

    def prepare(self) -> None:
        """Start what serves, and put the texts into the objects that the client takes."""

    def load(self) -> None:
        """Hand over all texts; return when all are durable, visible and covered by the index."""

    def release(self) -> None:
        """Drop what ``prepare`` made for the client, and let the store settle."""

    def client(self) -> Ask:
        """Something new to ask for the TOP_K best texts, in a thread of its own."""

    def version(self) -> str:
        """The version measured."""

    def processes(self) -> list[int]:
        """The roots of the process trees that serve; none: this process does."""

    def notes(self) -> dict[str, Any]:
        """What else the result should say."""

    def close(self) -> None:
        """Stop what was started."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a store's adapter is, and what kind of thing it is."""

    title: str
    kind: str
    module: str
    adapter: str

    def make(self, task: TextTask) -> Store:
        """One store on a folder of its own."""
        module = importlib.import_module(f"tests.bench.full_text.{self.module}")
        store: Store = getattr(module, self.adapter)(task)
        return store


STORES: dict[str, Listing] = {
    "upwell": Listing("Upwell", "server", "upwell_door", "UpwellTexts"),
    "milvus-lite": Listing("Milvus Lite", "embedded", "libraries", "MilvusTexts"),
    "lancedb": Listing("LanceDB", "embedded", "libraries", "LanceTexts"),
    "zvec": Listing("zvec", "embedded", "libraries", "ZvecTexts"),
    "sqlite": Listing("SQLite FTS5", "embedded", "libraries", "SqliteTexts"),
}
