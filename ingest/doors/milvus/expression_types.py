"""What the parts of a Milvus expression are, and what comes of putting two of them together: a filter, or a refusal that says why.

A claim about a row holds, fails, or is unknown; so each has two filters, and ``not`` is to swap them. A claim is unknown where its field
is absent, or of a type that its comparison cannot have: then neither filter lets the row through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Final

from ingest.doors.milvus.expression_literals import INT64_MAX, INT64_MIN, Refused, Value
from upwell.schema import FieldType
from upwell.shard.filter import (
    Calculated,
    Compared,
    Contains,
    Every,
    Filter,
    Glob,
    Length,
    Not,
    OfId,
    OneOf,
    Present,
    Some,
    Within,
)

#: Every row, and none.
ALWAYS: Final = Every(())
NEVER: Final = Some(())
#: What an order becomes when its sides change places.
TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
#: Which order holds of two comparable values if, and only if, this one does not.
OPPOSITE: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
#: Each is looked for in the arrays of all rows.
ALL_MAX: Final = 256
_DIRECT: Final = "can not comparisons array fields directly"


@dataclass(frozen=True, slots=True)
class Constant:
    """A value. ``folded``: it is the result of an operation."""

    value: Value
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A field or a part of it. Its type is JSON if it may hold anything; an ``element`` is the type of what is in an array.

    ``is_id``: it is the primary key. ``nested``: it is within a JSON field or a dynamic one.
    """

    name: str
    path: str
    type: FieldType
    element: FieldType | None = None
    is_id: bool = False
    nested: bool = False

    @property
    def shown_type(self) -> str:
        """Its type, as errors call it."""
        return f"{self.type}[{self.element}]" if self.type is FieldType.ARRAY else str(self.type)


@dataclass(frozen=True, slots=True)
class Sum:
    """A number of a field with which is calculated."""

    column: Column
    operator: str
    operand: int | float


@dataclass(frozen=True, slots=True)
class Size:
    """How many elements an array has."""

    column: Column


@dataclass(frozen=True, slots=True)
class Claim:
    """What may be so of a row: the rows of which it is, and those of which it is not."""

    holds: Filter
    fails: Filter


Operand = Constant | Column | Sum | Size | Claim
Part = OneOf | Within


def type_of(value: Value) -> str:
    """What Milvus calls the type of a value."""
    match value:
        case bool():
            return "Bool"
        case int():
            return "Int64"
        case float():
            return "Double"
        case str():
            return "VarChar"
        case _:
            return "Array"


def demand(value: Value) -> Value:
    """A value that a row may have. Raises Refused for an integer beyond 64 bits."""
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise Refused(f"{value} is no integer of 64 bits")
    if isinstance(value, float) and isinf(value):
        raise Refused("a number is beyond what a double can hold")
    return value


def fitting(kind: FieldType, value: Value) -> Value:
    """A value as one of a field of this type. Raises Refused if none of them can be compared with it."""
    value = demand(value)
    match value:
        case _ if kind is FieldType.JSON:
            fits = True
        case bool():
            fits = kind is FieldType.BOOL
        case int():
            fits = kind.is_number
        case float():
            fits = kind.is_number
            if kind.is_integer:
                raise Refused(f"cannot cast value to {kind}, value: float_val:{value}")
        case str():
            fits = kind is FieldType.VARCHAR
        case _:
            fits = False
    if not fits:
        raise Refused(f"comparisons between {kind} and {type_of(value)} are not supported")
    return value


def compare(column: Column, order: str, value: Value) -> Claim:
    """``column order value``."""
    if isinstance(value, list):
        return _compare_array(column, order, value)
    if column.type is FieldType.ARRAY:
        raise Refused(
            _DIRECT
            if order not in ("==", "!=")
            else f"comparisons between {column.shown_type} and {type_of(value)} are not supported"
        )
    return _about(column, _part(order, fitting(column.type, value), column.path), order, [value])


