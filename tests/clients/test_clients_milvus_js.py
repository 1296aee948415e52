"""Milvus's own JavaScript SDK, unchanged: its HttpClient of the newest version, which speaks v2, and of 2.3.5, the last that spoke v1.

What its own suite expects (``test/http`` in its repository) is expected here. It asks for 64-bit integers as strings, and says nothing of
what its answers' headers hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.javascript import Home, Sdk, Thrown
from tests.plain_full_text import FUNCTION, TEXT_FIELDS, bm25_scores
from tests.service import TOKEN, Service, running

NAMES = itertools.count()
SUCCESS = {1: 200, 2: 0}


@dataclass(frozen=True, slots=True)
class Js:
    """The methods of one version's HttpClient."""

    sdk: Sdk
    service: Service
    version: int

    def answer(self, method: str, *args: Any, **config: Any) -> dict[str, Any]:
        """Call a method; returns all that was answered."""
        told = {"endpoint": self.service.apis[0].url, "token": TOKEN} | config
        returned = self.sdk.call(method, *args, version=self.version, config=told)
        assert isinstance(returned, dict)
        return returned

    def __call__(self, method: str, *args: Any, **config: Any) -> Any:
        """Call a method that must succeed; returns the data."""
        answer = self.answer(method, *args, **config)
        assert answer["code"] == SUCCESS[self.version], answer
        return answer.get("data")

    def refused(self, method: str, *args: Any, **config: Any) -> int:
        """Call a method that must be refused; returns the code."""
        answer = self.answer(method, *args, **config)
        assert answer["message"] and answer["code"] != SUCCESS[self.version]
        return int(answer["code"])

    def thrown(self, method: str, *args: Any, **config: Any) -> Thrown:
        """Call a method that must throw; returns what it threw."""
        told = {"endpoint": self.service.apis[0].url, "token": TOKEN} | config
        thrown = self.sdk.ask(method, *args, version=self.version, config=told)
        assert isinstance(thrown, Thrown), thrown
        return thrown

    def visible(self, collection: str) -> None:
        """Wait until the last write is visible."""
        mutation = self.sdk.call("mutation", version=self.version, config={})
        self.service.apis[0].index(collection).visible(mutation)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def v1(service: Service, home: Home) -> Iterator[Js]:
    with home.sdk("milvus.mjs") as sdk:
        yield Js(sdk, service, 1)


@pytest.fixture
def v2(service: Service, home: Home) -> Iterator[Js]:
    with home.sdk("milvus.mjs") as sdk:
        yield Js(sdk, service, 2)


def make(v2: Js, **more: Any) -> str:
    """A new collection; returns its name."""
    name = f"my_collection_{next(NAMES)}"
    asked = {"collectionName": name, "dimension": 4, "metricType": "L2", "consistencyLevel": "Strong"}
    v2("createCollection", asked | more)
    return name


def data(count: int) -> list[dict[str, Any]]:
    """Rows, each in a direction of its own, with fields that no schema knows."""
    return [
        {"id": n, "vector": [n, 0, 0, 1], "varChar": f"text {n}", "int64": n, "bool": n % 2 == 0}
        for n in range(1, count + 1)
    ]


def test_from_create_to_drop(v2: Js) -> None:
    name = make(v2, primaryFieldName="id", vectorFieldName="vector")
    named = {"collectionName": name}
    told = v2("describeCollection", named)
    assert told["collectionName"] == name and told["shardsNum"] == 1 and told["enableDynamicField"] is True
    assert len(told["fields"]) == 2
    (index,) = told["indexes"]
    assert (index["fieldName"], index["metricType"]) == ("vector", "L2")
    assert v2("hasCollection", named) == {"has": True} and name in v2("listCollections")

    assert v2("insert", named | {"data": data(100)})["insertCount"] == 100
    asked = {"filter": "id > 0", "limit": 1, "outputFields": ["*"], "consistencyLevel": "Strong"}
    (target,) = v2("query", named | asked)
    upserted = v2("upsert", named | {"data": [target | {"int64": 0}]})
    assert upserted == {"upsertCount": 1, "upsertIds": [target["id"]]} and isinstance(target["id"], str)
    (again,) = v2("get", named | {"id": [target["id"]], "consistencyLevel": "Strong"})
    assert again == target | {"int64": 0}

    found = v2("query", named | {"filter": "id > 0", "outputFields": ["id"], "consistencyLevel": "Strong"})
    ids = [row["id"] for row in found]
    assert len(set(ids)) == 100
    got = v2("get", named | {"id": ids, "outputFields": ["id", "vector"]})
    assert {(row["id"], tuple(row["vector"])) for row in got} == {
        (str(n), (n, 0, 0, 1)) for n in range(1, 101)
    }
    assert v2("delete", named | {"filter": f"id in [{','.join(ids[:40])}]"})["deleteCount"] == 40
    v2.visible(name)
    assert v2("getCollectionStatistics", named) == {"rowCount": 60}
    state = v2("getCollectionLoadState", named)
    assert (state["loadState"], state["loadProgress"]) == ("LoadStateLoaded", 100)
    assert v2("flushCollection", named) is not None

    new = f"{name}_new"
    v2("renameCollection", named | {"newCollectionName": new})
    assert v2("describeCollection", {"collectionName": new})["collectionName"] == new
    v2("dropCollection", {"collectionName": new})
    assert v2("hasCollection", {"collectionName": new}) == {"has": False}


