"""Collections whose sparse vectors are made of texts, at the Milvus door: how they are declared, described and indexed, and what cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.doors.milvus.facts import bm25_of, facts_of, schema_with, vector_metrics
from ingest.doors.milvus.output_fields import shown_of
from tests.milvus_house import MilvusHouse, Row, milvus_house
from upwell.engine import Index
from upwell.query.sparse import Bm25
from upwell.schema import FullText, RowSchema
from upwell.shard.metric import Metric

ABOUT: Row = {"collectionName": "c"}
ID: Row = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
DENSE: Row = {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}}
SPARSE: Row = {"fieldName": "s", "dataType": "SparseFloatVector"}
STANDARD = {"type": "standard"}


def text(name: str = "t", **told: Any) -> Row:
    params = {"max_length": 100, "enable_analyzer": True, **told}
    return {"fieldName": name, "dataType": "VarChar", "elementTypeParams": params}


def bm25(**more: Any) -> Row:
    return {"name": "f", "type": "BM25", "inputFieldNames": ["t"], "outputFieldNames": ["s"]} | more


def full(*fields: Row, functions: Sequence[Any] = (), **more: Any) -> Row:
    return {**ABOUT, "schema": {"fields": list(fields), "functions": list(functions)}, **more}


def texts(*functions: Row, **more: Any) -> Row:
    """A collection of texts alone; with one BM25 function unless others are given."""
    return full(ID, text(), SPARSE, functions=functions or (bm25(),), **more)


def on_sparse(**more: Any) -> Row:
    return {**ABOUT, "indexParams": [{"fieldName": "s", "indexName": "words", **more}]}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


def found(house: MilvusHouse) -> Index:
    return house.engine.find("default", "c")


def schema_of(index: Index) -> RowSchema:
    return schema_with(index.record.effective_schema, facts_of(index))


OTHER = {"fieldName": "n", "dataType": "Int64"}
PLAIN = {"fieldName": "p", "dataType": "VarChar", "elementTypeParams": {"max_length": 9}}
DEEP = "[" * 600 + "]" * 600

REFUSED: list[tuple[str, Row, int, str]] = [
    ("quick", {**ABOUT, "dimension": 2, "schema": {"functions": [bm25()]}}, 1100, "functions are not supported for quickly create"),
    ("no object", full(ID, text(), SPARSE, functions=[1]), 1801, "schema.functions.0"),
    ("type", texts(bm25(type="BM25_")), 1100, "Unsupported function type: BM25_: invalid parameter[expected=FunctionType][actual=BM25_]"),
    ("no type", texts(bm25(type="")), 1100, "[actual=]"),
    ("case", texts(bm25(type="bm25")), 1100, "[actual=bm25]"),
    ("embedding", texts(bm25(type="TextEmbedding")), 1100, "functions of type TextEmbedding are not supported here"),
    ("rerank", texts(bm25(), bm25(type="Rerank")), 1100, "functions of type Rerank are not supported here"),
    ("hashes", texts(bm25(type="MinHash")), 1100, "functions of type MinHash are not supported here"),
    ("no name", texts(bm25(name="")), 1101, "function name cannot be empty: missing parameter"),
    ("name twice", texts(bm25(), bm25()), 1100, "duplicate function name: f"),
    ("output twice", texts(bm25(), bm25(name="g")), 1100, "duplicate function output field: function g, field s"),
    ("no input", texts(bm25(inputFieldNames=[])), 1101, "function input field names cannot be empty, function: f"),
    ("no output", texts(bm25(outputFieldNames=None)), 1101, "function output field names cannot be empty, function: f"),
    ("blank input", texts(bm25(inputFieldNames=[""])), 1101, "function input field name cannot be empty string, function: f"),
    ("blank output", texts(bm25(outputFieldNames=[""])), 1101, "function output field name cannot be empty string"),
    ("same inputs", texts(bm25(inputFieldNames=["t", "t"])), 1100, "each function input field should be used exactly once"),
    ("same outputs", texts(bm25(outputFieldNames=["s", "s"])), 1100, "each function output field should be used exactly once"),
    ("into itself", texts(bm25(outputFieldNames=["t"])), 1100, "a single field cannot be both input and output in the same function"),
    ("params", texts(bm25(params={"k": 1})), 1100, "BM25 function accepts no params"),
    ("unknown input", texts(bm25(inputFieldNames=["x"])), 1100, "function input field not found: x"),
    ("unknown output", texts(bm25(outputFieldNames=["x"])), 1100, "function output field not found: x"),
    ("number as input", full(ID, OTHER, SPARSE, functions=[bm25(inputFieldNames=["n"])]), 1100, "must be a VARCHAR field, got 1 field with type Int64"),
    ("two inputs", full(ID, text(), PLAIN, SPARSE, functions=[bm25(inputFieldNames=["t", "p"])]), 1100, "got 2 field with type VarChar"),
    ("not analyzed", full(ID, PLAIN, SPARSE, functions=[bm25(inputFieldNames=["p"])]), 1100, "BM25 function input field must set enable_analyzer to true"),
    ("not to be analyzed", full(ID, text(enable_analyzer="false"), SPARSE, functions=[bm25()]), 1100, "must set enable_analyzer to true"),
    ("of keys", full(text() | {"isPrimary": True}, SPARSE, functions=[bm25()]), 1100, "function input field cannot be primary key here: function f, field t"),
    ("dense output", full(ID, text(), DENSE, functions=[bm25(outputFieldNames=["v"])]), 1100, "must be a SparseFloatVector field, but got FloatVector"),
    ("two outputs", full(ID, text(), SPARSE, PLAIN, functions=[bm25(outputFieldNames=["s", "p"])]), 1100, "BM25 function only need 1 output field, but got 2"),
    ("key made", texts(bm25(outputFieldNames=["id"])), 1100, "function output field cannot be primary key: function f, field id"),
    ("partition key made", full(ID, text(), SPARSE, PLAIN | {"isPartitionKey": True}, functions=[bm25(outputFieldNames=["p"])]), 1100, "cannot be partition key or clustering key: function f, field p"),
    ("null made", full(ID, text(), SPARSE, PLAIN | {"nullable": True}, functions=[bm25(outputFieldNames=["p"])]), 1100, "cannot be nullable: function f, field p"),
    ("two sparse", full(ID, text(), SPARSE, SPARSE | {"fieldName": "z"}, functions=[bm25()]), 1100, "more than one SparseFloatVector field"),
    ("match alone", full(ID, DENSE, text(enable_match=True, enable_analyzer=False)), 1100, "field t which has enable_match or is input of BM25 function must also enable_analyzer"),
    ("match of keys", full(text(enable_match=True) | {"isPrimary": True}, DENSE), 1100, "primary field not support enable_match here"),
    ("no flag", full(ID, DENSE, text(enable_analyzer="maybe")), 1100, "parse enable_analyzer fail, err: maybe"),
    ("analyzer", full(ID, DENSE, text(analyzer_params={"type": "no such"})), 1100, "field name = t"),
    ("analyzer as text", full(ID, text(analyzer_params='{"type": "no such"}'), SPARSE, functions=[bm25()]), 1100, "field name = t"),
    ("no JSON", full(ID, DENSE, text(analyzer_params="{")), 1100, "analyzer params should be JSON"),
    ("no params", full(ID, DENSE, text(analyzer_params=[1])), 1100, "params should be a json map"),
    ("deep", full(ID, DENSE, text(analyzer_params=f'{{"filter": {DEEP}}}')), 1100, "field name = t"),
    ("long", full(ID, DENSE, text(analyzer_params={"type": "x" * 70_000})), 1100, "at most 32768 are allowed, field name = t"),
    ("many analyzers", full(ID, DENSE, text(multi_analyzer_params={"by_field": "l"})), 1100, "multi_analyzer_params are not supported here, field name = t"),
    ("inner product", texts(indexParams=[{"fieldName": "s", "metricType": "IP"}]), 1100, "index metric type of BM25 function output field must be BM25, got IP"),
    ("k1", texts(indexParams=[{"fieldName": "s", "params": {"bm25_k1": 3.5}}]), 1100, "invalid bm25_k1: 3.5, must be in range [0, 3]"),
]  # fmt: skip


async def test_what_cannot_be_is_refused_in_milvus_words_and_makes_nothing(house: MilvusHouse) -> None:
    for what, body, code, words in REFUSED:
        got = await house.error("collections/create", body)
        assert got[0] == code and words in got[1], (what, got)
    assert await house.data("collections/list", {}) == []


async def test_a_collection_of_texts_is_described_as_it_was_declared(house: MilvusHouse) -> None:
    told = text(analyzer_params=STANDARD, enable_match=True) | {"description": "words"}
    body = full(
        ID, told, DENSE, SPARSE,
        functions=[bm25(description="of words", params={})],
        indexParams=[
            {"fieldName": "v", "metricType": "L2"},
            {"fieldName": "s", "indexName": "words", "params": {"index_type": "SPARSE_INVERTED_INDEX", "bm25_k1": 1.5}},
        ],
    )  # fmt: skip
    await house.data("collections/create", body)
    await house.data("collections/create", body)
    schema = found(house).record.effective_schema
    assert schema.full_text == FullText(name="f", description="of words", field="t")
    [field] = schema.fields
    assert (field.analyzer, field.matches) == (STANDARD, True)
    shown = await house.data("collections/describe", ABOUT)
    assert shown["functions"] == [
        {
            "name": "f", "description": "of words", "type": 1, "id": 100,
            "inputFieldNames": ["t"], "outputFieldNames": ["s"], "params": None,
        }
    ]  # fmt: skip
    assert shown["load"] == "LoadStateLoaded"
    assert [(one["indexName"], one["metricType"]) for one in shown["indexes"]] == [
        ("v", "L2"),
        ("words", "BM25"),
    ]
    assert vector_metrics(found(house)) == {"v": "L2", "s": "BM25"}
    fields = {one["name"]: one for one in shown["fields"]}
    assert {name: one.get("isFunctionOutput") for name, one in fields.items()} == {
        "id": None, "t": None, "v": None, "s": True,
    }  # fmt: skip
    assert {one["key"]: one["value"] for one in fields["t"]["params"]} == {
        "max_length": "100", "enable_analyzer": "true", "analyzer_params": '{"type":"standard"}', "enable_match": "true",
    }  # fmt: skip
    v1 = await house.data("collections/describe", version=1, method="GET", query=ABOUT)
    assert [(one["name"], one["type"]) for one in v1["fields"] if one.get("isFunctionOutput")] == [
        ("s", "SparseFloatVector")
    ]
    [index] = await house.data("indexes/describe", {**ABOUT, "indexName": "words"})
    assert (index["indexType"], index["metricType"]) == ("SPARSE_INVERTED_INDEX", "BM25")
    assert {one["key"]: one["value"] for one in index["indexParams"]} == {
        "index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25", "params": '{"bm25_k1":1.5}',
    }  # fmt: skip
    # A field without parameters has none at all, which tools tell from an empty list.
    assert "params" not in fields["s"] and "params" not in fields["id"]


async def test_the_same_declared_otherwise_is_the_same_and_another_is_not(house: MilvusHouse) -> None:
    def asked(function: Row, **told: Any) -> Row:
        return full(ID, text(**told), SPARSE, functions=[function])

    await house.data("collections/create", asked(bm25(), analyzer_params=STANDARD))
    await house.data("collections/create", asked(bm25(), analyzer_params='{"type": "standard"}'))
    for other in (
        asked(bm25()),
        asked(bm25(name="g"), analyzer_params=STANDARD),
        full(ID, text(analyzer_params=STANDARD), SPARSE),
    ):
        code, words = await house.error("collections/create", other)
        assert code == 1100 and "create duplicate collection with different parameters" in words


async def test_without_a_word_about_it_an_analyzer_is_the_standard_one(house: MilvusHouse) -> None:
    fields = [
        text("a"), text("b", analyzer_params=""), text("c", enable_analyzer="1"), text("d", enable_analyzer=False),
        PLAIN, OTHER | {"elementTypeParams": {"enable_analyzer": True}},
    ]  # fmt: skip
    await house.data("collections/create", full(ID, DENSE, *fields))
    shown = {one.name: one.analyzer for one in found(house).record.effective_schema.fields}
    assert shown == {"a": {}, "b": {}, "c": {}, "d": None, "p": None, "n": None}


async def test_how_counts_are_compared_is_said_with_the_index(house: MilvusHouse) -> None:
    def compared() -> Bm25 | None:
        index = found(house)
        return bm25_of(schema_of(index), facts_of(index))

    await house.data("collections/create", texts())
    assert compared() == Bm25(k1=1.2, b=0.75)
    for params, wanted in (
        ({}, Bm25()),
        ({"bm25_k1": 0, "bm25_b": "1"}, Bm25(k1=0.0, b=1.0)),
        ({"bm25_b": 0.5, "bm25_avgdl": 100, "inverted_index_algo": "DAAT_WAND"}, Bm25(b=0.5)),
        ({"bm25_k1": 3.0, "drop_ratio_build": 0.2}, Bm25(k1=3.0)),
    ):
        await house.data("indexes/create", on_sparse(params=params))
        assert compared() == wanted
        await house.data("indexes/drop", {**ABOUT, "indexName": "words"})


async def test_indexes_that_cannot_be(house: MilvusHouse) -> None:
    await house.data("collections/create", texts())
    in_range = "must be in range"
    for more, words in (
        ({"metricType": "IP"}, "must be BM25, got IP"),
        ({"params": {"metric_type": "COSINE"}}, "must be BM25, got COSINE"),
        ({"params": {"bm25_k1": -0.1}}, f"invalid bm25_k1: -0.1, {in_range} [0, 3]"),
        ({"params": {"bm25_k1": "NaN"}}, f"invalid bm25_k1: NaN, {in_range} [0, 3]"),
        ({"params": {"bm25_k1": "1_0"}}, f"invalid bm25_k1: 1_0, {in_range} [0, 3]"),
        ({"params": {"bm25_k1": [1]}}, f"invalid bm25_k1: [1], {in_range} [0, 3]"),
        ({"params": {"bm25_b": 1.5}}, f"invalid bm25_b: 1.5, {in_range} [0, 1]"),
        ({"params": {"bm25_b": ""}}, f"invalid bm25_b: , {in_range} [0, 1]"),
        ({"params": {"drop_ratio_build": 1}}, f"invalid drop_ratio_build: 1, {in_range} [0, 1)"),
        ({"params": {"inverted_index_algo": "WAND"}}, "sparse inverted index algo WAND not found or not supported"),
    ):  # fmt: skip
        code, says = await house.error("indexes/create", on_sparse(**more))
        assert code == 1100 and words in says, more
    assert await house.data("indexes/list", ABOUT) == []
    await house.data("indexes/create", on_sparse(metricType="bm25"))
    for name in ("bm25_k1", "bm25_b"):
        code, says = await house.error(
            "indexes/alter_properties", {**ABOUT, "indexName": "words", "properties": {name: 1}}
        )
        assert (code, says) == (1100, f"{name} is not a configable index property: invalid parameter")


async def test_sparse_vectors_that_are_sent_are_what_they_were(house: MilvusHouse) -> None:
    await house.data("collections/create", full(ID, text(), SPARSE))
    code, says = await house.error("indexes/create", on_sparse(metricType="BM25"))
    assert (code, says) == (
        1100,
        "only BM25 Function output field support BM25 metric type: invalid parameter",
    )
    await house.data("indexes/create", on_sparse())
    index = found(house)
    assert vector_metrics(index) == {"s": "IP"}
    assert bm25_of(schema_of(index), facts_of(index)) is None
    assert shown_of(schema_of(index), index.record.kind, ["*"]).sparse == "s"
    shown = await house.data("collections/describe", ABOUT)
    assert (shown["functions"], "isFunctionOutput" in shown["fields"][2]) == ([], False)


async def test_what_a_function_makes_is_never_shown(house: MilvusHouse) -> None:
    await house.data(
        "collections/create", full(ID, text(), DENSE, SPARSE, functions=[bm25()], indexParams=[{"fieldName": "v"}, {"fieldName": "s"}])
    )  # fmt: skip
    for command, body in (
        ("entities/query", {"filter": "id > 0"}),
        ("entities/get", {"id": [1]}),
        ("entities/search", {"data": [[1, 2]], "annsField": "v"}),
        ("entities/search", {"data": ["words"], "annsField": "s"}),
    ):
        for names in (["s"], ["t", " s "], ["*", "s"]):
            got = await house.error(command, {**ABOUT, **body, "outputFields": names})
            assert got == (65535, "not allowed to retrieve raw data of field s"), (command, names)
    v1 = await house.error("query", {**ABOUT, "filter": "id > 0", "outputFields": ["s"]}, version=1)
    assert v1 == (65535, "not allowed to retrieve raw data of field s")
    index = found(house)
    shown = shown_of(schema_of(index), index.record.kind, ["*"])
    assert (shown.vector, shown.sparse, [one.name for one in shown.fields]) == ("v", None, ["t"])


async def test_a_field_that_is_added_later_may_have_words(house: MilvusHouse) -> None:
    await house.data("collections/create", texts())
    code, says = await house.error(
        "collections/fields/add",
        {**ABOUT, "schema": text("more", analyzer_params={"type": "no such"}) | {"nullable": True}},
    )
    assert code == 1100 and "field name = more" in says
    added = text("more", analyzer_params=STANDARD, enable_match=True) | {"nullable": True}
    await house.data("collections/fields/add", {**ABOUT, "schema": added})
    schema = schema_of(found(house))
    assert {one.name: (one.analyzer, one.matches) for one in schema.fields} == {
        "t": ({}, False),
        "more": (STANDARD, True),
    }
    for field in ("t", "more"):
        for param, value in (
            ("enable_analyzer", False), ("enable_match", True), ("analyzer_params", STANDARD), ("multi_analyzer_params", {}),
        ):  # fmt: skip
            body = {**ABOUT, "fieldName": field, "fieldParams": {param: value}}
            code, says = await house.error("collections/fields/alter_properties", body)
            assert (code, says) == (
                1100,
                f"{param} does not allow update in collection field param: invalid parameter",
            )
    longer = {**ABOUT, "fieldName": "t", "fieldParams": {"max_length": 200}}
    await house.data("collections/fields/alter_properties", longer)
    assert (schema_of(found(house)).fields[0].bytes_max, schema_of(found(house)).fields[0].analyzer) == (
        200,
        {},
    )


async def test_the_function_outlives_whatever_is_done_to_the_collection(house: MilvusHouse) -> None:
    await house.data("collections/create", full(ID, text(), DENSE, SPARSE, functions=[bm25()]))
    first = found(house)
    declared = first.record.row_schema
    assert declared is not None and declared.full_text is not None
    # The metric of the dense vectors is chosen now: another index takes its place.
    await house.data("indexes/create", {**ABOUT, "indexParams": [{"fieldName": "v", "metricType": "L2"}]})
    second = found(house)
    assert (second.record.metric, second.record.id == first.record.id) == (Metric.EUCLIDEAN, False)
    assert second.record.row_schema == declared
    await house.data("indexes/create", on_sparse(metricType="BM25", params={"bm25_b": 0}))
    await house.data("collections/load", ABOUT)
    await house.data("aliases/create", {**ABOUT, "aliasName": "nick"})
    await house.data("collections/truncate", ABOUT)
    await house.data("collections/release", ABOUT)
    await house.data("collections/rename", {**ABOUT, "newCollectionName": "d"})
    renamed = house.engine.find("default", "d")
    assert renamed.record.row_schema == declared
    assert bm25_of(declared, facts_of(renamed)) == Bm25(b=0.0)
    shown = await house.data("collections/describe", {"collectionName": "d"})
    assert [one["name"] for one in shown["functions"]] == ["f"]


async def test_functions_stay_as_they_were_declared(house: MilvusHouse) -> None:
    await house.data("collections/create", texts())
    for command in (
        *("add_function", "alter_function", "drop_function"),
        *("add_function_field", "drop_function_field"),
    ):
        code, says = await house.error(f"collections/{command}", {**ABOUT, "functionName": "f"})
        assert code == 1100 and "functions are declared with a collection" in says, command
