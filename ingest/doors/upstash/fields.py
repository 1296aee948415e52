"""The fields of an object that a client sent, each read as what it must be. A null is as good as nothing: clients send either.

Everything raises Invalid, which names the field, what was expected, and what was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ingest.body.precise import describe
from upwell.errors import Invalid


class Fields:
    """An object's fields. Those that are not asked for are passed over, as Upstash does."""

    def __init__(self, given: Any) -> None:
        if not isinstance(given, dict):
            raise Invalid(f"expected an object, got {describe(given)}")
        self._given = given

    def get(self, name: str) -> Any:
        """A field as it is; None if it is not there."""
        return self._given.get(name)

    def has(self, name: str) -> bool:
        """Is there a field of this name?"""
        return self._given.get(name) is not None

    def flag(self, name: str) -> bool:
        """True or false; false if it is not there."""
        given = self.get(name)
        if given is not None and not isinstance(given, bool):
            _refuse(name, "true or false", given)
        return bool(given)

    def text(self, name: str) -> str:
        """A string; "" if it is not there."""
        given = self.get(name)
        if given is None:
            return ""
        if not isinstance(given, str):
            _refuse(name, "a string", given)
        return given

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        given = self.get(name)
        if given is None:
            return min(default, high)
        if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
            _refuse(name, f"an integer from {low} to {high}", given)
        return given

    def one_of(self, name: str, choices: Sequence[str]) -> str | None:
        """One of these words; None if it is not there."""
        given = self.get(name)
        if given is None:
            return None
        if not isinstance(given, str) or given not in choices:
            _refuse(name, " or ".join(choices), given)
        return given

    def ids(self, name: str, bytes_max: int, most: int | None = None) -> list[str]:
        """An array of ids, which may be empty; of no more than ``most``, if that is given. One id is as good as an array of one: so
        the JavaScript client sends ``{ids: "a"}``."""
        given = self.get(name)
        if isinstance(given, str) or (isinstance(given, int) and not isinstance(given, bool)):
            given = [given]
        if not isinstance(given, list):
            _refuse(name, "an array of ids", given)
        # First: a body has room for a million, and the event loop waits for a question's.
        if most is not None and len(given) > most:
            raise Invalid(f"{name}: expected at most {most}, got {len(given)}")
        return [read_id(one, f"{name}[{place}]", bytes_max) for place, one in enumerate(given)]


def read_id(given: Any, field: str, bytes_max: int) -> str:
    """An id: a string that is not empty, as Upstash's FAQ has it. An integer is as good as its digits; other numbers have too many ways
    to be written. (The Go client sends an empty one where none is set; that is a mistake which is better told.)
    """
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        _refuse(field, "a string or an integer", given)
    if not given:
        raise Invalid(f"{field}: expected a string that is not empty")
    if "\0" in given:
        raise Invalid(f"{field}: expected no NUL character")
    size = len(given.encode())
    if size > bytes_max:
        raise Invalid(f"{field}: expected at most {bytes_max} bytes, got {size}")
    return given


def _refuse(name: str, expected: str, given: Any) -> NoReturn:
    raise Invalid(f"{name}: expected {expected}, got {'nothing' if given is None else describe(given)}")
