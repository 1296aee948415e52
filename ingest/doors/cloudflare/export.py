"""``GET …/export``: every row of one version, as the lines that upsert takes. Sent out and taken in again they are the same to the bit; but
for ``sparseVector`` and ``data``, which are given out where a row has them, and which Cloudflare's upsert knows nothing of.

The stream shows one version whatever is written meanwhile, and holds a few hundred vectors in memory. Its headers say which version and how
many vectors. What goes wrong on the way breaks the connection off before the last chunk, so that no client takes a part for the whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import orjson
import zstandard
from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, operations
from ingest.doors.cloudflare.rows import ROW_OPTIONS, row_result
from ingest.doors.cloudflare.streams import NUMBERS_AT_ONCE, streamed
from upwell.catalog.tokens import Access
from upwell.errors import Invalid
from upwell.query.scan import Scan, Some

#: Text of numbers has little to gain from more.
GZIP_LEVEL = 1
ZSTD_LEVEL = 1
#: A row's sparse vector, data and metadata are taken for at least as many numbers as this.
OTHER_NUMBERS = 64


class Encoder(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes:
        """What there is to send so far."""
        ...

    def flush(self) -> bytes:
        """The rest."""
        ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


async def export(request: web.Request) -> web.StreamResponse:
    """Stream them. A read token suffices."""
    index = await authorised_index(request, Access.READ)
    namespace = _namespace(request)
    ops = operations(request)
    scan = await ops.bulk(lambda: Scan(index.newest.get(), namespace))
    headers = {
        "Content-Type": "application/x-ndjson",
        "X-Upwell-Version": str(scan.view.manifest.version),
        "X-Upwell-Vectors": str(scan.vectors),
        "Vary": "Accept-Encoding",
    }
    name, encoder = _encoder(request.headers.get("Accept-Encoding", ""))
    if name is not None:
        headers["Content-Encoding"] = name
    return await streamed(request, headers, _pieces(scan, encoder))


def _pieces(scan: Scan, encoder: Encoder) -> Iterator[bytes]:
    """The stream's bytes. Blocks."""
    rows_each = max(1, NUMBERS_AT_ONCE // max(scan.view.record.dimensions, OTHER_NUMBERS))
    for some in scan.some(rows_each):
        piece = encoder.compress(b"".join(_lines(some)))
        if piece:
            yield piece
    rest = encoder.flush()
    if rest:
        yield rest


def _lines(some: Some) -> Iterator[bytes]:
    """A line for each row."""
    for place, (id, values, namespace, metadata, data) in enumerate(
        zip(some.ids, some.vectors, some.namespaces, some.metadata, some.data, strict=True)
    ):
        sparse = None if some.sparse is None else some.sparse.row(place)
        row = row_result(id, values=values, sparse=sparse, namespace=namespace, metadata=metadata, data=data)
        yield orjson.dumps(row, option=ROW_OPTIONS)


def _namespace(request: web.Request) -> str | None:
    namespace = request.query.get("namespace")
    if namespace is None:
        return None
    if namespace == "" or "\0" in namespace:
        raise Invalid("namespace: expected a namespace's name; leave it out to export everything")
    return namespace


def _encoder(accepted: str) -> tuple[str | None, Encoder]:
    """What the client can take: zstd, gzip, or plain text."""
    wanted = {_coding(one) for one in accepted.lower().split(",")}
    if "zstd" in wanted:
        return "zstd", zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    if "gzip" in wanted:
        return "gzip", zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, wbits=31)
    return None, _Plain()


def _coding(one: str) -> str:
    """A coding, "" if its weight says that it is not wanted."""
    coding, _, weight = one.partition(";")
    is_zero = weight != "" and not weight.strip().removeprefix("q=").strip("0.")
    return "" if is_zero else coding.strip()
