"""Is an object cut into what it is made of, and is what is no JSON never taken for some?"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.body import Rules
from ingest.body.documents import Members, cut_members
from tests.thorough import examples
from upwell.errors import InvalidLine, TooLarge

RULES = Rules(dimensions=0, vectors_max=10, bytes_max=1 << 20, metadata_bytes_max=2)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ['"', "\\", "]", '{"', ",", "data"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 1 << 60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT | st.just("data"), VALUES | st.lists(VALUES, max_size=4), max_size=4)


def decoded(text: bytes, members: Members) -> tuple[dict[str, Any], list[Any] | None]:
    """What the pieces are. Raises orjson.JSONDecodeError."""
    values = {name: orjson.loads(text[slice(*span)]) for name, span in members.spans.items()}
    return values, members.items and [orjson.loads(text[slice(*span)]) for span in members.items]


@settings(max_examples=examples(200))
@given(OBJECTS, st.booleans())
def test_the_pieces_are_the_object(document: dict[str, Any], spaced: bool) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False).encode() if spaced else orjson.dumps(document)
    values, items = decoded(text, cut_members(text, "data", RULES))
    assert values == document
    data = document.get("data")
    assert items == (data if isinstance(data, list) else [data] if isinstance(data, dict) else None)


@given(
    OBJECTS,
    st.integers(0, 200),
    st.binary(max_size=2) | st.sampled_from([b'"', b"]", b"}", b",", b"{", b"["]),
)
def test_what_is_no_json_is_not_taken_for_some(document: dict[str, Any], at: int, put: bytes) -> None:
    text = orjson.dumps(document)
    broken = text[:at] + put + text[at + 1 :]
    with contextlib.suppress(InvalidLine, orjson.JSONDecodeError):
        values, _ = decoded(broken, cut_members(broken, "data", RULES))
        assert values == orjson.loads(broken)


def test_of_a_name_that_is_there_twice_the_last_counts() -> None:
    text = b'{"data": [1], "a": 1, "data": [2, {"data": 3}], "a": 2}'
    assert decoded(text, cut_members(text, "data", RULES)) == (
        {"data": [2, {"data": 3}], "a": 2},
        [2, {"data": 3}],
    )
    text = b'{"data": [1], "data": 7}'
    assert cut_members(text, "data", RULES).items is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{",
        b'{"data": [1}',
        b'{"data": [1] "a": 2}',
        b'{"data": [1]}}',
        b'{"data": [1],}',
        b"{data: [1]}",
        b'{"data" [1]}',
        b'{"a": "' + b"x" * (2 << 20) + b'"}',
        b'{"data": [["' + b"x" * (2 << 20) + b'"]]}',
        b"{" + b",".join(b'"%d": "%s"' % (number, b"x" * 999) for number in range(2_000)) + b"}",
        b'{"data": ' + b"[" * 100_000,
    ],
    ids=range(13),
)
def test_what_is_cut_wrongly_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidLine):
        cut_members(text, "data", RULES)


def test_far_too_many_are_not_counted() -> None:
    with pytest.raises(TooLarge):
        cut_members(b'{"data": [' + b"{}," * 200 + b"{}]}", "data", RULES)
