"""Ids for rows that come without one (autoID): positive integers of 64 bits that nobody else was given.

    random   1 | 42 bits drawn by this process | 20 bits that it counts
    keyed    0 | 62 bits of a hash of the request, with its sender and its Idempotency-Key, and of the place of the row in it

A process draws anew once it has counted to a million. Two of p draws are the same with a probability of p² / 2^43: of a thousand, that is
a thousand processes or a billion rows, one in nine million. Of n rows of requests that may be sent again two get the same number with
n² / 2^63: of a million, one in nine million. The first bit keeps the two kinds apart. A request that is sent again gets the same numbers, so
that it says the same, counts once, and is answered the same. One that says something else gets others, also when its key was used so long
ago that nobody knows it any more.
"""

from __future__ import annotations

import hashlib
from threading import Lock
from typing import Final, Protocol

from upwell.ids import new_identity

COUNTED_BITS: Final = 20
DRAWN_BITS: Final = 42
KEYED_BITS: Final = COUNTED_BITS + DRAWN_BITS


class AutoIds(Protocol):
    """Where rows of one request get their ids from."""

    def of(self, row: int, /) -> int:
        """The number of the row at this place, from 0; asked for once each."""


class RandomIds:
    """Numbers that nobody was given before. For any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next = self._last = 0

    def of(self, _row: int, /) -> int:
        """A number, whichever the row."""
        with self._lock:
            if self._next == self._last:
                drawn = int(new_identity(), 16) & ((1 << DRAWN_BITS) - 1)
                self._next = (1 << KEYED_BITS) | (drawn << COUNTED_BITS)
                self._last = self._next + (1 << COUNTED_BITS)
            self._next += 1
            return self._next - 1


class KeyedIds:
    """The numbers of a request that may be sent again."""

    def __init__(self, by: str, key: str, says: bytes) -> None:
        """``by``: the identity of the token that sends it; ``key``: its Idempotency-Key, printable ASCII; ``says``: its body."""
        self._seed = hashlib.sha256(f"{by}\n{key}\n".encode())
        self._seed.update(hashlib.sha256(says).digest())

    def of(self, row: int, /) -> int:
        """Always the same number for the same row."""
        hashed = self._seed.copy()
        hashed.update(b"\n%d" % row)
        # Not 0, which some take for nothing.
        return (int.from_bytes(hashed.digest()[:8], "big") & ((1 << KEYED_BITS) - 1)) or 1


#: Of this process.
RANDOM: Final = RandomIds()
