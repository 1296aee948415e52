"""Undoing Content-Encoding: gzip, deflate, zstd, and chains of them, never beyond a bound.

A bomb is noticed after at most one step past the bound; a stream that is cut short or followed by other bytes is refused.
Work is in proportion to what goes in and comes out: input is fed in slices, and the members of a stream are counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import zstandard

from upwell.errors import Invalid, TooLarge

Bytes: TypeAlias = bytes | bytearray | memoryview

#: Output is produced in steps of this many bytes.
STEP_BYTES: Final = 1 << 20
#: Input is fed in slices: what follows a gzip member within its slice is copied, and so must not be the whole rest.
SLICE_BYTES: Final = 1 << 16
#: For zstd the output of a slice has no bound of its own: a block of 4 bytes may become 128 KiB, so this becomes 8 MiB.
ZSTD_SLICE_BYTES: Final = 256
CODINGS_MAX: Final = 3
#: Gzip members or zstd frames in a row. Block-wise gzip makes about 1,600 of 100 MB; empty ones cost without growing.
MEMBERS_MAX: Final = 65_536
GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
#: The largest window that a zstd frame may ask us to hold.
ZSTD_WINDOW_BYTES: Final = 1 << 27


def inflate(body: Bytes, content_encoding: str | None, bytes_max: int) -> Bytes:
    """The body as it was before encoding. Raises Invalid for damage or an unknown coding, TooLarge past ``bytes_max``."""
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if len(codings) > CODINGS_MAX:
        raise Invalid(f"Content-Encoding: expected at most {CODINGS_MAX} codings, got {len(codings)}")
    for coding in reversed(codings):
        decode = _CODINGS.get(coding)
        if decode is None:
            known = ", ".join(sorted(_CODINGS))
            raise Invalid(f"Content-Encoding: expected one of {known}, got {coding[:64]!r}")
        body = decode(body, bytes_max)
    if len(body) > bytes_max:
        raise TooLarge(f"the request body has more than the {bytes_max} bytes allowed")
    return body


def _gzip(body: Bytes, bytes_max: int) -> Bytes:
    out, view, at = bytearray(), memoryview(body), 0
    for _ in range(MEMBERS_MAX):
        if at and bytes(view[at : at + 2]) != b"\x1f\x8b":
            raise _followed("gzip", len(view) - at)
        at = _member(zlib.decompressobj(GZIP_WINDOW), view, at, out, bytes_max=bytes_max, name="gzip")
        if at == len(view):
            return out
    raise _many_members("gzip")


def _deflate(body: Bytes, bytes_max: int) -> Bytes:
    """RFC 9110 means the zlib format; some clients send the bare stream. The first two bytes tell."""
    out, view = bytearray(), memoryview(body)
    head = bytes(view[:2])
    wrapped = len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0
    decoder = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    at = _member(decoder, view, 0, out, bytes_max=bytes_max, name="deflate")
    if at < len(view):
        raise _followed("deflate", len(view) - at)
    return out


def _member(decoder: Any, view: memoryview, at: int, out: bytearray, *, bytes_max: int, name: str) -> int:
    """Decode one stream that begins at ``at``; returns where it ends."""
    while not decoder.eof:
        rest: Bytes = view[at : at + SLICE_BYTES]
        if not rest:
            raise Invalid(f"the {name} body is cut short")
        at += len(rest)
        pending = True
        while pending and not decoder.eof:
            try:
                piece = decoder.decompress(rest, STEP_BYTES)
            except zlib.error as error:
                raise Invalid(f"the {name} body is damaged: {error}") from None
            _grow(out, piece, bytes_max)
            rest = decoder.unconsumed_tail
            pending = bool(rest) or len(piece) == STEP_BYTES
    return at - len(decoder.unused_data)


def _zstd(body: Bytes, bytes_max: int) -> Bytes:
    out, view, at = bytearray(), memoryview(body), 0
    for _ in range(MEMBERS_MAX):
        try:
            size = zstandard.frame_content_size(view[at:]) if at < len(view) else 0
        except zstandard.ZstdError as error:
            if at:
                raise _followed("zstd", len(view) - at) from None
            raise Invalid(f"the zstd body is damaged: {error}") from None
        if size > bytes_max - len(out):
            raise TooLarge(f"the request body inflates to more than the {bytes_max} bytes allowed")
        at = _frame(view, at, out, bytes_max)
        if at == len(view):
            return out
    raise _many_members("zstd")


def _frame(view: memoryview, at: int, out: bytearray, bytes_max: int) -> int:
    """Decode one frame that begins at ``at``; returns where it ends."""
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
    while not decoder.eof:
        piece = view[at : at + ZSTD_SLICE_BYTES]
        if not piece:
            raise Invalid("the zstd body is cut short")
        at += len(piece)
        try:
            _grow(out, decoder.decompress(piece), bytes_max)
        except zstandard.ZstdError as error:
            raise Invalid(f"the zstd body is damaged: {error}") from None
    return at - len(decoder.unused_data)


def _grow(out: bytearray, piece: bytes, bytes_max: int) -> None:
    out += piece
    if len(out) > bytes_max:
        raise TooLarge(f"the request body inflates to more than the {bytes_max} bytes allowed")


def _followed(name: str, count: int) -> Invalid:
    return Invalid(f"the {name} body is followed by {count} bytes that do not belong to it")


def _many_members(name: str) -> Invalid:
    return Invalid(f"the {name} body has more than the {MEMBERS_MAX} members allowed")


_CODINGS: dict[str, Callable[[Bytes, int], Bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
