"""Small things that tests make: engines in a folder, changesets from plain values, a clock that is told the time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from upwell.catalog.names import NewIndex
from upwell.changeset import Changeset, KeyScope, Operation
from upwell.engine import Engine, Index
from upwell.kinds import IndexKind
from upwell.log.entry import PreparedMutation, prepare
from upwell.log.receipt import Receipt, mint
from upwell.log.writer import LogWriter
from upwell.schema import RowSchema
from upwell.settings import Settings
from upwell.shard.metric import Metric
from upwell.store import DirectoryStore, Store

#: (id, values) or (id, values, namespace) or (id, values, namespace, metadata)
Plain = (
    tuple[str, Sequence[float]]
    | tuple[str, Sequence[float], str | None]
    | tuple[str, Sequence[float], str | None, object]
)


class HandClock:
    """Stands still until it is moved. Wall time and elapsed time move apart, as they may."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall = datetime(2026, 1, 2, 3, 4, 5, 6789, tzinfo=UTC)

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


def make_engine(
    folder: Path, *, clock: HandClock | None = None, store: Store | None = None, **settings: object
) -> Engine:
    """An engine on a directory store in ``folder``."""
    chosen = Settings.model_validate({"data": folder, **settings})
    return Engine(store or DirectoryStore(folder / "store"), chosen, clock or HandClock())


def make_index(
    engine: Engine,
    name: str = "index",
    *,
    dimensions: int = 2,
    metric: Metric = Metric.EUCLIDEAN,
    shards: int = 2,
    key_scope: KeyScope = KeyScope.INDEX,
    kind: IndexKind = IndexKind.DENSE,
    account: str = "default",
    row_schema: RowSchema | None = None,
) -> Index:
    """A new, empty index. A sparse one has no dimensions, whatever is given."""
    new = NewIndex(
        name=name,
        description=None,
        dimensions=dimensions if kind.has_dense else 0,
        metric=metric,
        shards=shards,
        kind=kind,
        key_scope=key_scope,
        row_schema=row_schema,
    )
    engine.catalog.create(account, new)
    return engine.find(account, name)


def writes(operation: Operation, *rows: Plain, dimensions: int = 2) -> Changeset:
    """An insert or upsert of plain rows."""
    full = [(*row, None, None)[:2] + tuple((*row[2:], None, None)[:2]) for row in rows]
    vectors = np.array([row[1] for row in full], dtype=np.float32).reshape(len(full), dimensions)
    metadata = [None if row[3] is None else orjson.dumps(row[3]) for row in full]
    return Changeset(
        operation=operation,
        ids=pa.array([row[0] for row in full], pa.utf8()),
        vectors=vectors,
        namespaces=pa.array([row[2] for row in full], pa.utf8()) if any(row[2] for row in full) else None,
        metadata=pa.array(metadata, pa.binary()) if any(one is not None for one in metadata) else None,
        received=len(full),
    )


def upsert(*rows: Plain, dimensions: int = 2) -> Changeset:
    """An upsert of plain rows."""
    return writes(Operation.UPSERT, *rows, dimensions=dimensions)


def insert(*rows: Plain, dimensions: int = 2) -> Changeset:
    """An insert of plain rows."""
    return writes(Operation.INSERT, *rows, dimensions=dimensions)


def delete(*ids: str, namespaces: Sequence[str | None] | None = None) -> Changeset:
    """A delete by ids."""
    column = None if namespaces is None else pa.array(namespaces, pa.utf8())
    return Changeset(
        operation=Operation.DELETE, ids=pa.array(ids, pa.utf8()), namespaces=column, received=len(ids)
    )


def prepared(changeset: Changeset) -> PreparedMutation:
    """A changeset ready for the log, accepted at a time that never changes."""
    return prepare(changeset, HandClock().wall)


class Client:
    """Appends to one index as one front end would, and remembers the ids it was given."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.writer: LogWriter = index.log_writer()

    def append(self, *changesets: Changeset) -> list[str]:
        """Append changesets as one entry; returns their mutationIds."""
        position = self.writer.append([prepared(one) for one in changesets])
        key = self.index.record.receipt_key
        return [mint(key, Receipt(position, place)) for place in range(len(changesets))]


def drain(engine: Engine, index: Index) -> int:
    """Apply everything; returns how many commits it took."""
    commits = 0
    while engine.apply_batch(index.record.id, lambda: True) is not None:
        commits += 1
    return commits


def drain_of(index: Index) -> int:
    """The same by the engine that the index was opened by."""
    engine = index._engine
    assert isinstance(engine, Engine)
    return drain(engine, index)


def contents(index: Index) -> dict[tuple[str | None, str], tuple[list[float], object]]:
    """Everything alive in the newest version: (namespace, id) → (values, metadata). Fails on a key that is there twice."""
    found: dict[tuple[str | None, str], tuple[list[float], object]] = {}
    view = index.newest.get()
    for segments in view.shards:
        for live in segments:
            rows = live.live_rows()
            taken = live.segment.take(rows)
            namespaces = [None] * len(rows) if taken.namespaces is None else taken.namespaces.to_pylist()
            metadata = [None] * len(rows) if taken.metadata is None else taken.metadata.to_pylist()
            for name, space, values, data in zip(
                taken.ids.to_pylist(), namespaces, taken.vectors.read().tolist(), metadata, strict=True
            ):
                assert (space, name) not in found
                found[space, name] = (values, None if data is None else orjson.loads(data))
    assert len(found) == view.manifest.vectors
    return found
