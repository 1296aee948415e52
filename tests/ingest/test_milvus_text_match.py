"""``text_match`` and ``phrase_match`` at the Milvus door: what they find, what they are refused for, and what they mean beside ``not`` and null."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.doors.milvus import expression_words
from ingest.doors.milvus.errors import Code, MilvusError
from ingest.doors.milvus.expressions import PHRASES_MAX, parse_expression
from tests.milvus_house import MilvusHouse, Row, milvus_house
from tests.plain_expressions import nullable
from tests.thorough import examples
from upwell.engine import Index
from upwell.schema import FieldType, IdType, RowSchema, ScalarField
from upwell.shard.filter import Filter, HasPhrase, HasWords, MetadataColumns, matching
from upwell.shard.filter_json import filter_from_json, filter_to_json

TEXT = ScalarField(
    name="t", type=FieldType.VARCHAR, bytes_max=1_000, nullable=True, analyzer={}, matches=True
)
STEMMED = TEXT.model_copy(update={"name": "e", "analyzer": {"type": "english"}})
DEFAULT = TEXT.model_copy(update={"name": "d", "default": "red fox", "nullable": False})
SCHEMA = RowSchema(
    ids=IdType.TEXT,
    fields=(
        TEXT,
        STEMMED,
        DEFAULT,
        TEXT.model_copy(update={"name": "plain", "matches": False}),
        nullable("n", FieldType.INT64),
        nullable("json", FieldType.JSON),
        nullable("texts", FieldType.ARRAY, FieldType.VARCHAR),
    ),
)
PARAMS = {"words": "red fox", "number": 1, "list": ["red"]}


def parsed(text: str) -> Filter:
    asked = parse_expression(text, SCHEMA, PARAMS)
    assert asked is not None
    return asked


def found(text: str, rows: list[Row]) -> list[int]:
    """Which rows an expression lets through, once it has travelled in a log."""
    asked = filter_from_json(orjson.loads(orjson.dumps(filter_to_json(parsed(text)))))
    metadata = pa.array([orjson.dumps(row) for row in rows], pa.binary())
    columns = MetadataColumns(metadata, len(rows), pa.array([str(n) for n in range(len(rows))]))
    return [n for n, hit in enumerate(matching(asked, len(rows), columns).tolist()) if hit]


ROWS: list[Row] = [
    {"t": "The red fox", "e": "Foxes were running"},
    {"t": "a FOX, red"},
    {"t": "wine"},
    {"t": ""},
    {},
    {"t": "red wine fox", "d": "blue"},
]

SAID: list[tuple[str, list[int]]] = [
    ("text_match(t, 'red')", [0, 1, 5]),
    ("TEXT_MATCH(t, 'RED wine')", [0, 1, 2, 5]),
    ('Text_Match ( t , "red-wine" , MINIMUM_SHOULD_MATCH = 2 )', [5]),
    ("text_match(t, 'red wine fox', minimum_should_match=0x3)", [5]),
    ("text_match(t, 'red red', minimum_should_match=2)", [0, 1, 5]),
    ("text_match(t, 'red', minimum_should_match=1000)", []),
    ("text_match(t, {words}, minimum_should_match=2)", [0, 1, 5]),
    ("text_match(t, r'red')", [0, 1, 5]),
    (r"text_match(t, '\x72ed')", [0, 1, 5]),
    ("not text_match(t, 'red')", [2, 3]),
    ("not text_match(t, '')", [0, 1, 2, 3, 5]),
    ("text_match(t, '?!')", []),
    ("text_match(t, 'red') and not text_match(t, 'wine')", [0, 1]),
    ("text_match(t, 'wine') or t is null", [2, 4, 5]),
    ("not (text_match(t, 'red') or text_match(t, 'wine'))", [3]),
    ("(text_match(t, 'red'))", [0, 1, 5]),
    ("text_match(e, 'fox')", [0]),
    ("phrase_match(e, 'fox runs', 1)", [0]),
    ("phrase_match(e, 'fox runs')", []),
    ("phrase_match(e, 'fox is running')", [0]),
    ("phrase_match(t, 'red fox')", [0]),
    ("PHRASE_MATCH(t, 'red fox', 0)", [0]),
    ("phrase_match(t, {words}, {number})", [0, 5]),
    ("phrase_match(t, 'red fox', 1 + 1)", [0, 1, 5]),
    ("phrase_match(t, 'red fox', 4294967295)", [0, 1, 5]),
    ("phrase_match(t, 'red')", [0, 1, 5]),
    ("phrase_match(t, '')", []),
    ("phrase_match(t, 'red nothing', 9)", []),
    ("not phrase_match(t, 'red fox', 1)", [1, 2, 3]),
    ("text_match(d, 'red')", [0, 1, 2, 3, 4]),
    ("not text_match(d, 'red')", [5]),
    ("phrase_match(d, 'red fox')", [0, 1, 2, 3, 4]),
    ("text_match == 'red'", []),
]


@pytest.mark.parametrize(("text", "expected"), SAID)
def test_what_is_found(text: str, expected: list[int]) -> None:
    assert found(text, ROWS) == expected


def test_words_are_told_apart_when_they_are_read() -> None:
    assert parsed("text_match(e, 'The Foxes')") == HasWords("e", '{"type":"english"}', ("fox",))
    expected = HasPhrase("e", '{"type":"english"}', ((0, "fox"), (2, "dog")), 3)
    assert parsed("phrase_match(e, 'the foxes the dogs', 3)") == expected


_QUERY = "text_match query should be a string literal or template variable, got: "
_SLOP = '"slop" should be a const integer expression with "uint32" value. "slop" expression passed: '

REFUSED: list[tuple[str, str]] = [
    ("text_match(n, 'a')", "text match operation on non-string is unsupported"),
    ("text_match(json, 'a')", "text match operation on non-string is unsupported"),
    ("text_match(texts, 'a')", "text match operation on non-string is unsupported"),
    ("text_match(dynamic, 'a')", "text match operation on non-string is unsupported"),
    ("phrase_match(n, 'a')", "phrase match operation on non-string is unsupported"),
    ("text_match(plain, 'a')", 'field "plain" does not enable match'),
    ("phrase_match(plain, 'a')", 'field "plain" does not enable match'),
    ("text_match(id, 'a')", 'field "id" does not enable match'),
    ("text_match(vector, 'a')", "filtering by the vector field vector is not supported"),
    ("text_match($meta, 'a')", ".*name a member.*"),
    ("text_match(json['a'], 'a')", "expected , at column 16, got .*"),
    ("text_match('t', 'a')", "expected a field's name at column 12, got .*"),
    ("text_match(t)", "expected , at column 13, got '\\)'"),
    ("text_match()", "expected a field's name at column 12.*"),
    ("text_match(t, 1)", re.escape(_QUERY + "1")),
    ("text_match(t, {list})", re.escape(_QUERY + "Array")),
    ("text_match(t, {nobody})", ".*variable name {nobody} is not found"),
    ("text_match(t, n)", re.escape(_QUERY + "n")),
    ("text_match(t, n == 1)", re.escape(_QUERY + "an operation")),
    ("phrase_match(t, 1)", "phrase_match query should be a string literal or template variable, got: 1"),
    ("text_match(t, 'a', 1)", "expected minimum_should_match at column 20, got '1'"),
    ("text_match(t, 'a', threshold=1)", "expected minimum_should_match at column 20, got 'threshold'"),
    ("text_match(t, 'a', minimum_should_match)", "expected = at column 40, got '\\)'"),
    ("text_match(t, 'a', minimum_should_match=)", "expected a number at column 41, got '\\)'"),
    ("text_match(t, 'a', minimum_should_match=-1)", "expected a number at column 41, got '-'"),
    ("text_match(t, 'a', minimum_should_match={number})", "expected a number at column 41, got .*"),
    ("text_match(t, 'a', minimum_should_match=0)", "minimum_should_match should be >= 1, got 0"),
    ("text_match(t, 'a', minimum_should_match=1001)", "minimum_should_match should be <= 1000, got 1001"),
    ("text_match(t, 'a', minimum_should_match=1.5)", "invalid minimum_should_match value: 1.5"),
    (
        "text_match(t, 'a', minimum_should_match=9223372036854775808)",
        "invalid minimum_should_match value: 9223372036854775808",
    ),
    (
        "text_match(t, 'a', minimum_should_match=1, minimum_should_match=1)",
        "expected \\) at column 42, got ','",
    ),
    ("phrase_match(t, 'a', -1)", '"slop" should not be a negative interger. "slop" passed: -1'),
    (
        "phrase_match(t, 'a', 4294967296)",
        '"slop" exceeds the range of "uint32". "slop" expression passed: 4294967296',
    ),
    ("phrase_match(t, 'a', 'b')", re.escape(_SLOP + "b")),
    ("phrase_match(t, 'a', 1.5)", re.escape(_SLOP + "1.5")),
    ("phrase_match(t, 'a', true)", re.escape(_SLOP + "True")),
    ("phrase_match(t, 'a', n)", re.escape(_SLOP + "n")),
    ("phrase_match(t, 'a', slop=1)", "expected .* at column 26, got '='"),
    ("text_match(t, 'a') == true", "only a field and a constant, or two fields, can be compared"),
    ("exists text_match(t, 'a')", "expected .*"),
    ("text_match(t, 'a') in [true]", "'term' can only be used on single field"),
    ("text_match(t, 'a') is null", "'is null' can only be used on single field"),
    ("text_match(t, '\\u00')", "invalid escape .*"),
    (
        " or ".join(f"phrase_match(t, 'a w{n}')" for n in range(PHRASES_MAX + 1)),
        "expected at most 16 different phrases, got 17",
    ),
    (f"phrase_match(t, '{'a ' * 129}')", "expected a phrase of at most 128 terms, got 129"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=lambda value: value[:50])
def test_what_is_refused_and_why(text: str, expected: str) -> None:
    with pytest.raises(MilvusError) as refused:
        parse_expression(text, SCHEMA, PARAMS)
    assert refused.value.code == Code.INVALID_PARAMETER
    said = re.fullmatch(
        r"failed to create query plan: cannot parse expression: .*?, error: (.*): invalid parameter",
        str(refused.value),
        re.DOTALL,
    )
    assert said, str(refused.value)
    assert re.fullmatch(expected, said[1], re.DOTALL), said[1]


def test_templates_do_not_make_a_reader_analyze_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_words, "TEXTS_CHARACTERS_MAX", 20)
    assert parse_expression("text_match(t, {x}) or text_match(t, {x})", SCHEMA, {"x": "a" * 10})
    with pytest.raises(MilvusError, match="expected at most 20 characters of texts to match"):
        parse_expression("text_match(t, {x}) or phrase_match(t, {x})", SCHEMA, {"x": "a" * 11})


# True, false or unknown.

WORDS = st.sampled_from(["a", "b", "a b", "b a", "c", ""])
CALLS = st.tuples(st.just("text_match"), WORDS, st.integers(1, 3)) | st.tuples(
    st.just("phrase_match"), WORDS, st.integers(0, 2)
)
TREES: st.SearchStrategy[Any] = st.recursive(
    CALLS,
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=5,
)


def written(tree: Any) -> str:
    match tree:
        case ("text_match", words, least):
            return f"text_match(t, '{words}', minimum_should_match={least})"
        case ("phrase_match", words, slop):
            return f"phrase_match(t, '{words}', {slop})"
        case ("not", part):
            return f"not ({written(part)})"
    word, left, right = tree
    return f"({written(left)}) {word} ({written(right)})"


def meant(tree: Any, text: str | None) -> bool | None:
    match tree:
        case ("not", part):
            claim = meant(part, text)
            return None if claim is None else not claim
        case ("and" | "or" as word, left, right):
            claims = {meant(left, text), meant(right, text)}
            decides = word == "or"
            return decides if decides in claims else None if None in claims else not decides
    call, words, number = tree
    if text is None:
        return None
    has, terms = text.split(), words.split()
    if call == "text_match":
        there = [term for term in terms if term in has]
        return len(there) >= int(number)
    stands = [[n - place for n, word in enumerate(has) if word == term] for place, term in enumerate(terms)]
    spans = [max(one) - min(one) for one in itertools.product(*stands)] if terms else []
    return any(span <= int(number) for span in spans)


@settings(max_examples=examples(150), deadline=None)
@given(
    tree=TREES,
    texts=st.lists(st.none() | st.lists(st.sampled_from("abc"), max_size=5).map(" ".join), max_size=8),
)
@example(tree=("not", ("text_match", "", 1)), texts=["a", None])
def test_a_claim_about_words_is_true_false_or_unknown(tree: Any, texts: list[str | None]) -> None:
    rows = [{} if text is None else {"t": text} for text in texts]
    assert found(written(tree), rows) == [n for n, text in enumerate(texts) if meant(tree, text) is True]


# Asked over HTTP.


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path, milvus_read_wait_s=30.0) as house:
        yield house


async def collection(house: MilvusHouse) -> Index:
    words = {"max_length": 100, "enable_analyzer": True, "enable_match": True}
    return await house.make_full(
        [
            {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
            {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
            {"fieldName": "t", "dataType": "VarChar", "elementTypeParams": words, "nullable": True},
            {
                "fieldName": "plain",
                "dataType": "VarChar",
                "elementTypeParams": {"max_length": 9},
                "nullable": True,
            },
        ],
    )


OF_C = {"collectionName": "c", "consistencyLevel": "Strong"}


async def test_queries_searches_and_counts_ask_for_words_and_deletes_do(house: MilvusHouse) -> None:
    await collection(house)
    texts = {1: "Red fox", 2: "fox, red", 3: "wine", 4: None, 5: "red wine"}
    rows = [{"id": id, "v": [1, id], "t": text} for id, text in texts.items()]
    await house.data("entities/insert", {**OF_C, "data": rows})

    async def ids(expression: str, **more: Any) -> list[int]:
        asked = {**OF_C, "filter": expression, "outputFields": ["id"], **more}
        return [row["id"] for row in await house.data("entities/query", asked)]

    assert await ids("text_match(t, 'RED')") == [1, 2, 5]
    assert await ids("not text_match(t, {w})", exprParams={"w": "red"}) == [3]
    assert await ids("phrase_match(t, 'red fox') and id > 0") == [1]
    count = {**OF_C, "filter": "phrase_match(t, 'red fox', 2)", "outputFields": ["count(*)"]}
    assert await house.data("entities/query", count) == [{"count(*)": 2}]
    search = {**OF_C, "data": [[1, 0]], "annsField": "v", "filter": "text_match(t, 'wine')", "limit": 9}
    assert [row["id"] for row in await house.data("entities/search", search)] == [3, 5]

    await house.data(
        "entities/delete", {**OF_C, "filter": "text_match(t, 'red wine', minimum_should_match=2)"}
    )
    assert await ids("id > 0") == [1, 2, 3, 4]
    await house.data("entities/delete", {**OF_C, "filter": "not phrase_match(t, 'red fox')"})
    assert await ids("id > 0") == [1, 4]


async def test_a_field_that_does_not_match_is_refused_wherever_it_is_asked_for(house: MilvusHouse) -> None:
    await collection(house)
    asked = {**OF_C, "filter": "text_match(plain, 'a')"}
    search = asked | {"data": [[1, 0]], "annsField": "v"}
    for command, body in (("query", asked), ("search", search), ("delete", asked)):
        code, message = await house.error(f"entities/{command}", body)
        assert code == 1100
        assert 'field "plain" does not enable match: invalid parameter' in message
