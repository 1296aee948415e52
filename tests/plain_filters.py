"""Filters said plainly: what a name, a glob and an operator of Upstash's language mean, on Python's own values.

Knows nothing of trees, columns, grammars or regular expressions, so that tests can hold those against it.
"""

from __future__ import annotations

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
