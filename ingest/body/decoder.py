"""One item of an array decoded fast: the numbers of its dense vector never become Python objects.

simdjson would take a nested array for a flat one, and so is given nothing but the text of an array without brackets, braces or quotes
in it; the rest of the item is decoded as ever. What is unusual is decoded as ever too: so a mistake is found where it always is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import orjson

from ingest.body.simd import simdjson

#: What the text of an array of numbers does not have in it.
MARKS: Final = (b"[", b"{", b"}", b'"')
#: What stands in a vector's place; no client's vector is a string.
_PLACE: Final = "\0vector\0"
_PLACE_TEXT: Final = orjson.dumps(_PLACE)


class FastDecoder:
    """Decodes items. Keeps one parser; for one thread."""

    def __init__(self, name: str) -> None:
        """``name``: of the member that is an item's vector."""
        self._name = name
        self._key = orjson.dumps(name)
        self._after_key = re.compile(re.escape(self._key) + rb"[ \t\r\n]*:[ \t\r\n]*\[")
        self._parser = None if simdjson is None else simdjson.Parser()

    def decode(self, text: bytes) -> Any:
        """The value that ``text`` is; if it is an object with a vector of numbers, then that is a float64 array. Raises
        orjson.JSONDecodeError."""
        key = self._key
        found = (
            self._after_key.match(text, text.find(key)) if self._parser is not None and key in text else None
        )
        if found is None:
            return orjson.loads(text)
        start = found.end() - 1
        end = text.find(b"]", start) + 1
        numbers = None
        # Not by one expression: those take as long as decoding does.
        if (
            end
            and text.find(key, end) < 0
            and not any(text.find(mark, start + 1, end) >= 0 for mark in MARKS)
        ):
            numbers = self._numbers(text[start:end])
        if numbers is None:
            return orjson.loads(text)
        value = orjson.loads(b"".join((text[:start], _PLACE_TEXT, text[end:])))
        if not isinstance(value, dict) or value.get(self._name) != _PLACE:
            return orjson.loads(text)
        value[self._name] = numbers
        return value

    def _numbers(self, text: bytes) -> Any:
        assert self._parser is not None
        try:
            return np.frombuffer(self._parser.parse(text).as_buffer(of_type="d"))
        except (ValueError, RuntimeError, TypeError):
            return None
