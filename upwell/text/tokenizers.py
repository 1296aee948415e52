"""How a text falls into words: what finds them, from one to the next."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from upwell.text.letters import ALPHANUMERIC, run_of

#: What finds the words of a text. It is asked about each, since plain texts are made short work of.
Tokenizer = Callable[[str], re.Pattern[str]]

_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")
_ASCII_WORD: Final = re.compile("[0-9A-Za-z]+")
#: What ASCII calls whitespace, to Rust; a vertical tab is none. And surrogates, which no term can have.
_BETWEEN_SPACES: Final = re.compile("[^\t\n\x0c\r \ud800-\udfff]+")


def standard(text: str) -> re.Pattern[str]:
    """Words are letters and digits side by side; everything else stands between them."""
    if text.isascii():
        return _ASCII_WORD
    return run_of(ALPHANUMERIC, astral=_ASTRAL.search(text) is not None)


def whitespace(text: str) -> re.Pattern[str]:
    """Words are what stands between spaces, tabs and line ends of ASCII."""
    del text
    return _BETWEEN_SPACES
