"""Filters said plainly: what a name, a glob and an operator of Upstash's language mean, on Python's own values.

Knows nothing of trees, columns, grammars or regular expressions, so that tests can hold those against it.
"""

from __future__ import annotations

from math import fmod, isfinite
from operator import add, mul, sub, truediv
from typing import Any

NOTHING = object()


def named(metadata: Any, name: str) -> Any:
    """The value that ``a.b[0][#-1]`` names; NOTHING without one."""
    value = metadata
    for step in name.replace("[", ".[").split("."):
        if isinstance(value, dict):
            value = value.get(step, NOTHING)
        elif isinstance(value, list) and step.startswith("["):
            number = int(step[1:-1].removeprefix("#-"))
            place = len(value) - number if "#" in step else number
            value = value[place] if 0 <= place < len(value) else NOTHING
        else:
            return NOTHING
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(value: Any, wanted: Any) -> bool:
    """Equal and of one type; numbers are doubles."""
    if is_number(value) and is_number(wanted):
        return float(value) == float(wanted)
    return type(value) is type(wanted) and isinstance(value, str | bool) and bool(value == wanted)


def globbed(pattern: str, text: str) -> bool:
    """Does the pattern match the whole text?"""
    # The places in the text up to which what was read of the pattern may reach.
    reached = {0}
    place = 0
    while place < len(pattern):
        character = pattern[place]
        place += 1
        if character == "*":
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
            continue
        chosen, excluded = character, False
        if character == "[":
            # One ] may come first and is not yet the end.
            excluded = pattern[place : place + 1] == "^"
            end = pattern.find("]", place + excluded + 1)
            if end < 0:
                chosen, excluded = "[", False
            else:
                chosen = _spelled(pattern[place + excluded : end])
                place = end + 1
        fits = {
            at for at in reached if at < len(text) and (character == "?" or (text[at] in chosen) ^ excluded)
        }
        reached = {at + 1 for at in fits}
    return len(text) in reached


def _spelled(inside: str) -> str:
    """All characters of a set such as ``a-cx``."""
    spelled, rest = "", inside
    while rest:
        if len(rest) > 2 and rest[1] == "-":
            spelled += "".join(map(chr, range(ord(rest[0]), ord(rest[2]) + 1)))
            rest = rest[3:]
        else:
            spelled, rest = spelled + rest[0], rest[1:]
    return spelled


# What only Milvus's language asks.


def number_fits(value: float, order: str, wanted: float) -> bool:
    """Is the number so to a wanted one? To an int exactly, to a float as doubles are."""
    beyond = isinstance(wanted, int) and not -(2**63) <= wanted < 2**64
    if isinstance(wanted, float) or beyond:
        value, wanted = float(value), float(wanted)
    return in_order(value, order, wanted)


def in_order(value: Any, order: str, other: Any) -> bool:
    """Are two values of one type so to one another?"""
    less, equal = value < other, value == other
    return bool(
        {
            "==": equal,
            "!=": not equal,
            "<": less,
            "<=": less or equal,
            ">": not less and not equal,
            ">=": not less,
        }[order]
    )


def calculated(value: float, operator: str, operand: float) -> Any:
    """What arithmetic makes of two numbers: as in C, of integers where both are; NOTHING where it makes no number."""
    if operator in "/%" and operand == 0:
        return NOTHING
    left, right = _integer(value, whole=True), _integer(operand, whole=False)
    if left is not None and right is not None:
        quotient = 0 if operator not in "/%" else abs(left) // abs(right) * (1 if left * right >= 0 else -1)
        exact = {
            "+": left + right,
            "-": left - right,
            "*": left * right,
            "/": quotient,
            "%": left - quotient * right,
        }[operator]
        if -(2**63) <= exact < 2**63:
            return exact
    one, two = float(value), float(operand)
    if operator == "%":
        return fmod(one, two)
    try:
        result = {"+": add, "-": sub, "*": mul, "/": truediv}[operator](one, two)
    except OverflowError:
        return NOTHING
    return result if isfinite(result) else NOTHING


def _integer(value: float, *, whole: bool) -> int | None:
    """The integer of 64 bits that a number is: an int, or, if ``whole`` numbers do, a float without a fraction."""
    if not isinstance(value, int) and not (whole and value.is_integer()):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def written_integer(name: str) -> int | None:
    """The integer of 64 bits that an id is written as."""
    digits = name.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or str(int(name)) != name:
        return None
    return int(name) if -(2**63) <= int(name) < 2**63 else None
