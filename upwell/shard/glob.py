"""Globs: which of many words a pattern matches whole, in time that grows with the words' length and not with the pattern's malice.

``*`` any characters, ``?`` one, ``[abc]`` and ``[a-z]`` one of these, ``[^abc]`` and ``[^a-z]`` one that is none of them. A ``]`` that comes
first and a ``-`` that comes first or last stand for themselves, and so does a ``[`` that is never closed; nothing escapes anything.
Capitals matter; a character is a code point.

A pattern becomes a regular expression of RE2, which Arrow runs over all words: it never goes back, so that no pattern makes it take
exponential time. Python's own ``re`` would.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upwell.shard.deletions import Mask

#: The longest pattern: with so many characters every pattern stays within what RE2 takes.
GLOB_CHARACTERS_MAX: Final = 1_024

#: A set that begins with ] has more in it; one that is taken as negated is not tried as a plain one.
_TOKEN: Final = re.compile(
    r"(?P<any>\*+)|(?P<one>\?)|\[(?P<not>\^?+)(?P<set>\][^\]]*|[^\]]+)\]|(?P<plain>.)", re.DOTALL
)

#: A ] or a ^ outside a set stands for itself.
_SPECIAL: Final = re.compile(r"[*?\[]")


def matches(words: pa.Array, pattern: str) -> Mask:
    """Which of ``words`` (Arrow utf8 without nulls) match the whole pattern: bool (words,)."""
    if not len(words):
        return np.zeros(0, dtype=bool)
    found = pc.match_substring_regex(words, expression(pattern))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def expression(pattern: str) -> str:
    """The pattern in RE2's words; it matches from a text's beginning to its end."""
    return rf"\A(?s:{''.join(_translated(token) for token in _TOKEN.finditer(pattern))})\z"


def glob_of(text: str) -> str:
    """The glob that matches ``text`` and nothing else: what means something in a glob becomes a set of one."""
    return _SPECIAL.sub(r"[\g<0>]", text)


def _translated(token: re.Match[str]) -> str:
    if token["any"]:
        return ".*"
    if token["one"]:
        return "."
    if token["plain"] is not None:
        return _quoted(token["plain"])
    return _one_of(token["set"], excluded=bool(token["not"]))


def _one_of(inside: str, *, excluded: bool) -> str:
    ranges = []
    place = 0
    while place < len(inside):
        first = last = inside[place]
        place += 1
        if inside[place : place + 1] == "-" and place + 1 < len(inside):
            last = inside[place + 1]
            place += 2
        if first <= last:
            ranges.append(f"{_quoted(first)}-{_quoted(last)}")
    if not ranges:  # such as [z-a]: no character is in it, and every one is outside
        return "." if excluded else r"[^\x{0}-\x{10FFFF}]"
    return f"[{'^' if excluded else ''}{''.join(ranges)}]"


def _quoted(character: str) -> str:
    return character if character.isalnum() else rf"\x{{{ord(character):X}}}"
