"""``query`` and ``get``: rows in the order of their keys, those that a filter leaves or those with given ids; and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web
from pydantic import Field

from ingest.doors.milvus.answers import answer
from ingest.doors.milvus.context import Call, ListOf, Name, Version
from ingest.doors.milvus.errors import invalid
from ingest.doors.milvus.output_fields import COUNT, EVERYTHING, Shown, is_count, shown_of
from ingest.doors.milvus.reads import (
    LIMIT_DEFAULT,
    OfRows,
    Reading,
    begun,
    check_window,
    ids_of,
    in_key_order,
)
from ingest.doors.milvus.shown_rows import least_bytes, row_of
from ingest.large import Room, encode, encode_many, encode_rows, encoded_rows, rows_at_most
from upwell.changeset import KeyScope
from upwell.query.keyed import count_rows, keyed_rows
from upwell.query.lookup import Found, lookup
from upwell.query.scope import asks_for
from upwell.query.within import left_by
from upwell.schema import IdType
from upwell.shard.filter import Filter, OfId, OneOf
from upwell.shard.view import View

#: No more than the longest answer to a search has. Those of queries without a limit have any number of rows.
ROWS_AT_ONCE: Final = 16_384
PIECE_ROWS: Final = 1_000
EMPTY_NEEDS_LIMIT: Final = "empty expression should be used with limit"


class Query(OfRows):
    """The body of ``query``."""

    filter: str = ""
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    output_fields: ListOf[str] = Field(default=[EVERYTHING])
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
    output_fields: ListOf[str] = Field(default=[EVERYTHING])


async def query(call: Call) -> web.Response:
    """``query``."""
    params = await call.params(QueryV1 if call.version is Version.V1 else Query)
    for name, given in (("orderByFields", params.order_by_fields), ("groupByFields", params.group_by_fields)):
        if given:
            raise invalid(f"{name} is not supported, got {encode(given).decode()[:64]}")
    reading = await begun(call, params)
    collection, kind = reading.collection, reading.collection.index.record.kind
    asked = await call.ops.parse(lambda: reading.filter(params.filter, params.expr_params))
    if is_count(params.output_fields):
        return await _counted(reading, asked)
    if any(is_count([name]) for name in params.output_fields):
        raise invalid("count entities with pagination is not allowed")
    if params.limit:
        check_window(params.offset, params.limit, call.settings.milvus_top_k_max)
    elif asked is None:
        raise invalid(EMPTY_NEEDS_LIMIT)
    shown = await call.ops.parse(lambda: shown_of(collection.schema, kind, params.output_fields))
    style, within = reading.style, left_by(asked, call.patience())
    row_bytes_min = least_bytes(shown, collection.index.record.dimensions)

    def found(view: View) -> Sequence[Found]:
        rows = keyed_rows(
            view,
            namespaces=reading.namespaces,
            within=within,
            as_integers=collection.schema.ids is IdType.INT64,
            offset=params.offset if params.limit else 0,
            # One more than an answer can have: no more are looked for, and that there are more is known before they are encoded.
            limit=params.limit or rows_at_most(row_bytes_min) + 1,
        )
        Room().take(len(rows) * row_bytes_min)
        return rows

    return await _answered(reading, found, lambda one: row_of(one, shown, style))


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

    def read() -> tuple[list[str], Shown]:
        shown = shown_of(collection.schema, collection.index.record.kind, params.output_fields)
        return ids_of(kind, params.id), shown

    # Both may have hundreds of thousands of names.
    ids, shown = await call.ops.parse(read)
    style, patience = reading.style, call.patience()

    def found(view: View) -> Sequence[Found]:
        if view.key_scope is KeyScope.NAMESPACE:
            # An id may be in any number of namespaces.
            within = left_by(OfId(OneOf("", tuple(ids))), patience)
            return keyed_rows(
                view, namespaces=reading.namespaces, within=within, as_integers=kind is IdType.INT64
            )
        return _by_ids(view, ids, reading, kind)

    return await _answered(reading, found, lambda one: row_of(one, shown, style))


async def _answered(
    reading: Reading, find: Callable[[View], Sequence[Found]], shown: Callable[[Found], dict[str, Any]]
) -> web.Response:
    """The answer with the rows that ``find`` finds; if they are many it is made bit by bit, where it holds up no other query."""
    ops = reading.call.ops

    def found(view: View) -> bytes | Sequence[Found]:
        rows = find(view)
        return rows if len(rows) > ROWS_AT_ONCE else encode_rows(map(shown, rows))

    rows = await ops.read(reading.collection.index, found)
    if isinstance(rows, bytes):
        return answer(reading.call, rows)
    room, pieces = Room(), list[bytes]()

    def piece(start: int) -> bytes:
        return b",".join(encoded_rows(map(shown, rows[start : start + PIECE_ROWS]), room))

    for start in range(0, len(rows), PIECE_ROWS):
        pieces.append(await ops.bulk(partial(piece, start)))
    return answer(reading.call, await ops.bulk(lambda: encode_many(pieces)))


def _by_ids(view: View, ids: list[str], reading: Reading, kind: IdType) -> list[Found]:
    """The rows with these ids that lie in the partitions that are asked for."""
    found = lookup(view, ids)
    if reading.namespaces is not None:
        found = [one for one in found if asks_for(reading.namespaces, one.namespace or "")]
    return [found[place] for place in in_key_order(kind, [one.id for one in found])]
