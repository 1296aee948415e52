"""``search`` and ``hybrid_search``: the rows nearest to vectors, to texts, or to rows that are there; and several searches made one.

All vectors of a request are searched by in one version, a few at a time. v2 answers one flat list, and says in ``topks`` how many of it
belong to each vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from ingest.doors.milvus.answers import answer
from ingest.doors.milvus.context import Call, Version
from ingest.doors.milvus.errors import Code, MilvusError, invalid, missing, refused
from ingest.doors.milvus.output_fields import Shown, shown_of
from ingest.doors.milvus.reads import Reading, begun, check_window, ids_of
from ingest.doors.milvus.search_bodies import (
    SEARCH_BYTES_MAX,
    Grouped,
    HybridSearch,
    SearchV1,
    SearchV2,
    SubSearch,
)
from ingest.doors.milvus.search_params import (
    SEARCHES_MAX,
    Field,
    How,
    Vector,
    bounds_of,
    check_by_ids,
    check_limit,
    check_metric,
    check_nq,
    field_of,
    flat_params,
    fusion_of,
    grouping_of,
    vector_v1,
    vectors_of,
)
from ingest.doors.milvus.shown_rows import distance_of, hit_of
from ingest.large import Room, encode_many, encoded_rows
from ingest.turns import in_turns
from upwell.changeset import KeyScope
from upwell.query.fusion import ByScore
from upwell.query.grouped import Grouping, grouped, search_grouped
from upwell.query.hybrid import fuse_lists
from upwell.query.lookup import lookup
from upwell.query.patience import Patience
from upwell.query.ranged import Bounds, search_sparse_within, search_within
from upwell.query.scope import RowFilter, asks_for
from upwell.query.search import Match, in_order
from upwell.query.search import search as search_dense
from upwell.query.sparse import search_sparse
from upwell.query.within import Within
from upwell.shard.filter import Filter
from upwell.shard.metric import Metric
from upwell.shard.view import View

#: What is found by several searches is held together before it is made one: so many rows at most.
FOUND_MAX: Final = 262_144
#: Different filters of one request have no more bytes together than so many of the longest have.
FILTERS_MAX: Final = 4
#: What ``exprParams`` put into them, as JSON.
PARAMS_BYTES_MAX: Final = 16 << 20
#: What v1 calls the id, whatever the collection calls it.
ID_V1: Final = "id"


@dataclass(frozen=True, slots=True)
class Sought:
    """One search: by each of some vectors of a field. Texts are vectors here, of how often they have each term."""

    field: Field
    vectors: Sequence[Vector]
    count: int
    bounds: Bounds | None
    asked: Filter | None

    def ask(
        self, reading: Reading, view: View, place: int, count: int, within: RowFilter | None
    ) -> list[Match]:
        """The best ``count`` by one of the vectors, best first."""
        vector: Any = self.vectors[place]
        where, bounds, recall = reading.namespaces, self.bounds, reading.call.settings.recall
        if self.field.is_sparse:
            if bounds is None:
                return search_sparse(view, vector, count, where, within=within, bm25=self.field.bm25)
            return search_sparse_within(
                view, vector, count, where, bounds=bounds, within=within, bm25=self.field.bm25
            )
        if bounds is None:
            return search_dense(view, vector, count, where, within=within, recall=recall)
        return search_within(view, vector, count, where, bounds=bounds, within=within, recall=recall)


async def search(call: Call) -> web.Response:
    """``search``."""
    if call.version is Version.V1:
        return await _search_v1(call)
    params = await call.params(SearchV2, SEARCH_BYTES_MAX)
    params.check()
    _check_by(params)
    check_limit(params.limit, params.offset, call.settings.milvus_top_k_max)
    check_nq(len(params.ids) or len(params.data), call.settings.milvus_nq_max)
    reading = await begun(call, params)
    collection = reading.collection
    schema, record = collection.schema, collection.index.record
    field = field_of(collection, params.anns_field)
    if params.ids:
        check_by_ids(field)
    given = flat_params(params.search_params)
    check_metric(field, given)
    bounds = bounds_of(field, given)
    grouping = _grouping(reading, params, bounds)
    patience = reading.patience()

    def read() -> tuple[Sought, list[str], Shown]:
        shown = shown_of(schema, record.kind, params.output_fields)
        by_ids = ids_of(schema.ids, params.ids)
        asked = reading.filter(params.filter, params.expr_params)
        vectors = vectors_of(field, params.data, record.dimensions, patience.check)
        return Sought(field, vectors, params.limit + params.offset, bounds, asked), by_ids, shown

    sought, by_ids, shown = await call.ops.parse(read)

    def searches(view: View) -> list[Sought]:
        return [replace(sought, vectors=_vectors_of_rows(reading, view, field, by_ids)) if by_ids else sought]

    return await _Answering(
        reading, patience, searches, None, grouping, params.offset, shown, distance_of(field.metric)
    ).answer()


async def _search_v1(call: Call) -> web.Response:
    params = await call.params(SearchV1, SEARCH_BYTES_MAX)
    check_limit(params.limit, params.offset, call.settings.milvus_top_k_max)
    reading = await begun(call, params)
    collection = reading.collection
    schema, record = collection.schema, collection.index.record
    field = field_of(collection, schema.vector_field if record.kind.has_dense else "")
    bounds = bounds_of(field, flat_params(params.params))
    if field.is_sparse:
        raise refused("v1 searches by dense vectors, and this collection has none")

    def read() -> tuple[Sought, Shown]:
        shown = shown_of(schema, record.kind, params.output_fields, ID_V1)
        vectors = [vector_v1(params.vector, record.dimensions)]
        asked = reading.filter(params.filter)
        return Sought(field, vectors, params.limit + params.offset, bounds, asked), shown

    sought, shown = await call.ops.parse(read)
    return await _Answering(
        reading,
        reading.patience(),
        lambda _: [sought],
        None,
        None,
        params.offset,
        shown,
        distance_of(field.metric),
    ).answer()


async def hybrid_search(call: Call) -> web.Response:
    """``hybrid_search`` and ``advanced_search``."""
    params = await call.params(HybridSearch, SEARCH_BYTES_MAX)
    params.check()
    check_window(params.offset, params.limit, call.settings.milvus_top_k_max)
    _check_searches(params.search, call.settings.milvus_nq_max)
    reading = await begun(call, params)
    collection = reading.collection
    schema, record = collection.schema, collection.index.record
    fields = [field_of(collection, one.anns_field) for one in params.search]
    how = fusion_of(params.rerank.strategy, params.rerank.params, fields)
    of_each = max(1, params.group_size) if params.grouping_field else 1
    patience = reading.patience()
    parts = _Parts(reading, patience, params.limit + params.offset, of_each)
    searches = await call.ops.parse(
        lambda: [parts.read(one, field) for one, field in zip(params.search, fields, strict=True)]
    )
    shown = await call.ops.parse(lambda: shown_of(schema, record.kind, params.output_fields))
    bounds = next((one.bounds for one in searches if one.bounds is not None), None)
    grouping = _grouping(reading, params, bounds)
    sums_distances = isinstance(how, ByScore) and how.sums_distances
    distance = distance_of(Metric.EUCLIDEAN if sums_distances else Metric.DOT_PRODUCT)
    return await _Answering(
        reading, patience, lambda _: searches, how, grouping, params.offset, shown, distance, params.limit
    ).answer()


def _check_by(params: SearchV2) -> None:
    if params.ids and params.data:
        raise MilvusError(
            Code.INVALID_PARAMETER,
            "primary keys (ids) and query vectors (data) are mutually exclusive. "
            "Please provide either 'ids' or 'data', not both",
        )
    if not (params.ids or params.data):
        raise MilvusError(
            Code.MISSING_REQUIRED,
            "either 'ids' (for primary key search) or 'data' (for vector search) must be provided",
        )


def _check_searches(searches: Sequence[SubSearch], nq_max: int) -> None:
    if not 1 <= len(searches) <= SEARCHES_MAX:
        raise refused(
            f"number of ann search requests [{len(searches)}] is invalid, it should be in range [1, {SEARCHES_MAX}]"
        )
    if not all(one.data for one in searches):
        raise missing("data")
    for one in searches:
        check_nq(len(one.data), nq_max)
        if len(one.data) != len(searches[0].data):
            raise invalid(
                "sub search requests have different numbers of vectors",
                str(len(searches[0].data)),
                str(len(one.data)),
            )


def _grouping(reading: Reading, params: Grouped, bounds: Bounds | None) -> Grouping | None:
    return grouping_of(
        reading.collection.schema,
        params.grouping_field,
        size=params.group_size,
        strict=params.strict_group_size,
        groups=params.limit + params.offset,
        bounds=bounds,
    )


def _vectors_of_rows(reading: Reading, view: View, field: Field, ids: Sequence[str]) -> list[Vector]:
    """The vectors of rows that are there. Raises MilvusError for one that is not."""
    names = reading.namespaces
    # Where an id is unique in a namespace only, it means the row of the one partition that is named, or else of the default one.
    namespace = names[0] if isinstance(names, tuple) and len(names) == 1 else None
    inside = namespace if view.key_scope is KeyScope.NAMESPACE else None
    rows = {one.id: one for one in lookup(view, ids, inside) if asks_for(names, one.namespace or "")}
    missing = [id for id in ids if id not in rows]
    if missing:
        raise invalid(f"some of the provided primary key IDs do not exist: missing IDs = [{missing[0][:64]}]")
    vectors: list[Vector] = []
    for id in ids:
        sparse = rows[id].sparse
        vectors.append(sparse if field.is_sparse and sparse is not None else rows[id].values)
    return vectors


class _Parts:
    """Reads the searches of one request. Each filter's text is read once, and so found out once for each segment."""

    def __init__(self, reading: Reading, patience: Patience, depth: int, of_each: int) -> None:
        """``depth``: how many rows, or groups with ``of_each`` of them, each finds unless it says otherwise."""
        self._reading = reading
        self._patience = patience
        self._depth = depth
        self._of_each = of_each
        self._known: dict[tuple[str, bytes], Filter | None] = {}
        self._filters_bytes = self._params_bytes = 0
        self._found = 0

    def read(self, one: SubSearch, field: Field) -> Sought:
        """One of them, as it is asked. Raises MilvusError; blocks."""
        count = one.limit or self._depth
        check_limit(count, 0, self._reading.call.settings.milvus_top_k_max)
        self._found += count * self._of_each
        if self._found > FOUND_MAX:
            raise refused(
                f"the limits of all search requests together are more than {FOUND_MAX}; expected fewer searches or lower limits"
            )
        given = flat_params(one.search_params) | flat_params(one.params)
        check_metric(field, {"metricType": one.metric_type, **given})
        dimensions = self._reading.collection.index.record.dimensions
        vectors = vectors_of(field, one.data, dimensions, self._patience.check)
        return Sought(
            field, vectors, count, bounds_of(field, given), self._filter(one.filter, one.expr_params)
        )

    def _filter(self, text: str, params: dict[str, Any]) -> Filter | None:
        key = text, orjson.dumps(params)
        if key not in self._known:
            self._filters_bytes += len(text)
            self._params_bytes += text.count("{") * len(key[1])
            most = FILTERS_MAX * self._reading.call.settings.milvus_filter_bytes_max
            if self._filters_bytes > most or self._params_bytes > PARAMS_BYTES_MAX:
                raise invalid(
                    f"the filters of all search requests together have more than {most} bytes, or {PARAMS_BYTES_MAX} with "
                    "what is put into them"
                )
            self._known[key] = self._reading.filter(text, params)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class _Answering:
    """A request whose searches are known."""

    reading: Reading
    patience: Patience
    #: What is searched by in a view.
    searches: Callable[[View], Sequence[Sought]]
    #: How searches are made one; None: there is but one.
    how: How | None
    grouping: Grouping | None
    offset: int
    shown: Shown
    distance: Callable[[float], float]
    #: Of several searches: how many rows are found in all.
    limit: int = 0

    async def answer(self) -> web.Response:
        """What is found by each vector in turn."""
        call = self.reading.call
        run = await call.ops.ask(self._begun)
        if isinstance(run, list):
            # There was but one, and changing threads takes as long as a search.
            ((data, rows),) = run
            return self._answered(data, [rows])
        found = await in_turns(call.ops, [partial(run.one, place) for place in range(run.nq)])
        data = await call.ops.ask(lambda: encode_many(rows for rows, count in found if count))
        return self._answered(data, [count for _, count in found])

    def _begun(self) -> _Run | list[tuple[bytes, int]]:
        view = self.reading.collection.index.newest.get()
        run = _Run(self, view, self.searches(view))
        if run.nq > 1:
            return run
        rows, count = run.one(0)
        return [(encode_many([rows]), count)]

    def _answered(self, data: bytes, topks: list[int]) -> web.Response:
        call = self.reading.call
        return answer(call, data) if call.version is Version.V1 else answer(call, data, topks=topks)


