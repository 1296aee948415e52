"""What every peer of the comparison offers, and the names under which its parts are found."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Effort = dict[str, int]
TOP_K = 10
RECALL_WANTED = 0.97


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is given: vectors whose ids are their row numbers, and an empty directory of its own."""

    vectors: Matrix
    folder: Path
    variant: str
    threads: int

    @property
    def rows(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])


@dataclass(slots=True)
class Variant:
    """One way to build an index: its settings as told in the results, and the query settings to try, cheapest first."""

    settings: dict[str, Any] = field(default_factory=dict)
    efforts: Sequence[Effort] = ({},)


class Peer(Protocol):
    """A vector store under test. The clock runs during ``load`` and during each ``search`` alone."""

    def prepare(self) -> None:
        """Start what serves, and put the vectors into the objects that the client takes."""

    def load(self) -> None:
        """Hand over all vectors; return when all are durable, visible and covered by the index."""

    def release(self) -> None:
        """Drop what ``prepare`` made for the client."""

    def tune(self, effort: Effort) -> None:
        """Use these query settings from now on."""

    def search(self, query: Matrix) -> Sequence[int]:
        """The ids of the nearest TOP_K vectors."""

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
    """Where a peer's adapter is, and what kind of thing it is."""

    module: str
    kind: str

    def variants(self) -> dict[str, Variant]:
        found: dict[str, Variant] = importlib.import_module(self.module).VARIANTS
        return found

    def make(self, task: Task) -> Peer:
        peer: Peer = importlib.import_module(self.module).make(task)
        return peer


PEERS: dict[str, Listing] = {
    "upwell": Listing("tests.bench.peers.upwell_service", "server"),
    "chroma": Listing("tests.bench.peers.chroma", "server"),
    "pgvector": Listing("tests.bench.peers.pgvector", "server"),
    "qdrant-edge": Listing("tests.bench.peers.qdrant", "embedded"),
    "lancedb": Listing("tests.bench.peers.lance", "embedded"),
    "milvus-lite": Listing("tests.bench.peers.milvus", "embedded"),
    "zvec": Listing("tests.bench.peers.zvec_library", "embedded"),
}


class Quiet:
    """The parts of a Peer that most embedded libraries leave as they are."""

    def processes(self) -> list[int]:
        return []

    def notes(self) -> dict[str, Any]:
        return {}


def batches(rows: int, size: int) -> list[range]:
    """Row numbers in batches."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]
