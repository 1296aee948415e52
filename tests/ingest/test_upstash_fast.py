"""Is an item decoded fast the same as one decoded as ever, and what is wrong with it found all the same?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.body.decoder import FastDecoder
from ingest.body.simd import simdjson

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.just('"vector":[1]'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("vector"), inner, max_size=3)
    ),
)
ITEMS = st.fixed_dictionaries(
    {"id": st.text()},
    optional={"vector": st.lists(NUMBERS, max_size=5) | PLAIN, "metadata": PLAIN, "data": st.text()},
)


def plain(value: Any) -> Any:
    """The same without arrays."""
    if isinstance(value, dict) and isinstance(value.get("vector"), np.ndarray):
        assert value["vector"].dtype == np.float64
        return value | {"vector": value["vector"].tolist()}
    return value


@given(ITEMS, st.booleans())
def test_it_is_what_it_always_is(item: Any, spaced: bool) -> None:
    text = json.dumps(item, ensure_ascii=False).encode("utf-8", "replace") if spaced else orjson.dumps(item)
    expected, decoded = orjson.loads(text), FastDecoder("vector").decode(text)
    if isinstance(decoded.get("vector"), np.ndarray):
        expected["vector"] = [float(number) for number in expected["vector"]]
    assert plain(decoded) == expected


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        (b'{"id":1,"vector":[1,2.5,-3e1]}', True),
        (b'{ "vector" :\n[ 1 , 2 ] , "metadata":{"a":[1,{"b":"[]"}]}}', True),
        (b'{"vector":[1],"vector":[2]}', False),
        (b'{"vector":[1,2],"\\u0076ector":[3,4]}', False),
        (b'{"metadata":{"vector":[1,2]}}', False),
        (b'{"vector":[true,1]}', False),
        (b'{"vector":[1,null]}', False),
        (b'{"vector":[[1],2]}', False),
        (b'{"vector":[1,"2"]}', False),
        (b'{"vector":[]}', True),
        (b'{"vector":[123456789012345678901234567890]}', False),
        (b'["vector",1]', False),
    ],
)
def test_what_is_unusual_is_decoded_as_ever(text: bytes, is_fast: bool) -> None:
    decoder = FastDecoder("vector")
    for _ in range(2):
        value = decoder.decode(text)
        assert plain(value) == orjson.loads(text)
        assert (isinstance(value, dict) and isinstance(value.get("vector"), np.ndarray)) is (
            is_fast and simdjson is not None
        )


@pytest.mark.parametrize(
    "text",
    [
        b'{"vector":[1,,2]}',
        b'{"vector":[NaN]}',
        b'{"vector":[1]x}',
        b'{"vector":[1e400]}',
        b'{"vector":[1',
        b"",
    ],
)
def test_what_is_no_json_is_none(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        FastDecoder("vector").decode(text)
