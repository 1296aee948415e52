"""What a schema may be that a collection is made with at the Milvus door; and what it cannot be, with the reason. A table of refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.milvus_house import MilvusHouse, Row, milvus_house
from upwell.kinds import IndexKind
from upwell.schema import FieldType, IdType

ID: Row = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
VECTOR: Row = {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}}
SPARSE: Row = {"fieldName": "s", "dataType": "SparseFloatVector"}


def field(kind: str, name: str = "f", length: int | None = None, **more: Any) -> Row:
    told = {} if length is None else {"elementTypeParams": {"max_length": length}}
    return {"fieldName": name, "dataType": kind, **told, **more}


def quick(**more: Any) -> Row:
    return {"collectionName": "c", "dimension": 2} | more


def full(*fields: Row, **more: Any) -> Row:
    return {"collectionName": "c", "schema": {"fields": list(fields), **more}}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path, dimensions_max=8, indexes_max=1) as made:
        yield made


REFUSED: list[tuple[str, Row, int, str]] = [
    ("no dimension", {"collectionName": "c"}, 1100, "dimension is required for quickly create collection"),
    ("too many dimensions", quick(dimension=9), 1100, "should be in range 1 ~ 8"),
    ("negative", quick(dimension=-1), 1100, "invalid dimension: -1"),
    ("id type", quick(idType="Int32"), 1100, "idType can only be [Int64, VarChar], default: Int64"),
    ("no length of ids", quick(idType="VarChar"), 1100, "type param(max_length) should be specified"),
    ("metric", quick(metricType="HAMMING"), 1100, "metric type HAMMING not found or not supported"),
    ("dynamic", quick(params={"enableDynamicField": "maybe"}), 1100, "parse enableDynamicField fail"),
    ("consistency", quick(params={"consistencyLevel": "Weak"}), 1100, "consistencyLevel can only be [Strong, "),
    ("same names", quick(primaryFieldName="a", vectorFieldName="a"), 1100, "duplicated field name a"),
    ("dimension as text", quick(dimension="2"), 1801, "can only accept json format request, error: dimension"),
    ("functions", quick(schema={"functions": [{}]}), 1100, "functions are not supported for quickly create"),
    ("no name", {"dimension": 2}, 1802, "missing required parameters, required parameters: [collectionName]"),
    ("empty name", quick(collectionName=""), 1802, "[collectionName]"),
    ("blank name", quick(collectionName=" "), 1100, "collection name should not be empty"),
    ("name with blank", quick(collectionName="a b"), 1100, "Invalid collection name: a b."),
    ("name with slash", quick(collectionName="a/b"), 1100, "Invalid collection name: a/b."),
    ("name begins with 1", quick(collectionName="1a"), 1100, "the first character of a collection name must"),
    ("hyphen", quick(collectionName="a-b"), 1100, "can only contain numbers, letters and underscores"),
    ("long name", quick(collectionName="a" * 256), 1100, "must be less than 255 characters"),
    ("field name", quick(primaryFieldName="1d"), 1701, "Invalid field name: 1d."),
    ("keyword", quick(vectorFieldName="like"), 1701, "like is keyword in milvus"),
    ("unknown type", full(ID, VECTOR, field("VARCHAR")), 1100, "data type VARCHAR is invalid(case sensitive)"),
    ("foreign type", full(ID, field("BinaryVector")), 1100, "data type BinaryVector of field f is not supported"),
    ("two vectors", full(ID, VECTOR, VECTOR | {"fieldName": "w"}), 1100, "more than one FloatVector field"),
    ("two sparse", full(ID, SPARSE, SPARSE | {"fieldName": "w"}), 1100, "more than one SparseFloatVector field"),
    ("no vector", full(ID, field("Int64")), 1100, "schema does not contain vector field"),
    ("no primary", full(VECTOR), 1100, "primary key is not specified"),
    ("two primaries", full(ID, ID | {"fieldName": "x"}, VECTOR), 1100, "more than one primary key, field name = id, x"),
    ("float primary", full(ID | {"dataType": "Float"}, VECTOR), 1100, "primary key should be Int64 or VarChar"),
    ("primary default", full(ID | {"defaultValue": 1}, VECTOR), 1100, "primary field not support default_value"),
    ("primary null", full(ID | {"nullable": True}, VECTOR), 1100, "primary field not support null"),
    ("same name twice", full(ID, VECTOR, field("Int8"), field("Int16")), 1100, "duplicated field name f found"),
    ("null vector", full(ID, VECTOR | {"nullable": True}), 1100, "vector type not support null"),
    ("no dim", full(ID, field("FloatVector")), 1100, "dimension is not defined in field type params of field f"),
    ("dim no number", full(ID, VECTOR | {"elementTypeParams": {"dim": "x"}}), 1100, "invalid dimension: x"),
    ("sparse dim", full(ID, SPARSE | {"elementTypeParams": {"dim": 2}}), 1100, "dim should not be specified"),
    ("no length", full(ID, VECTOR, field("VarChar")), 1100, "type param(max_length) should be specified"),
    ("long", full(ID, VECTOR, field("VarChar", length=65536)), 1100, "should be in (0, 65535], but got 65536"),
    ("no element", full(ID, VECTOR, field("Array")), 1100, "element data type  is invalid(case sensitive)"),
    ("arrays", full(ID, VECTOR, field("Array", elementDataType="Array")), 1100, "element type Array is not supported"),
    ("no capacity", full(ID, VECTOR, field("Array", elementDataType="Bool")), 1100, "type param(max_capacity)"),
    ("null key", full(ID, VECTOR, field("Int64", isPartitionKey=True, nullable=True)), 1100, "partition key field not support nullable"),
    ("float key", full(ID, VECTOR, field("Float", isPartitionKey=True)), 1100, "type of partition key should be Int64 or VarChar"),
    ("id key", full(ID | {"isPartitionKey": True}, VECTOR), 1100, "the partition key field must not be primary field"),
    ("default of JSON", full(ID, VECTOR, field("JSON", defaultValue={"a": 1})), 1100, "convert defaultValue fail"),
    ("default out of range", full(ID, VECTOR, field("Int8", defaultValue=128)), 1100, "convert defaultValue fail"),
    ("default of text", full(ID, VECTOR, field("VarChar", length=2, defaultValue="abc")), 1100, "exceeds max length (2)"),
    ("default bool", full(ID, VECTOR, field("Bool", defaultValue=1)), 1100, "convert defaultValue fail"),
    ("default of vector", full(ID, VECTOR | {"defaultValue": [1, 2]}), 1100, "convert defaultValue fail"),
    ("BM25", full(ID, VECTOR, functions=[{"name": "f", "type": "BM25"}]), 1101, "function input field names cannot be empty"),
    ("structs", full(ID, VECTOR, structFields=[{"fieldName": "s"}]), 1100, "structFields (arrays of structs)"),
    ("flag as number", full(ID, VECTOR, enableDynamicField=1), 1801, "schema.enableDynamicField"),
    ("many fields", full(ID, VECTOR, *[field("Bool", f"f{n}") for n in range(63)]), 1100, "limited to 64"),
    ("index on nothing", full(ID, VECTOR) | {"indexParams": [{"fieldName": "x"}]}, 1802, "`x` hasn't defined in schema"),
    ("index metric", full(ID, VECTOR) | {"indexParams": [{"fieldName": "v", "metricType": "BM25"}]}, 1100, "metric type BM25"),
    ("sparse metric", full(ID, SPARSE) | {"indexParams": [{"fieldName": "s", "metricType": "L2"}]}, 1100, "only IP is the supported"),
    ("index name", full(ID, VECTOR) | {"indexParams": [{"fieldName": "v", "indexName": "1"}]}, 1100, "Invalid index name: 1."),
    ("no database", quick(dbName="nowhere"), 800, "database not found[database=nowhere]"),
    ("path as database", quick(dbName="../x"), 800, "database not found[database=../x]"),
]  # fmt: skip


async def test_what_cannot_be_is_refused_with_the_reason_and_makes_nothing(house: MilvusHouse) -> None:
    for what, body, code, words in REFUSED:
        got = await house.error("collections/create", body)
        assert got[0] == code and words in got[1], (what, got)
    assert await house.data("collections/list", {}) == []


async def test_bodies_that_are_none(house: MilvusHouse) -> None:
    for body, words in (
        (b"", "the request body should not be empty, however {} is valid"),
        (b"{", "error: "),
        (b"[]", "error: "),
        (b'{"collectionName": 1}', "error: collectionName"),
        (b"\xff", "error: "),
    ):
        for version in (1, 2):
            code, text = await house.error("collections/create", body, version=version)
            assert code == 1801 and words in text, (body, text)
            assert text.startswith("can only accept json format request")


async def test_a_server_may_have_enough_collections(house: MilvusHouse) -> None:
    await house.make("a")
    await house.make("a")
    code, text = await house.error("collections/create", quick(collectionName="b"))
    assert (code, text) == (102, "exceeded the limit number of collections[limit=1]")


async def test_every_type_of_field(house: MilvusHouse) -> None:
    scalars = ["Bool", "Int8", "Int16", "Int32", "Int64", "Float", "Double", "JSON"]
    defaults = {"Bool": True, "Int8": -128, "Int64": 2**63 - 1, "Double": 0.5, "Float": 1}
    fields = [
        {"fieldName": "pk", "dataType": "VarChar", "isPrimary": True, "elementTypeParams": {"max_length": "9"}},
        SPARSE,
        VECTOR,
        *(field(kind, f"f_{kind}", defaultValue=defaults.get(kind)) for kind in scalars),
        field("VarChar", "text", length=3, isPartitionKey=True, description="who"),
        field("Array", "list", elementDataType="VarChar", params={"max_length": 4, "max_capacity": 5}, nullable=True),
        field("Int64", "cluster", isClusteringKey=True),
    ]  # fmt: skip
    body = full(*fields, autoID=True, enableDynamicField=True, description="all of them")
    await house.data("collections/create", body | {"params": {"partitionsNum": "16"}})
    record = house.engine.find("default", "c").record
    schema = record.row_schema
    assert schema is not None
    assert (record.kind, record.dimensions) == (IndexKind.HYBRID, 2)
    assert (schema.id_field, schema.ids, schema.id_bytes_max, schema.auto_id) == ("pk", IdType.TEXT, 9, True)
    assert (schema.vector_field, schema.sparse_field, schema.dynamic) == ("v", "s", True)
    assert (schema.partition_key, schema.order) == ("text", tuple(one["fieldName"] for one in fields))
    known = {one.name: one for one in schema.fields}
    assert [known[f"f_{kind}"].type for kind in scalars] == scalars
    assert {kind: known[f"f_{kind}"].default for kind in defaults} == defaults
    assert known["text"].bytes_max == 3
    listed = known["list"]
    assert (listed.type, listed.element, listed.bytes_max, listed.capacity, listed.nullable) == (
        FieldType.ARRAY, FieldType.VARCHAR, 4, 5, True,
    )  # fmt: skip
    shown = await house.data("collections/describe", {"collectionName": "c"})
    assert (shown["partitionsNum"], shown["description"]) == (16, "all of them")
    keys = {one["name"]: (one["partitionKey"], one["clusteringKey"]) for one in shown["fields"]}
    assert (keys["text"], keys["cluster"], keys["pk"]) == ((True, False), (False, True), (False, False))
    types = {one["name"]: one["type"] for one in shown["fields"]}
    assert (types["s"], types["v"], types["list"], types["pk"]) == (
        "SparseFloatVector", "FloatVector", "Array", "VarChar",
    )  # fmt: skip
    v1 = await house.data("collections/describe", version=1, method="GET", query={"collectionName": "c"})
    assert {"VarChar(9)", "FloatVector(2)", "VarChar(3)"} <= {one["type"] for one in v1["fields"]}


async def test_sparse_alone_is_a_collection(house: MilvusHouse) -> None:
    index = await house.make_full([ID, SPARSE])
    assert (index.record.kind, index.record.dimensions) == (IndexKind.SPARSE, 0)
    shown = await house.data("collections/describe", {"collectionName": "c"})
    assert shown["indexes"] == [{"indexName": "s", "fieldName": "s", "metricType": "IP"}]
    assert shown["load"] == "LoadStateLoaded" and not any("params" in one for one in shown["fields"])
