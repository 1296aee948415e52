"""``query`` and ``get``: rows in the order of their keys, those that a filter leaves or those with given ids; and how many there are."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from pydantic import Field

from ingest.doors.milvus.answers import answer, encode
from ingest.doors.milvus.context import Call, Name, Version
from ingest.doors.milvus.errors import invalid
from ingest.doors.milvus.fields_out import COUNT, EVERYTHING, is_count, shown_of
from ingest.doors.milvus.reading import (
    LIMIT_DEFAULT,
    OfRows,
    Reading,
    begun,
    check_window,
    ids_of,
    in_key_order,
)
from ingest.doors.milvus.shown import row_of
from ingest.large import encode_rows
from upwell.changeset import KeyScope
from upwell.query.keyed import count_rows, keyed_rows
from upwell.query.lookup import Found, lookup
from upwell.query.within import left_by
from upwell.schema import IdType
from upwell.shard.filter import Filter, OfId, OneOf
from upwell.shard.view import View

EMPTY_NEEDS_LIMIT: Final = "empty expression should be used with limit"


class Query(OfRows):
    """The body of ``query``."""

    filter: str = ""
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    output_fields: list[str] = Field(default=[EVERYTHING])
    expr_params: dict[str, Any] = Field(default={})
    #: What is not done here, and would otherwise be answered as if it were.
    order_by_fields: list[Any] = Field(default=[])
    group_by_fields: list[Any] = Field(default=[])


class QueryV1(Query):
    """The same where a filter must be."""

    filter: Name


class Get(OfRows):
    """The body of ``get``. The member is called ``id`` whatever the collection's key is called."""

    id: Any
    output_fields: list[str] = Field(default=[EVERYTHING])


async def query(call: Call) -> web.Response:
    """``query``."""
    params = await call.params(QueryV1 if call.version is Version.V1 else Query)
    for name, given in (("orderByFields", params.order_by_fields), ("groupByFields", params.group_by_fields)):
        if given:
            raise invalid(f"{name} is not supported")
    reading = await begun(call, params)
    asked = await call.ops.parse(lambda: reading.filter(params.filter, params.expr_params))
    if is_count(params.output_fields):
        return await _counted(reading, asked)
    if params.limit:
        check_window(params.offset, params.limit, call.settings.milvus_top_k_max)
    elif asked is None:
        raise invalid(EMPTY_NEEDS_LIMIT)
    collection = reading.collection
    shown = shown_of(collection.schema, collection.index.record.kind, params.output_fields)
    style, within = reading.style, left_by(asked, call.patience())

    def found(view: View) -> bytes:
        rows = keyed_rows(
            view,
            namespaces=reading.namespaces,
            within=within,
            as_integers=collection.schema.ids is IdType.INT64,
            offset=params.offset if params.limit else 0,
            limit=params.limit or None,
        )
        return encode_rows(row_of(one, shown, style) for one in rows)

    return answer(call, await call.ops.read(collection.index, found))


async def _counted(reading: Reading, asked: Filter | None) -> web.Response:
    call = reading.call
    within = left_by(asked, call.patience())
    rows = await call.ops.read(
        reading.collection.index, lambda view: count_rows(view, reading.namespaces, within)
    )
    return answer(call, encode([{COUNT: str(rows) if call.ids_as_text else rows}]))


async def get(call: Call) -> web.Response:
    """``get``."""
    params = await call.params(Get)
    reading = await begun(call, params)
    collection, call = reading.collection, reading.call
    kind = collection.schema.ids
    ids = ids_of(kind, params.id)
    shown = shown_of(collection.schema, collection.index.record.kind, params.output_fields)
    style, patience = reading.style, call.patience()

    def found(view: View) -> bytes:
        if view.key_scope is KeyScope.NAMESPACE:
            # An id may be in any number of namespaces.
            within = left_by(OfId(OneOf("", tuple(ids))), patience)
            rows = keyed_rows(
                view, namespaces=reading.namespaces, within=within, as_integers=kind is IdType.INT64
            )
        else:
            rows = _by_ids(view, ids, reading, kind)
        return encode_rows(row_of(one, shown, style) for one in rows)

    return answer(call, await call.ops.read(collection.index, found))


def _by_ids(view: View, ids: list[str], reading: Reading, kind: IdType) -> list[Found]:
    """The rows with these ids that lie in the partitions that are asked for."""
    found = lookup(view, ids)
    if reading.namespaces is not None:
        found = [one for one in found if (one.namespace or "") in reading.namespaces]
    return [found[place] for place in in_key_order(kind, [one.id for one in found])]
