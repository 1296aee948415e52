"""What a store offers that is asked with filters: a peer of ``bench-peers``, with properties beside its vectors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.bench.filters.cases import Columns, Where
from tests.bench.peers.base import Matrix, Task

#: Settings of a query, by the names that the store gives them.
Effort = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FilteredTask(Task):
    """A peer's task, and the properties of the rows."""

    columns: Columns

    def properties(self, row: int) -> dict[str, Any]:
        """One row's, as Python values."""
        return {name: column[row].item() for name, column in self.columns.items()}


@dataclass(frozen=True, slots=True)
class Build:
    """A way to build the indexes, and ways to ask them: of each the query settings to try, cheapest first."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    ways: Sequence[Sequence[Effort]] = (({},),)


class Store(Protocol):
    """A vector store under test; see tests.bench.peers.base.Peer for what the methods of both promise."""

    def prepare(self) -> None:
        """Start what serves, and put vectors and properties into the objects that the client takes."""

    def load(self) -> None:
        """Hand over all rows; return when all are durable, visible and covered by the indexes."""

    def release(self) -> None:
        """Drop what ``prepare`` made for the client, and let the store settle."""

    def tune(self, effort: Effort) -> None:
        """Use these query settings from now on, and no others."""

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """The ids of the nearest TOP_K vectors that the filter lets through."""

    def version(self) -> str:
        """The version measured."""

    def close(self) -> None:
        """Stop what was started."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a store's adapter is, and what kind of thing it is."""

    title: str
    kind: str
    module: str
    adapter: str

    def builds(self) -> dict[str, Build]:
        """The ways to build its indexes."""
        found: dict[str, Build] = self._adapter().BUILDS
        return found

    def make(self, task: FilteredTask) -> Store:
        """One store on a folder of its own."""
        store: Store = self._adapter()(task)
        return store

    def _adapter(self) -> Any:
        return getattr(importlib.import_module(f"tests.bench.filters.{self.module}"), self.adapter)


STORES: dict[str, Listing] = {
    "upwell": Listing("Upwell", "server", "servers", "FilteredUpwell"),
    "chroma": Listing("Chroma", "server", "servers", "FilteredChroma"),
    "pgvector": Listing("pgvector", "server", "servers", "FilteredPgvector"),
    "qdrant-edge": Listing("Qdrant Edge", "embedded", "libraries", "FilteredQdrant"),
    "lancedb": Listing("LanceDB", "embedded", "libraries", "FilteredLance"),
    "milvus-lite": Listing("Milvus Lite", "embedded", "libraries", "FilteredMilvus"),
    "zvec": Listing("zvec", "embedded", "libraries", "FilteredZvec"),
}
