"""Undoing Content-Encoding: gzip, deflate, zstd, and chains of them, never beyond a bound.

A bomb is noticed after at most one step past the bound; a stream that is cut short or followed by other bytes is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeAlias

import zstandard

from upwell.errors import Invalid, TooLarge

Bytes: TypeAlias = bytes | bytearray | memoryview

#: Output is produced in steps of this many bytes.
STEP_BYTES = 1 << 20
CODINGS_MAX = 3
GZIP_WINDOW = 16 + zlib.MAX_WBITS
#: The largest window that a zstd frame may ask us to hold.
ZSTD_WINDOW_BYTES = 1 << 27


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
    return body


def _gzip(body: Bytes, bytes_max: int) -> Bytes:
    return _zlib(body, bytes_max, GZIP_WINDOW, "gzip", members=True)


def _deflate(body: Bytes, bytes_max: int) -> Bytes:
    """RFC 9110 means the zlib format; some clients send the bare stream. The first two bytes tell."""
    head = bytes(body[:2])
    wrapped = len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0
    return _zlib(body, bytes_max, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, "deflate", members=False)


def _zlib(body: Bytes, bytes_max: int, window: int, name: str, *, members: bool) -> Bytes:
    out = bytearray()
    rest: Bytes = body
    while True:
        decoder = zlib.decompressobj(window)
        while not decoder.eof:
            try:
                piece = decoder.decompress(rest, STEP_BYTES)
            except zlib.error as error:
                raise Invalid(f"the {name} body is damaged: {error}") from None
            rest = decoder.unconsumed_tail
            _grow(out, piece, bytes_max)
            starved = not rest and not piece
            if starved and not decoder.eof:
                raise Invalid(f"the {name} body is cut short")
        rest = decoder.unused_data
        if not rest:
            return out
        if not members:
            raise Invalid(f"the {name} body is followed by {len(rest)} bytes that do not belong to it")


def _zstd(body: Bytes, bytes_max: int) -> Bytes:
    out = bytearray()
    rest: Bytes = body
    while rest:
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
        try:
            # One frame's output is not bounded by a call, so it is fed in small pieces.
            size = zstandard.frame_content_size(rest)
            if size > bytes_max:
                raise TooLarge(f"the request body has more than the {bytes_max} bytes allowed")
            rest = _feed(decoder, rest, out, bytes_max)
        except zstandard.ZstdError as error:
            raise Invalid(f"the zstd body is damaged: {error}") from None
        if not decoder.eof:
            raise Invalid("the zstd body is cut short")
    return out


def _feed(decoder: zstandard.ZstdDecompressionObj, rest: Bytes, out: bytearray, bytes_max: int) -> Bytes:
    """Decode one frame; returns what follows it. A block inflates to at most 128 KiB, whatever it claims."""
    view = memoryview(rest)
    step = 256
    for start in range(0, len(view), step):
        _grow(out, decoder.decompress(view[start : start + step]), bytes_max)
        if decoder.eof:
            unused = len(decoder.unused_data)
            return view[min(start + step, len(view)) - unused :]
    return b""


def _grow(out: bytearray, piece: bytes, bytes_max: int) -> None:
    out += piece
    if len(out) > bytes_max:
        raise TooLarge(f"the request body inflates to more than the {bytes_max} bytes allowed")


_CODINGS: dict[str, Callable[[Bytes, int], Bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
