"""What a decoded row does not tell any more: which digits its numbers have, and whether its documents say a thing twice.

To Milvus (3.0.1) numbers are their digits: ``1e3`` and ``9007199254740993.0`` are integers, ``1.50`` in a text field is the text "1.50", and
a document with an integer of more than 64 bits or with two members of one name is refused. Few rows have any of these; such a row is
decoded once more, slowly, with its digits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, Final

from ingest.doors.milvus.errors import MilvusError, bad_data

#: The integers that a document may have.
DOCUMENT_INTEGERS: Final = range(-(1 << 63), 1 << 64)
#: The decoder makes floats of integers that are none of them. This and all beyond may be such.
_ROUNDED_FROM: Final = float(1 << 63)
#: No integer of 64 bits has as many digits; nor has the exponent of one this size.
_DIGITS_END: Final = 21
#: What may have either in it.
_DOCUMENTS: Final = (dict, list, float)
#: What is behind every member's name, unless somebody writes spaces there.
_NAME_END: Final = b'":'


class Digits(str):
    """A number as it is written."""

    __slots__ = ()

    def integer(self) -> int | None:
        """The integer that it is, however it is written; None: it is none. One of more than 64 bits may come out as another such."""
        try:
            number = Decimal(self)
        except InvalidOperation:
            return None
        if number and number.adjusted() >= _DIGITS_END:
            return -(1 << 64) if number.is_signed() else 1 << 64
        return int(number) if not number or number == number.to_integral_value() else None


class RowText:
    """The text of one row."""

    def __init__(self, text: bytes) -> None:
        """``text``: JSON that has been decoded without complaint, an object."""
        self._text = text

    def member(self, name: str) -> Any:
        """A member of the row, its numbers as ``Digits``. Raises MilvusError for a row that is nested too deeply."""
        return self._members[name]

    def check_documents(self, row: Mapping[str, Any], names: Iterable[str]) -> None:
        """Raise MilvusError for a document among these members that Milvus cannot read. ``row``: what was decoded."""
        documents = {name: row[name] for name in names if type(row[name]) in _DOCUMENTS}
        if not documents:
            return
        looked = [_look(one) for one in documents.values()]
        nested = sum(members for members, _ in looked)
        # What is no document has members too, if it is a sparse vector.
        others = (_look(one)[0] for name, one in row.items() if name not in documents and type(one) is dict)
        if any(rounded for _, rounded in looked) or (
            nested and self._text.count(_NAME_END) != len(row) + nested + sum(others)
        ):
            for name in documents:
                _check(name, self._members[name])

    @cached_property
    def _members(self) -> dict[str, Any]:
        try:
            members: dict[str, Any] = json.loads(
                self._text, parse_int=Digits, parse_float=Digits, object_pairs_hook=_Members
            )
        except RecursionError:
            raise bad_data("expected JSON that is not nested so deeply: invalid parameter") from None
        return members


class _Members(dict[str, Any]):
    """An object, and a name that it has more than once."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: str | None = None
        if len(self) < len(pairs):
            self.twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]


def _look(value: Any) -> tuple[int, bool]:
    """How many members the objects in a value have, and whether it has a number that may be a rounded integer."""
    members, rounded, pending = 0, False, [value]
    while pending:
        one = pending.pop()
        if type(one) is dict:
            members += len(one)
            pending.extend(one.values())
        elif type(one) is list:
            pending.extend(one)
        elif type(one) is float and abs(one) >= _ROUNDED_FROM:
            rounded = True
    return members, rounded


def _check(name: str, document: Any) -> None:
    pending = [document]
    while pending:
        one = pending.pop()
        if isinstance(one, _Members):
            if one.twice is not None:
                raise _refused(
                    f"field {name} declares the key {one.twice[:64]} twice; JSON object names must be unique"
                )
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, Digits) and not _fits(one):
            raise _refused(
                f"field {name} integer {one[:64]} exceeds the 64-bit range supported by the JSON engine, "
                "write it as a floating-point literal or as a string"
            )


def _fits(digits: Digits) -> bool:
    """Is it a number that a document may have? One with a point or an exponent is no integer there."""
    if not digits.removeprefix("-").isdecimal():
        return True
    return len(digits) <= _DIGITS_END and int(digits) in DOCUMENT_INTEGERS


def _refused(says: str) -> MilvusError:
    return bad_data(f"{says}: invalid parameter")
