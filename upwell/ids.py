"""Where identities are minted: random, and never from a name a user chose."""

from __future__ import annotations

import secrets


def new_identity() -> str:
    """A fresh 128-bit identity as 32 hex digits: for indexes, segments, writers and everything else that is made once."""
    return secrets.token_hex(16)


def numbered(number: int) -> str:
    """A position or version as the 20 digits that sort as the number does."""
    return f"{number:020d}"
