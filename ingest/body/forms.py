"""Which form a body has. Clients disagree with their own documentation, so the bytes decide and not the content type
(but for Arrow streams, arrow.py).

lines       NDJSON: LF or CRLF, blank lines skipped but counted, a byte order mark skipped
a string    a JSON string that holds NDJSON (Cloudflare's Python SDK, given a str)
vectors     a JSON object {"vectors": […]} (the Workers binding), or a JSON array of vectors
multipart   any of these as a part (multipart.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingest.body.inflate import Bytes
from ingest.body.multipart import boundary_of, content_of_part
from ingest.body.precise import decode
from ingest.body.simd import simdjson
from upwell.errors import Invalid, InvalidLine

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
FIRST_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")
OPENS_WITH_VECTORS: Final = re.compile(rb'\{\s*"vectors"\s*:')


@dataclass(frozen=True, slots=True)
class Lines:
    """NDJSON."""

    text: bytes

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers from 1. One at a time, so that each stays in the cache."""
        text, number, start = self.text, 0, 0
        while start < len(text):
            end = text.find(b"\n", start)
            end = len(text) if end < 0 else end
            number += 1
            line = text[start:end]
            if line and not line.isspace():
                yield number, line
            start = end + 1

    def count(self) -> int:
        """How many lines are not blank."""
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Values:
    """One JSON document, decoded: its vectors, whatever they are."""

    items: list[Any]


def form_of(body: Bytes, content_type: str | None) -> Lines | Values:
    """The body's content. Raises Invalid for a broken multipart body, InvalidLine for a broken document."""
    is_form, boundary = boundary_of(content_type)
    text = content_of_part(body, boundary) if is_form else bytes(body)
    text = text.removeprefix(BYTE_ORDER_MARK)
    found = FIRST_LINE.search(text)
    if found is None:
        return Lines(b"")
    first = found[0].rstrip()
    if first.startswith(b'"'):
        return _string(text)
    if first.startswith(b"["):
        return _document(text, sure=True)
    if first.startswith(b"{") and (b'"vectors"' in first or not first.endswith(b"}")):
        return _document(text, sure=first == b"{" or _opens_vectors(text, found.start(), first))
    return Lines(text)


def _opens_vectors(text: bytes, start: int, first: bytes) -> bool:
    """Can this only be meant as ``{"vectors": …}``? Not if its first line is whole: vectors may be an unknown key."""
    if not OPENS_WITH_VECTORS.match(text, start):
        return False
    try:
        decode(first, 1)
    except InvalidLine:
        return True
    return False


def _string(text: bytes) -> Lines:
    try:
        inner = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Lines(text)
    return Lines(inner.encode().removeprefix(BYTE_ORDER_MARK)) if isinstance(inner, str) else Lines(text)


def _document(text: bytes, *, sure: bool) -> Lines | Values:
    """The vectors of a JSON document. Unless we are sure that it is meant as one, what is none may be NDJSON."""
    try:
        document = _decode(text)
    except InvalidLine:
        if sure:
            raise
        return Lines(text)
    if isinstance(document, list):
        return Values(document)
    if "vectors" not in document or "id" in document:
        return Values([document])
    if isinstance(document["vectors"], list):
        return Values(document["vectors"])
    raise Invalid("vectors: expected an array")


def _decode(text: bytes) -> Any:
    """JSON. What orjson refuses is read by Python's reader: it keeps NaN, or has the exact complaint.

    orjson turns integers beyond 64 bits into floats without a word; simdjson, which is quick, refuses them.
    """
    if simdjson is None:
        return decode(text, 1)
    try:
        simdjson.Parser().parse(text)
        return orjson.loads(text)
    except (ValueError, RuntimeError, TypeError, UnicodeDecodeError):
        return decode(text, 1)
