"""Collections and rows for tests of the Milvus door's reads, made without its commands; and what rows are, plainly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ingest.appending import Sender
from ingest.doors.milvus.facts import change_facts
from tests.milvus_house import MilvusHouse, Row
from upwell.catalog.names import NewIndex
from upwell.changeset import Changeset, Details, KeyScope, Operation
from upwell.engine import Index
from upwell.kinds import IndexKind
from upwell.schema import IdType, RowSchema
from upwell.shard.metric import Metric
from upwell.sparse import Sparse

#: Ids are integers, anything goes beside them.
PLAIN = RowSchema(ids=IdType.INT64)


def made(
    house: MilvusHouse,
    schema: RowSchema = PLAIN,
    *,
    name: str = "c",
    kind: IndexKind = IndexKind.DENSE,
    dimensions: int = 2,
    metric: Metric = Metric.COSINE,
) -> Index:
    """A new, empty collection, loaded."""
    new = NewIndex(
        name=name,
        description=None,
        dimensions=dimensions if kind.has_dense else 0,
        metric=metric,
        shards=2,
        kind=kind,
        key_scope=KeyScope.INDEX,
        row_schema=schema,
    )
    house.engine.catalog.create("default", new)
    index = house.engine.find("default", name)
    change_facts(index, lambda facts: facts.model_copy(update={"loaded": True}))
    return index


async def put(
    house: MilvusHouse, index: Index, rows: Sequence[Row], partition: str = "", *, waits: bool = True
) -> str:
    """Write rows: ``id``, ``vector`` and ``sparse`` (a dict) are what they are, all else is metadata. Returns the mutation."""
    rest = [{name: row[name] for name in row if name not in ("id", "vector", "sparse")} for row in rows]
    kind = index.record.kind
    changeset = Changeset(
        operation=Operation.UPSERT,
        ids=pa.array([str(row["id"]) for row in rows], pa.utf8()),
        vectors=np.array([row["vector"] for row in rows], np.float32) if kind.has_dense else None,
        sparse=Sparse.of([(list(row["sparse"]), list(row["sparse"].values())) for row in rows])
        if kind.has_sparse
        else None,
        namespaces=pa.array([partition] * len(rows), pa.utf8()) if partition else None,
        metadata=pa.array([orjson.dumps(one) if one else None for one in rest], pa.binary()),
        received=len(rows),
        details=Details(scope=KeyScope.INDEX),
    )
    accepted = await house.operations.append(index, changeset, Sender("test"))
    if waits:
        await house.settle(index.record.name)
    return accepted.mutation_id


def plain_distances(metric: Metric, query: Sequence[float], rows: Sequence[Row]) -> dict[int, float]:
    """Milvus's distance of each row, by brute force in double precision."""
    one, distances = np.array(query, np.float64), {}
    for row in rows:
        other = np.array(row["vector"], np.float32).astype(np.float64)
        if metric is Metric.EUCLIDEAN:
            distance = float(((other - one) ** 2).sum())
        else:
            distance = float(other @ one)
            if metric is Metric.COSINE:
                distance /= float(np.linalg.norm(other) * np.linalg.norm(one))
        distances[row["id"]] = distance
    return distances


def ids(rows: Any, name: str = "id") -> list[Any]:
    """The ids of rows, in order."""
    return [row[name] for row in rows]
