"""Does the fast path agree with the precise one, and keep its hands off whatever it cannot vouch for?"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.body import Rules
from ingest.body.fast import FastReader
from ingest.body.precise import Row, read_line
from tests.thorough import examples
from upwell.errors import InvalidLine

pytest.importorskip("simdjson", reason="this Python has no wheel of it")

RULES = Rules(dimensions=3, vectors_max=10, bytes_max=1 << 20, metadata_bytes_max=200)


def fast(text: bytes) -> tuple[str, list[float], str | None, bytes | None] | None:
    """What the fast path makes of a line, numbers that are not finite being left to its caller."""
    into = np.full((1, RULES.dimensions), np.nan, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        read = FastReader(RULES).read(text, into, 0)
        if read is None or not isfinite(into[0] @ into[0]):
            return None
    id, namespace, metadata = read
    return id, into[0].tolist(), namespace, metadata


def precise(text: bytes) -> tuple[str, list[float], str | None, bytes | None] | None:
    try:
        row: Row = read_line(text, 1, RULES)
    except InvalidLine:
        return None
    return row.id, row.values.tolist(), row.namespace, row.metadata


def line(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "values": [1, 2.5, -3e-3], **fields}).encode()


@pytest.mark.parametrize(
    "text",
    [
        line(),
        line(id=7),
        line(id="[["),
        line(namespace="n[", metadata={"a[": ["[", [1, []]], "é": None}),
        line(namespace="", metadata={}),
        line(namespace=None, metadata=None),
        line(metadata={"x": 1e-7, "y": 2**64 - 1, "z": -(2**63), "s": "\u2028\x7f\n\x01/\\"}),
        line(more=[[1], "["], note="[", deep={"a": ["["]}),
        b' {"values" : [ 1 , 2 , 9223372036854775808 ], "id" : "a"} \r',
        line(metadata={"a": 1}).replace(b'"a": 1', b'"a": 1, "a": 2'),
    ],
)
def test_the_usual_is_read_fast_and_alike(text: bytes) -> None:
    assert fast(text) is not None
    assert fast(text) == precise(text)


UNUSUAL = [
    line(values=[[1], [2], [3]]),
    line(values=[[1, 2], [], 3]),
    line(values=[[], [1], [2, 3]], namespace="x"),
    line(values=[[[1, 2, 3]], [], []], metadata={"a": "["}),
    line(values=[[1], 2, 3]).replace(b'"id": "a"', b'"id": "\\u005b"'),
    line(values=[True, False, True]),
    line(values=["1", "2", "3"]),
    line(values=[1, None, 3]),
    line(values=[1, 2]),
    line(values=[1, 2, 1e39]),
    line(values={"0": 1}),
    line(id=True),
    line(id=1.0),
    line(id=""),
    line(id="x" * 65),
    line(namespace="\0"),
    line(namespace=1),
    line(metadata=[]),
    line(metadata={"a.b": 1}),
    line(metadata={"a": [{"$b": 1}]}),
    line(metadata={"a": "y" * 200}),
    b'{"id":"a","id":"","values":[1,2,3]}',
    b'{"id":"a","values":[1,2,3],"values":[1]}',
    b'{"id":"\\ud800","values":[1,2,3]}',
    b'{"id":"\xff","values":[1,2,3]}',
    b'{"id":"a","values":[1,2,NaN]}',
    b'{"id":"a","values":[1,2,1e400]}',
    b'{"id":"a","values":[1,2,03]}',
    b'{"id":"a","values":[1,2,3]}}',
    b"[1,2,3]",
    b"3",
    b"",
]


@pytest.mark.parametrize("text", UNUSUAL)
def test_what_is_wrong_is_never_read_fast(text: bytes) -> None:
    assert precise(text) is None
    assert fast(text) is None


def test_the_reader_goes_on_after_any_line() -> None:
    reader, into = FastReader(RULES), np.empty((1, 3), np.float32)
    for text in UNUSUAL[:8]:
        assert reader.read(text, into, 0) is None
        assert reader.read(line(), into, 0) == ("a", None, None)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
texts = st.sampled_from(["", "a", "[", "]", "\\u005b", "$x", "a.b", '"', "é", "\0", "x" * 65, "\ud800"])
trees = st.recursive(
    scalars | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
numbers = st.floats(width=32) | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
vectors = (
    st.lists(numbers, min_size=3, max_size=3) | st.lists(st.lists(numbers, max_size=3), max_size=3) | trees
)
objects = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=9) | trees, "values": vectors},
    optional={"namespace": texts | trees, "metadata": trees, "other": trees, "[": trees},
)


@given(objects, st.booleans())
@example({"id": "a", "values": [3.4028235e38, 0, 0]}, False)
@settings(deadline=None, max_examples=examples(600))
def test_what_is_read_fast_is_what_is_read_precisely(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    read = fast(text)
    assert read is None or read == precise(text)


@given(
    st.text(min_size=1, max_size=16),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=3, max_size=3),
    st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(-9, 9), max_size=3),
)
@settings(deadline=None, max_examples=200)
def test_what_is_plain_is_read_fast(id: str, values: list[float], metadata: dict[str, int]) -> None:
    text = line(id=id, values=values, namespace="n", metadata=metadata)
    assert fast(text) is not None
    assert fast(text) == precise(text)
