"""Indexes, partitions, aliases and databases through the Milvus door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingest.doors.milvus import indexes, partitions
from ingest.doors.milvus.context import Collection
from tests.milvus_house import MilvusHouse, Row, milvus_house
from upwell.engine import Index
from upwell.errors import Gone
from upwell.shard.metric import Metric

FIELDS: list[Row] = [
    {"fieldName": "pk", "dataType": "Int64", "isPrimary": True},
    {"fieldName": "words", "dataType": "Int64"},
    {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
    {"fieldName": "s", "dataType": "SparseFloatVector"},
]
ABOUT: Row = {"collectionName": "c"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


async def bare(house: MilvusHouse) -> None:
    """A collection without indexes."""
    await house.data("collections/create", {**ABOUT, "schema": {"fields": FIELDS}})


def index(field: str, **more: object) -> Row:
    return {**ABOUT, "indexParams": [{"fieldName": field, **more}]}


async def test_the_same_index_asked_for_by_many_at_once_is_made_by_all_of_them(house: MilvusHouse) -> None:
    await bare(house)
    asked = index("v", metricType="L2", indexType="HNSW", params={"M": 16})
    await asyncio.gather(*(house.data("indexes/create", asked) for _ in range(10)))
    [shown] = await house.data("indexes/describe", {**ABOUT, "indexName": "v"})
    assert (shown["indexType"], shown["metricType"]) == ("HNSW", "L2")
    assert house.engine.find("default", "c").record.metric is Metric.EUCLIDEAN


async def test_of_many_who_want_different_metrics_at_once_one_gets_his(house: MilvusHouse) -> None:
    await bare(house)
    asked = [index("v", metricType=metric) for metric in ("L2", "IP", "COSINE") * 3]
    answers = await asyncio.gather(*(house.ask(2, "indexes/create", one) for one in asked))
    [shown] = await house.data("indexes/describe", {**ABOUT, "indexName": "v"})
    for one, answer in zip(asked, answers, strict=True):
        if one["indexParams"][0]["metricType"] == shown["metricType"]:
            assert answer.data == {}
        else:
            assert answer.error[0] == 65535


async def test_an_index_on_what_is_dropped_meanwhile(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bare(house)

    def dropped(*_: object) -> Index:
        house.engine.catalog.delete("default", "c")
        raise Gone("the index was deleted")

    monkeypatch.setattr(indexes, "make_indexes", dropped)
    assert (await house.error("indexes/create", index("v", metricType="L2")))[0] == 100


async def test_indexes_are_made_shown_and_dropped(house: MilvusHouse) -> None:
    await bare(house)
    assert await house.data("indexes/list", ABOUT) == []
    asked = index(
        "v", indexName="v_idx", metricType="IP", params={"index_type": "IVF_FLAT", "nlist": 128, "x": "[1"}
    )
    await house.data("indexes/create", asked)
    await house.data("indexes/create", asked)
    code, text = await house.error("collections/load", ABOUT)
    assert (code, text) == (65535, "there is no vector index on field: [s], please create index firstly")
    await house.data("indexes/create", index("s", indexType="SPARSE_INVERTED_INDEX", metricType="IP"))
    await house.data("indexes/create", index("words", indexName="w", params={"index_type": "STL_SORT"}))
    assert await house.data("indexes/list", ABOUT) == ["v_idx", "s", "w"]
    assert await house.data("indexes/describe", {**ABOUT, "indexName": "v_idx"}) == [
        {
            "indexName": "v_idx", "fieldName": "v", "indexType": "IVF_FLAT", "metricType": "IP",
            "totalRows": 0, "indexedRows": 0, "pendingRows": 0, "indexState": "Finished", "failReason": "",
            "indexParams": [
                {"key": "index_type", "value": "IVF_FLAT"}, {"key": "metric_type", "value": "IP"},
                {"key": "params", "value": '{"nlist":128,"x":"[1"}'},
            ],
        }
    ]  # fmt: skip
    [words] = await house.data("indexes/describe", {**ABOUT, "indexName": "w"})
    assert (words["indexType"], words["metricType"]) == ("STL_SORT", "")
    assert words["indexParams"] == [{"key": "index_type", "value": "STL_SORT"}]
    await house.data("collections/load", ABOUT)
    code, text = await house.error("indexes/drop", {**ABOUT, "indexName": "v_idx"})
    assert code == 1100 and text.startswith("vector index cannot be dropped on loaded collection")
    await house.data("indexes/drop", {**ABOUT, "indexName": "w"})
    await house.data("collections/release", ABOUT)
    await house.data("indexes/drop", {**ABOUT, "indexName": "v_idx"})
    await house.data("indexes/drop", {**ABOUT, "indexName": "v_idx"})
    assert await house.data("indexes/list", ABOUT) == ["s"]
    assert (await house.error("indexes/describe", {**ABOUT, "indexName": "v_idx"}))[0] == 700


async def test_with_an_index_on_one_of_two_vectors_it_is_made_and_not_loaded(house: MilvusHouse) -> None:
    params = [{"fieldName": "v", "metricType": "L2"}]
    code, text = await house.error(
        "collections/create", {**ABOUT, "schema": {"fields": FIELDS}, "indexParams": params}
    )
    assert (code, text) == (65535, "there is no vector index on field: [s], please create index firstly")
    shown = await house.data("collections/describe", ABOUT)
    assert (shown["load"], [one["indexName"] for one in shown["indexes"]]) == ("LoadStateNotLoad", ["v"])


async def test_indexes_that_cannot_be(house: MilvusHouse) -> None:
    await house.make_full(FIELDS)
    for body, code, words in (
        (index("v", indexName="v", metricType="L2"), 65535, "at most one distinct index"),
        (index("v", indexName="x", metricType="COSINE"), 65535, "at most one distinct index"),
        (
            index("v", indexName="v", metricType="COSINE", indexType="HNSW"),
            65535,
            "at most one distinct index",
        ),
        (index("words", indexName="v"), 65535, "at most one distinct index"),
        (index("v", metricType="JACCARD"), 1100, "metric type JACCARD"),
        (index("s", metricType="BM25"), 1100, "only BM25 Function output field"),
        (index("s", metricType="L2"), 1100, "only IP"),
        (index("nothing"), 1802, "hasn't defined in schema"),
        (ABOUT, 1802, "[indexParams]"),
        ({**ABOUT, "indexParams": [{}]}, 1801, "indexParams.0.fieldName"),
    ):
        got = await house.error("indexes/create", body)
        assert got[0] == code and words in got[1], (body, got)
    assert await house.data("indexes/list", ABOUT) == ["v", "s"]


async def test_of_an_empty_collection_the_metric_may_still_be_chosen(house: MilvusHouse) -> None:
    await bare(house)
    await house.data("collections/alter_properties", {**ABOUT, "properties": {"k": "v"}})
    await house.data("partitions/create", {**ABOUT, "partitionName": "p"})
    await house.data("aliases/create", {**ABOUT, "aliasName": "nick"})
    await house.data("indexes/create", index("v", metricType="L2"))
    assert house.engine.find("default", "c").record.metric is Metric.EUCLIDEAN
    shown = await house.data("collections/describe", {"collectionName": "nick"})
    assert (shown["properties"], shown["partitionsNum"]) == ([{"key": "k", "value": "v"}], 2)
    assert (shown["collectionName"], shown["aliases"]) == ("c", ["nick"])
    assert [one["name"] for one in shown["fields"]] == [one["fieldName"] for one in FIELDS]


def properties(house: MilvusHouse) -> list[tuple[str, str]]:
    """The metadata indexes that the collection has now."""
    manifest = house.engine.find("default", "c").head.refresh()
    return [(one.index.property, one.index.type) for one in manifest.metadata_indexes]


async def test_an_index_on_another_field_is_a_metadata_index_once_the_metric_is_chosen(
    house: MilvusHouse,
) -> None:
    more = [{"fieldName": "j", "dataType": "JSON"}, {"fieldName": "b", "dataType": "Bool"}]
    await house.data("collections/create", {**ABOUT, "schema": {"fields": [*FIELDS, *more]}})
    for field in ("words", "j"):
        await house.data("indexes/create", index(field))
    await house.data("indexes/create", index("v", metricType="L2"))
    await house.settle()
    assert properties(house) == [("words", "number")]
    assert await house.data("indexes/list", ABOUT) == ["words", "j", "v"]
    for _ in range(2):
        await house.data("indexes/create", index("b", indexName="flag"))
    await house.settle()
    assert properties(house) == [("words", "number"), ("b", "boolean")]
    for name in ("words", "j"):
        await house.data("indexes/drop", {**ABOUT, "indexName": name})
    await house.settle()
    assert properties(house) == [("b", "boolean")]


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "waiting"])
async def test_of_one_that_was_written_to_it_may_not(house: MilvusHouse, applied: bool) -> None:
    await bare(house)
    if not applied:
        house.drains.clear()
    row = {"pk": 1, "words": 2, "v": [1, 2], "s": {"1": 0.5}}
    await house.data("entities/insert", {**ABOUT, "data": [row]})
    if applied:
        await house.settle()
    code, text = await house.error("indexes/create", index("v", metricType="L2"))
    assert code == 1100 and "compared by COSINE" in text
    await house.data("indexes/create", index("v", metricType="COSINE"))
    house.drains.set()
    await house.settle()
    assert await house.data("collections/get_stats", ABOUT) == {"rowCount": 1}
    [shown] = await house.data("indexes/describe", {**ABOUT, "indexName": "v"})
    assert (shown["totalRows"], shown["indexedRows"], shown["pendingRows"]) == (1, 1, 0)


async def test_parameters_of_an_index_change(house: MilvusHouse) -> None:
    await house.make("c")
    about = {**ABOUT, "indexName": "vector"}
    await house.data("indexes/alter_properties", {**about, "properties": {"mmap.enabled": True}})
    [shown] = await house.data("indexes/describe", about)
    assert shown["indexParams"][2:] == [{"key": "mmap.enabled", "value": "true"}]
    await house.make("c")
    await house.data("indexes/drop_properties", {**about, "propertyKeys": ["mmap.enabled"]})
    assert (await house.data("indexes/describe", about))[0]["indexParams"][2:] == []
    assert (await house.error("indexes/alter_properties", {**ABOUT, "indexName": "no"}))[0] == 700


@pytest.mark.parametrize(
    ("command", "body", "says"),
    [
        ("alter_properties", {"properties": {"nlist": 3}}, "nlist is not a configable index property"),
        ("alter_properties", {"properties": {"mmap.enabled": "sure"}}, "invalid mmap.enabled value: sure"),
        ("drop_properties", {"propertyKeys": ["mmap.enabled", "x"]}, "x is not a configable index property"),
    ],
)
async def test_parameters_of_an_index_that_do_not_change(
    house: MilvusHouse, command: str, body: Row, says: str
) -> None:
    await house.make("c")
    about = {**ABOUT, "indexName": "vector"}
    await house.data("indexes/alter_properties", {**about, "properties": {"mmap.enabled": True}})
    code, text = await house.error(f"indexes/{command}", {**about, **body})
    assert code == 1100 and text.startswith(says)
    [shown] = await house.data("indexes/describe", about)
    assert shown["indexParams"][2:] == [{"key": "mmap.enabled", "value": "true"}]


async def test_partitions_come_have_rows_and_go(house: MilvusHouse) -> None:
    await house.make("c")
    one, some = {**ABOUT, "partitionName": "p"}, {**ABOUT, "partitionNames": ["p"]}
    assert await house.data("partitions/list", ABOUT) == ["_default"]
    assert await house.data("partitions/has", one) == {"has": False}
    assert await house.error("partitions/get_stats", one) == (200, "partition not found[partition=p]")
    await house.data("partitions/create", one)
    await house.data("partitions/create", one)
    assert await house.data("partitions/list", ABOUT) == ["_default", "p"]
    assert await house.data("partitions/get_stats", one) == {"rowCount": 0}
    rows = [{"id": number, "vector": [1, number]} for number in range(3)]
    await house.data("entities/insert", {**one, "data": rows})
    await house.data("entities/insert", {**ABOUT, "data": [{"id": 9, "vector": [1, 2]}]})
    await house.data("collections/flush", ABOUT)
    assert await house.data("partitions/get_stats", one) == {"rowCount": 3}
    assert await house.data("partitions/get_stats", {**ABOUT, "partitionName": "_default"}) == {"rowCount": 1}
    code, text = await house.error("partitions/drop", one)
    assert (code, text.split(":")[0]) == (
        1100, "partition cannot be dropped, partition is loaded, please release it first",
    )  # fmt: skip
    for command in ("release", "release", "load", "load", "release"):
        await house.data(f"partitions/{command}", some)
    answer = await house.ask(2, "partitions/drop", one)
    assert answer.data == {} and answer.headers["X-Mutation-State"] == "visible"
    await house.data("partitions/drop", one)
    assert await house.data("partitions/list", ABOUT) == ["_default"]
    assert await house.data("collections/get_stats", ABOUT) == {"rowCount": 1}


async def test_partitions_that_cannot_be(house: MilvusHouse) -> None:
    await house.make("c")
    for command, body, code in (
        ("create", {"partitionName": "a b"}, 1100),
        ("create", {"partitionName": " "}, 1100),
        ("create", {"partitionName": "a" * 256}, 1100),
        ("create", {}, 1802),
        ("drop", {"partitionName": "_default"}, 1100),
        ("load", {"partitionNames": ["no"]}, 200),
        ("release", {"partitionNames": ["no"]}, 200),
        ("load", {}, 1802),
    ):
        assert (await house.error(f"partitions/{command}", {**ABOUT, **body}))[0] == code, (command, body)
    keyed = [*FIELDS[:1], FIELDS[1] | {"isPartitionKey": True}, *FIELDS[2:]]
    await house.make_full(keyed, "keyed")
    body = {"collectionName": "keyed", "partitionName": "p"}
    for command in ("create", "drop"):
        assert (await house.error(f"partitions/{command}", body))[0] == 1100


async def test_only_loaded_partitions_are_read(house: MilvusHouse) -> None:
    await house.make("c")
    await house.data("collections/release", ABOUT)
    for name in ("p", "q"):
        await house.data("partitions/create", {**ABOUT, "partitionName": name})
    await house.data("partitions/load", {**ABOUT, "partitionNames": ["p"]})
    about = {**ABOUT, "filter": "id > 0"}
    assert await house.data("entities/query", {**about, "partitionNames": ["p"]}) == []
    code, text = await house.error("entities/query", {**about, "partitionNames": ["q"]})
    assert (code, text) == (201, "partition not loaded[partition=q]")
    await house.data("collections/load", ABOUT)
    assert await house.data("entities/query", {**about, "partitionNames": ["q"]}) == []


async def test_aliases(house: MilvusHouse) -> None:
    await house.make("a")
    await house.make("b")
    make = {"collectionName": "a", "aliasName": "x"}
    await house.data("aliases/create", make)
    await house.data("aliases/create", make)
    assert await house.data("aliases/list", {}) == ["x"]
    assert await house.data("aliases/list", {"collectionName": "b"}) == []
    shown = {"dbName": "default", "collectionName": "a", "aliasName": "x"}
    assert await house.data("aliases/describe", {"aliasName": "x"}) == shown
    assert await house.data("collections/has", {"collectionName": "x"}) == {"has": True}
    assert (await house.error("aliases/create", {"collectionName": "b", "aliasName": "x"}))[0] == 1602
    assert (await house.error("aliases/create", {"collectionName": "b", "aliasName": "a"}))[0] == 1601
    assert (await house.error("aliases/create", {"collectionName": "no", "aliasName": "y"}))[0] == 100
    assert (await house.error("aliases/create", {"collectionName": "b", "aliasName": "1"}))[0] == 1100
    assert (await house.error("aliases/alter", {"collectionName": "b", "aliasName": "y"}))[0] == 1600
    assert (await house.error("collections/create", {"collectionName": "x", "dimension": 2}))[0] == 65535
    assert (await house.error("collections/drop", {"collectionName": "x"}))[0] == 1100
    code, text = await house.error("collections/drop", {"collectionName": "a"})
    assert code == 65535 and "it has associated aliases [x]" in text
    await house.data("aliases/alter", {"collectionName": "b", "aliasName": "x"})
    assert (await house.data("aliases/describe", {"aliasName": "x"}))["collectionName"] == "b"
    await house.data("aliases/drop", {"aliasName": "x"})
    await house.data("aliases/drop", {"aliasName": "x"})
    code, text = await house.error("aliases/describe", {"aliasName": "x"})
    assert (code, text) == (1600, "alias not found[database=default][alias=x]")


async def test_databases(house: MilvusHouse) -> None:
    assert await house.data("databases/list", {}) == ["default"]
    await house.data("databases/create", {"dbName": "db", "properties": {"mmap.enabled": True, "n": 3}})
    assert await house.data("databases/list", {}) == ["db", "default"]
    shown = await house.data("databases/describe", {"dbName": "db"})
    assert shown["properties"] == [{"key": "mmap.enabled", "value": "true"}, {"key": "n", "value": "3"}]
    assert shown["dbName"] == "db" and isinstance(shown["dbID"], int)
    await house.data("databases/alter", {"dbName": "db", "properties": {"n": 4}})
    await house.data("databases/alter_properties", {"dbName": "db", "properties": {"o": "p"}})
    await house.data("databases/drop_properties", {"dbName": "db", "propertyKeys": ["mmap.enabled"]})
    properties = (await house.data("databases/describe", {"dbName": "db"}))["properties"]
    assert properties == [{"key": "n", "value": "4"}, {"key": "o", "value": "p"}]
    assert (await house.error("databases/create", {"dbName": "db"}))[0] == 65535
    assert (await house.error("databases/create", {}))[0] == 1802
    for name in (" ", "test db", "a/b", "a\\b", "1a"):
        assert (await house.error("databases/create", {"dbName": name}))[0] == 802, name
    for command in ("describe", "alter", "drop_properties"):
        assert (await house.error(f"databases/{command}", {"dbName": "no"}))[0] == 800, command


async def test_a_database_holds_its_collections(house: MilvusHouse) -> None:
    await house.data("databases/create", {"dbName": "db"})
    await house.make("c", dbName="db")
    await house.make("c", 3)
    assert await house.data("collections/list", {}, headers={"DB-Name": "db"}) == ["c"]
    here = await house.data("collections/describe", {"dbName": "db", **ABOUT})
    there = await house.data("collections/describe", ABOUT)
    dims = [shown["fields"][1]["params"][0]["value"] for shown in (here, there)]
    assert dims == ["2", "3"]
    assert (await house.error("databases/drop", {"dbName": "db"}))[0] == 65535
    await house.data("collections/drop", {"dbName": "db", **ABOUT})
    await house.data("databases/drop", {"dbName": "db"})
    await house.data("databases/drop", {"dbName": "db"})
    assert await house.data("databases/list", {}) == ["default"]
    assert (await house.error("databases/drop", {"dbName": "default"}))[0] == 1100
    assert await house.error("collections/list", {"dbName": "db"}) == (800, "database not found[database=db]")


async def test_partitions_that_are_declared_at_once_are_all_there(house: MilvusHouse) -> None:
    await house.make("c")
    names = [f"p{number}" for number in range(8)]
    await asyncio.gather(
        *[house.data("partitions/create", {**ABOUT, "partitionName": name}) for name in names]
    )
    assert sorted(await house.data("partitions/list", ABOUT)) == ["_default", *names]


async def test_who_names_no_partition_reads_those_that_are_not_released(house: MilvusHouse) -> None:
    await house.make_full([FIELDS[0], *FIELDS[2:]])
    for number, name in enumerate(["_default", "a", "b"]):
        row = {"pk": number, "v": [1, number], "s": {"1": 1}}
        if name != "_default":
            await house.data("partitions/create", {**ABOUT, "partitionName": name})
        await house.data("entities/insert", {**ABOUT, "data": row, "partitionName": name})
    await house.settle()

    async def read(command: str, **asked: object) -> object:
        body = {**ABOUT, "outputFields": ["pk"], **asked}
        return sorted(row.get("pk", row) for row in await house.data(f"entities/{command}", body))

    async def all_see(*expected: int) -> None:
        dense, sparse = {"data": [[1, 0]], "annsField": "v"}, {"data": [{"1": 1}], "annsField": "s"}
        both = [one | {"limit": 9} for one in (dense, sparse)]
        fused = {"strategy": "rrf", "params": {"k": 60}}
        seen = [
            await read("query", filter="pk >= 0"),
            await read("query", limit=9),
            await read("get", id=[0, 1, 2]),
            await read("search", **dense, limit=9),
            await read("search", **sparse, limit=9),
            await read("search", **dense, filter="pk >= 0", limit=9),
            await read("hybrid_search", search=both, rerank=fused, limit=9),
        ]
        assert seen == [[*expected]] * len(seen)
        for counted in ({}, {"filter": "pk >= 0"}):
            asked = {**ABOUT, "outputFields": ["count(*)"], **counted}
            assert await house.data("entities/query", asked) == [{"count(*)": len(expected)}]

    by_row = {**ABOUT, "ids": [1], "annsField": "v", "limit": 9}
    await all_see(0, 1, 2)
    assert len(await house.data("entities/search", by_row)) == 3
    await house.data("partitions/release", {**ABOUT, "partitionNames": ["a"]})
    await all_see(0, 2)
    for where in ({}, {"partitionNames": ["b"]}):
        code, says = await house.error("entities/search", by_row | where)
        assert code == 1100 and "do not exist: missing IDs = [1]" in says
    await house.data("partitions/release", {**ABOUT, "partitionNames": ["_default"]})
    await all_see(2)
    await house.data("partitions/load", {**ABOUT, "partitionNames": ["a"]})
    await all_see(1, 2)
    # With the last partition the collection is released, as in Milvus.
    await house.data("partitions/release", {**ABOUT, "partitionNames": ["a", "b"]})
    assert (await house.error("entities/query", {**ABOUT, "filter": "pk >= 0"}))[0] == 101
    state = await house.data("collections/get_load_state", ABOUT)
    assert state["loadState"] == "LoadStateNotLoad"
    await house.data("partitions/load", {**ABOUT, "partitionNames": ["b"]})
    await all_see(2)


async def test_a_partition_that_is_declared_while_others_are_loaded_is_none_of_them(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.make()
    await house.data("partitions/create", {**ABOUT, "partitionName": "a"})
    await house.data("collections/release", ABOUT)
    look = partitions.partition_names

    async def names_before_another(collection: Collection) -> list[str]:
        names = await look(collection)
        await house.data("partitions/create", {**ABOUT, "partitionName": "b"})
        return names

    monkeypatch.setattr(partitions, "partition_names", names_before_another)
    await house.data("partitions/load", {**ABOUT, "partitionNames": ["a"]})
    asked = {**ABOUT, "filter": "id > 0"}
    assert await house.data("entities/query", {**asked, "partitionNames": ["a"]}) == []
    for released in ("_default", "b"):
        assert (await house.error("entities/query", {**asked, "partitionNames": [released]}))[0] == 201
