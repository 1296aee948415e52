"""Does parse_ids() read ``{"ids": […]}``, and say what else it was given?"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.body import parse_ids
from upwell.errors import Invalid, TooLarge


def test_ids_come_back_in_order_and_numbers_as_text() -> None:
    assert parse_ids(b'\xef\xbb\xbf {"ids":["b","a",7,"b",-1],"more":1}') == ["b", "a", "7", "b", "-1"]
    assert parse_ids(memoryview('{"ids":["é\\u0000"]}'.encode())) == ["é\0"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b'{"ids":["\\ud800"]}', "JSON"),
        (b'{"ids":["\xff"]}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'["a"]', "got an array"),
        (b"{}", "an object without ids"),
        (b'{"ids":"a"}', 'ids: the string "a"'),
        (b'{"ids":null}', "ids: null"),
        (b'{"ids":[]}', "at least one id"),
        (b'{"ids":["a",""]}', r"ids\[1\]: .*not empty"),
        (b'{"ids":[1.5]}', r"ids\[0\]: .*the number 1.5"),
        (b'{"ids":[true]}', r"ids\[0\]: .*got true"),
        (b'{"ids":["a",["b"]]}', r"ids\[1\]: .*got an array"),
        (b'{"ids":["' + b"x" * 74 + b'"]}', "id too long; max is 64 bytes, got 74 bytes"),
    ],
)
def test_other_bodies_are_refused_pointedly(body: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_ids(body)


def test_the_number_of_ids_is_unlimited_unless_asked() -> None:
    body = b'{"ids":[' + b",".join([b'"a"'] * 110) + b"]}"
    assert len(parse_ids(body)) == 110
    with pytest.raises(TooLarge, match=r"^too many ids in payload; max id count is 100, got 110$"):
        parse_ids(body, ids_max=100)


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_bytes_give_ids_or_invalid(junk: bytes) -> None:
    for body in (junk, b'{"ids":[' + junk + b"]}"):
        with suppress(Invalid):
            assert all(parse_ids(body))
