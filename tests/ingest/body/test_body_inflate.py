"""Does inflate() undo every coding, refuse damage, and never hold much more than its bound?"""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.body import inflate
from ingest.body.inflate import MEMBERS_MAX
from upwell.errors import Invalid, TooLarge

TEXT = b'{"id":"a","values":[1,2]}\n' * 300
PLENTY = 1 << 24


def bare_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


CODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("zstd", zstandard.compress),
]
NAMES = ["gzip", "zlib", "bare deflate", "zstd"]
each_coding = pytest.mark.parametrize(("coding", "encode"), CODERS, ids=NAMES)


@each_coding
@given(data=st.binary(max_size=3000))
@settings(deadline=None, max_examples=25)
def test_what_was_encoded_comes_back(coding: str, encode: Callable[[bytes], bytes], data: bytes) -> None:
    assert bytes(inflate(encode(data), coding, PLENTY)) == data


@each_coding
def test_output_beyond_one_step_comes_back(coding: str, encode: Callable[[bytes], bytes]) -> None:
    data = bytes(range(256)) * 20_000
    assert bytes(inflate(memoryview(encode(data)), coding, len(data))) == data


@each_coding
def test_every_cut_is_noticed(coding: str, encode: Callable[[bytes], bytes]) -> None:
    whole = encode(TEXT)
    for size in range(len(whole)):
        with pytest.raises(Invalid, match=r"cut short|damaged"):
            inflate(whole[:size], coding, PLENTY)


@each_coding
def test_bytes_after_the_end_are_refused(coding: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Invalid, match="followed by 2 bytes"):
        inflate(encode(TEXT) + b"xx", coding, PLENTY)


@each_coding
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_damage_is_invalid_or_harmless(
    coding: str, encode: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    whole = bytearray(encode(TEXT))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Invalid):
        inflate(whole, coding, PLENTY)


@each_coding
def test_a_bomb_is_noticed_before_it_takes_the_memory(coding: str, encode: Callable[[bytes], bytes]) -> None:
    bomb, bound = encode(bytes(100_000_000)), 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="1000000 bytes"):
            inflate(bomb, coding, bound)
        assert tracemalloc.get_traced_memory()[1] < 24_000_000
    finally:
        tracemalloc.stop()


def test_a_zstd_bomb_that_hides_its_size_is_noticed_too() -> None:
    coder = zstandard.ZstdCompressor().compressobj()
    bomb = coder.compress(bytes(50_000_000)) + coder.flush()
    with pytest.raises(TooLarge):
        inflate(bomb, "zstd", 1_000_000)


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_members_in_a_row_are_one_body(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert bytes(inflate(encode(b"ab") + encode(b"") + encode(TEXT), coding, PLENTY)) == b"ab" + TEXT
    with pytest.raises(TooLarge):
        inflate(encode(TEXT) * 3, coding, len(TEXT) * 2)
    with pytest.raises(Invalid, match="members"):
        inflate(encode(b"") * (MEMBERS_MAX + 1), coding, PLENTY)


def test_codings_are_undone_last_first() -> None:
    chained = zstandard.compress(gzip.compress(zlib.compress(TEXT)))
    assert bytes(inflate(chained, " deflate, GZIP ,identity, zstd", PLENTY)) == TEXT


@pytest.mark.parametrize("coding", [None, "", "identity", " , "])
def test_what_is_not_encoded_is_returned_within_the_bound(coding: str | None) -> None:
    assert inflate(TEXT, coding, len(TEXT)) is TEXT
    with pytest.raises(TooLarge):
        inflate(TEXT, coding, len(TEXT) - 1)


@pytest.mark.parametrize(
    ("coding", "says"),
    [
        ("br", "got 'br'"),
        ("gzip, br", "'br'"),
        ("x" * 999, "'x{64}'"),
        ("gzip," * 4, "at most 3 codings, got 4"),
    ],
)
def test_other_codings_are_named(coding: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        inflate(b"", coding, PLENTY)