def test_searches(v2: Js) -> None:
    name = make(v2)
    v2("insert", {"collectionName": name, "data": data(20)})
    asked = {"collectionName": name, "outputFields": ["*"], "limit": 5, "consistencyLevel": "Strong"}
    # The client makes as many lists as there were vectors, by what "topks" says, and none of one.
    one = v2("search", asked | {"data": [[7, 0, 0, 1]]})
    assert len(one) == 5
    assert [hit["distance"] for hit in one] == [0, 1, 1, 4, 4]
    assert one[0] == data(7)[-1] | {"id": "7", "distance": 0}
    several = v2("search", asked | {"data": [[1, 0, 0, 1], [20, 0, 0, 1]], "filter": "bool == true"})
    assert [[hit["id"] for hit in hits] for hits in several] == [
        ["2", "4", "6", "8", "10"],
        ["20", "18", "16", "14", "12"],
    ]
    hybrid = v2(
        "hybridSearch",
        {
            "collectionName": name,
            "outputFields": ["*"],
            "rerank": {"strategy": "rrf", "params": {"k": 5}},
            "search": [{"data": [[3, 0, 0, 1]], "annsField": "vector", "limit": 5}],
        },
    )
    assert len(hybrid) == 5 and hybrid[0]["id"] == "3" and isinstance(hybrid[0]["distance"], float)


def test_a_schema_and_a_partial_upsert(v2: Js) -> None:
    name = f"custom_{next(NAMES)}"
    fields = [
        {"fieldName": "my_id", "dataType": "Int64", "isPrimary": True},
        {"fieldName": "n", "dataType": "Int32"},
        {"fieldName": "title", "dataType": "VarChar", "nullable": True, "elementTypeParams": {"max_length": 16}},
        {"fieldName": "my_vector", "dataType": "FloatVector", "elementTypeParams": {"dim": 5}},
    ]  # fmt: skip
    schema = {"autoId": False, "enabledDynamicField": False, "fields": fields}
    v2("createCollection", {"collectionName": name, "schema": schema})
    named = {"collectionName": name}
    index = {"metricType": "L2", "fieldName": "my_vector", "indexName": "my_vector", "params": {"index_type": "IVF_FLAT", "nlist": 128}}  # fmt: skip
    v2("createIndex", named | {"indexParams": [index]})
    assert v2("listIndexes", named) == ["my_vector"]
    (told,) = v2("describeIndex", named | {"indexName": "my_vector"})
    assert (told["indexName"], told["indexType"]) == ("my_vector", "IVF_FLAT")
    v2("loadCollection", named)

    rows = [{"my_id": n, "n": n, "title": f"t{n}", "my_vector": [n] * 5} for n in (1, 2)]
    assert v2("insert", named | {"data": rows})["insertIds"] == ["1", "2"]
    changed = [{"my_id": "1", "n": 10}, {"my_id": "2", "n": 20}]
    assert v2("upsert", named | {"data": changed, "partialUpdate": True})["upsertIds"] == ["1", "2"]
    found = v2("query", named | {"filter": "n >= 10", "consistencyLevel": "Strong"})
    assert {row["my_id"]: row for row in found} == {
        str(row["my_id"]): row | {"my_id": str(row["my_id"]), "n": row["n"] * 10} for row in rows
    }
    assert v2.refused("insert", named | {"data": [rows[0] | {"unknown": 1}]}) == 1804

    v2("releaseCollection", named)
    v2("dropIndex", named | {"indexName": "my_vector"})
    assert v2("listIndexes", named) == []
    v2("dropCollection", named)


