"""Is every row read as what it is, and is every mistake in one told in Milvus's words?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.doors.milvus.errors import MilvusError
from ingest.doors.milvus.vectors import read_sparse
from tests.milvus_read_rows import FULL, SCHEMA, metadata_of, read_body, read_rows
from tests.thorough import examples
from upwell.changeset import KeyScope, Operation
from upwell.errors import UpwellError
from upwell.kinds import IndexKind
from upwell.schema import OPEN_SCHEMA, FieldType, IdType, RowSchema, ScalarField

V = [0.5, 1.0]
TEXTS = RowSchema(id_bytes_max=8)
AUTO = RowSchema(ids=IdType.INT64, auto_id=True)
STRICT = RowSchema(
    ids=IdType.INT64,
    dynamic=False,
    fields=(
        ScalarField(name="n", type=FieldType.INT32),
        ScalarField(name="t", type=FieldType.VARCHAR, bytes_max=4, default="dflt"),
        ScalarField(name="o", type=FieldType.BOOL, nullable=True),
    ),
)
DEAL = "fail to deal the insert data, error: "


def test_no_rows_are_told_as_milvus_tells_it() -> None:
    assert error_of([]) == (1804, f"{DEAL}missing required parameters")


def error_of(
    rows: Any, schema: RowSchema = SCHEMA, kind: IndexKind = IndexKind.DENSE, **how: Any
) -> tuple[int, str]:
    with pytest.raises(MilvusError) as caught:
        read_rows(rows, schema, kind, **how)
    return caught.value.code, caught.value.detail


def wrong(kind: str, actual: str, says: str) -> str:
    return f"{DEAL}{says}: invalid parameter[expected={kind}][actual={actual}]"


@pytest.mark.parametrize(
    ("rows", "schema", "code", "says"),
    [
        ([7], SCHEMA, 1804, wrong("JSON", "Number", "NULL:0, FALSE:1, NUMBER:2, STRING:3, TRUE:4, JSON:5")),
        ([None], SCHEMA, 1804, wrong("JSON", "Null", "NULL:0, FALSE:1, NUMBER:2, STRING:3, TRUE:4, JSON:5")),
        (["a"], SCHEMA, 1804, wrong("JSON", "String", "NULL:0, FALSE:1, NUMBER:2, STRING:3, TRUE:4, JSON:5")),
        ([True], SCHEMA, 1804, wrong("JSON", "True", "NULL:0, FALSE:1, NUMBER:2, STRING:3, TRUE:4, JSON:5")),
        ({"id": 1}, SCHEMA, 1804, wrong("FloatVector", "", "missing vector field: vector")),
        ({"id": 1, "vector": None}, SCHEMA, 1804, wrong("FloatVector", "", "missing vector field: vector")),
        (
            {"id": 1, "vector": "x"},
            SCHEMA,
            1804,
            wrong("FloatVector", "x", 'json: cannot unmarshal "x": expected an array of numbers'),
        ),
        (
            {"id": 1, "vector": "[0.5,1]"},
            SCHEMA,
            1804,
            wrong("FloatVector", "[0.5,1]", 'json: cannot unmarshal "[0.5,1]": expected an array of numbers'),
        ),
        (
            {"id": 1, "vector": [1, "x"]},
            SCHEMA,
            1804,
            wrong("FloatVector", '[1,"x"]', 'vector[1]: expected a number, got the string "x"'),
        ),
        (
            {"id": 1, "vector": [1, 1e39]},
            SCHEMA,
            1804,
            wrong(
                "FloatVector",
                "[1.0,1e+39]",
                "vector[1]: expected a float32, got the number 1e+39, which is outside its range",
            ),
        ),
        (
            {"id": 1, "vector": [1]},
            SCHEMA,
            1804,
            f"{DEAL}[]float32 size 1 doesn't equal to vector dimension 2 of FloatVector: invalid parameter",
        ),
        ({"vector": V}, SCHEMA, 1804, f"{DEAL}row 0 does not has field id: invalid parameter"),
        ({"id": None, "vector": V}, SCHEMA, 1804, f"{DEAL}row 0 does not has field id: invalid parameter"),
        (
            [{"id": 1, "vector": V}, {"vector": V}],
            SCHEMA,
            1804,
            f"{DEAL}row 1 does not has field id: invalid parameter",
        ),
        (
            [{"id": 1, "vector": V}, {"id": "abc", "vector": V}],
            SCHEMA,
            1804,
            wrong("Int64", "abc", 'strconv.ParseInt: parsing "abc": invalid syntax') + " (row 1)",
        ),
        (
            {"id": 1.5, "vector": V},
            SCHEMA,
            1804,
            wrong("Int64", "1.5", 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        ),
        (
            {"id": True, "vector": V},
            SCHEMA,
            1804,
            wrong("Int64", "true", 'strconv.ParseInt: parsing "true": invalid syntax'),
        ),
        (
            {"id": str(1 << 63), "vector": V},
            SCHEMA,
            1804,
            wrong(
                "Int64",
                "9223372036854775808",
                'strconv.ParseInt: parsing "9223372036854775808": value out of range',
            ),
        ),
        ({"id": "", "vector": V}, TEXTS, 1804, wrong("VarChar", "", "the primary key must not be empty")),
        (
            {"id": "a\0", "vector": V},
            TEXTS,
            1804,
            wrong("VarChar", "a\0", "the primary key must not have a NUL character in it"),
        ),
        ({"id": 1.5, "vector": V}, TEXTS, 1804, wrong("VarChar", "1.5", 'unable to cast "1.5" to string')),
        (
            {"id": "äöüßä", "vector": V},
            TEXTS,
            1100,
            "length of varchar field id exceeds max length, row number: 0, length: 10, max length: 8: invalid parameter",
        ),
        (
            {"id": 1, "vector": V, "x": 1},
            STRICT,
            1804,
            f"{DEAL}row 0 does not has field n: invalid parameter",
        ),
        (
            {"id": 1, "vector": V, "n": 1, "x": 1},
            STRICT,
            1804,
            f"{DEAL}has pass more field without dynamic schema, please check it: invalid parameter",
        ),
        (
            {"id": 1, "vector": V, "$meta": {}},
            SCHEMA,
            1804,
            f"{DEAL}use the invalid field name($meta) when enable dynamicField: invalid parameter",
        ),
        (
            {"id": 1, "vector": V, "n": 1, "t": "äöü"},
            STRICT,
            1100,
            "length of varchar field t exceeds max length, row number: 0, length: 6, max length: 4: invalid parameter",
        ),
        (
            {"id": 1, "vector": V, "n": "abc"},
            STRICT,
            1804,
            wrong("Int32", "abc", 'unable to cast "abc" to int32'),
        ),
        (
            {"id": 1, "vector": V, "n": 1 << 31},
            STRICT,
            1804,
            wrong("Int32", "2147483648", 'strconv.ParseInt: parsing "2147483648": value out of range'),
        ),
        (
            {"id": 1, "vector": V, "n": 1, "o": "maybe"},
            STRICT,
            1804,
            wrong("Bool", "maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ),
        (
            {"id": 1, "vector": V, "x": "y" * 2_000},
            SCHEMA,
            1100,
            ("the length (2008) of dynamic field exceeds max length (2000): invalid parameter" "[expected=valid length dynamic field][actual=length exceeds max length]"),
        ),
        (
            [{"id": 1, "vector": V}, {"id": "1", "vector": V}],
            SCHEMA,
            1100,
            "duplicate primary keys are not allowed in the same batch: invalid parameter",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told_as_milvus_tells_them(rows: Any, schema: RowSchema, code: int, says: str) -> None:
    assert error_of(rows, schema) == (code, says)


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("i8", 128, wrong("Int8", "128", 'strconv.ParseInt: parsing "128": value out of range')),
        ("i16", -32_769, wrong("Int16", "-32769", 'strconv.ParseInt: parsing "-32769": value out of range')),
        ("i64", "1.0", wrong("Int64", "1.0", 'strconv.ParseInt: parsing "1.0": invalid syntax')),
        ("f", "x", wrong("Float", "x", 'unable to cast "x" to float32')),
        ("f", "nan", wrong("Float", "nan", 'unable to cast "nan" to float32')),
        ("f", 1e39, wrong("Float", "1e+39", 'strconv.ParseFloat: parsing "1e+39": value out of range')),
        ("d", "1e999", wrong("Double", "1e999", 'strconv.ParseFloat: parsing "1e999": value out of range')),
        ("d", True, wrong("Double", "true", 'unable to cast "true" to float64')),
        ("aInt64", "x", wrong("Array of Int64", "x", 'json: cannot unmarshal "x": expected an array')),
        ("aInt64", [1, None], wrong("Array of Int64", "[1,null]", "json: cannot unmarshal element 1: expected Int64")),
        ("aBool", [True, None], wrong("Array of Bool", "[true,null]", "json: cannot unmarshal element 1: expected Bool")),
        ("aBool", [1], wrong("Array of Bool", "[1]", "json: cannot unmarshal element 0: expected Bool")),
        ("aInt8", [1, 200], wrong("Array of Int8", "[1,200]", "json: cannot unmarshal element 1: expected Int8")),
        ("aInt64", ["x"], wrong("Array of Int64", '["x"]', "json: cannot unmarshal element 0: expected Int64")),
        (
            "aInt8",
            [1, 2, 3, 4],
            ("the length (4) of 0th array exceeds max capacity (3): invalid parameter" "[expected=valid length array][actual=array length exceeds max capacity]"),
        ),
        (
            "aVarChar",
            ["a", "äöü"],
            ('length of Array array field "aVarChar" exceeds max length, row number: 0, array index: 1, length: 6, ' "max length: 4: invalid parameter"),
        ),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_their_field(field: str, given: Any, says: str) -> None:
    assert error_of({"id": 1, "vector": V, field: given}, FULL)[1] == says


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("b", "true", True),
        ("b", 0, False),
        ("b", "F", False),
        ("i8", "-128", -128),
        ("i16", 7.0, 7),
        ("i32", "+7.00", 7),
        ("i64", "9223372036854775807", (1 << 63) - 1),
        ("i64", -(1 << 63), -(1 << 63)),
        ("f", 0.1, 0.1),
        ("f", "0.123456789012", 0.12345679),
        ("d", "1e3", 1000.0),
        ("d", 7, 7.0),
        ("s", 1, "1"),
        ("s", True, "true"),
        ("s", "", ""),
        ("j", {"a": [1, None, {"b": 2.5}]}, {"a": [1, None, {"b": 2.5}]}),
        ("j", '{"a":1}', '{"a":1}'),
        ("j", "plain", "plain"),
        ("j", [1], [1]),
        ("j", 9007199254740993, 9007199254740993),
        ("aInt64", "[9007199254740993]", [9007199254740993]),
        ("aInt64", ["9007199254740993", "010"], [9007199254740993, 10]),
        ("aBool", ["true", False], [True, False]),
        ("aFloat", [1, 0.1, "1.5"], [1.0, 0.1, 1.5]),
        ("aVarChar", [], []),
    ],
)
def test_values_are_taken_as_milvus_takes_them(field: str, given: Any, kept: Any) -> None:
    (metadata,) = metadata_of(read_rows({"id": 1, "vector": V, field: given}, FULL))
    assert metadata == {field: kept} and type(metadata[field]) is type(kept)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (9007199254740993, "9007199254740993"),
        ("9007199254740993", "9007199254740993"),
        (-(1 << 63), str(-(1 << 63))),
        ("+007", "7"),
        ("-0", "0"),
        (0, "0"),
    ],
)
def test_integer_keys_have_one_text_each(given: Any, kept: str) -> None:
    assert read_rows({"id": given, "vector": V}).ids.to_pylist() == [kept]


def test_what_a_whole_row_becomes() -> None:
    changeset = read_rows({"id": 1, "vector": V, "n": 5, "o": None}, STRICT)
    assert changeset.operation is Operation.UPSERT and changeset.details.scope is KeyScope.INDEX
    assert metadata_of(changeset) == [{"n": 5, "t": "dflt"}]
    assert changeset.received == 1 and not changeset.details.patch


def test_dynamic_fields_are_kept_as_they_are() -> None:
    fields = {"a": 1, "b": 1.5, "c": None, "d": {"e": None}, "sparse": "no vector here"}
    row = {"id": "k", "vector": V} | fields
    assert metadata_of(read_rows(row, OPEN_SCHEMA)) == [fields]
    # Whoever applies it takes the field away.
    assert metadata_of(read_rows(row, OPEN_SCHEMA, partial=True)) == [fields]
    assert read_rows({"id": "k", "vector": V}, OPEN_SCHEMA).metadata is None


def test_ids_are_made_where_they_are_wished() -> None:
    rows = [{"vector": V}, {"vector": V, "id": None}]
    made = read_rows(rows, AUTO, inserts=True).ids.to_pylist()
    assert len(set(made)) == 2 and all(0 < int(one) < 1 << 63 for one in made)
    keyed = read_rows(rows, AUTO, inserts=True, sender=("me", "key")).ids.to_pylist()
    assert keyed == read_rows(rows, AUTO, inserts=True, sender=("me", "key")).ids.to_pylist() != made
    assert error_of({"id": 5, "vector": V}, AUTO, inserts=True) == (
        1804,
        f"{DEAL}no need to pass pk field(id) when autoid==true in insert: invalid parameter",
    )
    assert read_rows({"id": 5, "vector": V}, AUTO).ids.to_pylist() == ["5"]


def test_an_insert_may_have_a_key_twice() -> None:
    assert read_rows([{"id": 1, "vector": V}, {"id": 1, "vector": V}], inserts=True).ids.to_pylist() == [
        "1",
        "1",
    ]


def test_a_partial_update_gives_what_it_changes() -> None:
    changeset = read_rows([{"id": 1, "n": 5, "o": None}, {"id": 2, "n": 6, "o": True}], STRICT, partial=True)
    assert changeset.operation is Operation.UPDATE and changeset.vectors is None
    assert changeset.details.patch and changeset.details.shallow and not changeset.details.adds
    assert metadata_of(changeset) == [{"n": 5, "o": None}, {"n": 6, "o": True}]
    whole = read_rows({"id": 1, "vector": V, "n": 5, "t": "x"}, STRICT, partial=True)
    assert whole.details.adds and whole.vectors is not None
    assert not read_rows({"id": 1, "vector": V, "n": 5}, STRICT, partial=True).details.adds


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        (
            [{"id": 1, "n": 5}, {"id": 2, "o": True}],
            1804,
            f"{DEAL}column n has length 1, expected 2: invalid parameter",
        ),
        ({"id": 1, "n": None}, 1804, f"{DEAL}row 0 does not has field n: invalid parameter"),
        ({"n": 1}, 1100, "must assign pk when upsert, primary field: id: invalid parameter"),
        (
            [{"id": 1, "n": 5}, {"id": 1, "n": 6}],
            1100,
            "duplicate primary keys are not allowed in the same batch: invalid parameter",
        ),
    ],
)
def test_mistakes_of_partial_updates(rows: Any, code: int, says: str) -> None:
    assert error_of(rows, STRICT, partial=True) == (code, says)


SPARSE = "SparseFloatVector"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, wrong(SPARSE, "", "missing vector field: sparse")),
        ([1], wrong(SPARSE, "[1]", "expected an object")),
        ('{"1":2}', wrong(SPARSE, '{"1":2}', "expected an object")),
        ({"a": 1}, wrong(SPARSE, '{"a":1}', 'strconv.ParseUint: parsing "a": invalid syntax')),
        ({"1": "x"}, wrong(SPARSE, '{"1":"x"}', 'values[0]: expected a number, got the string "x"')),
        ({"indices": [1]}, wrong(SPARSE, '{"indices":[1]}', "invalid JSON input")),
        (
            {"indices": [1], "values": []},
            wrong(SPARSE, '{"indices":[1],"values":[]}', "indices and values length mismatch"),
        ),
        (
            {"indices": [-1], "values": [1]},
            wrong(SPARSE, '{"indices":[-1],"values":[1]}', "negative index in JSON: -1"),
        ),
        ({"4294967295": 1}, wrong(SPARSE, '{"4294967295":1}', "index too large in JSON: 4294967295")),
        (
            {"indices": [1, 1], "values": [1, 2]},
            wrong(
                SPARSE,
                '{"indices":[1,1],"values":[1,2]}',
                "unsorted or same indices in sparse float vector",
            ),
        ),
    ],
)
def test_sparse_vectors_with_mistakes(given: Any, says: str) -> None:
    assert error_of({"id": 1, "sparse": given}, SCHEMA, IndexKind.SPARSE) == (1804, says)


@given(
    st.dictionaries(st.integers(0, (1 << 32) - 2), st.floats(width=32, allow_nan=False, allow_infinity=False))
)
@example({(1 << 32) - 2: 1.0, 0: 2.0, 1 << 31: 0.10000000149011612})
def test_sparse_vectors_are_the_same_in_every_form(entries: dict[int, float]) -> None:
    forms: list[Any] = [{str(index): value for index, value in entries.items()}]
    if entries:
        forms.append({"indices": list(entries), "values": list(entries.values())})
    for form in forms:
        indices, values = read_sparse(form)
        assert indices.view(np.uint32).tolist() == sorted(entries)
        assert values.tolist() == [entries[index] for index in sorted(entries)]


def test_hybrid_rows_need_both_vectors() -> None:
    changeset = read_rows({"id": 1, "vector": V, "sparse": {"7": 2, "3": 1}}, SCHEMA, IndexKind.HYBRID)
    assert changeset.sparse is not None and changeset.sparse.row(0)[0].tolist() == [3, 7]
    assert "missing vector field: sparse" in error_of({"id": 1, "vector": V}, SCHEMA, IndexKind.HYBRID)[1]
    assert "missing vector field: vector" in error_of({"id": 1, "sparse": {}}, SCHEMA, IndexKind.HYBRID)[1]


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
TYPED = {
    "b": st.booleans(),
    "i8": st.integers(-128, 127),
    "i16": st.integers(-(1 << 15), (1 << 15) - 1),
    "i32": st.integers(-(1 << 31), (1 << 31) - 1),
    "i64": INT64,
    "f": FLOATS,
    "d": st.floats(allow_nan=False, allow_infinity=False),
    "s": st.text(st.characters(codec="ascii"), max_size=10),
    "j": st.dictionaries(WORDS, JSON, max_size=3) | st.lists(JSON, max_size=3),
    "aInt64": st.lists(INT64, max_size=3),
    "aDouble": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    "aVarChar": st.lists(st.text(st.characters(codec="ascii"), max_size=4), max_size=3),
}  # fmt: skip
ROWS = st.lists(
    st.tuples(INT64, st.lists(FLOATS, min_size=2, max_size=2), st.fixed_dictionaries({}, optional=TYPED)),
    min_size=1,
    max_size=4,
    unique_by=lambda row: row[0],
)


@settings(max_examples=examples(150))
@given(ROWS, st.booleans(), st.booleans())
def test_valid_rows_come_through_as_they_are(rows: list[Any], spaced: bool, quoted: bool) -> None:
    sent = [{"vector": vector, **fields, "id": str(id) if quoted else id} for id, vector, fields in rows]
    body = {"data": sent, "collectionName": "c"}
    text = json.dumps(body, indent=1).encode() if spaced else orjson.dumps(body)
    changeset = read_body(text, FULL)
    assert changeset.ids.to_pylist() == [str(id) for id, _, _ in rows]
    assert changeset.vectors is not None
    assert np.array_equal(changeset.vectors, np.array([vector for _, vector, _ in rows], np.float32))
    for kept, (_, _, fields) in zip(metadata_of(changeset), rows, strict=True):
        assert kept.keys() == fields.keys()
        for name, value in fields.items():
            assert (np.float32(kept[name]) if name == "f" else kept[name]) == value


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TYPED, "id", "vector", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=examples(150))
@given(
    st.binary(max_size=40)
    | st.fixed_dictionaries(
        {
            "data": st.lists(
                st.dictionaries(st.sampled_from([*TYPED, "id", "vector", "sparse", "$meta"]), ANYTHING)
            )
            | ANYTHING
        },
        optional={"collectionName": ANYTHING, "partialUpdate": ANYTHING, "fieldOps": ANYTHING},
    ).map(lambda body: json.dumps(body).encode()),
    st.sampled_from([FULL, SCHEMA, STRICT, TEXTS, AUTO, OPEN_SCHEMA]),
    st.sampled_from(IndexKind),
    st.booleans(),
)
def test_whatever_comes_is_read_or_refused(
    body: bytes, schema: RowSchema, kind: IndexKind, partial: bool
) -> None:
    try:
        changeset = read_body(body, schema, kind, partial=partial)
    except UpwellError as error:
        assert error.detail  # noqa: PT017  either is right
    else:
        assert len(changeset) >= 1