def compare_size(size: Size, order: str, value: Value) -> Claim:
    """``array_length(column) order value``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"cannot cast value to Int64, value: {value}")
    path = size.column.path
    found = _signed(order, Length(path, _part(order, demand(value), "")))
    return _known(found, is_array(path))


def compare_sum(asked: Sum, order: str, value: Value) -> Claim:
    """``column operator operand order value``."""
    kind = asked.column.type
    if kind.is_integer and isinstance(asked.operand, float):
        kind = FieldType.DOUBLE
    value = fitting(kind, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"comparisons between a number and {type_of(value)} are not supported")
    path = asked.column.path
    found = _signed(order, Calculated(path, asked.operator, asked.operand, _part(order, value, "")))
    return _known(found, Within(path))


def compare_columns(left: Column, order: str, right: Column) -> Claim:
    """``column order column``."""
    for one in (left, right):
        if one.is_id:
            raise Refused("comparing the primary key with another field is not supported here")
        if one.type is FieldType.ARRAY:
            raise Refused(_DIRECT)
    if FieldType.JSON in (left.type, right.type):
        raise Refused("two column comparison with JSON type is not supported")
    texts = left.type is right.type is FieldType.VARCHAR
    if not texts and not (left.type.is_number and right.type.is_number):
        raise Refused(f"comparisons between {left.type} and {right.type} are not supported")
    return Claim(Compared(left.path, order, right.path), Compared(left.path, OPPOSITE[order], right.path))


def between(column: Column, low: Value, high: Value, *, low_included: bool, high_included: bool) -> Claim:
    """``low < column < high``."""
    if column.type is FieldType.ARRAY:
        raise Refused(_DIRECT)
    if column.type is FieldType.BOOL:
        raise Refused("invalid range operations on boolean expr")
    bounds = [fitting(column.type, low), fitting(column.type, high)]
    match bounds:
        case [str(first), str(last)]:
            empty = first > last or (first == last and not (low_included and high_included))
            found = Within(column.path, first, last, low_included, high_included)
        case [int() | float() as first, int() | float() as last] if not any(
            isinstance(bound, bool) for bound in bounds
        ):
            empty = first > last or (first == last and not (low_included and high_included))
            found = Within(column.path, first, last, low_included, high_included)
        case _:
            raise Refused("invalid range operations")
    if empty:
        raise Refused("invalid range: lowerbound is greater than upperbound")
    return _about(column, found, "", bounds)


def one_of(column: Column, values: Sequence[Value]) -> Claim:
    """``column in values``. Nothing is one of no values, whether it is known or not."""
    if column.type is FieldType.ARRAY:
        raise Refused(_DIRECT)
    for value in values:
        if isinstance(value, list):
            raise Refused("arrays within the list after 'in' are not supported here")
        try:
            fitting(column.type, value)
        except Refused:
            raise Refused(f"value '{value}' in list cannot be casted to {column.type}") from None
    found = OneOf(column.path, _scalars(values))
    if not values and not column.is_id:
        return Claim(found, ALWAYS)
    return _about(column, found, "", values)


def like(column: Column, glob: str) -> Claim:
    """``column like pattern``."""
    if column.type is FieldType.ARRAY:
        raise Refused(_DIRECT)
    if column.type not in (FieldType.VARCHAR, FieldType.JSON):
        raise Refused("like operation on non-string or no-json field is unsupported")
    return _about(column, Glob(column.path, glob), "", [""])


def contains(column: Column, values: Sequence[Value], *, every: bool = False) -> Claim:
    """Is one of the values in the row's array, or every one?"""
    if column.type is FieldType.ARRAY:
        assert column.element is not None
        for value in values:
            fitting(column.element, value)
    elif column.type is not FieldType.JSON:
        raise Refused(
            f"contains operation are only supported on json or array fields now, got: {column.name}"
        )
    if any(isinstance(value, list) for value in values):
        raise Refused("arrays as elements of arrays are not supported here")
    scalars = _scalars(values)
    found: Filter = Contains(column.path, scalars)
    if every:
        # To Python, true is 1.
        different = {(type(one), one): one for one in scalars}.values()
        if len(different) > ALL_MAX:
            raise Refused(f"expected at most {ALL_MAX} elements that must all be there, got {len(different)}")
        found = Every((is_array(column.path), *(Contains(column.path, (one,)) for one in different)))
    return _known(found, is_array(column.path))


def is_array(path: str) -> Filter:
    """Rows that have an array there."""
    return Length(path, Within("", low=0))


