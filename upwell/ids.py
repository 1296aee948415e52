"""Where identities are minted: random, and never from a name a user chose."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

NUMBER_DIGITS = 20


def new_identity() -> str:
    """A fresh 128-bit identity as 32 hex digits: for indexes, segments, writers and everything else that is made once."""
    return secrets.token_hex(16)


def numbers_in(names: Iterable[str]) -> list[int]:
    """The positions or versions among ``names``, in their order. What is none, somebody else's file say, is passed over."""
    return [int(name) for name in names if len(name) == NUMBER_DIGITS and name.isascii() and name.isdigit()]


def numbered(number: int) -> str:
    """A position or version as the 20 digits that sort as the number does."""
    return f"{number:0{NUMBER_DIGITS}d}"
