"""JSON, strictly read: the values of a body, and of one that is none where it is wrong and what was expected there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson

from ingest.body import Rules
from ingest.body.decoder import FastDecoder
from ingest.body.documents import Pieces, cut
from ingest.body.precise import BYTE_ORDER_MARK, decode, first_oddity
from ingest.doors.upstash.errors import UpstashError
from upwell.errors import Invalid, InvalidLine, TooLarge

#: Of an id quoted in an error.
SHOWN_CHARACTERS_MAX: Final = 128

_ARRAY: Final = re.compile(rb"(\xef\xbb\xbf)?[ \t\r\n]*\[")


def strict_json(text: bytes) -> Any:
    """The value that ``text`` is; None for no text at all. Raises InvalidLine for what is no JSON, Invalid for what only looks like it."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        explain(text, error)


def explain(text: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    """Raise what is wrong with a text that orjson does not take: it tells less of it."""
    oddity = first_oddity(decode(text, 1))
    if oddity is None:
        raise UpstashError(400, f"Failed to parse the request body as JSON: {error}")
    where, says = oddity
    raise Invalid(f"{where}: {says}" if where else says)


@dataclass(frozen=True, slots=True)
class Items:
    """The values in an array, or the one that there is without one; each is decoded when its turn comes.

    An array is cut up and never decoded whole: as Python objects it may take thirty times as much.
    """

    text: bytes
    #: None: it is no array.
    pieces: Pieces | None

    @property
    def are_several(self) -> bool:
        """Are there so many that an error must say which it is about?"""
        return self.pieces is not None and len(self.pieces.spans) > 1

    def __iter__(self) -> Iterator[Any]:
        """The values; a vector may be a float64 array. Raises InvalidLine, UpstashError or Invalid."""
        if self.pieces is None:
            yield strict_json(self.text)
            return
        decoder = FastDecoder("vector")
        for place, piece in self.pieces:
            try:
                value = decoder.decode(piece)
            except orjson.JSONDecodeError as error:
                try:
                    explain(piece, error)
                except InvalidLine as broken:
                    self.pieces.refuse(place, broken.problem)
                except Invalid as odd:
                    raise self.blamed(odd, place, None) from None
            yield value

    def blamed(self, error: Invalid, place: int, item: Any) -> Invalid:
        """An error of one item, from 1; of several it says which."""
        if not self.are_several:
            return error
        id = item.get("id") if isinstance(item, dict) else None
        named = f', id "{id}"' if isinstance(id, str | int) and len(str(id)) <= SHOWN_CHARACTERS_MAX else ""
        return Invalid(f"{error.detail} (item {place}{named})")


def items_of(text: bytes, rules: Rules) -> Items:
    """The items of a body. Raises InvalidLine for an array that is cut wrongly, Invalid for what is too large or too many."""
    if _ARRAY.match(text) is None:
        if len(text) > rules.line_bytes_max:
            raise Invalid(f"expected an object of at most {rules.line_bytes_max} bytes, got {len(text)}")
        return Items(text, None)
    try:
        pieces = cut(text.removeprefix(BYTE_ORDER_MARK), rules)
    except TooLarge as error:
        raise Invalid(error.detail) from None
    if len(pieces.spans) > rules.vectors_max:
        raise Invalid(f"expected at most {rules.vectors_max} items, got {len(pieces.spans)}")
    return Items(text, pieces)
