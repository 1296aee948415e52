"""Milvus's RESTful API v2 by hand-written calls: collections with fields of every kind, what is kept of them, and all that can be asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.milvus_door import Milvus, by_id, strong
from tests.service import Service, running

NAMES = itertools.count()
FIELDS: list[dict[str, Any]] = [
    {"fieldName": "book_id", "dataType": "VarChar", "isPrimary": True, "elementTypeParams": {"max_length": "16"}},
    {"fieldName": "words", "dataType": "Int64"},
    {"fieldName": "price", "dataType": "Double", "nullable": True},
    {"fieldName": "sold", "dataType": "Bool", "defaultValue": False},
    {"fieldName": "title", "dataType": "VarChar", "elementTypeParams": {"max_length": "32"}, "nullable": True},
    {"fieldName": "about", "dataType": "JSON", "nullable": True},
    {"fieldName": "tags", "dataType": "Array", "elementDataType": "VarChar", "nullable": True, "elementTypeParams": {"max_capacity": "4", "max_length": "8"}},
    {"fieldName": "intro", "dataType": "FloatVector", "elementTypeParams": {"dim": "2"}},
]  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"book_id": "a", "words": 10, "price": 1.5, "sold": True, "title": "one", "intro": [1, 0], "extra": 1},
    {"book_id": "b", "words": 20, "about": {"x": [1, 2]}, "tags": ["p", "q"], "intro": [0, 1]},
    {"book_id": "c", "words": 30, "price": 2, "title": "three", "tags": [], "intro": [1, 1]},
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=1, workers=1) as service:
        yield service


@pytest.fixture
def door(service: Service) -> Milvus:
    return Milvus(service.apis[0], 2)


def make(door: Milvus, fields: list[dict[str, Any]] = FIELDS, **more: Any) -> str:
    """A new collection of books; returns its name."""
    name = f"books_{next(NAMES)}"
    schema = {"autoId": False, "enableDynamicField": True, "fields": fields}
    index = {"fieldName": "intro", "indexName": "by_intro", "metricType": "L2"}
    asked = {"collectionName": name, "schema": schema, "indexParams": [index]}
    door.data("collections/create", asked | more)
    return name


def rows_of(door: Milvus, name: str, **asked: Any) -> dict[str, dict[str, Any]]:
    body = strong({"collectionName": name, "filter": 'book_id >= ""'} | asked)
    return by_id(door.data("entities/query", body), "book_id")


def whole(row: dict[str, Any]) -> dict[str, Any]:
    """A row as an answer shows it: with null where nothing is, and defaults where nothing was given."""
    return dict.fromkeys(one["fieldName"] for one in FIELDS) | {"sold": False} | row


def test_a_schema_and_what_it_says_of_itself(door: Milvus) -> None:
    name = make(door)
    told = door.data("collections/describe", {"collectionName": name})
    assert told["collectionName"] == name and told["autoId"] is False and told["enableDynamicField"] is True
    fields = by_id(told["fields"], "name")
    assert list(fields) == [one["fieldName"] for one in FIELDS]
    assert fields["book_id"]["type"] == "VarChar" and fields["book_id"]["primaryKey"] is True
    assert {"key": "max_length", "value": "16"} in fields["book_id"]["params"]
    assert (
        fields["intro"]["type"] == "FloatVector" and {"key": "dim", "value": "2"} in fields["intro"]["params"]
    )
    assert fields["price"]["nullable"] is True and fields["words"]["nullable"] is False
    assert told["indexes"] == [{"fieldName": "intro", "indexName": "by_intro", "metricType": "L2"}]
    assert told["load"] == "LoadStateLoaded" and told["consistencyLevel"] == "Bounded"
    assert door.data("collections/has", {"collectionName": name}) == {"has": True}
    assert door.data("collections/has", {"collectionName": "nobody"}) == {"has": False}
    door.drop(name)
    assert door.data("collections/has", {"collectionName": name}) == {"has": False}


def test_rows_come_back_as_they_were(door: Milvus) -> None:
    name = make(door)
    told = door.write("entities/insert", {"collectionName": name, "data": ROWS})
    assert told == {"insertCount": 3, "insertIds": ["a", "b", "c"]}
    assert rows_of(door, name, outputFields=["*"]) == {row["book_id"]: whole(row) for row in ROWS}
    few = rows_of(door, name, outputFields=["words", "extra"])
    assert few["a"] == {"book_id": "a", "words": 10, "extra": 1}
    assert few["b"] == {"book_id": "b", "words": 20}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("words > 10", "bc"),
        ("10 < words <= 20", "b"),
        ("words in [10, 30] and not (sold == true)", "c"),
        ('title like "t%" or extra == 1', "ac"),
        ("about['x'][1] == 2", "b"),
        ("json_contains(about['x'], 1)", "b"),
        ('array_contains(tags, "q")', "b"),
        ("array_length(tags) == 0", "c"),
        ("price is null", "b"),
        ("price is not null && words + 5 < 20", "a"),
        ('book_id in ["a", "c", "z"]', "ac"),
        ("words % 20 == 10", "ac"),
        ("exists extra", "a"),
    ],
)  # fmt: skip
def test_filters(door: Milvus, books: str, condition: str, expected: str) -> None:
    assert sorted(rows_of(door, books, filter=condition)) == list(expected)
    hits = door.data(
        "entities/search", strong({"collectionName": books, "data": [[0, 0]], "filter": condition})
    )
    assert sorted(hit["book_id"] for hit in hits) == list(expected)


@pytest.fixture(scope="module")
def books(service: Service) -> str:
    """A collection with rows, for those that only read it."""
    door = Milvus(service.apis[0], 2)
    name = make(door)
    door.write("entities/insert", {"collectionName": name, "data": ROWS})
    return name


def test_values_in_place_of_names_in_a_filter(door: Milvus, books: str) -> None:
    asked = {
        "filter": "words in {some} and title == {title}",
        "exprParams": {"some": [10, 20], "title": "one"},
    }
    assert list(rows_of(door, books, **asked)) == ["a"]


def test_one_search_and_several(door: Milvus, books: str) -> None:
    asked = strong(
        {"collectionName": books, "data": [[1, 0]], "annsField": "intro", "outputFields": ["words"]}
    )
    answer = door.ask("entities/search", asked | {"limit": 2})
    assert answer.json.keys() >= {"code", "cost", "data", "topks"} and answer.json["topks"] == [2]
    assert door.of(answer) == [
        {"book_id": "a", "words": 10, "distance": 0},
        {"book_id": "c", "words": 30, "distance": 1},
    ]
    answer = door.ask("entities/search", asked | {"data": [[1, 0], [0, 1]], "limit": 2})
    assert answer.json["topks"] == [2, 2]
    assert [(hit["book_id"], hit["distance"]) for hit in door.of(answer)] == [("a", 0), ("c", 1), ("b", 0), ("c", 1)]  # fmt: skip
    assert door.data("entities/search", asked | {"offset": 3}) == []
    within = asked | {"searchParams": {"params": {"radius": 1.5, "range_filter": 0.5}}}
    assert [hit["book_id"] for hit in door.data("entities/search", within)] == ["c"]


def test_hybrid_search(door: Milvus) -> None:
    fields = [*FIELDS, {"fieldName": "sparse", "dataType": "SparseFloatVector"}]
    indexes = [{"fieldName": "intro", "metricType": "L2"}, {"fieldName": "sparse", "metricType": "IP"}]
    name = make(door, fields, indexParams=indexes)
    rows = [row | {"sparse": {"1": n + 1.0, "7": 0.5}} for n, row in enumerate(ROWS)]
    door.write("entities/insert", {"collectionName": name, "data": rows})
    assert rows_of(door, name, outputFields=["sparse"])["b"] == {"book_id": "b", "sparse": {"1": 2, "7": 0.5}}
    parts = [
        {"data": [[1, 0]], "annsField": "intro", "limit": 3},
        {"data": [{"1": 1}], "annsField": "sparse", "limit": 3, "filter": "words > 10"},
    ]
    asked = strong({"collectionName": name, "search": parts, "limit": 2, "outputFields": ["words"]})
    hits = door.data("entities/hybrid_search", asked | {"rerank": {"strategy": "rrf", "params": {"k": 10}}})
    # First of one and not in the other; second of both the one and, of two, the first of the other.
    assert [hit["book_id"] for hit in hits] == ["c", "b"]
    assert hits[0]["distance"] == pytest.approx(1 / 12 + 1 / 11) and hits[0]["words"] == 30
    weighted = {"rerank": {"strategy": "weighted", "params": {"weights": [1.0, 0.0]}}}
    assert door.data("entities/hybrid_search", asked | weighted)[0]["book_id"] == "a"


def test_a_partial_update_changes_what_it_gives(door: Milvus) -> None:
    name = make(door)
    door.write("entities/insert", {"collectionName": name, "data": ROWS})
    changes = [
        {"book_id": "a", "title": "uno", "extra": None},
        {"book_id": "b", "title": "dos", "extra": {"x": 1}},
    ]
    asked = {"collectionName": name, "data": changes, "partialUpdate": True}
    assert door.write("entities/upsert", asked) == {"upsertCount": 2, "upsertIds": ["a", "b"]}
    found = rows_of(door, name)
    kept = {name: value for name, value in ROWS[0].items() if name != "extra"}
    assert found["a"] == whole(kept | {"title": "uno"})
    assert found["b"] == whole(ROWS[1] | {"title": "dos", "extra": {"x": 1}})
    door.write("entities/upsert", asked | {"data": [{"book_id": "a", "intro": [5, 5], "price": None}]})
    assert (rows_of(door, name)["a"]["intro"], rows_of(door, name)["a"]["price"]) == ([5, 5], None)
    # A row that is not there is added, if it is whole; else nothing is changed.
    code, says = door.refusal("entities/upsert", asked | {"data": [{"book_id": "z", "title": "new"}]})
    assert code == 1100 and "field" in says.lower()
    door.write(
        "entities/upsert", asked | {"data": [{"book_id": "z", "words": 1, "intro": [9, 9], "sold": True}]}
    )
    assert rows_of(door, name)["z"]["words"] == 1
    # Without the word it is a whole row.
    door.write(
        "entities/upsert", {"collectionName": name, "data": [{"book_id": "b", "words": 2, "intro": [1, 1]}]}
    )
    assert rows_of(door, name)["b"] == whole({"book_id": "b", "words": 2, "intro": [1, 1]})


def test_deleting_counts(door: Milvus) -> None:
    name = make(door)
    door.write("entities/insert", {"collectionName": name, "data": ROWS})
    assert door.data("collections/get_stats", {"collectionName": name}) == {"rowCount": 3}
    counted = strong({"collectionName": name, "filter": "", "outputFields": ["count(*)"]})
    assert door.data("entities/query", counted) == [{"count(*)": 3}]
    assert door.write("entities/delete", {"collectionName": name, "filter": "words > 10"}) == {
        "deleteCount": 2
    }
    assert list(rows_of(door, name)) == ["a"]
    assert door.data("entities/query", counted) == [{"count(*)": 1}]


def test_loading_and_releasing(door: Milvus) -> None:
    name = make(door, indexParams=[])
    named = {"collectionName": name}
    assert door.data("collections/describe", named)["load"] == "LoadStateNotLoad"
    door.data(
        "indexes/create",
        named | {"indexParams": [{"fieldName": "intro", "indexName": "i", "metricType": "L2"}]},
    )
    assert door.data("collections/get_load_state", named)["loadState"] == "LoadStateNotLoad"
    # What is not loaded takes writes, and answers no reads.
    door.write("entities/insert", named | {"data": ROWS})
    code, says = door.refusal("entities/query", named | {"filter": "words > 0"})
    assert code == 101 and "not loaded" in says
    assert door.data("collections/load", named) == {}
    state = door.data("collections/get_load_state", named)
    assert (state["loadState"], state["loadProgress"]) == ("LoadStateLoaded", 100)
    assert len(rows_of(door, name)) == 3
    assert door.data("collections/release", named) == {}
    assert door.data("collections/get_load_state", named)["loadState"] == "LoadStateNotLoad"


def test_another_name(door: Milvus) -> None:
    name = make(door)
    door.write("entities/insert", {"collectionName": name, "data": ROWS})
    new = f"{name}_new"
    assert door.data("collections/rename", {"collectionName": name, "newCollectionName": new}) == {}
    assert door.data("collections/describe", {"collectionName": new})["collectionName"] == new
    assert door.refusal("entities/query", {"collectionName": name, "filter": "words > 0"})[0] == 100
    assert len(rows_of(door, new)) == 3
    taken = make(door)
    assert door.refusal("collections/rename", {"collectionName": new, "newCollectionName": taken})[0] != 0
    door.data("collections/rename", {"collectionName": new, "newCollectionName": name})
    assert len(rows_of(door, name)) == 3


def test_aliases(door: Milvus) -> None:
    first, second = make(door), make(door)
    alias = f"{first}_alias"
    door.write("entities/insert", {"collectionName": first, "data": ROWS[:1]})
    assert door.data("aliases/create", {"collectionName": first, "aliasName": alias}) == {}
    assert alias in door.data("aliases/list")
    told = door.data("aliases/describe", {"aliasName": alias})
    assert (told["aliasName"], told["collectionName"]) == (alias, first)
    assert door.data("collections/describe", {"collectionName": first})["aliases"] == [alias]
    door.write("entities/insert", {"collectionName": alias, "data": ROWS[1:]})
    assert set(rows_of(door, first)) == set(rows_of(door, alias)) == {"a", "b", "c"}
    assert door.refusal("aliases/create", {"collectionName": second, "aliasName": alias})[0] == 1602
    door.data("aliases/alter", {"collectionName": second, "aliasName": alias})
    assert rows_of(door, alias) == {}
    assert door.data("aliases/drop", {"aliasName": alias}) == {}
    assert alias not in door.data("aliases/list")
    assert door.refusal("entities/query", {"collectionName": alias, "filter": "words > 0"})[0] == 100


def test_partitions(door: Milvus) -> None:
    name = make(door)
    named = {"collectionName": name}
    part = named | {"partitionName": "east"}
    assert door.data("partitions/list", named) == ["_default"]
    assert door.data("partitions/create", part) == {}
    assert set(door.data("partitions/list", named)) == {"_default", "east"}
    assert door.data("partitions/has", part) == {"has": True}
    door.write("entities/insert", named | {"data": ROWS[:1]})
    door.write("entities/insert", part | {"data": ROWS[1:]})
    assert door.data("partitions/get_stats", part) == {"rowCount": 2}
    assert set(rows_of(door, name, partitionNames=["east"])) == {"b", "c"}
    assert len(rows_of(door, name)) == 3
    near = strong(named | {"data": [[1, 0]], "partitionNames": ["east"], "limit": 1})
    assert door.data("entities/search", near)[0]["book_id"] == "c"
    names = named | {"partitionNames": ["east"]}
    assert door.refusal("partitions/drop", part)[0] == 1100, "it is loaded"
    for command in ("release", "release", "load", "load", "release"):
        assert door.data(f"partitions/{command}", names) == {}
    assert door.data("partitions/drop", part) == {}
    assert door.data("partitions/has", part) == {"has": False}
    assert set(rows_of(door, name)) == {"a"}


def test_indexes(door: Milvus) -> None:
    name = make(door, indexParams=[])
    named = {"collectionName": name}
    assert door.data("indexes/list", named) == []
    asked = [
        {"fieldName": "intro", "indexName": "vectors", "metricType": "L2", "indexType": "HNSW", "params": {"M": 16, "efConstruction": 200}},
        {"fieldName": "words", "indexName": "by_words", "indexType": "INVERTED"},
    ]  # fmt: skip
    for _ in range(2):
        assert door.data("indexes/create", named | {"indexParams": asked}) == {}
    assert sorted(door.data("indexes/list", named)) == ["by_words", "vectors"]
    (told,) = door.data("indexes/describe", named | {"indexName": "vectors"})
    assert {key: told[key] for key in ("fieldName", "indexName", "metricType", "indexType")} == {
        "fieldName": "intro", "indexName": "vectors", "metricType": "L2", "indexType": "HNSW",
    }  # fmt: skip
    assert told["indexState"] == "Finished"
    for index in ("vectors", "by_words"):
        assert door.data("indexes/drop", named | {"indexName": index}) == {}
    assert door.data("indexes/list", named) == []
    assert door.refusal("indexes/describe", named | {"indexName": "vectors"})[0] == 700


def test_databases(door: Milvus) -> None:
    database = {"dbName": "library"}
    assert door.data("databases/create", database | {"properties": {"mmap.enabled": True}}) == {}
    assert {"default", "library"} <= set(door.data("databases/list"))
    told = door.data("databases/describe", database)
    assert told["dbName"] == "library" and "dbID" in told
    assert {"key": "mmap.enabled", "value": "true"} in told["properties"]
    door.data("databases/alter", database | {"properties": {"mmap.enabled": False}})
    assert {"key": "mmap.enabled", "value": "false"} in door.data("databases/describe", database)[
        "properties"
    ]
    door.data("databases/drop_properties", database | {"propertyKeys": ["mmap.enabled"]})
    properties = door.data("databases/describe", database)["properties"]
    assert all(one["key"] != "mmap.enabled" for one in properties)
    door.data("collections/create", database | {"collectionName": "c", "dimension": 2})
    assert door.refusal("databases/drop", database)[0] != 0, "it is not empty"
    door.data("collections/drop", database | {"collectionName": "c"})
    assert door.data("databases/drop", database) == {}
    assert door.data("databases/drop", database) == {}, "what is not there is dropped too"
    assert "library" not in door.data("databases/list")
    assert door.refusal("databases/drop", {"dbName": "default"})[0] != 0


def test_what_many_create_at_once_is_made_once(door: Milvus) -> None:
    def create(asked: dict[str, Any]) -> int:
        return int(door.ask("collections/create", asked).json["code"])

    same = {"collectionName": "same_at_once", "dimension": 4, "metricType": "L2"}
    different: list[dict[str, Any]] = [
        {"collectionName": "different_at_once", "dimension": n, "metricType": metric}
        for n, metric in enumerate(["L2"] * 5 + ["IP"] * 5, 4)
    ]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(create, [same] * 10)) == [0] * 10
        codes = list(pool.map(create, different))
    assert codes.count(0) == 1
    made = different[codes.index(0)]
    told = door.data("collections/describe", {"collectionName": "different_at_once"})
    assert {"key": "dim", "value": str(made["dimension"])} in told["fields"][1]["params"]
    assert told["indexes"][0]["metricType"] == made["metricType"]
    for name in ("same_at_once", "different_at_once"):
        vector = [1] * (4 if name == "same_at_once" else made["dimension"])
        door.write("entities/insert", {"collectionName": name, "data": {"id": 1, "vector": vector}})
        assert door.data("collections/get_stats", {"collectionName": name}) == {"rowCount": 1}


def test_null_is_the_default_or_nothing(door: Milvus) -> None:
    name = make(door)
    door.write("entities/insert", {"collectionName": name, "data": ROWS})
    nothing = {"sold": None, "title": None, "price": None, "tags": None, "about": None}
    rows = [row | nothing for row in ROWS]
    door.write("entities/upsert", {"collectionName": name, "data": rows})
    assert rows_of(door, name) == {row["book_id"]: whole(row | {"sold": False}) for row in rows}


def test_ids_that_are_made(door: Milvus) -> None:
    name = f"made_{next(NAMES)}"
    door.data(
        "collections/create", {"collectionName": name, "dimension": 2, "autoID": True, "metricType": "L2"}
    )
    rows = [{"vector": [n, n], "n": n} for n in range(50)]
    with ThreadPoolExecutor(5) as pool:
        asked = [{"collectionName": name, "data": rows[n : n + 10]} for n in range(0, 50, 10)]
        told = list(pool.map(lambda body: door.write("entities/insert", body), asked))
    ids = [id for one in told for id in one["insertIds"]]
    assert len(set(ids)) == 50 and all(type(id) is int and 0 < id < 2**63 for id in ids)
    (one,) = door.data("entities/get", strong({"collectionName": name, "id": ids[7]}))
    # A row that is upserted keeps its id here; Milvus would make another one for it.
    told = door.write("entities/upsert", {"collectionName": name, "data": {**one, "n": 700}})
    assert told["upsertCount"] == 1
    found = door.data("entities/query", strong({"collectionName": name, "filter": "n == 700 or n == 7"}))
    assert [row["n"] for row in found] == [700] and [row["id"] for row in found] == told["upsertIds"]
    counted = {"collectionName": name, "filter": "", "outputFields": ["count(*)"]}
    assert door.data("entities/query", strong(counted)) == [{"count(*)": 50}]


def test_a_read_may_be_cut_short(door: Milvus, books: str) -> None:
    """``Request-Timeout`` bounds what a read may wait for; what is there already is answered."""
    asked = strong({"collectionName": books, "filter": "words > 0"})
    assert len(door.data("entities/query", asked, Request_Timeout="5")) == 3
