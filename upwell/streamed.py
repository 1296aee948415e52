"""Bytes that need not all be in memory at once: a part of an object is a buffer, or makes its buffers when they are asked for.

Whoever lays an object out (format.py) or writes one (a store) goes through ``chunks_of`` and cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class Streamed:
    """``nbytes`` bytes, made chunk by chunk; each call of ``chunks`` begins anew and yields the same bytes.

    ``checksum`` is the xxh3_64 of them all: whoever makes them has read them already, and once more is enough, to write them.
    """

    nbytes: int
    checksum: int
    chunks: Callable[[], Iterator[Buffer]]


Part = Buffer | Streamed


def chunks_of(part: Part) -> Iterator[memoryview]:
    """The bytes of a part, in one or several views."""
    if not isinstance(part, Streamed):
        yield memoryview(part).cast("B")
        return
    for chunk in part.chunks():
        yield memoryview(chunk).cast("B")


def nbytes_of(parts: Iterable[Part]) -> int:
    """How many bytes the parts have in all."""
    return sum(part.nbytes if isinstance(part, Streamed) else memoryview(part).nbytes for part in parts)


def joined(parts: Iterable[Part]) -> bytes:
    """The parts as one run of bytes; for small objects."""
    return b"".join(chunk for part in parts for chunk in chunks_of(part))
