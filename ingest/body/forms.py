"""Which form a body has. Clients disagree with their own documentation, so the bytes decide and not the content type
(but for Arrow streams, arrow.py).

lines       NDJSON: LF or CRLF, blank lines skipped but counted, a byte order mark skipped
a string    a JSON string that holds NDJSON (Cloudflare's Python SDK, given a str)
vectors     a JSON object {"vectors": […]} (the Workers binding), or a JSON array of vectors (documents.py)
multipart   any of these as a part (multipart.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from ingest.body.documents import Pieces, cut
from ingest.body.inflate import Bytes
from ingest.body.multipart import boundary_of, content_of_part
from ingest.body.precise import BYTE_ORDER_MARK, decode
from ingest.body.rules import Rules
from upwell.errors import InvalidLine

NOT_BLANK: Final = re.compile(rb"\S")
OPENS_WITH_VECTORS: Final = re.compile(rb'\{\s*"vectors"\s*:')


@dataclass(frozen=True, slots=True)
class Lines:
    """NDJSON."""

    text: bytes

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers from 1. One at a time, so that each stays in the cache.

        Blank lines are passed over in one search and counted by another: a small body may inflate to a hundred million.
        """
        text, number, at = self.text, 1, 0
        for first, end in self.spans():
            number += text.count(b"\n", at, first)
            start = text.rfind(b"\n", at, first) + 1
            at = end
            yield number, text[start:end]

    def count(self, most: int) -> int:
        """How many lines are not blank; beyond ``most`` not all are counted."""
        return sum(1 for _ in islice(self.spans(), most + 1))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each line that is not blank has its first character that is not, and where it ends."""
        text, end = self.text, 0
        while (found := NOT_BLANK.search(text, end)) is not None:
            end = text.find(b"\n", found.start())
            end = len(text) if end < 0 else end
            yield found.start(), end


def form_of(body: Bytes, content_type: str | None, rules: Rules) -> Lines | Pieces:
    """The body's content. Raises Invalid for a broken multipart body, InvalidLine for a broken document."""
    is_form, boundary = boundary_of(content_type)
    text = content_of_part(body, boundary) if is_form else bytes(body)
    text = text.removeprefix(BYTE_ORDER_MARK)
    start, end = next(Lines(text).spans(), (0, 0))
    first = text[start:end].rstrip()
    if first.startswith(b'"'):
        return _string(text)
    if first.startswith(b"["):
        return cut(text, rules)
    if first.startswith(b"{") and (b'"vectors"' in first or not first.endswith(b"}")):
        return _object(text, start, first, rules)
    return Lines(text)


def _object(text: bytes, start: int, first: bytes, rules: Rules) -> Lines | Pieces:
    """``{"vectors": …}``, a vector over many lines, or NDJSON: its first line may be broken, or have an unknown key vectors."""
    line = _decoded(first, rules)
    if line is not None and ("vectors" not in line or "id" in line):
        return Lines(text)
    try:
        return cut(text, rules)
    except InvalidLine:
        if line is None and (first == b"{" or OPENS_WITH_VECTORS.match(text, start)):
            raise
        return Lines(text)


def _decoded(first: bytes, rules: Rules) -> dict[str, Any] | None:
    """The object that a body's first line is, if it is a whole one."""
    try:
        return decode(first, 1) if len(first) <= rules.line_bytes_max else None
    except InvalidLine:
        return None


def _string(text: bytes) -> Lines:
    try:
        inner = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Lines(text)
    return Lines(inner.encode().removeprefix(BYTE_ORDER_MARK)) if isinstance(inner, str) else Lines(text)
