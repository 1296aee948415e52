"""Are numbers what their digits say, whatever a decoder makes of them, and are documents refused that Milvus cannot read?"""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.doors.milvus.errors import MilvusError
from ingest.doors.milvus.row_text import Digits, RowText
from tests.milvus_read_rows import FULL, SCHEMA, metadata_of, read_body
from upwell.changeset import Changeset
from upwell.schema import RowSchema

BIG = 9007199254740993
RANGE = "strconv.ParseInt: parsing {}: value out of range"
SYNTAX = "strconv.ParseInt: parsing {}: invalid syntax"
TOO_LARGE = "exceeds the 64-bit range supported by the JSON engine"


def read(field: str, text: str, schema: RowSchema = FULL) -> Changeset:
    """A row that is sent with this text as a field's value."""
    id = "" if field == "id" else '"id":1,'
    return read_body(
        b'{"data":[{%s"vector":[0.5,1],"%s":%s}]}' % (id.encode(), field.encode(), text.encode()), schema
    )


@pytest.mark.parametrize(
    ("field", "text", "kept"),
    [
        ("i64", "1e3", 1_000),
        ("i64", "9007199254740993.0", BIG),
        ("i64", "-9.007199254740993E15", -BIG),
        ("i64", "0e999", 0),
        ("i8", "120000e-3", 120),
        ("i16", "-0.0", 0),
        ("s", "1e300", "1e300"),
        ("s", "1.50", "1.50"),
        ("s", "true", "true"),
        ("aInt64", "[1e3,9007199254740993.00]", [1_000, BIG]),
        ("aInt64", f'["{BIG}",7]', [BIG, 7]),
        ("d", "1.50", 1.5),
        ("j", '{"a":18446744073709551615,"b":[1e19,-9223372036854775808]}', {"a": (1 << 64) - 1, "b": [1e19, -(1 << 63)]}),
        ("j", '{"a" : {"a" : 1}, "s":"\\":"}', {"a": {"a": 1}, "s": '":'}),
        ("j", '[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
        ("j", "1e19", 1e19),
        ("j", '"123"', "123"),
    ],
)  # fmt: skip
def test_numbers_are_what_they_are_written_as(field: str, text: str, kept: Any) -> None:
    (metadata,) = metadata_of(read(field, text))
    assert metadata == {field: kept} and type(metadata[field]) is type(kept)


@pytest.mark.parametrize("text", ["1e3", "1000.0", '"1000"', '"01000"', "1000"])
def test_one_integer_is_one_key(text: str) -> None:
    assert read("id", text, SCHEMA).ids.to_pylist() == ["1000"]


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("i64", "1.5", SYNTAX),
        ("i64", "1e-999", SYNTAX),
        ("i64", "18446744073709551616", RANGE),
        ("i64", "-9223372036854775809", RANGE),
        ("i8", "1.28e2", RANGE),
        ("i64", "1e300", RANGE),
        ("i64", "-1e300", RANGE),
        ("id", "1e19", RANGE),
    ],
)
def test_what_is_no_integer_of_its_type_is_told_by_its_digits(field: str, text: str, says: str) -> None:
    with pytest.raises(MilvusError) as caught:
        read(field, text)
    assert says.format(f'"{text}"') in caught.value.detail and caught.value.code == 1804


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("j", '{"a":1,"a":2}', "field j declares the key a twice; JSON object names must be unique"),
        ("j", '[{"x":{"a" : 1, "a" : 2}}]', "field j declares the key a twice"),
        ("j", '{"big":18446744073709551616}', f"field j integer 18446744073709551616 {TOO_LARGE}"),
        ("j", "-9223372036854775809", TOO_LARGE),
        ("more", "18446744073709551616", f"field more integer 18446744073709551616 {TOO_LARGE}"),
        ("more", '{"x":[{"a":1,"a":1}]}', "field more declares the key a twice"),
        ("s", '{"a":1}', "field s expects a string, got a JSON object"),
        ("s", "[1.5]", "field s expects a string, got a JSON array"),
        ("aInt64", "[1,1.5]", "json: cannot unmarshal element 1: expected Int64"),
        ("aInt8", "[12.8e1]", "json: cannot unmarshal element 0: expected Int8"),
    ],
)
def test_what_cannot_be_read_is_refused(field: str, text: str, says: str) -> None:
    with pytest.raises(MilvusError) as caught:
        read(field, text, SCHEMA if field == "more" else FULL)
    assert says in caught.value.detail and caught.value.code == 1804


def test_a_row_that_is_nested_very_deeply_is_refused_and_no_surprise() -> None:
    deep = "[" * 1_000 + "1e19" + "]" * 1_000
    with pytest.raises(MilvusError, match="nested so deeply"):
        read("j", deep)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
DOCUMENTS = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(NAMES, DOCUMENTS, max_size=3), st.booleans())
def test_what_is_sound_is_taken_however_it_is_spaced(row: dict[str, Any], spaced: bool) -> None:
    text = json.dumps(row, separators=(" , ", " : ") if spaced else (",", ":")).encode()
    RowText(text).check_documents(orjson.loads(text), row)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 30))
def test_an_integer_is_the_same_with_every_exponent(number: int, zeros: int) -> None:
    assert Digits(f"{number}{'0' * zeros}e-{zeros}").integer() == number
    assert Digits(f"{number}.{'0' * (zeros + 1)}").integer() == number