def test_full_text_search(v2: Js) -> None:
    """The SDK's types know of no functions of a schema; its client sends what it is given."""
    name = f"texts_{next(NAMES)}"
    named = {"collectionName": name}
    fields = [
        {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
        {"fieldName": "dense", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
        *TEXT_FIELDS,
    ]
    indexes = [
        {"fieldName": "dense", "indexName": "dense", "metricType": "COSINE"},
        {"fieldName": "sparse", "indexName": "sparse", "metricType": "BM25"},
    ]
    schema = {"autoID": False, "enabledDynamicField": False, "fields": fields, "functions": [FUNCTION]}
    v2("createCollection", named | {"schema": schema, "indexParams": indexes})
    (function,) = v2("describeCollection", named)["functions"]
    assert (function["name"], function["inputFieldNames"]) == ("bm25", ["text"])

    texts = {1: "apple pie", 2: "an apple a day", 3: "pie chart"}
    rows = [{"id": id, "text": text, "dense": [1, id]} for id, text in texts.items()]
    assert v2("insert", named | {"data": rows})["insertIds"] == ["1", "2", "3"]
    asked = named | {"annsField": "sparse", "outputFields": ["*"], "limit": 10, "consistencyLevel": "Strong"}
    hits = v2("search", asked | {"data": ["apple"], "searchParams": {"drop_ratio_search": 0.2}})
    scores = {str(id): score for id, score in bm25_scores("apple", texts).items()}
    assert [hit["id"] for hit in hits] == ["1", "2"]
    assert {hit["id"]: hit["distance"] for hit in hits} == pytest.approx(scores, rel=1e-5)
    assert hits[0].keys() == {"id", "text", "dense", "distance"}
    # As many for each: the client tells them apart as if it were always so.
    several = v2("search", asked | {"data": ["chart pie", "apple"]})
    assert [[hit["id"] for hit in found] for found in several] == [["3", "1"], ["1", "2"]]
    parts = [
        {"data": [[1, 3]], "annsField": "dense", "limit": 2},
        {"data": ["day"], "annsField": "sparse", "limit": 2},
    ]
    both = named | {"search": parts, "rerank": {"strategy": "rrf", "params": {"k": 60}}, "limit": 3}
    assert {hit["id"] for hit in v2("hybridSearch", both)} == {"2", "3"}

    v2("upsert", named | {"data": [{"id": "2", "text": "a pear"}], "partialUpdate": True})
    assert [hit["id"] for hit in v2("search", asked | {"data": ["apple"]})] == ["1"]
    assert v2.refused("search", asked | {"data": [[1, 0]]}) == 1100
    assert v2.refused("query", named | {"filter": "id > 0", "outputFields": ["sparse"]}) != 0
    v2("dropCollection", named)


def test_what_a_collection_and_its_index_are_told(v2: Js) -> None:
    """Fields that are added, properties that come and go, compactions: as in the suite of the SDK."""
    name = make(v2)
    named = {"collectionName": name}
    added = {"fieldName": "new_field", "dataType": "VarChar", "nullable": True, "defaultValue": "default_value", "elementTypeParams": {"max_length": 255}}  # fmt: skip
    v2("addCollectionField", named | {"schema": added})
    assert len(v2("describeCollection", named)["fields"]) == 3
    v2(
        "alterCollectionFieldProperties",
        named | {"fieldName": "new_field", "fieldParams": {"max_length": 100}},
    )
    for method, what in (
        ("alterCollectionProperties", {"properties": {"collection.ttl.seconds": 3600}}),
        ("dropCollectionProperties", {"propertyKeys": ["collection.ttl.seconds"]}),
        ("alterIndexProperties", {"indexName": "vector", "properties": {"mmap.enabled": True}}),
        ("dropIndexProperties", {"indexName": "vector", "propertyKeys": ["mmap.enabled"]}),
    ):
        assert v2.answer(method, named | what)["code"] in (0, 104), method
    compaction = v2("compactCollection", named)["compactionID"]
    assert v2("getCompactionState", named | {"compactionID": compaction})["state"] is not None
    assert v2.answer("refreshLoad", named)["code"] in (0, 65535)


def test_aliases(v2: Js) -> None:
    first, second = make(v2), make(v2)
    alias = {"aliasName": f"{first}_alias"}
    v2("createAlias", alias | {"collectionName": first})
    assert alias["aliasName"] in v2("listAliases")
    assert v2("describeAlias", alias)["collectionName"] == first
    v2("insert", {"collectionName": alias["aliasName"], "data": data(3)})
    assert len(v2("query", {"collectionName": first, "filter": "id > 0", "consistencyLevel": "Strong"})) == 3
    v2("alterAlias", alias | {"collectionName": second})
    assert v2("describeAlias", alias)["collectionName"] == second
    v2("dropAlias", alias)
    assert alias["aliasName"] not in v2("listAliases")


def test_partitions(v2: Js) -> None:
    named = {"collectionName": make(v2)}
    part, parts = named | {"partitionName": "my_partition"}, named | {"partitionNames": ["my_partition"]}
    assert v2("listPartitions", named) == ["_default"]
    v2("createPartition", part)
    v2("loadPartitions", parts)
    assert v2("hasPartition", part) == {"has": True}
    assert v2("getPartitionStatistics", part) == {"rowCount": 0}
    v2("insert", part | {"data": data(2)})
    asked = {"filter": "id > 0", "consistencyLevel": "Strong"}
    assert len(v2("query", parts | asked)) == 2
    assert v2("getPartitionStatistics", part) == {"rowCount": 2}
    v2("releasePartitions", parts)
    v2("dropPartition", part)
    assert v2("hasPartition", part) == {"has": False}


def test_databases(v2: Js) -> None:
    database = {"dbName": "test_http_database"}
    v2("createDatabase", database)
    assert database["dbName"] in v2("listDatabases")
    assert v2("describeDatabase", database)["dbName"] == database["dbName"]
    v2("alterDatabaseProperties", database | {"properties": {"database.replica.number": 1}})
    told = v2("describeDatabase", database)["properties"]
    assert {"key": "database.replica.number", "value": "1"} in told
    v2("dropDatabaseProperties", database | {"propertyKeys": ["database.replica.number"]})
    # The client's own database is in each of its requests.
    v2("createCollection", {"collectionName": "there", "dimension": 4}, database=database["dbName"])
    assert v2("listCollections", {}, database=database["dbName"]) == ["there"]
    v2("dropCollection", {"collectionName": "there"}, database=database["dbName"])
    v2("dropDatabase", database)
    assert database["dbName"] not in v2("listDatabases")


def test_mistakes_of_ones_own(v2: Js) -> None:
    name = make(v2)
    assert v2.refused("query", {"collectionName": "nobody", "filter": "id > 0"}) == 100
    assert v2.refused("insert", {"collectionName": name, "data": [{"id": 1, "vector": [1, 2]}]}) == 1804
    wrong = v2.thrown("listCollections", token="wrong")
    assert (wrong.name, wrong.status) == ("HttpError", 401) and "1800" in wrong.message
    assert isinstance(v2("listCollections", token=None, username="root", password=TOKEN), list)
    lost = v2.thrown("listCollections", baseURL=f"{v2.service.apis[0].url}/v1/nonexistent")
    assert (lost.name, lost.status) == ("HttpError", 404) and "HTTP 404" in lost.message


# The last that spoke v1.


def test_v1_from_create_to_drop(v1: Js) -> None:
    name = f"old_collection_{next(NAMES)}"
    named = {"collectionName": name}
    v1("createCollection", named | {"dimension": 4, "metricType": "L2"})
    assert name in v1("listCollections")
    told = v1("describeCollection", named)
    assert (told["collectionName"], told["shardsNum"]) == (name, 1)
    assert len(told["fields"]) == 2
    assert told["indexes"][0]["fieldName"] == "vector" and told["indexes"][0]["metricType"] == "L2"

    rows = [{key: row[key] for key in row if key != "id"} for row in data(10)]
    inserted = v1("insert", named | {"data": rows})
    # Numbers, of which JavaScript has lost the last digits by now.
    assert inserted["insertCount"] == 10 and len(inserted["insertIds"]) == 10
    v1.visible(name)
    found = v1("query", named | {"filter": "int64 > 0", "outputFields": ["int64", "varChar"]})
    assert sorted(row["int64"] for row in found) == list(range(1, 11))
    hits = v1("search", named | {"vector": [4, 0, 0, 1], "outputFields": ["int64"], "limit": 3})
    assert hits[0]["int64"] == 4 and [hit["distance"] for hit in hits] == [0, 1, 1]

    # Its upsert posts to insert, so that these are further rows, and Milvus has no such thing as its get, which is a GET: the answer
    # is no JSON.
    more = v1("upsert", named | {"data": rows[0]})
    assert more["insertCount"] == 1
    v1.visible(name)
    assert len(v1("query", named | {"filter": "int64 == 1"})) == 2
    lost = v1.thrown("get", named | {"id": [1]})
    assert lost.name == "SyntaxError"

    v1("delete", named | {"filter": "int64 > 3"})
    v1.visible(name)
    left = v1("query", named | {"filter": "int64 > 0"})
    assert sorted(row["int64"] for row in left) == [1, 1, 2, 3]
    v1("dropCollection", named)
    assert name not in v1("listCollections")
    assert v1.refused("describeCollection", named) == 100


def test_v1_and_who_may(v1: Js) -> None:
    assert v1.refused("listCollections", token="wrong") == 1800
    assert isinstance(v1("listCollections", token=None, username="root", password=TOKEN), list)
