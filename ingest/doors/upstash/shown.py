"""Rows as answers show them: what was asked for, and no key without a value, since clients compare whole objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import orjson

from ingest.doors.upstash.fields import Fields
from upwell.query.lookup import Found
from upwell.query.search import Match
from upwell.shard.metric import Metric


@dataclass(frozen=True, slots=True)
class Include:
    """What of a row is shown beside its id."""

    vectors: bool
    metadata: bool
    data: bool

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """As a request says. Raises Invalid."""
        return cls(fields.flag("includeVectors"), fields.flag("includeMetadata"), fields.flag("includeData"))


#: Of an answer that nobody can ask for less of.
EVERYTHING = Include(vectors=True, metadata=True, data=True)


def row(found: Found, include: Include) -> dict[str, Any]:
    """A row."""
    shown: dict[str, Any] = {"id": found.id}
    if include.vectors:
        values, sparse = found.values, found.sparse
        if len(values):
            shown["vector"] = values
        if sparse is not None:
            shown["sparseVector"] = {"indices": sparse[0], "values": sparse[1]}
    if include.metadata and (metadata := found.metadata) is not None:
        shown["metadata"] = orjson.Fragment(metadata)
    if include.data and (data := found.data) is not None:
        shown["data"] = data
    return shown


def hit(match: Match, include: Include) -> dict[str, Any]:
    """A row with its score, a float32 as Upstash's are: so what differs by rounding alone is shown as equal."""
    shown = row(match.found, include)
    return {"id": shown.pop("id"), "score": np.float32(match.closeness), **shown}


def score(metric: Metric, closeness: float) -> float:
    """Upstash's score of a dense vector: from 0 to 1, where 1 is the vector itself."""
    if metric is Metric.EUCLIDEAN:
        return 1 / (1 - closeness)
    return (1 + closeness) / 2
