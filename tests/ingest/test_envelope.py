"""What is taken out of an envelope is what was put into it, byte for byte."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.doors.cloudflare.envelope import (
    AFTER_RESULT,
    encode_result,
    failure,
    result_in,
    said,
    said_in,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(st.builds(said, st.integers(0, 60_000), st.text()), max_size=3)
#: Ends a result with the text that follows every result.
TRAP = orjson.Fragment(b"{" + AFTER_RESULT[1:] + b"[]}")


@given(result=JSON, messages=MESSAGES)
def test_a_result_comes_out_as_it_went_in(result: Any, messages: list[dict[str, Any]]) -> None:
    assert result_in(encode_result(result, messages)) == orjson.dumps(result)


@pytest.mark.parametrize("messages", [[], [said(1, AFTER_RESULT.decode())]])
def test_a_result_may_hold_what_follows_it(messages: list[dict[str, Any]]) -> None:
    found = result_in(encode_result({"metadata": TRAP}, messages))
    assert found == orjson.dumps({"metadata": TRAP}) and AFTER_RESULT[1:] in found


def test_an_error_comes_out_too() -> None:
    answer = failure(404, 3000, 'no index "ünï"')
    assert isinstance(answer.body, bytes)
    assert said_in(answer.body) == (3000, 'no index "ünï"')
