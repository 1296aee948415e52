"""Milvus's expressions said plainly: what each part of the language means, on Python's own values.

Knows nothing of trees, columns, grammars or globs, so that tests can hold those against it. An answer is True, False or None: unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from upwell.schema import FieldType, ScalarField

NOTHING = object()
INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Row:
    """A row: its primary key, and everything else that it has but vectors."""

    id: int | str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a value is: the primary key (None), or a field and keys and indexes within it."""

    name: str | None
    steps: tuple[str | int, ...] = ()

    def of(self, row: Row) -> Any:
        if self.name is None:
            return row.id
        value: Any = row.fields.get(self.name, NOTHING)
        for step in self.steps:
            if isinstance(step, str) and isinstance(value, dict):
                value = value.get(step, NOTHING)
            elif isinstance(step, int) and isinstance(value, list) and step < len(value):
                value = value[step]
            else:
                return NOTHING
        return value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def comparable(value: Any, literal: Any) -> bool:
    return any(
        kind(value) and kind(literal)
        for kind in (is_number, lambda one: isinstance(one, str), lambda one: isinstance(one, bool))
    )


def equal(value: Any, literal: Any) -> bool:
    return comparable(value, literal) and bool(value == literal)


def ordered(value: Any, order: str, literal: Any) -> bool:
    """Of two values that can be compared."""
    return bool(
        {
            "==": lambda: value == literal,
            "!=": lambda: value != literal,
            "<": lambda: value < literal,
            "<=": lambda: value <= literal,
            ">": lambda: value > literal,
            ">=": lambda: value >= literal,
        }[order]()
    )


def compared(value: Any, order: str, literal: Any) -> bool | None:
    return ordered(value, order, literal) if comparable(value, literal) else None


def among(value: Any, literals: list[Any]) -> bool | None:
    if not literals:
        return False
    if not any(comparable(value, literal) for literal in literals):
        return None
    return any(equal(value, literal) for literal in literals)


def same_array(value: Any, literals: list[Any]) -> bool | None:
    if not isinstance(value, list):
        return None
    return len(value) == len(literals) and all(map(equal, value, literals))


def contains(value: Any, literals: list[Any], *, every: bool) -> bool | None:
    if not isinstance(value, list):
        return None
    found = [any(equal(one, literal) for one in value) for literal in literals]
    return all(found) if every else any(found)


def length(value: Any) -> Any:
    return len(value) if isinstance(value, list) else NOTHING


def calculated(value: Any, sign: str, operand: float) -> Any:
    """Whole numbers as C calculates with them; a fraction on either side makes it double arithmetic."""
    if not is_number(value):
        return NOTHING
    if isinstance(operand, int) and value == int(value) and int(value) in INT64:
        left = int(value)
        quotient = 0 if sign not in "/%" else abs(left) // abs(operand)
        if (left < 0) != (operand < 0):
            quotient = -quotient
        exact = {
            "+": left + operand,
            "-": left - operand,
            "*": left * operand,
            "/": quotient,
            "%": left - quotient * operand,
        }[sign]
        if exact in INT64:
            return exact
    first, second = float(value), float(operand)
    match sign:
        case "+":
            return first + second
        case "-":
            return first - second
        case "*":
            return first * second
        case "/":
            return first / second
        case _:
            return math.fmod(first, second)


def liked(value: Any, pattern: list[str]) -> bool | None:
    """``pattern``: characters, or the words "any" and "one"."""
    if not isinstance(value, str):
        return None
    reached = {0}
    for part in pattern:
        if part == "any":
            reached = set(range(min(reached), len(value) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(value) and (part == "one" or value[at] == part)}
    return len(value) in reached


def there(value: Any) -> bool:
    return value is not NOTHING and value is not None


def denied(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def every(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def some(answers: list[bool | None]) -> bool | None:
    return denied(every([denied(one) for one in answers]))


def nullable(name: str, kind: FieldType, element: FieldType | None = None) -> ScalarField:
    """A field that may be left out."""
    return ScalarField(name=name, type=kind, nullable=True, element=element)
