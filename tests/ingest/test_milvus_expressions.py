"""Milvus's expressions: texts that are accepted and refused, in which words, and any expression against a plain evaluator."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.doors.milvus.errors import Code, MilvusError
from ingest.doors.milvus.expressions import GRAMMAR, WORDS, parse_expression
from tests.plain_expressions import nullable
from upwell.schema import OPEN_SCHEMA, FieldType, IdType, RowSchema
from upwell.shard.asked import depth
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Every,
    Filter,
    MetadataColumns,
    OfId,
    OneOf,
    Some,
    matching,
)
from upwell.shard.filter_json import filter_from_json, filter_to_json

FIELDS = (
    nullable("BoolField", FieldType.BOOL),
    nullable("Int8Field", FieldType.INT8),
    nullable("Int32Field", FieldType.INT32),
    nullable("Int64Field", FieldType.INT64),
    nullable("FloatField", FieldType.FLOAT),
    nullable("DoubleField", FieldType.DOUBLE),
    nullable("VarCharField", FieldType.VARCHAR),
    nullable("StringField", FieldType.VARCHAR),
    nullable("JSONField", FieldType.JSON),
    nullable("ArrayField", FieldType.ARRAY, FieldType.INT64),
    nullable("StringArrayField", FieldType.ARRAY, FieldType.VARCHAR),
)
SCHEMA = RowSchema(ids=IdType.INT64, fields=FIELDS)
CLOSED = RowSchema(ids=IdType.TEXT, id_field="key", fields=FIELDS, dynamic=False)

#: Name, id, metadata.
ROWS: list[tuple[int, dict[str, Any]]] = [
    (1, {"Int64Field": 5, "VarCharField": "abc", "BoolField": True, "DoubleField": 5.0, "color": "red"}),
    (2, {"Int64Field": 6, "VarCharField": 'a"b%c', "ArrayField": [1, 2, 3], "color": 7}),
    (3, {"Int64Field": (1 << 53) + 1, "FloatField": 2.5, "DoubleField": 5, "color": None}),
    (
        4,
        {
            "JSONField": {"a": {"b": [1, {"c": "x"}]}, "e": {}},
            "StringArrayField": ["x", "y"],
            "VarCharField": "",
        },
    ),
    (5, {"Int64Field": -7, "tags": [1, "a", 2.5, True], "color": ["red"], "BoolField": False}),
]


def found(text: str, schema: RowSchema = SCHEMA, params: dict[str, Any] | None = None) -> list[int]:
    """The ids of the rows that an expression lets through, when it has travelled in a log besides."""
    asked = parse_expression(text, schema, params)
    assert asked is not None
    travelled = filter_from_json(orjson.loads(orjson.dumps(filter_to_json(asked))))
    metadata = pa.array([orjson.dumps(row) for _, row in ROWS], pa.binary())
    columns = MetadataColumns(metadata, len(ROWS), pa.array([str(one) for one, _ in ROWS]))
    mask = matching(asked, len(ROWS), columns).tolist()
    assert mask == matching(travelled, len(ROWS), columns).tolist()
    return [one for (one, _), hit in zip(ROWS, mask, strict=True) if hit]


SAID: list[tuple[str, list[int]]] = [
    ("Int64Field == 5", [1]),
    ("5 == Int64Field", [1]),
    ("Int64Field != 5", [2, 3, 5]),
    ("not (Int64Field != 5)", [1]),
    ("NOT Int64Field == 5", [2, 3, 5]),
    ("!(Int64Field == 5)", [2, 3, 5]),
    ("Int64Field == 9007199254740993", [3]),
    ("Int64Field == 9007199254740992", []),
    ("5 <= Int64Field < 7", [1, 2]),
    ("7 > Int64Field >= 5", [1, 2]),
    ("Int64Field in [5, -7]", [1, 5]),
    ("Int64Field IN [5, 2 + 4,]", [1, 2]),
    ("Int64Field not in [5]", [2, 3, 5]),
    ("Int64Field in []", []),
    ("Int64Field not in []", [1, 2, 3, 4, 5]),
    ("Int64Field is null", [4]),
    ("Int64Field IS NOT NULL and Int64Field > 0", [1, 2, 3]),
    ("Int64Field is null or Int64Field == 5", [1, 4]),
    ("not (Int64Field == 5 and BoolField == true)", [2, 3, 5]),
    ("not (Int64Field == 5 or color == 7)", []),
    ("Int64Field % 2 == 1", [1, 3]),
    ("Int64Field % 2 != 1", [2, 5]),
    ("Int64Field / 2 == -3", [5]),
    ("2 * Int64Field == 10", [1]),
    ("2 ** 2 == 4 or Int64Field == 5", [1, 2, 3, 4, 5]),
    ("FloatField == 2.5", [3]),
    ("FloatField - 0.5 == 2", [3]),
    ("Int64Field < DoubleField", []),
    ("Int64Field > DoubleField", [3]),
    ("not Int64Field < DoubleField", [1, 3]),
    ("not (Int64Field > DoubleField)", [1]),
    ("DoubleField == 5", [1, 3]),
    ("DoubleField / 2 == 2.5", [1, 3]),
    ('VarCharField != "abc"', [2, 4]),
    ('VarCharField like "a%"', [1, 2]),
    ('VarCharField like "a_c"', [1]),
    (r'VarCharField like "%b\\%c"', [2]),
    (r'VarCharField like "%b\%c"', [2]),
    (r"""VarCharField == "a\"b%c" """, [2]),
    (r"""VarCharField == 'a"b%c' """, [2]),
    (r'VarCharField == "\x61\142\u0063"', [1]),
    (r"VarCharField == r'abc'", [1]),
    ('"abb" < VarCharField < "abd"', [1]),
    ("BoolField == True", [1]),
    ("BoolField != TRUE", [5]),
    ("BoolField in [false]", [5]),
    # What a dynamic field has may be of any type.
    ('color == "red"', [1]),
    ('color != "red"', []),
    ("color != 8", [2]),
    ('color in ["red", 7]', [1, 2]),
    ('color not in ["blue", 8]', [1, 2]),
    ('$meta["color"] == 7', [2]),
    ("exists color", [1, 2, 5]),
    ("not exists color", [3, 4]),
    ('exists $meta["color"]', [1, 2, 5]),
    ("color is null", [3, 4]),
    ('exists JSONField["e"]', [4]),
    ('JSONField["a"]["b"][0] == 1', [4]),
    ('JSONField["a"]["b"][1]["c"] == "x"', [4]),
    ('JSONField["a"]["b"][7] != 1', []),
    ('JSONField["a"]["z"] is null', [1, 2, 3, 4, 5]),
    ("ArrayField[0] == 1", [2]),
    ("ArrayField[9] != 1", []),
    ("ArrayField == [1, 2, 3]", [2]),
    ("ArrayField != [1, 2]", [2]),
    ("array_contains(ArrayField, 2)", [2]),
    ("not array_contains(ArrayField, 9)", [2]),
    ("ARRAY_CONTAINS_ALL(ArrayField, [1, 3])", [2]),
    ("array_contains_any(ArrayField, [9, 3])", [2]),
    ("array_contains_all(ArrayField, [])", [2]),
    ("array_length(ArrayField) == 3", [2]),
    ("array_length(color) != 7", [5]),
    ('json_contains(tags, "a")', [5]),
    ("json_contains_all(tags, [1, true, 2.5])", [5]),
    ("json_contains(color, 7)", []),
    ("id == 3", [3]),
    ("id in [1, 9, 5]", [1, 5]),
    ("id not in [1, 9, 5]", [2, 3, 4]),
    ("id in []", []),
    ("2 <= id < 4", [2, 3]),
    ("id > 1 and id != 3", [2, 4, 5]),
    ("id is null", []),
    ("id is not null", [1, 2, 3, 4, 5]),
    ("1 == 1", [1, 2, 3, 4, 5]),
    ("not true", []),
    ("true and Int64Field == 5", [1]),
    ("Int64Field == 5 or false", [1]),
    ("Int64Field == 0x5 or Int64Field == -(0b111) or Int64Field == 06", [1, 2, 5]),
    ("Int64Field == 1 + 2 * 2", [1]),
    ("Int64Field == 7 / 2 + 2 and Int64Field == 11 % 6", [1]),
    ("FloatField == 25e-1 and FloatField < 1e3", [3]),
    ("((((id == 3))))", [3]),
    ("id == 1 || id == 2 && id == 3", [1]),
]


@pytest.mark.parametrize(("text", "expected"), SAID, ids=lambda value: str(value)[:50])
def test_what_an_expression_says(text: str, expected: list[int]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "params", "expected"),
    [
        ("id in {ids}", {"ids": [1, 2]}, [1, 2]),
        ("Int64Field == {n}", {"n": 5}, [1]),
        ("{n} < Int64Field <= {m}", {"n": 5, "m": 6}, [2]),
        ("VarCharField like {p}", {"p": 'a\\"b\\%c'}, []),
        ("VarCharField like {p}", {"p": 'a"b\\%c'}, [2]),
        ("array_contains_any(ArrayField, {l})", {"l": [3]}, [2]),
        ("color == { c }", {"c": "red"}, [1]),
        ("BoolField == {b}", {"b": True}, [1]),
        ("Int64Field + {n} == 6", {"n": 1}, [1]),
    ],
)
def test_templates_stand_for_values(text: str, params: dict[str, Any], expected: list[int]) -> None:
    assert found(text, params=params) == expected


def outcome(text: str) -> Filter | MilvusError | None:
    """The filter, or its refusal."""
    try:
        return parse_expression(text, SCHEMA, {"x": [1, "a"]})
    except MilvusError as error:
        return error


def refusal(text: str, schema: RowSchema = SCHEMA, params: dict[str, Any] | None = None) -> str:
    with pytest.raises(MilvusError) as caught:
        parse_expression(text, schema, params)
    assert caught.value.code == Code.INVALID_PARAMETER
    before, after = (
        f"failed to create query plan: cannot parse expression: {text}, error: ",
        ": invalid parameter",
    )
    detail = caught.value.detail
    assert detail.startswith(before)
    assert detail.endswith(after)
    return detail[len(before) : -len(after)]


#: Most are of Milvus's own tests.
REFUSED: list[tuple[str, str]] = [
    ("invalid expression", r"expected \[, ==, !=, .* or the end at column 9, got 'expression'"),
    ('"constant"', "predicate is not a boolean expression, data type: VarChar"),
    ("Int64Field", "predicate is not a boolean expression, data type: Int64"),
    ("BoolField", "predicate is not a boolean expression, data type: Bool"),
    ("true", "predicate is not a boolean expression, data type: Bool"),
    ("Int64Field + 1", "predicate is not a boolean expression, data type: a number"),
    ("Int64Field ==", "expected a field's name, a number, .* at column 14, got the end"),
    ("VarCharField == 'abc", "expected a string that ends with ' at column 17, got \"'abc\""),
    ("true + false", "'add' cannot be applied to Bool and Bool"),
    ('"str" + "text"', "'add' cannot be applied to VarChar and VarChar"),
    ("StringField + VarCharField", "not supported to do arithmetic operations between multiple fields"),
    ("StringField - 2", "'subtract' cannot perform arithmetic between VarChar field and Int64"),
    ("2 / 0", "cannot divide by zero"),
    ("Int64Field % 0 == 1", "division or modulus by zero"),
    ("FloatField % 2 == 1", "modulo can only apply on integer types"),
    ("2 / Int64Field == 1", "'divide' of a constant and a field is not supported: the field must come first"),
    ("Int64Field + 1 + 1 == 3", "complicated arithmetic operations are not supported"),
    (
        'true == "str"',
        "comparison operations cannot be applied to two incompatible operands: Bool == VarChar",
    ),
    ("VarCharField != FloatField", "comparisons between VarChar and Float are not supported"),
    ("VarCharField == 1", "comparisons between VarChar and Int64 are not supported"),
    ("BoolField == 1", "comparisons between Bool and Int64 are not supported"),
    ("BoolField > true", "booleans have no order"),
    ("Int64Field == 'x'", "comparisons between Int64 and VarChar are not supported"),
    ("Int64Field == 1.5", "cannot cast value to Int64, value: float_val:1.5"),
    ("Int32Field in [4.0]", "value '4.0' in list cannot be casted to Int32"),
    ("BoolField in [4.0]", "value '4.0' in list cannot be casted to Bool"),
    ("FloatField in [5, 6.0, true]", "value 'True' in list cannot be casted to Float"),
    ("Int64Field == 9223372036854775808", "9223372036854775808 is no integer of 64 bits"),
    ("Int64Field == 9223372036854775807 + 1", "9223372036854775808 is no integer of 64 bits"),
    ("FloatField == 1e400", "a number is beyond what a double can hold"),
    ("FloatField == 1e300 * 1e300", "a number is beyond what a double can hold"),
    ("FloatField == 10 ** 400", "a power is no number that a double can hold"),
    ("FloatField == (-2) ** 0.5", "a power is no number that a double can hold"),
    ("Int64Field == 08", "'08' is no number"),
    ("JSONField == color", "two column comparison with JSON type is not supported"),
    ("ArrayField > 2", "can not comparisons array fields directly"),
    ("ArrayField in []", "can not comparisons array fields directly"),
    ("ArrayField == 1", re.escape("comparisons between Array[Int64] and Int64 are not supported")),
    ("ArrayField == []", re.escape("comparisons between Array[Int64] and Array[None] are not supported")),
    ("Int64Field == [1, 2]", "comparisons between Int64 and Array are not supported"),
    ('ArrayField["0"] == 1', "can only access array field with integer index"),
    ("ArrayField[0][1] == 1", "can only access array field with integer index"),
    ('Int64Field["A"] == 123', re.escape("Int64 data type not supported accessed with []")),
    ("id[0] == 1", re.escape("Int64 data type not supported accessed with []")),
    ("A[B] > 10", "expected a number or a string in quotes at column 3, got 'B'"),
    ('A[""] > 10', "invalid identifier: a key must not be empty"),
    ('A["b.c"] > 10', "the key 'b.c' cannot be asked for here: .*"),
    ('A["[3]"] > 10', re.escape("the key '[3]' cannot be asked for here: ") + ".*"),
    ("$meta > 0", "can not comparisons json fields directly: .*"),
    ('FloatField like "prefix%"', "like operation on non-string or no-json field is unsupported"),
    ('(Int64Field + 2) like "prefix%"', "like operation on complicated expr is unsupported"),
    ('StringArrayField like "a%"', "can not comparisons array fields directly"),
    ("1 in [1, 2, 3]", "'term' can only be used on non-const expression"),
    ("(Int8Field + 8) in [1, 2, 3]", "'term' can only be used on single field"),
    ("Int8Field in [Int32Field]", "array element type must be generic value"),
    ("Int8Field in 3", "the right-hand side of 'in' must be a list, but got: Int64"),
    ("1 in A", "'term' can only be used on non-const expression"),
    ("1 < 3 < 2", "range operations are only supported on single fields now"),
    ("(Int8Field) < Int32Field < 2", "lowerbound cannot be a non-const expression"),
    ("1 < Int32Field < (Int8Field)", "upperbound cannot be a non-const expression"),
    ("1 < Int32Field > 2", "a range is between two < or two >, got < and >"),
    ("1.0 < Int32Field < 2.0", "cannot cast value to Int32, value: float_val:1.0"),
    ("1 < BoolField < 2", "invalid range operations on boolean expr"),
    ("5 < Int32Field < 5", "invalid range: lowerbound is greater than upperbound"),
    ("1 < color < 'x'", "invalid range operations"),
    ("2 = Int32Field = 1", "expected .* at column 3, got '='"),
    ("-true", "unexpected op: -"),
    ("-Int32Field == 1", "unexpected op: -"),
    ('!"str"', "not op can only be applied on boolean expression"),
    ("!BoolField", "not op can only be applied on boolean expression"),
    ("BoolField or false", "'or' can only be used between boolean expressions"),
    ("Int32Field and Int64Field", "'and' can only be used between boolean expressions"),
    ("false AND 1", "'and' can only be used between boolean expressions"),
    ("1 & 2", ".*got '&'"),
    ("1 << 2", ".*got '<'"),
    ("exists JSONField", "exists operations are only supported on json key"),
    ("exists Int64Field", "exists operations are only supported on json field, got:Int64"),
    ("ArrayField[0] is null", "exists operations are only supported on json field, got:Int64"),
    ("json_contains(10, A)", "json_contains is only supported on json or array fields"),
    ("json_contains(A, B)", "json_contains is only supported with explicitly specified elements"),
    (
        'json_contains(StringField, "a")',
        "contains operation are only supported on json or array fields now, .*",
    ),
    ("json_contains(A)", "expected .* at column 16, got '[)]'"),
    ("json_contains(A, [1, 2])", "arrays as elements of arrays are not supported here"),
    ("JSON_CONTAINS_ALL(A, 1)", "json_contains_all operation element must be an array"),
    ('array_contains(ArrayField, "a")', "comparisons between Int64 and VarChar are not supported"),
    (
        'array_contains_any(StringArrayField, ["a", 1])',
        "comparisons between VarChar and Int64 are not supported",
    ),
    (
        "array_length(Int64Field) == 2",
        "array_length operation are only supported on json or array fields now, .*",
    ),
    ("array_length(A) == 2.2", "cannot cast value to Int64, value: 2.2"),
    ("array_length(A)", "predicate is not a boolean expression, data type: a number"),
    ("array_length(A) % 10 == 2", "complicated arithmetic operations are not supported"),
    ("vector == 1", "filtering by the vector field vector is not supported"),
    ("id % 2 == 0", "arithmetic on the primary key is not supported here"),
    ("id == Int64Field", "comparing the primary key with another field is not supported here"),
    ('id in ["1"]', "value '1' in list cannot be casted to Int64"),
    ('text_match(VarCharField, "a", minimum_should_match=1)', 'field "VarCharField" does not enable match'),
    ('PHRASE_MATCH(VarCharField, "a b", 1)', 'field "VarCharField" does not enable match'),
    ("Int64Field == 1 and random_sample(0.1)", "random_sample is not supported here"),
    ('st_within(g, "POINT (1 1)")', "st_within is not supported here"),
    ("MATCH_ANY(s, $[a] > 1)", "MATCH_ANY is not supported here"),
    ("Int64Field == {n}", re.escape("the value of expression template variable name {n} is not found")),
    ('A == "\\中国"', "invalid escape .* in a string"),
    (r'A == "\423"', "invalid escape .* in a string"),
    (r'A == "\367"', "the string .* is not UTF-8 once its escapes are resolved"),
    ('A == "ab\nc"', 'expected a string that ends with " at column 6, got .*'),
    ("'abc'd' < StringField", "expected .* at column 6, got 'd'"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_refused_and_why(text: str, expected: str) -> None:
    assert re.fullmatch(expected, refusal(text), re.DOTALL), refusal(text)


@pytest.mark.parametrize(
    "value", [None, {}, {"a": 1}, [[1]], [None], 1 << 63, float("inf"), float("nan"), "\ud800"], ids=repr
)
def test_values_of_templates_that_are_refused(value: Any) -> None:
    refusal("A == {x}", params={"x": value})


def test_fields_that_are_not_there() -> None:
    assert refusal("A == 1", CLOSED) == "field A not exist"
    assert refusal('$meta["A"] == 1', CLOSED) == "field $meta not exist"
    assert refusal("id == 1", CLOSED) == "field id not exist"
    assert parse_expression("key == 'x'", CLOSED) == OfId(OneOf("", ("x",)))


def test_an_index_without_a_schema_has_ids_that_are_texts_and_any_metadata() -> None:
    assert parse_expression('id in ["a", "1"]', OPEN_SCHEMA) == OfId(OneOf("", ("a", "1")))
    assert parse_expression("sparse == 1", OPEN_SCHEMA) == OneOf("sparse", (1,))
    assert refusal("id == 1", OPEN_SCHEMA) == "comparisons between VarChar and Int64 are not supported"


def test_a_vector_is_known_by_the_order_of_fields() -> None:
    schema = RowSchema(vector_field="v", sparse_field="w", order=("id", "w"))
    assert refusal("w == 1", schema) == "filtering by the vector field w is not supported"
    assert parse_expression("v == 1", schema) == OneOf("v", (1,))


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_a_blank_text_is_no_filter(text: str) -> None:
    assert parse_expression(text, SCHEMA) is None


def test_constants_are_every_row_or_none() -> None:
    assert parse_expression("1 < 2", SCHEMA) == Every(())
    assert parse_expression('"a" == "b" or false', SCHEMA) == Some(())


def test_limits() -> None:
    with pytest.raises(MilvusError, match="expected at most 9 bytes, got 10"):
        parse_expression("id == 1234", SCHEMA, None, 9)
    deep = "(A==1 or (A==1 and " * (FILTER_DEPTH_MAX // 2) + "A==1" + "))" * (FILTER_DEPTH_MAX // 2)
    with pytest.raises(MilvusError, match="within one another at most 100 deep, got 101"):
        parse_expression(deep, SCHEMA)
    level = " or ".join(["A == 1"] * 1_000)
    asked = parse_expression(level, SCHEMA)
    assert asked is not None
    assert depth(asked) == 2
    with pytest.raises(MilvusError, match="expected at most 64 different fields, got 65"):
        parse_expression(" or ".join(f"a{n} == 1" for n in range(65)), SCHEMA)
    with pytest.raises(MilvusError, match="expected at most 64 different patterns, got 65"):
        parse_expression(" or ".join(f"a like '%{n}'" for n in range(65)), SCHEMA)
    with pytest.raises(MilvusError, match="expected at most 256 elements"):
        parse_expression(f"json_contains_all(a, {list(range(257))})", SCHEMA)
    with pytest.raises(MilvusError, match="a pattern of at most 1024 characters"):
        parse_expression("a like '" + "x" * 1_025 + "'", SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000,
        "not " * 10_000 + "id == 1",
        "[" * 20_000,
        "id == " + "-" * 9_999 + "1",
        "(" * 9_000 + "id == 1" + ")" * 9_000,
    ],
    ids=lambda text: text[:9],
)
def test_no_depth_of_a_text_is_too_much_for_the_parser(text: str) -> None:
    assert outcome(text) is not None


def test_ten_thousand_ids() -> None:
    ids = [10**15 + n for n in range(10_000)]
    assert parse_expression(f"id in {ids}", SCHEMA, None, 1 << 20) == OfId(OneOf("", tuple(ids)))


def test_errors_have_a_word_for_every_terminal() -> None:
    named = set(re.findall(r"^    (_?[A-Z][A-Z_]*)(?:\.\d)?:", GRAMMAR, re.MULTILINE)) | {"$END"}
    # What begins with a function's name is not told of.
    assert named - set(WORDS) == {"CONTAINS", "_LENGTH", "_TEXT_MATCH", "_PHRASE_MATCH", "FUNCTION"}
    assert set(WORDS) <= named


PIECES = st.sampled_from(
    [
        *["id", "A", "ArrayField", "VarCharField", "JSONField", "$meta", "{x}", "[1,2]", '"a"', "'%'"],
        *["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "**", "&&", "||", "!", "=", "$", "\\"],
        *["in", "like", "and", "or", "not", "is", "null", "true", "exists", "text_match(", "array_length("],
        *["array_contains(", "json_contains_all(", "(", ")", "[", "]", ",", "{", "}", '"', "'"],
        *["1", "0x1F", "1.5", "1e9", ".5", "é", "\ud800", "\x00"],
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(PIECES | st.text(max_size=3), max_size=12).map(" ".join)
    | st.lists(PIECES, max_size=12).map("".join)
)
@example(text="\ud800")
def test_any_text_is_a_filter_or_none_or_refused(text: str) -> None:
    assert (outcome(text) is None) == (not text.strip())
