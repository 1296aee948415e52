"""What Milvus's door refuses, and by which code and words clients tell it: a table, whose every row changes nothing.

Codes are those of Milvus's ``merr`` and of its own test suites; words are those that these suites look for, or that say what was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.milvus_door import Milvus
from tests.service import Service, running

#: Made for the table: rows of four numbers with ids of one's own, a fixed schema, ids that are texts, and ids that are made.
QUICK, FIXED, TEXTS, MADE, EMPTY = "quick", "fixed", "texts", "made", "not_loaded"
ID = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
VECTOR = {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": 4}}
FIELDS: list[dict[str, Any]] = [
    ID,
    {"fieldName": "small", "dataType": "Int8"},
    {"fieldName": "flag", "dataType": "Bool", "nullable": True},
    {"fieldName": "title", "dataType": "VarChar", "elementTypeParams": {"max_length": 8}},
    {"fieldName": "tags", "dataType": "Array", "elementDataType": "Int64", "nullable": True, "elementTypeParams": {"max_capacity": 2}},
    VECTOR,
]  # fmt: skip
GOOD = [1.0, 0.0, 0.0, 0.0]
ROW: dict[str, Any] = {"id": 1, "vector": GOOD}
FULL: dict[str, Any] = ROW | {"small": 1, "title": "t"}


@dataclass(frozen=True)
class Refusal:
    """A request, the code that it is refused by, and what must be said."""

    command: str
    body: Any
    code: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} {self.code} {' '.join(self.words)[:50]}"


def no(command: str, body: Any, code: int, *words: str) -> Refusal:
    return Refusal(command, body, code, words)


def put(collection: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"collectionName": collection, "data": data} | more


def row(**changed: Any) -> list[dict[str, Any]]:
    """A row of the fixed schema, with some of it otherwise."""
    return [FULL | changed]


def without(name: str, whole: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in whole.items() if key != name}]


def of(collection: str = QUICK, **more: Any) -> dict[str, Any]:
    return {"collectionName": collection} | more


def schema(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"collectionName": "wrong", "schema": {"fields": list(fields)} | more}


def field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"fieldName": name, "dataType": kind} | more


REQUIRED = "missing required parameters"
JSON_ONLY = "can only accept json format request"
BAD_DATA = "fail to deal the insert data"
NOWHERE = "can't find collection"
NOT_HERE = ("database not found", "nowhere")
LONG_NAME = "test_collection_" * 100

#: What both versions refuse alike; the command of v2 has what kind of thing it is about before it.
ROWS = [
    # No JSON, or not what is expected.
    no("insert", "", 1801, JSON_ONLY),
    no("insert", "{", 1801, JSON_ONLY),
    no("insert", "[]", 1801, JSON_ONLY),
    no("insert", '{"collectionName": 1, "data": []}', 1801, "collectionName"),
    no("insert", put(QUICK, "text"), 1801, "data"),
    no("insert", put(QUICK, 5), 1801, "data"),
    no("upsert", put(QUICK, True), 1801, "data"),
    # Something must be there.
    no("insert", {}, 1802, REQUIRED),
    no("insert", of(), 1802, REQUIRED, "data"),
    no("upsert", {"data": [ROW]}, 1802, REQUIRED, "collectionName"),
    no("upsert", put("", [ROW]), 1802, REQUIRED, "collectionName"),
    no("insert", put(QUICK, []), 1804, BAD_DATA, REQUIRED),
    no("upsert", put(QUICK, []), 1804, BAD_DATA, REQUIRED),
    # Nobody is there.
    no("insert", put("nobody", [ROW]), 100, NOWHERE, "nobody"),
    no("upsert", put("nobody", [ROW]), 100, NOWHERE, "nobody"),
    no("delete", of("nobody", filter="id in [1]"), 100, NOWHERE, "nobody"),
    no("query", of("nobody", filter="id > 0"), 100, NOWHERE, "nobody"),
    no("get", of("nobody", id=1), 100, NOWHERE, "nobody"),
    no("insert", put(QUICK, [ROW], dbName="nowhere"), 800, *NOT_HERE),
    no("query", of(filter="id > 0", dbName="nowhere"), 800, *NOT_HERE),
    # Rows that the collection does not take.
    no("insert", put(QUICK, [ROW, 5]), 1804, BAD_DATA, "expected=JSON"),
    no("insert", put(QUICK, [ROW, "x"]), 1804, BAD_DATA, "expected=JSON"),
    no("insert", put(QUICK, [None]), 1804, BAD_DATA, "expected=JSON"),
    no("insert", put(QUICK, without("vector", ROW)), 1804, BAD_DATA, "missing vector field: vector"),
    no("insert", put(QUICK, without("id", ROW)), 1804, BAD_DATA, "row 0 does not has field id"),
    no("insert", put(QUICK, [ROW, {"vector": GOOD}]), 1804, "row 1 does not has field id"),
    no("insert", put(QUICK, [ROW | {"vector": [1, 2]}]), 1804, "size 2 doesn't equal to vector dimension 4"),
    no("upsert", put(QUICK, [ROW | {"vector": [1] * 5}]), 1804, "size 5 doesn't equal to vector dimension 4"),
    no("insert", put(QUICK, [ROW | {"vector": []}]), 1804, BAD_DATA),
    no("insert", put(QUICK, [ROW | {"vector": "x"}]), 1804, BAD_DATA, "expected=FloatVector"),
    no("insert", put(QUICK, [ROW | {"vector": [1, 2, "x", 4]}]), 1804, BAD_DATA, "expected=FloatVector"),
    no("insert", put(QUICK, [ROW | {"vector": [1, 2, None, 4]}]), 1804, BAD_DATA, "expected=FloatVector"),
    no("insert", put(QUICK, [ROW | {"vector": [1, 2, 1e39, 4]}]), 1804, BAD_DATA, "expected=FloatVector"),
    no("insert", put(QUICK, [ROW | {"id": "abc"}]), 1804, BAD_DATA, "expected=Int64", "actual=abc"),
    no("insert", put(QUICK, [ROW | {"id": 1.5}]), 1804, BAD_DATA, "expected=Int64", "actual=1.5"),
    no("insert", put(QUICK, [ROW | {"id": 2**63}]), 1804, BAD_DATA, "expected=Int64"),
    no("insert", put(QUICK, [ROW | {"id": True}]), 1804, BAD_DATA, "expected=Int64"),
    no("insert", put(QUICK, [ROW | {"$meta": {}}]), 1804, BAD_DATA, "$meta"),
    no("insert", put(MADE, [ROW]), 1804, "no need to pass pk field(id) when autoid==true in insert"),
    no("insert", put(TEXTS, [{"id": "x" * 17, "vector": GOOD}]), 1100, "exceeds max length", "16"),
    no("insert", put(TEXTS, [{"id": "", "vector": GOOD}]), 1804, BAD_DATA),
    no("upsert", put(QUICK, [ROW, ROW]), 1100, "duplicate primary keys are not allowed in the same batch"),
    no("insert", put(FIXED, row(new=1)), 1804, "has pass more field without dynamic schema"),
    no("insert", put(FIXED, without("title", FULL)), 1804, "row 0 does not has field title"),
    no("insert", put(FIXED, row(title=None)), 1804, BAD_DATA, "title"),
    no("insert", put(FIXED, row(small="x")), 1804, BAD_DATA, "expected=Int8", "actual=x"),
    no("insert", put(FIXED, row(small=128)), 1804, BAD_DATA, "expected=Int8"),
    no("insert", put(FIXED, row(flag="maybe")), 1804, BAD_DATA, "expected=Bool", "actual=maybe"),
    no("insert", put(FIXED, row(title="far too long")), 1100, "exceeds max length", "title"),
    no("insert", put(FIXED, row(tags=[1, 2, 3])), 1100, "exceeds max capacity"),
    no("insert", put(FIXED, row(tags=["x"])), 1804, BAD_DATA, "Array"),
    no("insert", put(FIXED, row(tags=7)), 1804, BAD_DATA, "Array"),
    # Questions that make no sense.
    no("query", of(filter="id >"), 1100, "cannot parse expression"),
    no("query", of(filter="中文"), 1100, "cannot parse expression"),
    no("query", of(filter="12-s"), 1100, "cannot parse expression"),
    no("query", of(FIXED, filter="nothing > 0"), 1100, "cannot parse expression", "nothing"),
    no("query", of(FIXED, filter='small == "x"'), 1100, "cannot parse expression"),
    no("query", of(FIXED, filter="small > 0", outputFields=["nothing"]), 65535, "nothing", "not exist"),
    no("query", of(filter="id > 0", limit=16385), 65535, "16384"),
    no("query", of(filter="id > 0", limit=10, offset=16380), 65535, "16384"),
    no("query", of(filter="id > 0", limit=-1), 65535, "limit"),
    no("query", of(filter="id > 0", offset=-1), 65535, "offset"),
    no("query", of(EMPTY, filter="id > 0"), 101, "not loaded"),
    no("get", of(), 1802, REQUIRED, "id"),
    no("get", of(id="abc"), 1806, "please check the primary key and its' type", "abc"),
    no("delete", of(filter="id >"), 1100, "cannot parse expression"),
]  # fmt: skip

V1 = [
    no("collections/create", {"collectionName": "wrong"}, 1802, REQUIRED, "collectionName", "dimension"),
    no("collections/create", {"dimension": 4}, 1802, REQUIRED, "collectionName"),
    no("collections/create", {"collectionName": " ", "dimension": 4}, 1100, "collection name"),
    no("collections/create", {"collectionName": "a b", "dimension": 4}, 1100, "Invalid collection name: a b"),
    no("collections/create", {"collectionName": "a/b", "dimension": 4}, 1100, "Invalid collection name: a/b"),
    no("collections/create", {"collectionName": LONG_NAME, "dimension": 4}, 1100, "Invalid collection name"),
    no("collections/create", {"collectionName": "wrong", "dimension": -4}, 1100, "invalid dimension: -4"),
    no(
        "collections/create",
        {"collectionName": "wrong", "dimension": 32769},
        1100,
        "invalid dimension: 32769",
    ),
    no("collections/create", {"collectionName": "wrong", "dimension": "4"}, 1801, "dimension"),
    no("collections/create", {"collectionName": "wrong", "dimension": 4, "metricType": "X"}, 1100, "X"),
    no("collections/create", {"collectionName": MADE, "dimension": 8}, 1100, MADE),
    no("collections/drop", {}, 1802, REQUIRED, "collectionName"),
    no("collections/drop", of("nobody"), 100, NOWHERE, "nobody"),
    no("query", of(), 1802, REQUIRED, "filter"),
    no("query", {"filter": "id > 0"}, 1802, REQUIRED, "collectionName"),
    no("delete", of(), 1802, REQUIRED, "[collectionName, id/filter]"),
    no("delete", of(id="abc"), 1806, "please check the primary key and its' type", "abc"),
    no("search", of(), 1802, REQUIRED, "vector"),
    no("search", of("nobody", vector=GOOD), 100, NOWHERE),
    no("search", of(vector=[1, 2]), 65535, "dim"),
    no("search", of(vector=GOOD, limit=0), 65535, "topk [0] is invalid"),
    no("search", of(vector=GOOD, limit=16385), 65535, "16384"),
    no("search", of(vector=GOOD, offset=-1), 65535, "offset"),
    no("search", of(vector=GOOD, offset=100_001), 65535, "16384"),
    no("search", of(vector=GOOD, params={"range_filter": 0.5}), 1801, JSON_ONLY, "invalid search params"),
    no("search", of(vector=GOOD, filter="id >"), 1100, "cannot parse expression"),
]

INT64, TEXT = field("id", "Int64", isPrimary=True), field("id", "VarChar", isPrimary=True)
NAMED = {"collectionName": "wrong", "dimension": 4}
V2 = [
    # What collections cannot be.
    no("collections/create", NAMED | {"collectionName": "a b"}, 1100, "Invalid collection name"),
    no("collections/create", NAMED | {"collectionName": "a\\b"}, 1100, "Invalid collection name"),
    no("collections/create", NAMED | {"collectionName": "1a"}, 1100, "Invalid collection name"),
    no("collections/create", NAMED | {"collectionName": LONG_NAME}, 1100, "Invalid collection name"),
    no("collections/create", {"collectionName": "wrong"}, 1100, "dimension is required"),
    no("collections/create", {"dimension": 4}, 1802, REQUIRED, "collectionName"),
    no("collections/create", NAMED | {"dimension": 0}, 1100, "dimension"),
    no("collections/create", NAMED | {"dimension": 32769}, 1100, "invalid dimension: 32769"),
    no("collections/create", NAMED | {"idType": "Float"}, 1100, "idType can only be [Int64, VarChar]"),
    no("collections/create", NAMED | {"metricType": "JACCARD"}, 1100, "JACCARD"),
    no("collections/create", NAMED | {"dbName": "nowhere"}, 800, *NOT_HERE),
    no("collections/create", NAMED | {"collectionName": QUICK, "dimension": 8}, 1100, QUICK),
    no("collections/create", schema(INT64), 1100, "vector"),
    no("collections/create", schema(VECTOR), 1100, "primary key"),
    no("collections/create", schema(INT64, INT64 | {"fieldName": "other"}, VECTOR), 1100, "more than one primary"),
    no("collections/create", schema(INT64, field("id", "Bool"), VECTOR), 1100, "duplicated field name"),
    no("collections/create", schema(field("id", "Bool", isPrimary=True), VECTOR), 1100, "Int64 or VarChar"),
    no("collections/create", schema(TEXT, VECTOR), 1100, "max_length"),
    no("collections/create", schema(INT64, field("t", "VARCHAR"), VECTOR), 1100, "VARCHAR", "case sensitive"),
    no("collections/create", schema(INT64, field("t", "VarChar"), VECTOR), 1100, "max_length"),
    no("collections/create", schema(INT64, field("a", "Array", elementDataType="Int64"), VECTOR), 1100, "max_capacity"),
    no("collections/create", schema(INT64, VECTOR, enableDynamicField=1), 1801, JSON_ONLY, "enableDynamicField"),
    no("collections/create", schema(INT64, VECTOR | {"nullable": True}), 1100, "vector type not support null"),
    no("collections/create", schema(INT64, field("vector", "FloatVector")), 1100, "dimension is not defined"),
    no("collections/create", schema(INT64, VECTOR, VECTOR | {"fieldName": "v2"}), 1100, "FloatVector", "v2"),
    no("collections/create", schema(INT64, field("v", "BinaryVector", elementTypeParams={"dim": 8})), 1100, "BinaryVector"),
    no("collections/create", schema(INT64 | {"defaultValue": 1}, VECTOR), 1100, "primary field not support default_value"),
    no("collections/create", schema(INT64, field("j", "JSON", defaultValue={"a": 1}), VECTOR), 1100, "convert defaultValue fail"),
    no("collections/create", schema(INT64, field("n", "Int64", defaultValue="x"), VECTOR), 1100, "convert defaultValue fail"),
    no("collections/create", schema(INT64, field("n", "Int64", isPartitionKey=True, nullable=True), VECTOR), 1100, "partition key field not support nullable"),
    no("collections/create", schema(INT64, field("a b", "Int64"), VECTOR), 1701, "Invalid field name"),
    no("collections/create", schema(INT64, field("like", "Int64"), VECTOR), 1701, "like"),
    no("collections/create", schema(INT64, VECTOR, functions=[{"name": "f", "type": "BM25"}]), 1101, "function input field names", "missing parameter"),
    no("collections/create", schema(INT64, VECTOR, functions=[{"name": "f", "type": "TextEmbedding", "inputFieldNames": ["n"], "outputFieldNames": ["v"]}]), 1100, "TextEmbedding"),
    no("collections/create", schema(INT64, VECTOR) | {"indexParams": [{"fieldName": "nothing"}]}, 1802, "nothing"),
    # Nobody is there.
    no("collections/describe", of("nobody"), 100, NOWHERE, "nobody"),
    no("collections/describe", {}, 1802, REQUIRED, "collectionName"),
    no("collections/get_stats", of("nobody"), 100, NOWHERE),
    no("collections/get_load_state", of("nobody"), 100, NOWHERE),
    no("collections/load", of("nobody"), 100, NOWHERE),
    no("collections/load", of(EMPTY), 700, "index not found"),
    no("collections/rename", of("nobody", newCollectionName="new"), 100, NOWHERE),
    no("collections/rename", of(newCollectionName=FIXED), 65535, "duplicated new collection name"),
    no("collections/rename", of(newCollectionName="a b"), 1100, "Invalid collection name"),
    no("collections/list", {"dbName": "nowhere"}, 800, *NOT_HERE),
    no("collections/list", "", 1801, JSON_ONLY),
    no("entities/search", of("nobody", data=[GOOD]), 100, NOWHERE),
    no("entities/insert", put(QUICK, [ROW], partitionName="nothing"), 200, "partition not found"),
    no("entities/query", of(filter="id > 0", partitionNames=["nothing"]), 200, "partition not found"),
    no("partitions/create", of("nobody", partitionName="p"), 100, NOWHERE),
    no("partitions/create", of(partitionName="a b"), 1100, "Invalid partition name"),
    no("partitions/create", of(), 1802, REQUIRED, "partitionName"),
    no("partitions/get_stats", of(partitionName="nothing"), 200, "partition not found"),
    no("indexes/describe", of(indexName="nothing"), 700, "index not found"),
    no("indexes/create", of(indexParams=[{"fieldName": "vector", "metricType": "IP"}]), 65535, "at most one distinct index"),
    no("indexes/drop", of(indexName="vector"), 1100, "loaded"),
    no("aliases/describe", {"aliasName": "nothing"}, 1600, "alias not found"),
    no("aliases/create", of("nobody", aliasName="a"), 100, NOWHERE),
    no("aliases/create", of(aliasName=FIXED), 1601, FIXED),
    no("aliases/create", of(), 1802, REQUIRED, "aliasName"),
    no("aliases/alter", of(aliasName="nothing"), 1600, "alias not found"),
    no("databases/create", {"dbName": ""}, 1802, REQUIRED, "dbName"),
    no("databases/create", {"dbName": "a b"}, 802, "database name"),
    no("databases/create", {"dbName": "default"}, 65535, "default"),
    no("databases/describe", {"dbName": "nowhere"}, 800, *NOT_HERE),
    no("databases/alter", {"dbName": "nowhere", "properties": {"a": 1}}, 800, *NOT_HERE),
    no("databases/drop", {"dbName": "default"}, 1100, "can not drop default database"),
    # Questions that make no sense.
    no("entities/delete", of(), 1802, REQUIRED, "[collectionName, filter]"),
    no("entities/query", of(filter="", limit=0), 1100, "limit"),
    no("entities/query", of(filter="id > 0", consistencyLevel="Weak"), 1100, "Weak"),
    no("entities/query", of(filter="id > {x}"), 1100, "x"),
    no("entities/search", of(), 1802, "data"),
    no("entities/search", of(data=[]), 1802, "data"),
    no("entities/search", of(data=[[1, 2]]), 1801, "dim"),
    no("entities/search", of(data=["x"]), 1801),
    no("entities/search", of(data=GOOD), 1801),
    no("entities/search", of(data=[GOOD], annsField="nothing"), 1801, "nothing"),
    no("entities/search", of(data=[GOOD], limit=16385), 65535, "16384"),
    no("entities/search", of(data=[GOOD], limit=-1), 65535, "topk [-1] is invalid"),
    no("entities/search", of(data=[GOOD], offset=-1), 65535, "offset"),
    no("entities/search", of(data=[GOOD], filter="id >"), 1100, "cannot parse expression"),
    no("entities/search", of(data=[GOOD], searchParams={"metricType": "IP"}), 1100, "metric type not match"),
    no("entities/search", of(data=[GOOD], ids=[1]), 1100, "mutually exclusive"),
    no("entities/search", of(ids=[12345]), 1100, "12345"),
    no("entities/search", of(EMPTY, data=[GOOD]), 101, "not loaded"),
    no("entities/hybrid_search", of(search=[]), 65535, "search"),
    no("entities/hybrid_search", of(search=[{"data": [GOOD]}], rerank={"strategy": "none"}), 65535, "none"),
    no("entities/upsert", put(QUICK, [{"id": 5}], partialUpdate=True), 1100, "field"),
    no("entities/upsert", put(QUICK, [{"vector": GOOD}], partialUpdate=True), 1100, "must assign pk when upsert"),
    no("entities/upsert", put(QUICK, [ROW], partialUpdate="yes"), 1801, "partialUpdate"),
    no("entities/upsert", put(QUICK, [ROW], fieldOps=[{"fieldName": "a", "op": "ARRAY_APPEND"}]), 1100, "ARRAY_APPEND"),
]  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        v1, v2 = Milvus(service.apis[0], 1), Milvus(service.apis[0], 2)
        v2.data("collections/create", {"collectionName": QUICK, "dimension": 4})
        index = [{"fieldName": "vector", "indexName": "vector", "metricType": "L2"}]
        for name, indexes in ((FIXED, index), (EMPTY, [])):
            asked: dict[str, Any] = {
                "collectionName": name,
                "schema": {"fields": FIELDS},
                "indexParams": indexes,
            }
            v2.data("collections/create", asked)
        asked = {"collectionName": TEXTS, "dimension": 4, "idType": "VarChar", "params": {"max_length": 16}}
        v2.data("collections/create", asked)
        v1.data("collections/create", {"collectionName": MADE, "dimension": 4})
        v2.write("entities/insert", put(QUICK, [ROW | {"id": 99}]))
        yield service


@pytest.fixture(scope="module")
def before(service: Service) -> list[Any]:
    """What there is before anything was refused."""
    return all_there_is(service)


def all_there_is(service: Service) -> list[Any]:
    """Collections, databases, what is remembered of each, and how often each was written to."""
    v2 = Milvus(service.apis[0], 2)
    names = v2.data("collections/list")
    described = [v2.data("collections/describe", of(name)) for name in names]
    logs = sorted(path.name for path in service.data.glob("store/index/*/log/*"))
    return [names, v2.data("databases/list"), v2.data("aliases/list"), described, logs]


@pytest.mark.parametrize("case", ROWS + V1, ids=str)
def test_v1_refuses(service: Service, before: list[Any], case: Refusal) -> None:
    check(Milvus(service.apis[0], 1), case.command, case)


@pytest.mark.parametrize("case", ROWS + V2, ids=str)
def test_v2_refuses(service: Service, before: list[Any], case: Refusal) -> None:
    command = case.command if "/" in case.command else f"entities/{case.command}"
    check(Milvus(service.apis[0], 2), command, case)


def check(door: Milvus, command: str, case: Refusal) -> None:
    code, says = door.refusal(command, case.body)
    assert (code, [word for word in case.words if word not in says]) == (case.code, []), says


def test_v1_describes_nobody(service: Service) -> None:
    v1 = Milvus(service.apis[0], 1)
    for query, code, words in (
        ("?collectionName=nobody", 100, NOWHERE),
        ("", 1802, REQUIRED),
        (f"?collectionName={QUICK}&dbName=nowhere", 800, "nowhere"),
    ):
        answer = v1.look(f"collections/describe{query}")
        assert answer.status == 200 and answer.json["code"] == code and words in answer.json["message"]
    assert v1.look("collections?dbName=nowhere").json["code"] == 800


def test_nothing_was_changed_by_all_that(service: Service, before: list[Any]) -> None:
    assert all_there_is(service) == before
