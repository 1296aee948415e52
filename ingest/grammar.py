"""What is wrong with a text that a grammar does not take: what was expected where, and what stands there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from lark import Lark, UnexpectedInput, UnexpectedToken

SHOWN_CHARACTERS_MAX: Final = 64
#: What an error shows of a text that is no word of the language.
_RUN: Final = re.compile(r"['\"].*|[\w.]+|[^\w\s'\"]+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mistake:
    """The first place at which a text cannot go on as it does."""

    expected: str
    place: int
    got: str

    def __str__(self) -> str:
        return f"expected {self.expected} at column {self.place + 1}, got {self.got}"


def mistake(parser: Lark, text: str, error: UnexpectedInput, words: Mapping[str, str]) -> Mistake:
    """What ``error`` is about. ``words`` says how terminals are called, in the order in which they are told of."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    found_at: Any = error.pos_in_stream
    place: int = len(text) if at_end else found_at
    accepted = _accepted(parser, text, place)
    expected = list(dict.fromkeys(word for terminal, word in words.items() if terminal in accepted))
    told = " or ".join(filter(None, [", ".join(expected[:-1]), expected[-1]]))
    if at_end:
        return Mistake(told, place, "the end")
    if isinstance(error, UnexpectedToken):
        return Mistake(told, place, shown(str(error.token)))
    if text[place] in "'\"" and "STRING" in accepted:
        told = f"a string that ends with {text[place]}"
    found = _RUN.match(text, place)
    assert found
    return Mistake(told, place, shown(found[0]))


def shown(text: str) -> str:
    """A text as an error shows it."""
    short = text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 1] + "…"
    return repr(short)


def _accepted(parser: Lark, text: str, place: int) -> set[str]:
    """The terminals that may stand at ``place``, before which all is well.

    What a parser that met the wrong one knows is too little: it has concluded by then that the term is over, say.
    """
    asked: Any = parser.parse_interactive(text)
    with suppress(UnexpectedInput):  # the one that is known
        for token in asked.lexer_thread.lex(asked.parser_state):
            if token.start_pos >= place:
                break
            asked.feed_token(token)
    accepted: set[str] = asked.accepts()
    return accepted
