"""Routes of what a mutation was sent to do: to look at it, and to try one again that failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, operations
from ingest.doors.cloudflare.rows import ROW_OPTIONS, row_result
from ingest.doors.cloudflare.streams import NUMBERS_AT_ONCE, streamed
from ingest.doors.cloudflare.writes import acknowledge, refuse_dry_run, wishes_of
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset

#: Of short vectors: their metadata may be long.
ROWS_AT_ONCE_MAX = 500


async def changeset(request: web.Request) -> web.StreamResponse:
    """``GET …/mutations/{mutation}/changeset``: a line of NDJSON for each of its rows, as a client could send them."""
    index = await authorised_index(request, Access.READ)
    ops = operations(request)
    found = await ops.look(index.sent.changeset, request.match_info["mutation"])
    headers = {
        "Content-Type": "application/x-ndjson",
        "X-Upwell-Operation": found.operation,
        "X-Upwell-Rows": str(len(found)),
    }
    return await streamed(request, headers, _pieces(found))


async def retry(request: web.Request) -> web.Response:
    """``POST …/mutations/{mutation}/retry``: what failed is a new mutation, at the end of the log. 400 for one that did not fail.

    The same again is the same new mutation, for as long as requests are remembered; once that has failed too, it is another one.
    """
    index = await authorised_index(request, Access.WRITE)
    refuse_dry_run(request)
    wishes = wishes_of(request)
    accepted = await operations(request).retry(index, request.match_info["mutation"], wishes.sender)
    return await acknowledge(request, accepted, wishes)


def _pieces(changeset: Changeset) -> Iterator[bytes]:
    """What the operation is told, if it is told anything, and the rows of a changeset as lines, some at a time."""
    if (told := told_of(changeset)) is not None:
        yield orjson.dumps(told) + b"\n"
    dimensions = 1 if changeset.vectors is None else changeset.vectors.shape[1]
    rows_each = min(ROWS_AT_ONCE_MAX, max(1, NUMBERS_AT_ONCE // dimensions))
    for start in range(0, len(changeset), rows_each):
        yield b"".join(
            orjson.dumps(row, option=ROW_OPTIONS)
            for row in _rows(changeset, start, min(start + rows_each, len(changeset)))
        )


def told_of(changeset: Changeset) -> dict[str, Any] | None:
    """What an operation is told beside its rows, under the names that clients give it."""
    details = changeset.details
    if (about := changeset.metadata_index) is not None:
        return {"propertyName": about.property, "indexType": about.type}
    if (selection := details.selection) is not None:
        given = {"namespace": selection.namespace, "prefix": selection.prefix, "filter": selection.filter}
        return {name: value for name, value in given.items() if value is not None}
    if (rename := details.rename) is not None:
        return {
            "namespace": rename.namespace,
            "newNamespace": rename.new_namespace,
            "deleteExisting": rename.delete_existing,
        }
    if details.patch:
        return {"metadataUpdateMode": "PATCH"}
    return None


def _rows(changeset: Changeset, start: int, end: int) -> Iterator[dict[str, Any]]:
    def value(column: pa.Array | None, row: int) -> Any:
        return None if column is None else column[row].as_py()

    for row in range(start, end):
        yield row_result(
            changeset.ids[row].as_py(),
            values=None if changeset.vectors is None else changeset.vectors[row],
            sparse=None if changeset.sparse is None else changeset.sparse.row(row),
            namespace=value(changeset.namespaces, row),
            metadata=value(changeset.metadata, row),
            data=value(changeset.data, row),
        )
