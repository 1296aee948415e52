"""Large answers: encoded row by row, bounded as they grow, and written piece by piece as the client takes them.

What a door wraps around its rows is its own affair; how much one answer may hold, and how much all answers together that are not taken
yet, is the same at every door.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter

from upwell.errors import Behind, Invalid

#: A thousand rows with all the data and metadata that they may have would be ten times as much.
ANSWER_BYTES_MAX = 128 << 20
#: Longer ones are written piece by piece, as the client takes them: the loop would stand still while it copies all at once.
PIECE_BYTES = 256 << 10
#: Of all such answers together that one front end holds for clients that are slow to take them.
HELD_BYTES_MAX = 1 << 30


def encode(value: Any) -> bytes:
    """A value as JSON. float32 become the shortest numbers that read back as the same float32."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_many(encoded: Iterable[bytes]) -> bytes:
    """An array of what is encoded already."""
    return b"[" + b",".join(encoded) + b"]"


class Room:
    """How many bytes one answer may yet have. Shared by the threads that make parts of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = ANSWER_BYTES_MAX

    def take(self, nbytes: int) -> None:
        """Raises Invalid if there are not so many left."""
        with self._lock:
            self._left -= nbytes
            if self._left < 0:
                raise Invalid(
                    f"the answer has more than {ANSWER_BYTES_MAX} bytes; ask for fewer vectors, or for less of each"
                )


def rows_at_most(row_bytes_min: int) -> int:
    """How many rows may be in an answer of which none has fewer bytes."""
    return ANSWER_BYTES_MAX // row_bytes_min


def encoded_rows(rows: Iterable[Any], room: Room) -> list[bytes]:
    """Rows, encoded one by one. Raises Invalid if the answer is too large to be held in memory by many at once."""
    encoded = []
    for row in rows:
        encoded.append(encode(row))
        room.take(len(encoded[-1]))
    return encoded


def encode_rows(rows: Iterable[Any], room: Room | None = None) -> bytes:
    """An array of rows, as ``encoded_rows`` has them; ``room`` is that of an answer with several arrays."""
    return encode_many(encoded_rows(rows, room or Room()))


class _Held:
    """The large answers of this process that are not all taken yet. Used from one event loop at a time."""

    def __init__(self) -> None:
        self.nbytes = 0

    def hold(self, nbytes: int) -> None:
        """Count another one. Raises Behind if there are too many already."""
        if self.nbytes + nbytes > HELD_BYTES_MAX:
            raise Behind("too many large answers are being taken just now; try again later")
        self.nbytes += nbytes

    def let_go(self, nbytes: int) -> None:
        """One of them is taken, or nobody wants it any more."""
        self.nbytes -= nbytes


_HELD = _Held()


class _Large(payload.Payload):
    """An answer that is written piece by piece, and is counted until then. Raises Behind if there are too many."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        super().__init__(parts)
        self._size = sum(map(len, parts))
        _HELD.hold(self._size)
        # Also if it is never written, to whoever hung up.
        self._let_go = weakref.finalize(self, _HELD.let_go, self._size)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text: nobody asks for it."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """All of it, as fast as it is taken."""
        part = None
        try:
            for part in self._value:
                for start in range(0, len(part), PIECE_BYTES):
                    await writer.write(part[start : start + PIECE_BYTES])
        finally:
            # Who hangs up leaves an error behind that holds on to this frame and the writer's, until Python next looks for cycles;
            # so pieces are copies, too.
            part = None

    async def close(self) -> None:
        """It is written, or cannot be."""
        self._value = ()
        self._let_go()


def body_of(parts: Sequence[bytes]) -> bytes | payload.Payload:
    """The body of an answer that is these parts one after the other. Raises Behind for a large one if too many are being taken."""
    if sum(map(len, parts)) <= PIECE_BYTES:
        return b"".join(parts)
    return _Large(tuple(parts))
