"""Literals of Milvus's expressions: what strings, numbers, lists and patterns stand for. A literal that is none raises Refused."""

from __future__ import annotations

import re
from math import isfinite
from typing import Final

from ingest.grammar import shown
from upwell.shard.glob import GLOB_CHARACTERS_MAX, glob_of

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
#: Of a number in any base; beyond, none is one of 64 bits.
_DIGITS_MAX: Final = 70

Value = bool | int | float | str | list["Value"]


class Refused(Exception):
    """An expression that is well formed and means nothing, or nothing that is known here. Its text says why."""


#: A list of decimal numbers and strings without escapes is one word of the language, so that ten thousand ids are read at once.
#: Nothing in it goes back, whatever the text is.
_ITEM: Final = r"""-?+[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+(?![\w.])|"[^"\\\r\n]*+"|'[^'\\\r\n]*+'"""
LIST: Final = rf"\[\s*+(?:{_ITEM})(?:\s*+,\s*+(?:{_ITEM}))*+\s*+,?+\s*+\]"
_ITEMS: Final = re.compile(_ITEM)
#: A list, a string, a name or a number, or a sign.
_WORD: Final = re.compile(
    rf"""{LIST}|"(?:[^"\\\r\n]|\\[^\r\n])*+"|'(?:[^'\\\r\n]|\\[^\r\n])*+'|[\w.]++|[=!<>]=|\*\*|&&|\|\||\S"""
)

_ESCAPE: Final = re.compile(
    r"""\\(?:(?P<byte>[0-7]{3}|x[0-9a-fA-F]{2})|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8})|(?P<one>.?))""",
    re.DOTALL,
)
_PLAIN: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_WILD: Final = re.compile(r"\\(?P<escaped>[\\%_])|(?P<any>%)|(?P<one>_)|(?P<plain>[^\\%_]+|\\)", re.DOTALL)


def items_of(token: str) -> list[Value]:
    """The values of a list that is one word."""
    return [item[1:-1] if item[0] in "'\"" else number_of(item) for item in _ITEMS.findall(token)]


def words(text: str) -> int:
    """About how many words of the language a text has, before the first string that does not end."""
    count = 0
    for found in _WORD.finditer(text):
        if found[0] in ("'", '"'):
            # Whoever parses it will say so.
            break
        count += 1
    return count


def number_of(literal: str) -> int | float:
    """The number that a literal is, which may have a minus before it. 2^63 is let through: a minus may stand before that."""
    if len(literal) > _DIGITS_MAX and not any(sign in literal for sign in ".eEpP"):
        raise Refused(f"{shown(literal)} is no integer of 64 bits")
    if literal.isdecimal() and (literal[0] != "0" or literal == "0"):
        return _small(int(literal))
    text = literal.lower()
    try:
        if text.startswith("0x"):
            return float.fromhex(text) if "p" in text else _small(int(text, 16))
        if text.startswith("0b"):
            return _small(int(text, 2))
        if any(sign in text for sign in ".e"):
            return finite(float(text))
        if text.startswith("-"):
            return -number_of(literal[1:])
        return _small(int(text, 8))
    except (ValueError, OverflowError):
        raise Refused(f"{shown(literal)} is no number") from None


def finite(number: float) -> float:
    """A number that a double can hold."""
    if not isfinite(number):
        raise Refused("a number is beyond what a double can hold")
    return number


def _small(number: int) -> int:
    if number > INT64_MAX + 1:
        raise Refused(f"{number} is no integer of 64 bits")
    return number


def string_of(token: str) -> str:
    """What a string in quotes stands for. Escapes are those of Go."""
    return _text(token, "")


def pattern_of(token: str) -> str:
    """The same of what stands after ``like``: an escaped wildcard keeps its backslash, however often that is written."""
    return _text(token, "%_")


def _text(token: str, kept: str) -> str:
    if token[0] in "rR":
        return token[2:-1]
    inside = token[1:-1]
    if "\\" not in inside:
        return inside
    written = bytearray()
    place = 0
    for found in _ESCAPE.finditer(inside):
        written += inside[place : found.start()].encode()
        written += _unescaped(found, kept)
        place = found.end()
    written += inside[place:].encode()
    try:
        return written.decode()
    except UnicodeDecodeError:
        raise Refused(f"the string {shown(token)} is not UTF-8 once its escapes are resolved") from None


def _unescaped(found: re.Match[str], kept: str) -> bytes:
    if found["byte"]:
        code = int(found["byte"][1:], 16) if found["byte"][0] == "x" else int(found["byte"], 8)
        if code <= 0xFF:
            return bytes([code])
    elif point := found["u4"] or found["u8"]:
        code = int(point, 16)
        if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code).encode()
    elif found["one"] in _PLAIN:
        return _PLAIN[found["one"]].encode()
    elif found["one"] and found["one"] in kept:
        return found[0].encode()
    raise Refused(f"invalid escape {shown(found[0])} in a string")


def glob_like(pattern: str) -> str:
    """The glob of a pattern of ``like``: ``%`` is any characters, ``_`` is one, after a backslash they are themselves."""
    glob = "".join(
        "*"
        if found["any"]
        else "?"
        if found["one"]
        else glob_of(found["plain"] if found["plain"] is not None else found["escaped"])
        for found in _WILD.finditer(pattern)
    )
    if len(glob) > GLOB_CHARACTERS_MAX:
        raise Refused(
            f"expected a pattern of at most {GLOB_CHARACTERS_MAX} characters as a glob, got {len(glob)}"
        )
    return glob
