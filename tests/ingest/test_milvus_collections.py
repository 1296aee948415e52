"""Collections through the Milvus door: made, shown, listed, loaded, renamed, emptied and dropped, in both versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.milvus_house import MilvusHouse, Row, milvus_house
from upwell.catalog.names import NewIndex
from upwell.changeset import KeyScope
from upwell.schema import INT64_SCHEMA, RowSchema
from upwell.shard.metric import Metric

BOOKS: list[Row] = [
    {"fieldName": "book_id", "dataType": "Int64", "isPrimary": True, "description": "which"},
    {"fieldName": "words", "dataType": "Int64", "elementTypeParams": {}, "defaultValue": 100},
    {"fieldName": "about", "dataType": "VarChar", "elementTypeParams": {"max_length": "256"}, "nullable": True},
    {"fieldName": "tags", "dataType": "Array", "elementDataType": "Int64", "elementTypeParams": {"max_capacity": 8}},
    {"fieldName": "intro", "dataType": "FloatVector", "elementTypeParams": {"dim": "4"}},
]  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


async def described(house: MilvusHouse, name: str = "c", **more: Any) -> Row:
    shown: Row = await house.data("collections/describe", {"collectionName": name, **more})
    return shown


async def test_a_quick_collection_is_what_its_few_words_imply(house: MilvusHouse) -> None:
    index = await house.make("c", 4)
    assert (index.record.dimensions, index.record.metric) == (4, Metric.COSINE)
    assert index.record.key_scope is KeyScope.INDEX
    answer = await house.call(2, "collections/describe", {"collectionName": "c"})
    shown = answer["data"]
    assert (answer["code"], answer["message"]) == (0, "")
    assert isinstance(shown.pop("collectionID"), int)
    fields = [
        {
            "name": "id", "type": "Int64", "primaryKey": True, "autoId": False, "partitionKey": False,
            "clusteringKey": False, "nullable": False, "description": "", "id": 100,
        },
        {
            "name": "vector", "type": "FloatVector", "primaryKey": False, "autoId": False, "partitionKey": False,
            "clusteringKey": False, "nullable": False, "description": "", "id": 101,
            "params": [{"key": "dim", "value": "4"}],
        },
    ]  # fmt: skip
    assert shown == {
        "collectionName": "c",
        "description": "",
        "autoId": False,
        "fields": fields,
        "functions": [],
        "aliases": [],
        "indexes": [{"indexName": "vector", "fieldName": "vector", "metricType": "COSINE"}],
        "load": "LoadStateLoaded",
        "shardsNum": 1,
        "partitionsNum": 1,
        "consistencyLevel": "Bounded",
        "enableDynamicField": True,
        "properties": [],
    }


async def test_params_and_names_of_a_quick_collection_are_as_asked(house: MilvusHouse) -> None:
    body = {
        "collectionName": "c", "dimension": 2, "metricType": "L2", "idType": "VarChar", "primaryFieldName": "url",
        "vectorFieldName": "emb", "description": "pages", "autoID": True,
        "params": {
            "max_length": 64, "enableDynamicField": "False", "shardsNum": "2", "consistencyLevel": "Strong", "ttlSeconds": 360,
        },
    }  # fmt: skip
    await house.data("collections/create", body)
    shown = await described(house)
    assert [field["name"] for field in shown["fields"]] == ["url", "emb"]
    assert shown["fields"][0]["type"] == "VarChar"
    assert shown["fields"][0]["params"] == [{"key": "max_length", "value": "64"}]
    assert (shown["autoId"], shown["fields"][0]["autoId"]) == (True, True)
    assert (shown["shardsNum"], shown["consistencyLevel"], shown["enableDynamicField"]) == (
        2,
        "Strong",
        False,
    )
    assert shown["properties"] == [{"key": "collection.ttl.seconds", "value": "360"}]
    assert (shown["description"], shown["indexes"][0]["metricType"]) == ("pages", "L2")
    assert house.engine.find("default", "c").record.metric is Metric.EUCLIDEAN


async def test_a_whole_schema_keeps_its_order_and_is_not_loaded_without_indexes(house: MilvusHouse) -> None:
    body = {"collectionName": "c", "schema": {"autoId": False, "fields": BOOKS}}
    await house.data("collections/create", body)
    shown = await described(house)
    assert [field["name"] for field in shown["fields"]] == [field["fieldName"] for field in BOOKS]
    assert [field["id"] for field in shown["fields"]] == [100, 101, 102, 103, 104]
    _, words, about, tags, intro = shown["fields"]
    assert shown["fields"][0]["description"] == "which"
    assert words["defaultValue"] == {"Data": {"LongData": 100}}
    assert (about["nullable"], about["params"]) == (True, [{"key": "max_length", "value": "256"}])
    assert (tags["elementType"], tags["params"]) == ("Int64", [{"key": "max_capacity", "value": "8"}])
    assert intro["params"] == [{"key": "dim", "value": "4"}]
    assert (shown["indexes"], shown["load"], shown["enableDynamicField"]) == ([], "LoadStateNotLoad", False)
    assert await house.data("collections/get_load_state", {"collectionName": "c"}) == {
        "loadState": "LoadStateNotLoad"
    }


async def test_indexes_asked_for_at_once_load_it(house: MilvusHouse) -> None:
    index = await house.make_full(BOOKS, metrics={"intro": "IP"})
    assert index.record.metric is Metric.DOT_PRODUCT
    shown = await described(house)
    assert shown["indexes"] == [{"indexName": "intro", "fieldName": "intro", "metricType": "IP"}]
    assert shown["load"] == "LoadStateLoaded"


async def test_v1_makes_lists_shows_and_drops(house: MilvusHouse) -> None:
    assert await house.data("collections", version=1, method="GET") == []
    made = await house.data("collections/create", {"collectionName": "c", "dimension": 3}, version=1)
    assert made == {}
    assert await house.data("collections", version=1, method="GET") == ["c"]
    shown = await house.data("collections/describe", version=1, method="GET", query={"collectionName": "c"})
    assert shown["fields"] == [
        {
            "name": "id", "type": "Int64", "primaryKey": True, "autoId": True, "partitionKey": False,
            "clusteringKey": False, "nullable": False, "description": "",
        },
        {
            "name": "vector", "type": "FloatVector(3)", "primaryKey": False, "autoId": False, "partitionKey": False,
            "clusteringKey": False, "nullable": False, "description": "",
        },
    ]  # fmt: skip
    assert shown["indexes"] == [{"indexName": "vector_idx", "fieldName": "vector", "metricType": "L2"}]
    assert (shown["load"], shown["shardsNum"], shown["enableDynamicField"]) == ("LoadStateLoaded", 1, True)
    assert await house.data("collections/drop", {"collectionName": "c"}, version=1) == {}
    code, text = await house.error("collections/drop", {"collectionName": "c"}, version=1)
    assert (code, text) == (100, "can't find collection[database=default][collection=c]")


async def test_v1_names_what_is_missing(house: MilvusHouse) -> None:
    for body in ({"collectionName": "c"}, {"dimension": 2}, {"collectionName": "", "dimension": 2}):
        code, text = await house.error("collections/create", body, version=1)
        assert code == 1802, text
        assert text.startswith("missing required parameters, required parameters: [collectionName")
    assert (await house.error("collections/describe", version=1, method="GET"))[0] == 1802
    code, text = await house.error("collections", version=1, method="GET", query={"dbName": "nowhere"})
    assert (code, text) == (800, "database not found[database=nowhere]")


async def test_the_same_again_succeeds_and_another_is_refused(house: MilvusHouse) -> None:
    same = {"collectionName": "c", "dimension": 2, "metricType": "L2"}
    answers = await asyncio.gather(*[house.call(2, "collections/create", same) for _ in range(6)])
    assert [answer["code"] for answer in answers] == [0] * 6
    code, text = await house.error("collections/create", {**same, "dimension": 3})
    assert code == 1100
    assert text.startswith("create duplicate collection with different parameters, collection: c")
    code, text = await house.error("collections/create", {**same, "metricType": "IP"})
    assert (code, text) == (65535, "CreateIndex failed: at most one distinct index is allowed per field")
    assert (await described(house))["indexes"][0]["metricType"] == "L2"


async def test_of_different_ones_at_once_one_is_made(house: MilvusHouse) -> None:
    bodies = [{"collectionName": "c", "dimension": 2 + number} for number in range(6)]
    answers = await asyncio.gather(*[house.call(2, "collections/create", body) for body in bodies])
    assert sorted(answer["code"] for answer in answers) == [0] + [1100] * 5


async def test_a_creation_that_was_cut_short_is_completed_by_the_next(house: MilvusHouse) -> None:
    index = await house.make("c", 2, metricType="IP")
    index.notes.change(lambda _: {})
    assert (await described(house))["load"] == "LoadStateNotLoad"
    await house.make("c", 2, metricType="IP")
    shown = await described(house)
    assert (shown["load"], shown["indexes"][0]["metricType"]) == ("LoadStateLoaded", "IP")


async def test_has_list_and_drop(house: MilvusHouse) -> None:
    await house.make("b")
    await house.make("a")
    assert await house.data("collections/list", {}) == ["a", "b"]
    assert await house.data("collections/has", {"collectionName": "a"}) == {"has": True}
    await house.data("collections/drop", {"collectionName": "a"})
    await house.data("collections/drop", {"collectionName": "a"})
    assert await house.data("collections/has", {"collectionName": "a"}) == {"has": False}
    assert await house.data("collections/list", {}) == ["b"]
    code, text = await house.error("collections/describe", {"collectionName": "a"})
    assert (code, text) == (100, "can't find collection[database=default][collection=a]")
    assert (await house.error("collections/has", {"collectionName": "a", "dbName": "no"}))[0] == 800


async def test_renamed_it_keeps_all_that_is_known_of_it(house: MilvusHouse) -> None:
    await house.make("old", metricType="L2", params={"ttlSeconds": 5})
    await house.make("other")
    await house.data("aliases/create", {"collectionName": "old", "aliasName": "nick"})
    await house.data("collections/rename", {"collectionName": "old", "newCollectionName": "new"})
    assert await house.data("collections/list", {}) == ["new", "other"]
    shown = await described(house, "nick")
    assert (shown["collectionName"], shown["aliases"]) == ("new", ["nick"])
    assert (shown["indexes"][0]["metricType"], len(shown["properties"])) == ("L2", 1)
    for new, code in (("other", 65535), ("new", 65535), ("nick", 65535), ("1x", 1100)):
        error = await house.error("collections/rename", {"collectionName": "new", "newCollectionName": new})
        assert error[0] == code, new
    assert (await house.error("collections/rename", {"collectionName": "no", "newCollectionName": "x"}))[
        0
    ] == 100
    moved = {"collectionName": "new", "newCollectionName": "x", "newDbName": "elsewhere"}
    assert (await house.error("collections/rename", moved))[0] == 1100


async def test_loading_and_releasing(house: MilvusHouse) -> None:
    await house.make("c")
    about = {"collectionName": "c"}
    loaded = {"loadState": "LoadStateLoaded", "loadProgress": 100}
    assert await house.data("collections/get_load_state", about) == loaded
    await house.data("collections/release", about)
    await house.data("collections/release", about)
    assert await house.data("collections/get_load_state", about) == {"loadState": "LoadStateNotLoad"}
    code, text = await house.error("collections/refresh_load", about)
    assert (code, text) == (101, "collection not loaded[collection=c]")
    await house.data("collections/load", about)
    await house.data("collections/refresh_load", about)
    assert await house.data("collections/get_load_state", about) == loaded
    await house.data("collections/create", {"collectionName": "bare", "schema": {"fields": BOOKS}})
    assert (await house.error("collections/load", {"collectionName": "bare"}))[0] == 700


async def test_what_is_released_is_not_read(house: MilvusHouse) -> None:
    await house.make("c")
    await house.data("collections/release", {"collectionName": "c"})
    for command, body in (
        ("entities/query", {"filter": "id > 0"}),
        ("entities/get", {"id": [1]}),
        ("entities/search", {"data": [[1, 0]]}),
    ):
        code, text = await house.error(command, {"collectionName": "c", **body})
        assert (code, text) == (101, "collection not loaded[collection=c]"), command


async def test_properties_are_remembered_as_texts(house: MilvusHouse) -> None:
    await house.make("c")
    given = {"mmap.enabled": True, "collection.ttl.seconds": 3600, "x": "y"}
    await house.data("collections/alter_properties", {"collectionName": "c", "properties": given})
    shown = {one["key"]: one["value"] for one in (await described(house))["properties"]}
    assert shown == {"mmap.enabled": "true", "collection.ttl.seconds": "3600", "x": "y"}
    await house.data("collections/drop_properties", {"collectionName": "c", "propertyKeys": ["x", "no"]})
    assert len((await described(house))["properties"]) == 2


async def test_rows_are_counted_flushed_and_removed(house: MilvusHouse) -> None:
    await house.make("c")
    about = {"collectionName": "c"}
    rows = [{"id": number, "vector": [1, number]} for number in range(5)]
    await house.data("entities/insert", {**about, "data": rows})
    assert await house.data("collections/flush", about) == {}
    assert await house.data("collections/get_stats", about) == {"rowCount": 5}
    answer = await house.ask(2, "collections/truncate", about)
    assert answer.data == {}
    assert answer.headers["X-Mutation-State"] == "visible"
    assert await house.data("collections/get_stats", about) == {"rowCount": 0}
    compaction = (await house.data("collections/compact", about))["compactionID"]
    state = await house.data("collections/get_compaction_state", {"jobID": compaction})
    assert state["state"] == "Completed"


async def test_emptying_waits_no_longer_than_it_is_told_to(house: MilvusHouse) -> None:
    await house.make("c")
    house.drains.clear()
    for headers in ({"Prefer": "wait=0"}, {"Request-Timeout": "0"}):
        answer = await house.ask(2, "collections/truncate", {"collectionName": "c"}, headers=headers)
        assert answer.data == {}
        assert answer.headers["X-Mutation-State"] != "visible"
        assert answer.headers["X-Mutation-Id"]
    late = await house.error("collections/flush", {"collectionName": "c"}, headers={"Request-Timeout": "0"})
    assert late[0] == 1


async def test_a_mutation_that_fails_is_told(house: MilvusHouse) -> None:
    await house.make("c")
    house.fails = "it was broken"
    code, text = await house.error("collections/truncate", {"collectionName": "c"})
    assert code == 65535
    assert "it was broken" in text


async def test_fields_are_added_and_changed(house: MilvusHouse) -> None:
    await house.make_full(BOOKS)
    about = {"collectionName": "c"}
    new = {
        "fieldName": "more",
        "dataType": "VarChar",
        "nullable": True,
        "elementTypeParams": {"max_length": 9},
    }
    await house.data("collections/fields/add", {**about, "schema": new})
    change = {**about, "fieldName": "about", "fieldParams": {"max_length": "100"}}
    await house.data("collections/fields/alter_properties", change)
    fields = {field["name"]: field for field in (await described(house))["fields"]}
    assert list(fields) == [*(field["fieldName"] for field in BOOKS), "more"]
    assert fields["more"]["params"] == [{"key": "max_length", "value": "9"}]
    assert fields["about"]["params"] == [{"key": "max_length", "value": "100"}]
    assert (await house.error("collections/fields/add", {**about, "schema": new}))[0] == 1100
    assert (await house.error("collections/fields/add", {**about, "schema": {**new, "nullable": False}}))[
        0
    ] == 1100
    for field, params, code in (
        ("nothing", {"max_length": 1}, 1700),
        ("words", {"max_length": 1}, 1100),
        ("about", {"max_length": 0}, 1100),
        ("about", {"dim": 3}, 1100),
    ):
        body = {**about, "fieldName": field, "fieldParams": params}
        assert (await house.error("collections/fields/alter_properties", body))[0] == code, field


@pytest.mark.parametrize(("schema", "ids"), [(None, "VarChar"), (INT64_SCHEMA, "Int64")])
async def test_an_index_of_another_door_is_a_collection_too(
    house: MilvusHouse, schema: RowSchema | None, ids: str
) -> None:
    new = NewIndex(
        name="c", description="mine", dimensions=3, metric=Metric.EUCLIDEAN, shards=2, row_schema=schema
    )
    house.engine.catalog.create("default", new)
    shown = await described(house)
    assert [(field["name"], field["type"]) for field in shown["fields"]] == [
        ("id", ids),
        ("vector", "FloatVector"),
    ]
    assert (shown["load"], shown["enableDynamicField"], shown["description"]) == (
        "LoadStateLoaded",
        True,
        "mine",
    )
    assert shown["indexes"] == [{"indexName": "vector", "fieldName": "vector", "metricType": "L2"}]
    await house.data("collections/release", {"collectionName": "c"})
    assert (await described(house))["load"] == "LoadStateLoaded"
    await house.data("collections/alter_properties", {"collectionName": "c", "properties": {"a": 1}})
    assert (await described(house))["load"] == "LoadStateLoaded"
