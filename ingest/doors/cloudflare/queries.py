"""The route of queries: the closest vectors, of a namespace or a filter if asked for, and as much of each as was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from aiohttp import web

from ingest.body import inflate
from ingest.doors.cloudflare.context import (
    authorised,
    demand_dense,
    operations,
    parse_json,
    question_bytes_max,
    wait_seconds,
)
from ingest.doors.cloudflare.envelope import answer, encode_result, said
from ingest.doors.cloudflare.errors import (
    ID_TOO_LONG,
    NAMESPACE_TOO_LONG,
    OWN_CODES,
    QUERY_DIMENSIONS,
    TOP_K,
    UNINDEXED_FILTER,
    CloudflareError,
)
from ingest.doors.cloudflare.filters import parse_filter
from ingest.doors.cloudflare.models import Query
from ingest.requests import read_body
from upwell.catalog.tokens import Access
from upwell.clock import Clock
from upwell.engine import Index
from upwell.errors import Invalid
from upwell.manifest.state import DeclaredIndex
from upwell.properties import ABSENT, PropertyType, value_at
from upwell.query.lookup import lookup
from upwell.query.patience import Patience
from upwell.query.search import Match, search
from upwell.settings import Settings
from upwell.shard.asked import paths
from upwell.shard.filter import Covered, Filter
from upwell.shard.metric import Metric
from upwell.shard.rows import written_by
from upwell.shard.view import View

#: How long a query with ``after`` waits for its mutation unless it says otherwise.
AFTER_WAIT_S = 10.0
#: Of a string in ``returnMetadata: "indexed"``, in UTF-8: as much as Cloudflare's indexes hold.
INDEXED_BYTES_MAX = 64

Vector = npt.NDArray[np.float32]


async def query(request: web.Request) -> web.Response:
    """``POST …/query``: the closest vectors, best first."""
    ops = operations(request)
    account = await authorised(request, Access.READ)
    name, after = request.match_info["index"], request.query.get("after")
    wait_s = wait_seconds(request, AFTER_WAIT_S)
    settings = ops.engine.settings
    bytes_max = question_bytes_max(request)
    body = await read_body(request, bytes_max)
    encoding = request.headers.get("Content-Encoding")

    def prepare() -> _Prepared:
        index = ops.engine.find(account, name)
        demand_dense(index.record)
        asked = parse_json(inflate(body, encoding, bytes_max), Query)
        return _prepare(index, asked, asked.after if after is None else after, settings, ops.engine.clock)

    def at_once() -> bytes | _Prepared:
        # All in one go: changing threads four times takes longer than a search.
        ready = prepare()
        return ready if ready.after is not None else ready.run()

    result = await ops.ask(at_once)
    if isinstance(result, bytes):
        return answer(result)
    assert result.after is not None
    await ops.seen(result.index, result.after, wait_s)
    return answer(await ops.ask(result.run))


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A query that may be run. ``vector`` None: that of ``asked.vector_id``; ``after``: a mutation that it must reflect."""

    index: Index
    asked: Query
    vector: Vector | None
    filter: Filter | None
    after: str | None
    settings: Settings
    clock: Clock

    def run(self) -> bytes:
        """The encoded answer, from a view that was the newest at some moment after this call began."""
        view, asked = self.index.newest.get(), self.asked
        declared, backfill = view.manifest.metadata_indexes, self.settings.metadata_backfill
        within = None
        if self.filter is not None:
            patience = Patience(self.clock, self.settings.filter_s_max)
            within = Covered(self.filter, declared, backfill=backfill, go_on=patience.check)
        matches = search(
            view,
            self._vector(view),
            asked.top_k,
            asked.namespace or None,
            within=within,
            recall=self.settings.recall,
        )
        shown = _Shown(asked, view.record.metric, declared, backfill=backfill)
        hits = [shown.hit(match) for match in matches]
        return encode_result({"count": len(hits), "matches": hits}, self._remarks(declared))

    def _vector(self, view: View) -> Vector:
        if self.vector is not None:
            return self.vector
        assert self.asked.vector_id is not None
        # The namespace counts where ids are unique in one.
        found = lookup(view, [self.asked.vector_id], self.asked.namespace)
        if not found:
            says = f'vectorId: there is no vector with id "{self.asked.vector_id}"'
            raise CloudflareError(400, OWN_CODES + 404, says)
        return found[0].values

    def _remarks(self, declared: tuple[DeclaredIndex, ...]) -> list[dict[str, Any]]:
        """What works here and is not promised to at Cloudflare: filtering by a property without a metadata index."""
        if self.filter is None:
            return []
        indexed = {one.index.property for one in declared}
        return [
            said(
                UNINDEXED_FILTER, f'there is no metadata index on "{path}"; every vector\'s metadata was read'
            )
            for path in dict.fromkeys(paths(self.filter))
            if path not in indexed
        ]


