"""A multipart/form-data body: the one part of it that holds the vectors.

Which one: the part named ``vectors``, else the first file, else the first part. The body is in memory already, and so are its parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ingest.body.inflate import Bytes
from upwell.errors import Invalid

#: A form has a handful; a body of millions of empty parts would cost a hundred times its size.
PARTS_MAX: Final = 100


def boundary_of(content_type: str | None) -> tuple[bool, bytes | None]:
    """Is this the content type of a form, and which boundary does it name?

    Takes any text: a header may hold anything, and servers decode what is not UTF-8 into lone surrogates.
    """
    kind, options = parse_options_header((content_type or "").encode("utf-8", "replace"))
    return kind == b"multipart/form-data", options.get(b"boundary")


def content_of_part(body: Bytes, boundary: bytes | None) -> bytes:
    """The content of the part that holds the vectors. Raises Invalid."""
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
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.all) == PARTS_MAX:
            raise Invalid(f"the multipart body has more than the {PARTS_MAX} parts allowed")
        self.all.append(_Part())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.all[-1].content += memoryview(data)[start:end]

    def _header(self) -> None:
        self.all[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.complete = True
