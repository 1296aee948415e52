"""Routes of what a mutation was sent to do: to look at it, and to try one again that failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, operations
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
    return await acknowledge(request, index, accepted, wishes)


def _pieces(changeset: Changeset) -> Iterator[bytes]:
    """The rows of a changeset as lines, some at a time."""
    if changeset.metadata_index is not None:
        about = changeset.metadata_index
        yield orjson.dumps({"propertyName": about.property, "indexType": about.type}) + b"\n"
    dimensions = 1 if changeset.vectors is None else changeset.vectors.shape[1]
    rows_each = min(ROWS_AT_ONCE_MAX, max(1, NUMBERS_AT_ONCE // dimensions))
    for start in range(0, len(changeset), rows_each):
        yield b"".join(
            orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
            for row in _rows(changeset, start, min(start + rows_each, len(changeset)))
        )


def _rows(changeset: Changeset, start: int, end: int) -> Iterator[dict[str, Any]]:
    for row in range(start, end):
        shown: dict[str, Any] = {"id": changeset.ids[row].as_py()}
        if changeset.vectors is not None:
            shown["values"] = changeset.vectors[row]
        if changeset.namespaces is not None and (namespace := changeset.namespaces[row].as_py()) is not None:
            shown["namespace"] = namespace
        if changeset.metadata is not None and (metadata := changeset.metadata[row].as_py()) is not None:
            shown["metadata"] = orjson.Fragment(metadata)
        yield shown