def exists(column: Column) -> Claim:
    """Is there something, and not JSON's null? That is never unknown."""
    if not column.nested:
        raise Refused(
            f"exists operations are only supported on json field, got:{column.type}"
            if column.type is not FieldType.JSON
            else "exists operations are only supported on json key"
        )
    return _there(column)


def is_null(column: Column) -> Claim:
    """Has the row nothing there? That is never unknown."""
    if column.is_id:
        return Claim(NEVER, ALWAYS)
    if not column.nested and column.path.endswith("]"):
        raise Refused(f"exists operations are only supported on json field, got:{column.type}")
    # A field that was added later may be null where it was a dynamic one before.
    found = _there(column)
    return Claim(found.fails, found.holds)


def _there(column: Column) -> Claim:
    there = Every((Present(column.path), Not(OneOf(column.path, (None,)))))
    return Claim(there, Not(there))


def _compare_array(column: Column, order: str, values: list[Value]) -> Claim:
    """``column == [values]``: the array is this one."""
    if order not in ("==", "!="):
        raise Refused(_DIRECT if column.type is FieldType.ARRAY else "arrays have no order")
    if column.type is FieldType.ARRAY:
        if not values:
            raise Refused(f"comparisons between {column.shown_type} and Array[None] are not supported")
        assert column.element is not None
        values = [fitting(column.element, value) for value in values]
    elif column.type is not FieldType.JSON:
        raise Refused(f"comparisons between {column.type} and Array are not supported")
    if len(values) > ALL_MAX:
        raise Refused(f"expected an array of at most {ALL_MAX} elements, got {len(values)}")
    if any(isinstance(value, list) for value in values):
        raise Refused("arrays as elements of arrays are not supported here")
    path = column.path
    same: Filter = Every(
        (
            Length(path, OneOf("", (len(values),))),
            *(OneOf(f"{path}.[{place}]", (one,)) for place, one in enumerate(_scalars(values))),
        )
    )
    claim = _known(same, is_array(path))
    return claim if order == "==" else Claim(claim.fails, claim.holds)


def _scalars(values: Sequence[Value]) -> tuple[bool | int | float | str, ...]:
    return tuple(value for value in map(demand, values) if not isinstance(value, list))


def _part(order: str, value: Value, path: str) -> Part:
    """What is so of a value if ``order`` holds; of ``!=``, what is not."""
    assert not isinstance(value, list)
    if order in ("==", "!="):
        return OneOf(path, (value,))
    if isinstance(value, bool):
        raise Refused("booleans have no order")
    included = order.endswith("=")
    if order.startswith("<"):
        return Within(path, high=value, high_included=included)
    return Within(path, low=value, low_included=included)


def _signed(order: str, found: Filter) -> Filter:
    return Not(found) if order == "!=" else found


def _known(found: Filter, known: Filter) -> Claim:
    """A claim that is unknown but where ``known`` holds, as ``found`` may be known to be."""
    if isinstance(found, Not):
        return Claim(Every((known, found)), found.part)
    return Claim(found, Every((known, Not(found))))


def _about(column: Column, found: OneOf | Within | Glob, order: str, values: Sequence[Value]) -> Claim:
    """A claim that compares what a column has with these values."""
    if column.is_id:
        claim = Claim(OfId(_unnamed(found)), Not(OfId(_unnamed(found))))
    else:
        claim = _known(found, _comparable(column.path, values))
    return Claim(claim.fails, claim.holds) if order == "!=" else claim


def _unnamed(found: OneOf | Within | Glob) -> OneOf | Within | Glob:
    match found:
        case OneOf(_, values):
            return OneOf("", values)
        case Glob(_, pattern):
            return Glob("", pattern)
        case Within(_, low, high, low_included, high_included):
            return Within("", low, high, low_included, high_included)


def _comparable(path: str, values: Sequence[Value]) -> Filter:
    """Rows whose value is of a type that one of these has."""
    kinds: list[Filter] = []
    if any(isinstance(value, bool) for value in values):
        kinds.append(OneOf(path, (False, True)))
    if any(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        kinds.append(Within(path))
    if any(isinstance(value, str) for value in values):
        kinds.append(Within(path, low=""))
    return kinds[0] if len(kinds) == 1 else Some(tuple(kinds))
