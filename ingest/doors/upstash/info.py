"""``info`` and ``list-namespaces``: what there is in an index, and what is on its way into it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ingest.doors.upstash.answers import answer
from ingest.doors.upstash.context import Asked
from ingest.large import encode
from upwell.catalog.record import IndexRecord
from upwell.embed.configuration import plain_name
from upwell.engine import Index
from upwell.shard.metric import Metric
from upwell.shard.view import View

SIMILARITY = {
    Metric.COSINE: "COSINE",
    Metric.EUCLIDEAN: "EUCLIDEAN",
    Metric.DOT_PRODUCT: "DOT_PRODUCT",
}


#: Of a client that wants to know how things are, however bad they are.
REMOVALS_WAIT_S = 2.0


async def info(asked: Asked) -> web.Response:
    """``info``: counts are of what queries see, and pending is what they do not see yet.

    A client that waits until nothing is pending is to find what it wrote, and not to find what it removed; removals are not among the
    pending vectors, so they are waited for here, as far as that does not take long.
    """
    if asked.settings.upstash_read_your_writes:
        await asked.ops.removals_applied(asked.index, REMOVALS_WAIT_S)
    return answer(await asked.ops.ask(lambda: encode(_info(asked.index))))


async def list_namespaces(asked: Asked) -> web.Response:
    """``list-namespaces``: their names, the default one's first."""
    await asked.settled()
    return answer(await asked.ops.read(asked.index, lambda view: encode(list(counts_of(view)))))


def counts_of(view: View) -> dict[str, int]:
    """How many rows each namespace has, by name; "" first, the others in the order of their making."""
    named = {view.namespaces.name(identity): rows for identity, rows in view.counts.items()}
    return dict.fromkeys(["", *view.namespaces.identities, *sorted(named)], 0) | named


def _info(index: Index) -> dict[str, Any]:
    # What waits is looked at first: what is applied in between is counted twice for a moment, and never not at all.
    nbytes = index.load().backlog.nbytes
    waiting = index.backlog.rows_by_namespace()
    view = index.newest.get()
    rows = counts_of(view)
    names = dict.fromkeys([*rows, *(name for name in waiting if name is not None)])
    return {
        "vectorCount": view.manifest.vectors,
        "pendingVectorCount": sum(waiting.values()),
        "indexSize": sum(segment.nbytes for segment in view.manifest.segments()) + nbytes,
        **_described(view.record),
        "namespaces": {
            name: {
                "vectorCount": rows.get(name, 0),
                "pendingVectorCount": waiting.get(name, 0),
            }
            for name in names
        },
    }


def _described(record: IndexRecord) -> dict[str, Any]:
    """What an index is; an empty name for a model that it has not."""
    similarity = SIMILARITY[record.metric] if record.kind.has_dense else ""
    described: dict[str, Any] = {
        "dimension": record.dimensions,
        "similarityFunction": similarity,
        "indexType": record.kind.name,
    }
    if record.kind.has_dense:
        described["denseIndex"] = {
            "dimension": record.dimensions,
            "similarityFunction": similarity,
            "embeddingModel": _model(record.embedding_model),
        }
    if record.kind.has_sparse:
        described["sparseIndex"] = {"embeddingModel": _model(record.sparse_embedding_model)}
    return described


def _model(name: str | None) -> str:
    return "" if name is None else plain_name(name)
