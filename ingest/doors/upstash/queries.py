"""``query`` and ``query-data``: the best rows of a namespace, by vectors or by text that a model makes vectors of.

As at Upstash, what was written a moment ago may not be found yet. ``?after=MUTATION_ID`` or the header ``X-After-Mutation`` waits for a write
(Upwell's own). All queries of one request are asked of one version.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from ingest.body import inflate
from ingest.doors.upstash.answers import answer, encode_many, encode_rows
from ingest.doors.upstash.context import Asked
from ingest.doors.upstash.questions import (
    QUERIES_BYTES_MAX,
    Dense,
    Queries,
    Query,
    SparseVector,
    one_of_each,
    read_queries,
)
from ingest.doors.upstash.shown import hit
from upwell.query.hybrid import depth_of
from upwell.shard.view import View

Made = tuple[Dense | None, SparseVector | None]


async def query(asked: Asked) -> web.Response:
    """``query`` and ``query-data``."""
    bytes_max = min(QUERIES_BYTES_MAX, asked.settings.request_bytes_max)
    body = await asked.body(bytes_max)
    encoding = asked.request.headers.get("Content-Encoding")
    ops = asked.ops
    queries: Queries = await ops.parse(lambda: read_queries(asked, bytes(inflate(body, encoding, bytes_max))))
    made = await embedded(asked, queries.queries)
    await waited_for(asked)
    view = await ops.ask(asked.index.newest.get)
    answers = await asyncio.gather(
        *(
            ops.ask(lambda one=one, vectors=vectors: _run(asked, view, one, vectors))  # type: ignore[misc]
            for one, vectors in zip(queries.queries, made, strict=True)
        )
    )
    return answer(answers[0] if queries.is_single else encode_many(answers))


async def embedded(asked: Asked, queries: list[Query]) -> list[Made]:
    """The vectors of each query's text; none for one that has vectors. Raises TextRefused or ModelAway."""
    texts = [one.text for one in queries if one.text is not None]
    if not texts:
        return [(None, None)] * len(queries)
    dense, sparse = await asked.ops.embed_query(
        asked.index,
        texts,
        dense=any(one.by_dense for one in queries),
        sparse=any(one.by_sparse for one in queries),
    )
    return [one_of_each(dense, sparse, place) for place in range(len(queries))]


async def waited_for(asked: Asked) -> None:
    """Wait for the write that the read is to see, if it names one. Raises NotFound or Unavailable."""
    after = asked.request.query.get("after") or asked.request.headers.get("X-After-Mutation")
    if after:
        await asked.ops.seen(asked.index, after, asked.settings.upstash_read_wait_s)


def _run(asked: Asked, view: View, one: Query, made: Made) -> bytes:
    question = one.question(asked.namespace, asked.settings.recall, made)
    matches = question.answer(view, one.top_k, depth_of(one.top_k), question.within)
    return encode_rows(hit(match, one.include) for match in matches)
