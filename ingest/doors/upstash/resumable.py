"""Resumable queries: ``resumable-query``, ``resumable-query-data``, and their ``-next`` and ``-end``.

A query that goes on is kept in this front end's memory, with the version of the index that it began on, until it is ended or nobody has
asked for so long as it was made for (``maxIdle``). Where there are several front ends, the load balancer must send all requests for one
index (a piece of the path) to the same one, as by a hash; another one answers 404, as after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from ingest.doors.upstash.answers import answer, success
from ingest.doors.upstash.context import Asked
from ingest.doors.upstash.errors import UpstashError
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.queries import embedded, waited_for
from ingest.doors.upstash.questions import Filters, Query, read_query
from ingest.doors.upstash.shown import Include, hit
from ingest.doors.upstash.strict import strict_json
from ingest.large import encode, encode_rows
from upwell.clock import Clock
from upwell.errors import Invalid
from upwell.ids import new_identity
from upwell.query.patience import Patience
from upwell.query.resumable import ResumableQuery
from upwell.query.within import left_by

IDLE_S_DEFAULT: Final = 3_600
#: Of a resumable query that there never was any use to ask again: its namespace is not there.
NOTHING_FOUND: Final = {"uuid": "", "scores": []}


@dataclass(slots=True)
class _Kept:
    query: ResumableQuery
    patience: Patience
    include: Include
    index_id: str
    idle_s: float
    expires_at: float


class ResumableQueries:
    """Those of one front end, so many of each index: who begins them there takes none from others. Used from one event loop."""

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._kept: dict[str, _Kept] = {}

    def keep(self, query: ResumableQuery, patience: Patience, include: Include, idle_s: float) -> str:
        """Keep a query; returns its uuid. Raises a 429 if there are too many of its index."""
        self.forget_idle()
        index_id = query.view.record.id
        if sum(one.index_id == index_id for one in self._kept.values()) >= self._most:
            raise UpstashError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"there are {self._most} active resumable queries, which is all that are allowed; end some of them",
            )
        uuid = _uuid()
        self._kept[uuid] = _Kept(query, patience, include, index_id, idle_s, self._clock.monotonic() + idle_s)
        return uuid

    def find(self, uuid: str, index_id: str) -> _Kept:
        """A query of this index, which is not idle now. Raises a 404."""
        self.forget_idle()
        kept = self._kept.get(uuid)
        if kept is None or kept.index_id != index_id:
            raise UpstashError(
                HTTPStatus.NOT_FOUND,
                f"Resumable query {uuid[:64]} does not exist; it was ended, or was idle too long, if it ever began",
            )
        kept.expires_at = self._clock.monotonic() + kept.idle_s
        return kept

    def end(self, uuid: str, index_id: str) -> None:
        """Let go of a query. Raises a 404."""
        self.find(uuid, index_id)
        del self._kept[uuid]

    def forget(self, uuid: str) -> None:
        """Let go of a query, if it is still there."""
        self._kept.pop(uuid, None)

    def forget_idle(self) -> None:
        """Let go of all that were idle too long."""
        now = self._clock.monotonic()
        self._kept = {uuid: one for uuid, one in self._kept.items() if one.expires_at > now}


RESUMABLE_QUERIES = web.AppKey("resumable_queries", ResumableQueries)


def _kept_by(asked: Asked) -> ResumableQueries:
    return asked.request.config_dict[RESUMABLE_QUERIES]


async def begin(asked: Asked) -> web.Response:
    """``resumable-query`` and ``resumable-query-data``: the first topK, and a uuid to ask for more by."""
    query, idle_s = await _read(asked)
    (made,) = await embedded(asked, [query])
    await waited_for(asked)
    view = await asked.ops.ask(asked.index.newest.get)
    if asked.namespace and not view.has_namespace(asked.namespace):
        return success(NOTHING_FOUND)
    patience = asked.patience()
    resumable = ResumableQuery(
        view, query.question(asked.namespace, asked.settings.recall, left_by(query.filter, patience), made)
    )
    uuid = _kept_by(asked).keep(resumable, patience, query.include, idle_s)
    try:
        scores = await asked.ops.ask(lambda: _next(resumable, patience, query.top_k, query.include))
    except BaseException:
        # Nobody was told of it, so nobody can end it.
        _kept_by(asked).forget(uuid)
        raise
    return answer(b'{"uuid":' + encode(uuid) + b',"scores":' + scores + b"}")


async def next_(asked: Asked) -> web.Response:
    """``resumable-query-next``: the next ``additionalK``."""
    fields = await asked.fields()
    if not fields.has("additionalK"):
        raise Invalid("additionalK: expected an integer, got nothing")
    count = fields.number("additionalK", 1, 1, asked.settings.upstash_top_k_max)
    kept = _kept_by(asked).find(fields.text("uuid"), asked.index.record.id)
    return answer(await asked.ops.ask(lambda: _next(kept.query, kept.patience, count, kept.include)))


async def end(asked: Asked) -> web.Response:
    """``resumable-query-end``: there will be no more questions."""
    fields = await asked.fields()
    _kept_by(asked).end(fields.text("uuid"), asked.index.record.id)
    return success("Success")


async def _read(asked: Asked) -> tuple[Query, float]:
    by_text, most = asked.command == "resumable-query-data", asked.settings.upstash_resumable_idle_s_max

    def read(body: bytes) -> tuple[Query, float]:
        given = strict_json(body)
        # As with a plain query, an array of one is as good as the one.
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        fields = Fields(given)
        idle_s = fields.number("maxIdle", IDLE_S_DEFAULT, 1, int(max(1, most)))
        filters = Filters(asked.settings.upstash_filter_bytes_max)
        return read_query(fields, asked.index.record, asked.settings, filters, by_text=by_text), idle_s

    return await asked.question(read)


def _next(query: ResumableQuery, patience: Patience, count: int, include: Include) -> bytes:
    patience.begin()
    # What is too large to be answered counts as not returned yet.
    return query.next_as(count, lambda matches: encode_rows(hit(match, include) for match in matches))


def _uuid() -> str:
    digits = new_identity()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
