"""Which form a body has. Clients disagree with their own documentation, so the bytes decide and not the content type.

lines       NDJSON: LF or CRLF, blank lines skipped but counted, a byte order mark skipped
a string    a JSON string that holds NDJSON (Cloudflare's Python SDK, given a str)
vectors     a JSON object {"vectors": […]} (the Workers binding), or a JSON array of vectors
multipart   any of these as a part: the one named ``vectors``, else the first file, else the first part
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ingest.body.inflate import Bytes
from ingest.body.precise import decode
from upwell.errors import Invalid

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Where the key of ``{"vectors": …}`` must have shown up for the body to be looked at as one document.
HEAD_BYTES = 4096
WHITE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Lines:
    """NDJSON."""

    text: bytes

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers from 1."""
        for number, line in enumerate(self.text.split(b"\n"), start=1):
            if line and not line.isspace():
                yield number, line

    def count(self) -> int:
        """How many lines are not blank."""
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Values:
    """One JSON document, decoded: its vectors, whatever they are."""

    items: list[Any]


def form_of(body: Bytes, content_type: str | None) -> Lines | Values:
    """The body's content. Raises Invalid for a broken multipart body, InvalidLine for a broken document."""
    kind, options = parse_options_header(content_type)
    text = _part(body, options.get(b"boundary")) if kind == b"multipart/form-data" else bytes(body)
    text = text.removeprefix(BYTE_ORDER_MARK)
    head = text[:HEAD_BYTES].lstrip(WHITE)
    if head.startswith(b'"'):
        return _string(text)
    if head.startswith(b"["):
        return _document(text)
    if head.startswith(b"{") and (
        b'"vectors"' in head or not _is_json(text.lstrip(WHITE).split(b"\n", 1)[0])
    ):
        return _document(text)
    return Lines(text)


def _is_json(line: bytes) -> bool:
    """Is the first line a document by itself? If it is just ``{``, the body is one document over many lines."""
    return line.rstrip(WHITE) not in (b"{", b"[")


def _string(text: bytes) -> Lines:
    try:
        inner = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Lines(text)
    return Lines(inner.encode()) if isinstance(inner, str) else Lines(text)


def _document(text: bytes) -> Lines | Values:
    """The vectors of a JSON document; NDJSON if it turns out not to be one document with vectors."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        if text.lstrip(WHITE).startswith(b"{") and _is_json(text.lstrip(WHITE).split(b"\n", 1)[0]):
            return Lines(text)
        # With its exact complaint, or with the NaN that orjson would not read.
        document = decode(text, 1)
    if isinstance(document, list):
        return Values(document)
    if isinstance(document, dict) and isinstance(document.get("vectors"), list):
        return Values(document["vectors"])
    if isinstance(document, dict) and "vectors" in document and "id" not in document:
        raise Invalid("vectors: expected an array")
    return Values([document])


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    def disposition(self) -> dict[bytes, bytes]:
        return parse_options_header(self.headers.get(b"content-disposition"))[1]


class _Parts:
    """Collects what the multipart parser finds."""

    def __init__(self) -> None:
        self.all: list[_Part] = []
        self.complete = False
        self._name = bytearray()
        self._value = bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": lambda: self.all.append(_Part()),
            "on_part_data": self._data,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_end": self._end,
        }

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.all[-1].content += memoryview(data)[start:end]

    def _header(self) -> None:
        self.all[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.complete = True


def _part(body: Bytes, boundary: bytes | None) -> bytes:
    """The content of the part that holds the vectors."""
    if not boundary:
        raise Invalid("Content-Type: expected a boundary with multipart/form-data")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError as error:
        raise Invalid(f"the multipart body is malformed: {error}") from None
    if not parts.complete:
        raise Invalid("the multipart body ends before its closing boundary")
    if not parts.all:
        raise Invalid("the multipart body has no parts")
    named = [part for part in parts.all if part.disposition().get(b"name") == b"vectors"]
    files = [part for part in parts.all if b"filename" in part.disposition()]
    return bytes((named or files or parts.all)[0].content)
