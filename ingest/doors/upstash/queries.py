"""``query`` and ``query-data``: the best rows of a namespace, by vectors or by text that a model makes vectors of.

As at Upstash, what was written a moment ago may not be found yet. ``?after=MUTATION_ID`` or the header ``X-After-Mutation`` waits for a write
(Upwell's own). All queries of one request are asked of one version.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from aiohttp import web

from ingest.body import inflate
from ingest.doors.upstash.answers import answer
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
from ingest.large import Room, encode_many, encode_rows
from ingest.turns import in_turns
from upwell.query.hybrid import depth_of
from upwell.query.within import Within
from upwell.shard.view import View

#: Bodies up to this length are read where their query is answered.
AT_ONCE_BYTES: Final = 64 << 10

Made = tuple[Dense | None, SparseVector | None]


async def query(asked: Asked) -> web.Response:
    """``query`` and ``query-data``."""
    bytes_max = min(QUERIES_BYTES_MAX, asked.settings.request_bytes_max)
    body = await asked.body(bytes_max)
    ops, encoding = asked.ops, asked.encoding
    if asked.command == "query" and len(body) <= AT_ONCE_BYTES and not encoding and not named_write(asked):
        # All in one go: changing threads four times takes as long as a search.
        done = await ops.ask(partial(_at_once, asked, body))
        if isinstance(done, bytes):
            return answer(done)
    queries: Queries = await ops.parse(lambda: read_queries(asked, bytes(inflate(body, encoding, bytes_max))))
    made = await embedded(asked, queries.queries)
    await waited_for(asked)
    view = await ops.ask(asked.index.newest.get)
    answers = await _each(asked, view, list(zip(queries.queries, made, strict=True)))
    if queries.is_single:
        return answer(answers[0])
    return answer(await ops.ask(lambda: encode_many(answers)))


def _at_once(asked: Asked, body: bytes) -> bytes | None:
    """The answer, encoded, if the request has one query; else None."""
    queries = read_queries(asked, body)
    if not queries.is_single:
        return None
    (one,) = queries.queries
    within = Within((one.filter,), asked.patience())
    return _run(_Asking(asked, asked.index.newest.get(), within, Room()), one, (None, None))


async def _each(asked: Asked, view: View, questions: list[tuple[Query, Made]]) -> list[bytes]:
    """The answers to all questions, of which a few are asked at a time."""
    within = Within((one.filter for one, _ in questions), asked.patience())
    asking = _Asking(asked, view, within, Room())
    return await in_turns(asked.ops, [partial(_run, asking, *question) for question in questions])


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


def named_write(asked: Asked) -> str:
    """The write that a read is to see; "" if it names none."""
    return asked.request.query.get("after") or asked.request.headers.get("X-After-Mutation") or ""


async def waited_for(asked: Asked) -> None:
    """Wait for the write that the read is to see, if it names one. Raises NotFound or Unavailable."""
    after = named_write(asked)
    if after:
        await asked.ops.seen(asked.index, after, asked.settings.upstash_read_wait_s)


class _Asking(NamedTuple):
    """What the queries of one request have in common."""

    asked: Asked
    view: View
    within: Within
    room: Room


def _run(asking: _Asking, one: Query, made: Made) -> bytes:
    asked, view, within, room = asking
    question = one.question(asked.namespace, asked.settings.recall, within.left_by(one.filter), made)
    matches = question.answer(view, one.top_k, depth_of(one.top_k), question.within)
    return encode_rows((hit(match, one.include) for match in matches), room)
