"""One vector, read slowly, with every mistake named: where it is, what was expected, what was there.

Takes what a JSON reader made of a line, so it costs a Python object per number. It is used for lines that the fast path will
not vouch for (wrong ones, and unusual ones), and for bodies that are one JSON document.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from ingest.body.rules import Rules
from upwell.errors import InvalidLine, LineProblem, Reason

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Of a value quoted in a message.
QUOTED_CHARACTERS = 48
#: From here on a number rounds to an infinite float32.
FLOAT32_END = 3.4028235677973366e38


@dataclass(frozen=True, slots=True)
class Row:
    """A vector that may be accepted. ``values`` are finite and as many as the index has dimensions."""

    id: str
    values: npt.NDArray[np.float32]
    namespace: str | None
    metadata: bytes | None


class _NotANumber(str):
    """What JSON does not have and Python's reader accepts: NaN, Infinity, -Infinity."""

    __slots__ = ()


def read_line(text: bytes, line: int, rules: Rules) -> Row:
    """The vector on a line. Raises InvalidLine."""
    return read_vector(decode(text, line), line, rules)


def decode(text: bytes, line: int) -> Any:
    """JSON, with NaN and its like kept visible. Raises InvalidLine; of a document over many lines it names the one.

    A byte order mark before it is passed over, as simdjson does: whoever joins files has them in the middle.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    try:
        return json.loads(text.decode(), parse_constant=_NotANumber)
    except UnicodeDecodeError as error:
        start = text.rfind(b"\n", 0, error.start) + 1
        line += text.count(b"\n", 0, start)
        detail = f"expected UTF-8, got byte 0x{text[error.start]:02x} at {error.start - start}"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        detail = f"expected JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        detail = "expected JSON that is not nested so deeply"
    except ValueError:
        detail = f"expected JSON: an integer has more than {sys.get_int_max_str_digits()} digits"
    raise InvalidLine(LineProblem(line=line, reason=Reason.UNPARSABLE, field="", detail=detail))


def read_vector(value: Any, line: int, rules: Rules) -> Row:
    """The vector that a decoded JSON value is. Raises InvalidLine."""
    return _Reader(line, rules).read(value)


def first_oddity(value: Any) -> tuple[str, str] | None:
    """Of a value that ``decode`` made: where the first thing is that no strict JSON can have, and what was expected; None without one.

    Keeps its own stack, so that depth cannot hurt.
    """
    pending: list[Iterator[tuple[str | None, str, Any]]] = [iter([(None, "", value)])]
    path = [""]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
            path.pop()
            continue
        key, place, inner = step
        if key is not None and not _is_utf8(key):
            return "".join(path), "expected keys that are valid UTF-8, got a lone surrogate"
        if isinstance(inner, dict | list):
            pending.append(_steps(inner))
            path.append(place)
        elif (mistake := _mistake(inner)) is not None:
            return ("".join(path) + place).removeprefix("."), mistake
    return None


class _Reader:
    """Reads one vector; knows its line and, once read, its id, for the problems it raises."""

    def __init__(self, line: int, rules: Rules) -> None:
        self._line = line
        self._rules = rules
        self._id: str | None = None

    def read(self, value: Any) -> Row:
        if not isinstance(value, dict):
            self._refuse(Reason.NOT_AN_OBJECT, "", f"expected an object, got {describe(value)}")
        self._id = self._read_id(value)
        return Row(
            self._id, self._read_values(value), self._read_namespace(value), self._read_metadata(value)
        )

    def _read_id(self, value: dict[str, Any]) -> str:
        if "id" not in value:
            self._refuse(Reason.ID_MISSING, "id", "expected a string, got nothing")
        given = value["id"]
        if isinstance(given, int) and not isinstance(given, bool):
            given = str(given)
        if not isinstance(given, str) or isinstance(given, _NotANumber):
            self._refuse(Reason.ID_MISSING, "id", f"expected a string, got {describe(given)}")
        size = self._utf8_size(given, Reason.ID_MISSING, "id")
        if size == 0:
            self._refuse(Reason.ID_MISSING, "id", "expected a string that is not empty")
        if size > self._rules.id_bytes_max:
            self._refuse(
                Reason.ID_TOO_LONG, "id", f"max is {self._rules.id_bytes_max} bytes, got {size} bytes"
            )
        problem = self._rules.id_problem(given)
        if problem is not None:
            self._refuse(Reason.ID_MISSING, "id", problem)
        return str(given)

    def _read_values(self, value: dict[str, Any]) -> npt.NDArray[np.float32]:
        if "values" not in value:
            hint = "; did you mean values instead of vector?" if "vector" in value else ""
            self._refuse(Reason.VALUES_INVALID, "values", f"expected an array of numbers, got nothing{hint}")
        given = value["values"]
        if not isinstance(given, list):
            self._refuse(
                Reason.VALUES_INVALID, "values", f"expected an array of numbers, got {describe(given)}"
            )
        if not given:
            self._refuse(Reason.VALUES_INVALID, "values", "expected an array of numbers, got an empty array")
        numbers = _finite_float32(given)
        if numbers is None:
            for place, number in enumerate(given):
                self._check_number(number, f"values[{place}]")
            self._refuse(Reason.VALUES_INVALID, "values", "expected an array of float32 numbers")
        expected = self._rules.dimensions
        if len(given) != expected:
            detail = f"expected {expected} dimensions, and got {len(given)} dimensions"
            self._refuse(Reason.WRONG_DIMENSIONS, "values", detail)
        return numbers

    def _check_number(self, number: Any, field: str) -> None:
        if isinstance(number, _NotANumber):
            self._refuse(Reason.NOT_FINITE, field, f"expected a finite number, got {number}")
        if isinstance(number, bool) or not isinstance(number, int | float):
            self._refuse(Reason.VALUES_INVALID, field, f"expected a number, got {describe(number)}")
        if not -FLOAT32_END < number < FLOAT32_END:
            detail = f"expected a float32, got {describe(number)}, which is outside its range"
            self._refuse(Reason.NOT_FINITE, field, detail)

    def _read_namespace(self, value: dict[str, Any]) -> str | None:
        given = value.get("namespace")
        if given is None or given == "":
            return None
        if not isinstance(given, str) or isinstance(given, _NotANumber):
            detail = f"expected a string or null, got {describe(given)}"
            self._refuse(Reason.NAMESPACE_INVALID, "namespace", detail)
        size = self._utf8_size(given, Reason.NAMESPACE_INVALID, "namespace")
        if "\0" in given:
            self._refuse(Reason.NAMESPACE_INVALID, "namespace", "expected no NUL character")
        if size > self._rules.namespace_bytes_max:
            detail = f"max is {self._rules.namespace_bytes_max} bytes, got {size} bytes"
            self._refuse(Reason.NAMESPACE_TOO_LONG, "namespace", detail)
        return str(given)

    def _read_metadata(self, value: dict[str, Any]) -> bytes | None:
        given = value.get("metadata")
        if given is None:
            return None
        if not isinstance(given, dict):
            self._refuse(
                Reason.METADATA_INVALID, "metadata", f"expected an object or null, got {describe(given)}"
            )
        # Size first: what is within it is cheap to look at closely.
        compact = _compact(given)
        most = self._rules.metadata_bytes_max
        if compact is not None and len(compact) > most:
            detail = f"the compact JSON representation of the metadata must not exceed {most} bytes, got {len(compact)} bytes"
            self._refuse(Reason.METADATA_TOO_LARGE, "metadata", detail)
        self._check_metadata(given)
        if compact is None:
            self._refuse(Reason.METADATA_INVALID, "metadata", "expected JSON that is not nested so deeply")
        return compact

    def _check_metadata(self, metadata: dict[str, Any]) -> None:
        """Keys and values at every level, in the order written. Keeps its own stack, so that depth cannot hurt."""
        pending = [_steps(metadata)]
        path = ["metadata"]
        while pending:
            step = next(pending[-1], None)
            if step is None:
                pending.pop()
                path.pop()
                continue
            key, place, value = step
            if key is not None:
                self._check_key(key, path)
            if isinstance(value, dict | list):
                pending.append(_steps(value))
                path.append(place)
            elif (mistake := _mistake(value)) is not None:
                self._refuse(Reason.METADATA_INVALID, "".join(path) + place, mistake)

    def _check_key(self, key: str, path: list[str]) -> None:
        """``path`` is joined only for a wrong key: it may be as long as the body, and the keys as many."""
        if not _is_utf8(key):
            detail = "expected keys that are valid UTF-8, got a lone surrogate"
            self._refuse(Reason.METADATA_INVALID, "".join(path), detail)
        if not is_metadata_key(key):
            detail = f'keys must not be empty, contain . or ", or start with $; got {describe(key)}'
            self._refuse(Reason.METADATA_KEY, "".join(path), detail)

    def _utf8_size(self, text: str, reason: Reason, field: str) -> int:
        try:
            return len(text.encode())
        except UnicodeEncodeError:
            self._refuse(reason, field, "expected text that is valid UTF-8, got a lone surrogate")

    def _refuse(self, reason: Reason, field: str, detail: str) -> NoReturn:
        printable = field.encode("utf-8", "replace").decode()
        raise InvalidLine(
            LineProblem(
                line=self._line, reason=reason, field=_short(printable, 128), detail=detail, id=self._id
            )
        )


def _compact(metadata: dict[str, Any]) -> bytes | None:
    """As it is stored; None for what orjson does not write: lone surrogates, more than 64 bits, deep nesting."""
    try:
        return orjson.dumps(metadata)
    except TypeError:
        return None


def _steps(container: dict[str, Any] | list[Any]) -> Iterator[tuple[str | None, str, Any]]:
    """What is directly inside: its key if it has one, how a path names it, and itself."""
    if isinstance(container, dict):
        return ((key, f".{key}", value) for key, value in container.items())
    return ((None, f"[{place}]", value) for place, value in enumerate(container))


def _mistake(value: Any) -> str | None:
    """What is wrong with a string, number or the like in metadata; None if nothing is."""
    if isinstance(value, _NotANumber):
        return f"expected a finite number, got {value}"
    if isinstance(value, str) and not _is_utf8(value):
        return "expected text that is valid UTF-8, got a lone surrogate"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number, got one outside the range of doubles"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"expected an integer of at most 64 bits, got {describe(value)}"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_metadata_key(key: str) -> bool:
    """May metadata have this key, at whatever level?"""
    return bool(key) and "." not in key and '"' not in key and not key.startswith("$")


def _finite_float32(numbers: list[Any]) -> npt.NDArray[np.float32] | None:
    """The numbers as float32; None if any is not a number, not finite, or outside the range."""
    if not {int, float}.issuperset(map(type, numbers)):
        return None
    try:
        with np.errstate(over="ignore"):
            narrow = np.array(numbers, dtype=np.float64).astype(np.float32)
    except OverflowError:
        return None
    return narrow if np.isfinite(narrow).all() else None


def describe(value: Any) -> str:
    """A value as a message may quote it."""
    match value:
        case _NotANumber():
            return str(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f'the string "{_short(value.encode("utf-8", "replace").decode())}"'
        case list():
            return "an array"
        case dict():
            return "an object"
        case float() if math.isinf(value):
            return "a number beyond the range of doubles"
        case int() if value.bit_length() > 256:
            return "an integer of very many digits"
        case _:
            return f"the number {_short(str(value))}"


def _short(text: str, characters: int = QUOTED_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"