def _prepare(index: Index, asked: Query, after: str | None, settings: Settings, clock: Clock) -> _Prepared:
    """Check everything about a query. Raises the error that Cloudflare gives for each mistake."""
    _check_top_k(asked, settings)
    wanted = None if asked.filter is None else parse_filter(asked.filter, settings.filter_bytes_max)
    _check_size("namespace", asked.namespace, NAMESPACE_TOO_LONG, settings.namespace_bytes_max)
    _check_size("id", asked.vector_id, ID_TOO_LONG, settings.id_bytes_max)
    vector = None if asked.vector is None else _checked(asked.vector, index.record.dimensions)
    return _Prepared(index, asked, vector, wanted, after, settings, clock)


def _check_size(what: str, name: str | None, code: int, bytes_max: int) -> None:
    size = len((name or "").encode())
    if size > bytes_max:
        raise CloudflareError(400, code, f"{what} too long; max is {bytes_max} bytes, got {size} bytes")


def _check_top_k(asked: Query, settings: Settings) -> None:
    full = asked.return_values or asked.return_metadata == "all"
    most, most_full = settings.top_k_max, min(settings.top_k_full_max, settings.top_k_max)
    if asked.top_k > (most_full if full else most):
        says = (
            f"with returnValues=true or returnMetadata=all, max top K is {most_full}, but got {asked.top_k}; "
            f"for a top K up to {most}, retry with returnValues=false and returnMetadata=indexed"
            if full
            else f"max top K is {most}, but got {asked.top_k}"
        )
        raise CloudflareError(400, TOP_K, says)


def _checked(given: list[float], dimensions: int) -> Vector:
    if len(given) != dimensions:
        says = f"invalid query vector, expected {dimensions} dimensions, and got {len(given)} dimensions"
        raise CloudflareError(400, QUERY_DIMENSIONS, says)
    with np.errstate(over="ignore"):
        vector = np.asarray(given, dtype=np.float32)
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise Invalid(f"vector[{place}]: expected a finite float32")
    return vector


class _Shown:
    """How matches are shown: as much of each as was asked for."""

    def __init__(
        self, asked: Query, metric: Metric, declared: tuple[DeclaredIndex, ...], *, backfill: bool
    ) -> None:
        self._asked = asked
        self._metric = metric
        self._declared = declared
        self._backfill = backfill

    def hit(self, match: Match) -> dict[str, Any]:
        """One match."""
        found = match.found
        hit: dict[str, Any] = {"id": found.id, "score": score(self._metric, match.closeness)}
        if found.namespace is not None:
            hit["namespace"] = found.namespace
        if self._asked.return_values:
            hit["values"] = found.values
        if self._asked.return_metadata != "none" and (metadata := found.metadata) is not None:
            if self._asked.return_metadata == "all":
                hit["metadata"] = orjson.Fragment(metadata)
            else:
                hit["metadata"] = self._indexed(metadata, int(found.segment.written[found.row]))
        return hit

    def _indexed(self, metadata: bytes, written: int) -> dict[str, Any]:
        """The properties that have an index which covers them; long strings cut."""
        everything, kept = orjson.loads(metadata), dict[str, Any]()
        for one in self._declared:
            value = value_at(everything, one.index.property)
            covered = self._backfill or written > written_by(one.position, one.place)
            if value is ABSENT or not covered or not _is_of(one.index.type, value):
                continue
            *outer, last = one.index.property.split(".")
            inner = kept
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = _cut(value) if isinstance(value, str) else value
        return kept


def _is_of(kind: PropertyType, value: Any) -> bool:
    if value is None:
        return True
    match kind:
        case PropertyType.STRING:
            return isinstance(value, str)
        case PropertyType.BOOLEAN:
            return isinstance(value, bool)
        case PropertyType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(text: str) -> str:
    """The first INDEXED_BYTES_MAX bytes of UTF-8, and no half of a character."""
    return text.encode()[:INDEXED_BYTES_MAX].decode(errors="ignore")


def score(metric: Metric, closeness: float) -> float:
    """Cloudflare's score: cosine as it is; the Euclidean distance, not squared; the *negative* dot product."""
    match metric:
        case Metric.COSINE:
            return closeness
        case Metric.EUCLIDEAN:
            return float(np.sqrt(-closeness))
        case Metric.DOT_PRODUCT:
            return -closeness
