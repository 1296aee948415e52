"""A body that is one JSON document, cut into the texts of its vectors: each is then read as a line of NDJSON is.

Decoded whole, a document takes up to thirty times its size as Python objects, and a hundred megabytes of brackets come gzipped in a
hundred kilobytes. To cut it one needs to know strings and brackets, and nothing else of JSON: what lies between is checked when it is
read, and pieces that are JSON, between the right commas and brackets, are a document that is JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ingest.body.precise import BYTE_ORDER_MARK, decode
from ingest.body.rules import Rules
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason, TooLarge

#: What may change where we are.
MARK: Final = re.compile(rb'["\[\]{},]')
#: What an array of numbers does not have in it.
NO_NUMBERS: Final = (b"[", b"{", b"}", b'"')
#: Arrays of numbers up to this length are passed over at once; so often is one looked for, within one item, where there is none.
FLAT_BYTES_MAX: Final = 128 << 10
MISSES_MAX: Final = 4
SPACE: Final = re.compile(rb"[ \t\r\n]*")
COLON: Final = re.compile(rb"[ \t\r\n]*:")
CLOSERS: Final = {ord("["): ord("]"), ord("{"): ord("}")}
QUOTE, COMMA, OPENS_ARRAY, CLOSES_ARRAY, CLOSES_OBJECT = b'",[]}'

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The vectors of a document: where the text of each begins and ends."""

    text: bytes
    spans: list[Span]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Their texts, with their places from 1."""
        for place, (start, end) in enumerate(self.spans, 1):
            yield place, _piece(self.text, start, end)

    def count(self, _most: int) -> int:
        """How many there are."""
        return len(self.spans)

    def refuse(self, place: int, problem: LineProblem) -> NoReturn:
        """Raise the InvalidLine of a document with a piece that is not JSON: there the mistake is named by its line."""
        _check(self.text, *self.spans[place - 1])
        raise InvalidLine(problem)


def cut(text: bytes, rules: Rules) -> Pieces:
    """The vectors of an array, or of an object with ``vectors``; any other object is one vector.

    Raises InvalidLine where the text is cut wrongly or a vector is too large, Invalid for ``vectors`` that are no array or there twice, and TooLarge
    for far too many.
    """
    start = _past_space(text, 0)
    reader = _array if text[start : start + 1] == b"[" else _object
    spans, end = reader(text, start, rules)
    rest = _past_space(text, end)
    if rest < len(text):
        _break(text, rest, "Extra data")
    if spans is None:
        raise Invalid("vectors: expected an array")
    return Pieces(text, spans)


@dataclass(frozen=True, slots=True)
class Members:
    """The members of an object: where the value of each begins and ends. Of a name that is there twice the last counts."""

    spans: dict[str, Span]
    #: Where the items of the one that was to be cut are; one that is an object is an item itself. None: it is neither, or not there.
    items: list[Span] | None


def cut_members(text: bytes, name: str, rules: Rules) -> Members:
    """The members of an object, and the items of the one called ``name``. What lies in those is not looked at: whoever decodes it will.

    Raises InvalidLine where the text is cut wrongly or is no object, or where an item, or all else together, is too large; TooLarge for far
    too many items.
    """
    at = _past_space(text, 0)
    if text[at : at + 1] != b"{":
        _break(text, at, "Expecting an object")
    spans: dict[str, Span] = {}
    items, others = None, 0
    at = _past_space(text, at + 1)
    while text[at : at + 1] != b"}" or spans:
        member = at
        key, start = _key(text, at, rules.line_bytes_max)
        opens = text[start : start + 1]
        if key == name and opens == b"[":
            items, at = _array(text, start, rules)
            at = _past_space(text, at)
        else:
            at = _skip(text, start, rules.line_bytes_max)
            if key == name:
                items = [(start, at)] if opens == b"{" else None
            else:
                others += at - member
        spans[key] = start, at
        if others > rules.line_bytes_max:
            _refuse_size(text, member, rules.line_bytes_max)
        if text[at : at + 1] == b"}":
            break
        if text[at : at + 1] != b",":
            _break(text, at, "Expecting ',' delimiter")
        at = _past_space(text, at + 1)
    rest = _past_space(text, at + 1)
    if rest < len(text):
        _break(text, rest, "Extra data")
    return Members(spans, items)


def _array(text: bytes, at: int, rules: Rules) -> tuple[list[Span], int]:
    """The items of the array that opens at ``at``, and where it ends."""
    spans: list[Span] = []
    while True:
        start = at + 1
        at = _skip(text, start, rules.line_bytes_max)
        spans.append((start, at))
        if text[at] == CLOSES_ARRAY:
            break
        if text[at] != COMMA:
            _break(text, at, "Expecting ',' delimiter")
        if len(spans) > rules.vectors_counted_max:
            raise TooLarge(
                f"too many vectors in payload; max is {rules.vectors_max}, got more than {rules.vectors_counted_max}"
            )
    if len(spans) == 1 and _past_space(text, start) == at:
        spans = []
    return spans, at + 1


def _object(text: bytes, at: int, rules: Rules) -> tuple[list[Span] | None, int]:
    """The vectors of the object that opens at ``at``, or itself as the only one; and where it ends. None: they are no array."""
    begins, others = at, 0
    members: dict[str, list[Span] | None] = {}
    at = _past_space(text, at + 1)
    while text[at : at + 1] != b"}" or members:
        member = at
        key, start = _key(text, at, rules.line_bytes_max)
        if key == "vectors" and key in members:
            raise Invalid("vectors: expected once, got twice")
        members[key] = None
        if key == "vectors" and text[start : start + 1] == b"[":
            members[key], at = _array(text, start, rules)
            at = _past_space(text, at)
        else:
            at = _skip(text, start, rules.line_bytes_max)
            _check(text, start, at)
            others += at - member
        if others > rules.line_bytes_max:
            _refuse_size(text, begins, rules.line_bytes_max)
        if text[at : at + 1] == b"}":
            break
        if text[at : at + 1] != b",":
            _break(text, at, "Expecting ',' delimiter")
        at = _past_space(text, at + 1)
    end = at + 1
    return [(begins, end)] if "vectors" not in members or "id" in members else members["vectors"], end


def _key(text: bytes, at: int, bytes_max: int) -> tuple[str, int]:
    """The key at ``at``, and where its value begins."""
    if text[at : at + 1] != b'"':
        _break(text, at, "Expecting property name enclosed in double quotes")
    end = _past_string(text, at + 1, bytes_max)
    key = _check(text, at, end)
    colon = COLON.match(text, end)
    if colon is None:
        _break(text, end, "Expecting ':' delimiter")
    return str(key), _past_space(text, colon.end())


def _skip(text: bytes, start: int, bytes_max: int) -> int:
    """Where a value that begins at ``start`` is followed by a comma, or by what closes that which it is in."""
    at, closers, misses = start, bytearray(), 0
    while True:
        found = MARK.search(text, at)
        if found is None:
            _break_in(text, start, len(text))
        mark, at = text[found.start()], found.end()
        if found.start() - start > bytes_max:
            _refuse_size(text, start, bytes_max)
        if mark == QUOTE:
            at = _past_string(text, at, bytes_max)
        elif mark in CLOSERS:
            if mark == OPENS_ARRAY and misses < MISSES_MAX:
                end = _past_numbers(text, at)
                if end is not None:
                    at = end
                    continue
                misses += 1
            closers.append(CLOSERS[mark])
        elif not closers:
            return found.start()
        elif mark != COMMA and closers.pop() != mark:
            _break_in(text, start, at)


def _past_numbers(text: bytes, at: int) -> int | None:
    """Where an array ends that has neither brackets nor strings in it; None if this is none, or a long one."""
    # Not by one expression: those take a hundred times as long.
    end = text.find(b"]", at, at + FLAT_BYTES_MAX)
    if end < 0 or any(text.find(mark, at, end) >= 0 for mark in NO_NUMBERS):
        return None
    return end + 1


def _past_string(text: bytes, start: int, bytes_max: int) -> int:
    """Where the string ends that began before ``start``."""
    at = start
    while True:
        end = text.find(b'"', at)
        if end < 0:
            _break(text, len(text), "Unterminated string")
        if end - start > bytes_max:
            _refuse_size(text, start, bytes_max)
        inside = text[at:end]
        at = end + 1
        if (len(inside) - len(inside.rstrip(b"\\"))) % 2 == 0:
            return at


def _past_space(text: bytes, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None
    return found.end()


def _piece(text: bytes, start: int, end: int) -> bytes:
    """A piece to be read like a line. Before a line a byte order mark is passed over; inside a document it is a mistake."""
    piece = text[start:end]
    return b" " + piece if piece.startswith(BYTE_ORDER_MARK) else piece


def _check(text: bytes, start: int, end: int) -> Any:
    """Decode a piece; a mistake's line and column are those of the document. Raises InvalidLine."""
    piece = _piece(text, start, end)
    try:
        return decode(piece, 1)
    except InvalidLine:
        # Only now: to find a place takes as long as the document is.
        line, column = _where(text, start)
        decode(b" " * column + piece, line)
        raise


def _where(text: bytes, at: int) -> tuple[int, int]:
    """The line, from 1, and what stands before on it."""
    return text.count(b"\n", 0, at) + 1, at - text.rfind(b"\n", 0, at) - 1


def _break_in(text: bytes, start: int, end: int) -> NoReturn:
    """Raise the InvalidLine of a piece with a mistake in it, which need not be where brackets do not fit."""
    _check(text, start, end)
    _break(text, end, "Expecting ',' delimiter")


def _break(text: bytes, at: int, says: str) -> NoReturn:
    line, column = _where(text, at)
    detail = f"expected JSON: {says} at column {column + 1}"
    raise InvalidLine(LineProblem(line=line, reason=Reason.UNPARSABLE, field="", detail=detail))


def _refuse_size(text: bytes, start: int, bytes_max: int) -> NoReturn:
    line, column = _where(text, _past_space(text, start))
    detail = f"expected a vector of at most {bytes_max} bytes at column {column + 1}"
    raise InvalidLine(LineProblem(line=line, reason=Reason.UNPARSABLE, field="", detail=detail))
