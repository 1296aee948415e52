"""What a client sends for a field, as what the field holds. Milvus is generous with texts of numbers and the like, and so is this.

Each mistake is told in Milvus's words: ``what is wrong: invalid parameter[expected=type][actual=what was sent]``. As in Milvus from 3.0.1 on,
nothing wraps round, nothing that is missing becomes an empty text, and numbers are what their digits say: see ``row_text.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from ingest.doors.milvus.errors import MilvusError, bad_data, invalid
from ingest.doors.milvus.row_text import Digits
from upwell.schema import FieldType, ScalarField

#: Of what was sent, as far as an error repeats it.
SHOWN_CHARACTERS_MAX: Final = 128
INT64: Final = range(-(1 << 63), 1 << 63)
#: What integers of each type may be.
RANGES: Final = {
    FieldType.INT8: range(-(1 << 7), 1 << 7),
    FieldType.INT16: range(-(1 << 15), 1 << 15),
    FieldType.INT32: range(-(1 << 31), 1 << 31),
    FieldType.INT64: INT64,
}
#: Twenty digits are more than any of 64 bits has; more zeros before them than this nobody means.
INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
#: What other integers are written like besides: as numbers with nothing behind the point.
_WHOLE: Final = re.compile(r"([+-]?[0-9]{1,40})\.0*", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?", re.ASCII)
#: True and false, in all the spellings that Go takes.
TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def read_value(field: ScalarField, given: Any, row: int) -> Any:
    """What a field of the row at this place holds; ``given`` is not null. Raises MilvusError."""
    if field.type is FieldType.ARRAY:
        return _read_array(field, given, row)
    if field.type is FieldType.VARCHAR:
        return _read_text(field, given, row)
    if field.type is FieldType.JSON:
        return given
    return _SCALARS[field.type](field.type, given)


def read_int64(given: Any) -> int:
    """An integer of 64 bits, or its digits as a text."""
    return _read_integer(FieldType.INT64, given)


def text_of(given: Any) -> str:
    """What a value is as a text: a text is itself, anything else its JSON."""
    return given if isinstance(given, str) else encoded(given).decode()


def encoded(given: Any) -> bytes:
    """A value as compact JSON. Raises MilvusError for what is nested too deeply to be written."""
    try:
        return orjson.dumps(given)
    except orjson.JSONEncodeError:
        # It reads what is nested deeper than what it writes.
        raise bad_data("expected JSON that is not nested so deeply: invalid parameter") from None


def decoded(given: Any) -> Any:
    """What a text says, if that is JSON; else what was given."""
    if not isinstance(given, str):
        return given
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        return given


def refuse(kind: str, given: Any, says: str) -> MilvusError:
    """The error for a value that a field does not take."""
    try:
        actual = text_of(given)
    except MilvusError:
        actual = "JSON"
    if len(actual) > SHOWN_CHARACTERS_MAX:
        actual = f"{actual[:SHOWN_CHARACTERS_MAX]}…"
    says = says.replace("%s", f'"{actual}"')
    return bad_data(f"{says}: invalid parameter[expected={kind}][actual={actual}]")


def _read_bool(kind: FieldType, given: Any) -> bool:
    text = text_of(given)
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise refuse(kind, given, "strconv.ParseBool: parsing %s: invalid syntax")


def _read_integer(kind: FieldType, given: Any) -> int:
    wide = kind is FieldType.INT64
    exact = given.integer() if isinstance(given, Digits) else given
    if type(exact) is int:
        number = exact
    else:
        text = text_of(given)
        found = INTEGER.fullmatch(text)
        whole = None if wide or found or isinstance(given, Digits) else _WHOLE.fullmatch(text)
        if not (found or whole):
            raise refuse(
                kind,
                given,
                "strconv.ParseInt: parsing %s: invalid syntax"
                if wide
                else f"unable to cast %s to {kind.lower()}",
            )
        number = int(whole[1] if whole else text)
    if number not in RANGES[kind]:
        raise refuse(kind, given, "strconv.ParseInt: parsing %s: value out of range")
    return number


def _read_float(kind: FieldType, given: Any) -> float:
    text = text_of(given)
    # What is written as anything else, hexadecimal say, or as no number at all, is no number in JSON either.
    number = (
        float(given) if type(given) in (int, float) else float(text) if _NUMBER.fullmatch(text) else math.nan
    )
    if math.isnan(number):
        raise refuse(kind, given, f"unable to cast %s to float{32 if kind is FieldType.FLOAT else 64}")
    if kind is FieldType.FLOAT:
        with np.errstate(over="ignore"):
            # The shortest number that is the same float32: what clients see again.
            number = float(str(np.float32(number)))
    if math.isinf(number):
        raise refuse(kind, given, "strconv.ParseFloat: parsing %s: value out of range")
    return number


def _read_text(field: ScalarField, given: Any, row: int) -> str:
    if isinstance(given, dict | list):
        kind = "object" if isinstance(given, dict) else "array"
        raise bad_data(f"field {field.name} expects a string, got a JSON {kind}: invalid parameter")
    text = text_of(given)
    check_length(field.name, text, field.bytes_max, row)
    return text


def check_length(name: str, text: str, bytes_max: int | None, row: int) -> None:
    """Raise MilvusError for a text that is too long for its field."""
    size = len(text) if text.isascii() else len(text.encode())
    if bytes_max is not None and size > bytes_max:
        raise invalid(
            f"length of varchar field {name} exceeds max length, row number: {row}, length: {size}, max length: {bytes_max}"
        )


def _read_array(field: ScalarField, given: Any, row: int) -> list[Any]:
    values, element = decoded(given), field.element
    assert element is not None
    kind = f"{FieldType.ARRAY} of {element}"
    if not isinstance(values, list):
        raise refuse(kind, given, "json: cannot unmarshal %s: expected an array")
    if field.capacity is not None and len(values) > field.capacity:
        raise invalid(
            f"the length ({len(values)}) of {row}th array exceeds max capacity ({field.capacity})",
            "valid length array",
            "array length exceeds max capacity",
        )
    taken = []
    for place, value in enumerate(values):
        says = f"json: cannot unmarshal element {place}: expected {element}"
        if type(value) not in _OF_ELEMENTS[element]:
            raise refuse(kind, given, says)
        if element is FieldType.VARCHAR:
            _check_element(field, value, row, place)
            taken.append(value)
            continue
        try:
            taken.append(_SCALARS[element](element, value))
        except MilvusError:
            raise refuse(kind, given, says) from None
    return taken


def _check_element(field: ScalarField, value: str, row: int, place: int) -> None:
    size = len(value.encode())
    if field.bytes_max is not None and size > field.bytes_max:
        raise invalid(
            f'length of Array array field "{field.name}" exceeds max length, row number: {row}, array index: {place}, '
            f"length: {size}, max length: {field.bytes_max}"
        )


_SCALARS: Final[dict[FieldType, Callable[[FieldType, Any], Any]]] = {
    FieldType.BOOL: _read_bool,
    FieldType.INT8: _read_integer,
    FieldType.INT16: _read_integer,
    FieldType.INT32: _read_integer,
    FieldType.INT64: _read_integer,
    FieldType.FLOAT: _read_float,
    FieldType.DOUBLE: _read_float,
}
#: What elements of arrays may be as JSON; a text is as good as what it says, as integers of 64 bits are shown as texts where it is wished.
_OF_ELEMENTS: Final[dict[FieldType, tuple[type, ...]]] = {
    FieldType.BOOL: (bool, str),
    FieldType.INT8: (int, str, Digits),
    FieldType.INT16: (int, str, Digits),
    FieldType.INT32: (int, str, Digits),
    FieldType.INT64: (int, str, Digits),
    FieldType.FLOAT: (int, float, str),
    FieldType.DOUBLE: (int, float, str),
    FieldType.VARCHAR: (str,),
}
