"""Routes of vectors: insert, upsert, delete_by_ids, get_by_ids, list."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from aiohttp import web

from ingest.admission import check_room
from ingest.body import Rules, inflate, parse_ids
from ingest.doors.cloudflare.context import authorised_index, demand_writable, number_in, operations
from ingest.doors.cloudflare.envelope import answer, encode_result
from ingest.doors.cloudflare.errors import BODY_UNPARSABLE, CURSOR, IDS, LINE_CODES, CloudflareError
from ingest.doors.cloudflare.rows import row_result
from ingest.doors.cloudflare.writes import acknowledge, report, wishes_of
from ingest.requests import read_body
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, Operation
from upwell.engine import Index
from upwell.errors import Gone, Invalid, TooLarge
from upwell.query.listing import Place, decode_cursor, encode_cursor
from upwell.query.lookup import Found, lookup

LIST_DEFAULT = 100


async def insert(request: web.Request) -> web.Response:
    """``POST …/insert``: keep what exists."""
    return await _upload(request, Operation.INSERT)


async def upsert(request: web.Request) -> web.Response:
    """``POST …/upsert``: replace whole."""
    return await _upload(request, Operation.UPSERT)


async def _upload(request: web.Request, operation: Operation) -> web.Response:
    index = await authorised_index(request, Access.WRITE)
    demand_writable(index.record)
    ops, wishes = operations(request), wishes_of(request)
    if not wishes.dry_run:
        await ops.admit(index, adds_rows=True)
    settings, schema = ops.engine.settings, index.record.effective_schema
    rules = Rules(
        dimensions=index.record.dimensions,
        vectors_max=settings.request_vectors_max,
        bytes_max=settings.request_bytes_max,
        id_bytes_max=schema.id_bytes_at_most(settings.id_bytes_max),
        ids=schema.ids,
        namespace_bytes_max=settings.namespace_bytes_max,
        metadata_bytes_max=settings.metadata_bytes_max,
        discard=_unparsable_behavior(request) == "discard" or wishes.dry_run,
    )
    if wishes.dry_run:
        mutation = await ops.rehearse(request, operation, rules)
        return report(mutation.received, mutation)
    accepted, mutation = await ops.upload(
        index,
        request,
        operation,
        rules,
        sender=wishes.sender,
        may=lambda: check_room(index, settings.vectors_max),
    )
    return await acknowledge(request, accepted, wishes, mutation)


def _unparsable_behavior(request: web.Request) -> Literal["error", "discard"]:
    match request.query.get("unparsable-behavior", "error"):
        case "error":
            return "error"
        case "discard":
            return "discard"
        case other:
            raise Invalid(f"unparsable-behavior: expected error or discard, got {other[:64]!r}")


async def delete_by_ids(request: web.Request) -> web.Response:
    """``POST …/delete_by_ids``; unknown ids are no error."""
    index = await authorised_index(request, Access.WRITE)
    wishes = wishes_of(request)
    if not wishes.dry_run:
        await operations(request).admit(index)
    ids = await _ids(request, operations(request).engine.settings.delete_ids_max)
    if wishes.dry_run:
        return report(len(ids))
    changeset = Changeset(operation=Operation.DELETE, ids=pa.array(ids, pa.utf8()), received=len(ids))
    accepted = await operations(request).append(index, changeset, wishes.sender)
    return await acknowledge(request, accepted, wishes)


async def get_by_ids(request: web.Request) -> web.Response:
    """``POST …/get_by_ids``: an array of those that exist, in the order asked."""
    index = await authorised_index(request, Access.READ)
    ids = await _ids(request, operations(request).engine.settings.get_ids_max)
    return answer(await operations(request).read(index, lambda view: _encode_found(lookup(view, ids))))


async def _ids(request: web.Request, ids_max: int | None) -> list[str]:
    ops = operations(request)
    bytes_max, id_bytes_max = ops.engine.settings.request_bytes_max, ops.engine.settings.id_bytes_max
    body = await read_body(request, bytes_max)
    encoding = request.headers.get("Content-Encoding")

    def parsed() -> list[str]:
        text = inflate(body, encoding, bytes_max)
        try:
            return parse_ids(text, id_bytes_max=id_bytes_max, ids_max=ids_max)
        except TooLarge as error:
            raise CloudflareError(400, IDS, error.detail) from None
        except Invalid as error:
            code = LINE_CODES.get(error.facts.get("reason"), BODY_UNPARSABLE)
            raise CloudflareError(400, code, error.detail) from None

    return await ops.parse(parsed)


def _encode_found(found: list[Found]) -> bytes:
    return encode_result(
        [
            row_result(
                one.id,
                values=one.values,
                sparse=one.sparse,
                namespace=one.namespace,
                metadata=one.metadata,
                data=one.data,
            )
            for one in found
        ]
    )


async def list_ids(request: web.Request) -> web.Response:
    """``GET …/list?count=&cursor=``: ids page by page, as of the moment of the first page."""
    index = await authorised_index(request, Access.READ)
    most = operations(request).engine.settings.list_page_max
    count = number_in(request, "count", min(LIST_DEFAULT, most), most)
    cursor = request.query.get("cursor")
    return answer(await operations(request).ask(lambda: _page(index, cursor, count)))


def _page(index: Index, cursor: str | None, count: int) -> bytes:
    pinned, secret = index.pinned, index.record.receipt_key
    try:
        place = decode_cursor(secret, cursor) if cursor else pinned.begin()
    except Invalid:
        raise CloudflareError(400, CURSOR, "List vectors cursor appears to be corrupted") from None
    try:
        page = pinned.page(place, count)
    except Gone as error:
        raise CloudflareError(400, CURSOR, f"List vectors cursor has expired: {error.detail}") from None
    following = page.following
    return encode_result(
        {
            "count": len(page.ids),
            "totalCount": page.total,
            "isTruncated": following is not None,
            "nextCursor": None if following is None else encode_cursor(secret, following),
            "cursorExpirationTimestamp": None if following is None else _nanoseconds(following),
            "vectors": [{"id": id} for id in page.ids],
        }
    )


def _nanoseconds(place: Place) -> str:
    """As Cloudflare writes this one time: nanoseconds, and an offset instead of Z."""
    return place.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%f000+00:00")