class _Run:
    """A request's searches of one view. For any threads."""

    def __init__(self, of: _Answering, view: View, searches: Sequence[Sought]) -> None:
        self._of = of
        self._view = view
        self._searches = searches
        self.nq = len(searches[0].vectors)
        # A filter that is asked for more than once is remembered.
        asked = (one.asked for one in searches for _ in range(self.nq))
        call = of.reading.call
        self._within = Within(asked, call.patience())
        self._patience = of.patience
        self._room = Room()

    def one(self, place: int) -> tuple[bytes, int]:
        """The rows found by the vectors at one place, encoded, with commas between them; and how many. Raises Invalid if they are too
        much."""
        of = self._of
        matches = self._alone(place) if of.how is None else self._fused(of.how, place)
        style = of.reading.style
        rows = encoded_rows((hit_of(one, of.shown, style, of.distance) for one in matches), self._room)
        # As one text: millions of small ones take three times as much.
        return b",".join(rows), len(rows)

    def _alone(self, place: int) -> list[Match]:
        (sought,) = self._searches
        if self._of.grouping is None:
            return self._best(sought, place)[self._of.offset :]
        return self._flat(self._groups(sought, place, self._of.grouping))

    def _fused(self, how: How, place: int) -> list[Match]:
        of, grouping = self._of, self._of.grouping
        if grouping is None:
            fused = fuse_lists([self._best(sought, place) for sought in self._searches], how)
            return fused[of.offset : of.offset + of.limit]
        lists = []
        for sought in self._searches:
            groups = self._groups(sought, place, replace(grouping, groups=sought.count))
            lists.append(in_order([match for group in groups for match in group]))
        return self._flat(grouped(fuse_lists(lists, how), grouping))

    def _best(self, sought: Sought, place: int) -> list[Match]:
        left = self._within.left_by(sought.asked)
        return self._ask(sought, place, sought.count, left)

    def _groups(self, sought: Sought, place: int, grouping: Grouping) -> list[list[Match]]:
        ask = partial(self._ask, sought, place)
        return search_grouped(ask, grouping, self._within.left_by(sought.asked))

    def _ask(self, sought: Sought, place: int, count: int, within: RowFilter | None) -> list[Match]:
        self._patience.check()
        return sought.ask(self._of.reading, self._view, place, count, within)

    def _flat(self, groups: list[list[Match]]) -> list[Match]:
        """The rows of groups; it is groups that an offset passes over."""
        return [match for group in groups[self._of.offset :] for match in group]
