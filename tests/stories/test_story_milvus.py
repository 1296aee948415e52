"""Milvus's RESTful API by hand-written calls: every operation of v1 and the main ones of v2, on two front ends and a worker."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.milvus_door import WAIT, Milvus, by_id, strong
from tests.service import TOKEN, Service, running

#: More than a double can hold, and the ends of what an Int64 can.
LARGE_IDS = [2**53 + 1, 2**63 - 1, -(2**63), -(2**53) - 1, 0]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=1) as service:
        yield service


@pytest.fixture
def v1(service: Service) -> Milvus:
    return Milvus(service.apis[0], 1)


@pytest.fixture
def v2(service: Service) -> Milvus:
    return Milvus(service.apis[0], 2)


@pytest.fixture
def other_v2(service: Service) -> Milvus:
    """The same through the other front end."""
    return Milvus(service.apis[1], 2)


def text_of(door: Milvus, path: str, body: dict[str, Any]) -> str:
    """The text that a POST is answered with, before anybody reads its numbers."""
    request = Request(
        door.api.url + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"} | door.headers,
    )
    with urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


# v1: every operation.


def test_v1_from_create_to_drop(v1: Milvus) -> None:
    asked = {"collectionName": "tour", "dimension": 4, "metricType": "L2", "description": "by hand"}
    assert v1.data("collections/create", asked) == {}
    assert v1.data("collections/create", asked) == {}, "once more with the same"
    assert "tour" in v1.of(v1.look("collections"))
    assert "tour" in v1.of(v1.look("collections?dbName=default"))
    told = v1.of(v1.look("collections/describe?collectionName=tour"))
    assert told["collectionName"] == "tour" and told["description"] == "by hand"
    assert told["load"] == "LoadStateLoaded" and told["shardsNum"] == 1 and told["enableDynamicField"] is True
    id_field, vector_field = told["fields"]
    assert (id_field["name"], id_field["type"]) == ("id", "Int64")
    assert id_field["primaryKey"] is True and id_field["autoId"] is True
    assert (vector_field["name"], vector_field["type"]) == ("vector", "FloatVector(4)")
    assert told["indexes"] == [{"indexName": "vector_idx", "fieldName": "vector", "metricType": "L2"}]

    one = v1.write("insert", {"collectionName": "tour", "data": {"vector": [1, 0, 0, 0], "name": "one"}})
    assert one["insertCount"] == 1
    rows = [{"vector": [0, n, 0, 0], "name": f"n{n}", "n": n} for n in range(2, 6)]
    many = v1.write("insert", {"collectionName": "tour", "data": rows})
    ids = one["insertIds"] + many["insertIds"]
    assert many["insertCount"] == 4 and len(set(ids)) == 5
    assert all(type(id) is int for id in ids)

    everything = v1.data("query", {"collectionName": "tour", "filter": "id != 0"})
    assert sorted(row["id"] for row in everything) == sorted(ids)
    assert by_id(everything)[ids[0]] == {"id": ids[0], "vector": [1, 0, 0, 0], "name": "one"}
    asked = {"collectionName": "tour", "filter": "n > 2", "outputFields": ["n"], "limit": 2, "offset": 1}
    found = v1.data("query", asked)
    assert [row["n"] for row in found] == [4, 5] and all(row.keys() == {"id", "n"} for row in found)
    assert v1.data("query", asked | {"filter": 'name like "x%"'}) == []

    # By one id, by many, and by ids as strings, of which one is nobody's.
    assert [row["name"] for row in v1.data("get", {"collectionName": "tour", "id": ids[1]})] == ["n2"]
    texts = [str(id) for id in ids[1:3]] + ["0"]
    got = v1.data("get", {"collectionName": "tour", "id": texts, "outputFields": ["name"]})
    assert {row["name"] for row in got} == {"n2", "n3"} and all(row.keys() == {"id", "name"} for row in got)
    assert v1.data("get", {"collectionName": "tour", "id": 0}) == []

    near = {"collectionName": "tour", "vector": [0, 3, 0, 0], "outputFields": ["name"], "limit": 3}
    hits = v1.data("search", near)
    assert [(hit["name"], hit["distance"]) for hit in hits] == [("n3", 0), ("n2", 1), ("n4", 1)]
    assert all(hit.keys() == {"id", "name", "distance"} for hit in hits)
    assert [hit["name"] for hit in v1.data("search", near | {"offset": 1})] == ["n2", "n4", "n5"]
    assert [hit["name"] for hit in v1.data("search", near | {"filter": "n >= 4"})] == ["n4", "n5"]

    # Two rows by their ids, and one by a filter.
    assert v1.write("delete", {"collectionName": "tour", "id": ids[0]}) == {}
    assert v1.write("delete", {"collectionName": "tour", "id": [str(ids[1]), ids[2]]}) == {}
    assert v1.write("delete", {"collectionName": "tour", "filter": "n == 4"}) == {}
    assert [row["id"] for row in v1.data("query", {"collectionName": "tour", "filter": "id != 0"})] == ids[4:]

    assert v1.data("collections/drop", {"collectionName": "tour"}) == {}
    assert "tour" not in v1.of(v1.look("collections"))
    gone = v1.look("collections/describe?collectionName=tour")
    assert gone.status == 200 and gone.json["code"] == 100 and "tour" in gone.json["message"]


def test_what_v1_created_can_be_upserted_into(v1: Milvus) -> None:
    """In Milvus it cannot: what v1 creates makes its own ids, and such a collection takes no upsert there."""
    v1.data("collections/create", {"collectionName": "mended", "dimension": 2})
    (id,) = v1.write("insert", {"collectionName": "mended", "data": [{"vector": [1, 2], "n": 1}]})[
        "insertIds"
    ]
    one = {"id": id, "vector": [3, 4], "n": 2}
    assert v1.write("upsert", {"collectionName": "mended", "data": one}) == {
        "upsertCount": 1,
        "upsertIds": [id],
    }
    two = [{"id": "7", "vector": [5, 6]}, {"id": 8, "vector": [7, 8]}]
    assert v1.write("upsert", {"collectionName": "mended", "data": two})["upsertIds"] == [7, 8]
    found = by_id(v1.data("get", {"collectionName": "mended", "id": [id, 7, 8]}))
    assert found == {
        id: one,
        7: {"id": 7, "vector": [5, 6]},
        8: {"id": 8, "vector": [7, 8]},
    }


@pytest.mark.parametrize(("version", "prefix"), [(1, ""), (2, "entities/")])
def test_one_object_or_an_array(service: Service, v2: Milvus, version: int, prefix: str) -> None:
    door, name = Milvus(service.apis[0], version), f"either_{version}"
    v2.data("collections/create", {"collectionName": name, "dimension": 2})
    first, second = {"id": 1, "vector": [1, 2]}, {"id": 2, "vector": [2, 1]}
    for command in ("insert", "upsert"):
        told = door.write(prefix + command, {"collectionName": name, "data": first})
        assert told == {f"{command}Count": 1, f"{command}Ids": [1]}
        told = door.write(prefix + command, {"data": [second], "collectionName": name})
        assert told == {f"{command}Count": 1, f"{command}Ids": [2]}
    rows = v2.data("entities/get", {"collectionName": name, "id": [1, 2]})
    assert by_id(rows) == {1: first, 2: second}


def test_a_database_of_ones_own(v1: Milvus, v2: Milvus) -> None:
    v2.data("databases/create", {"dbName": "apart"})
    v1.data("collections/create", {"collectionName": "there", "dimension": 2, "dbName": "apart"})
    assert v1.of(v1.look("collections?dbName=apart")) == ["there"]
    assert v2.data("collections/list", {}, DB_Name="apart") == ["there"]
    assert "there" not in v2.data("collections/list")
    row = {"dbName": "apart", "collectionName": "there", "data": {"vector": [1, 2]}}
    v1.write("insert", row)
    assert v2.data("collections/get_stats", {"dbName": "apart", "collectionName": "there"}) == {"rowCount": 1}
    assert v1.refusal("insert", row | {"dbName": "default"})[0] == 100
    v1.data("collections/drop", {"dbName": "apart", "collectionName": "there"})
    v2.data("databases/drop", {"dbName": "apart"})
    code, says = v1.refusal("collections/create", {"dbName": "apart", "collectionName": "c", "dimension": 2})
    assert code == 800 and "database not found" in says and "apart" in says


# Who may.


BASIC = "Basic " + b64encode(f"root:{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"Bearer root:{TOKEN}", BASIC, TOKEN, f"root:{TOKEN}"]
)
@pytest.mark.parametrize("version", [1, 2])
def test_every_form_of_authorization(service: Service, version: int, authorization: str) -> None:
    door = Milvus(service.apis[0], version, {"Authorization": authorization})
    if version == 1:
        assert isinstance(door.of(door.look("collections")), list)
    else:
        assert isinstance(door.data("collections/list"), list)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer root:wrong",
        "wrong",
        "Basic !",
        "Basic " + b64encode(b"root:wrong").decode(),
        f"Digest {TOKEN}",
        f"Bearer {TOKEN} {TOKEN}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/vector/collections", "/v2/vectordb/collections/list"])
def test_whoever_is_not_known_gets_a_401(service: Service, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    method = "GET" if "v1" in path else "POST"
    answer = service.apis[0].call(method, path, {}, token=None, headers=headers)
    assert answer.status == 401
    assert answer.json == {"code": 1800, "message": "user hasn't authenticated"}


def test_who_may_only_read_or_has_another_index_gets_a_403(service: Service, v2: Milvus) -> None:
    api = service.apis[0]
    v2.data("collections/create", {"collectionName": "guarded", "dimension": 2})

    def token(**asked: str) -> str:
        return str(api.call("POST", "/upwell/v1/tokens", asked).result["token"])

    reader = Milvus(api, 2, {"Authorization": f"Bearer {token(access='read')}"})
    stranger = Milvus(api, 2, {"Authorization": f"Bearer {token(account='default', index='elsewhere')}"})
    row = {"collectionName": "guarded", "data": [{"id": 1, "vector": [1, 2]}]}
    asked = {"collectionName": "guarded", "filter": "id >= 0"}
    assert reader.data("entities/query", strong(asked)) == []
    for answer in (reader.ask("entities/insert", row), stranger.ask("entities/query", asked)):
        assert answer.status == 403 and answer.json["code"] == 1401, answer
        assert "privilege not permitted" in answer.json["message"]
    assert v2.data("entities/query", strong(asked)) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/vector/nothing"),
        ("POST", "/v2/vectordb/entities/nothing"),
        ("GET", "/v2/vectordb/collections/list"),
        ("GET", "/v1/vector/get?collectionName=x&id=1"),
        ("POST", "/v2/vectordb/"),
    ],
)
def test_no_such_route(service: Service, method: str, path: str) -> None:
    request = Request(
        service.apis[0].url + path,
        method=method,
        data=b"{}" if method == "POST" else None,
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=60)
    with refused.value as reply:
        assert reply.status == 404 and reply.read() == b"404 page not found"
        assert reply.headers.get_content_type() == "text/plain"


# When a write is seen.


def test_each_write_names_its_mutation(service: Service, v1: Milvus, v2: Milvus) -> None:
    v2.data("collections/create", {"collectionName": "named", "dimension": 2})
    index = service.apis[1].index("named")
    row = {"collectionName": "named", "data": [{"id": 1, "vector": [1, 2]}]}
    writes = [
        v1.ask("insert", row),
        v1.ask("upsert", row),
        v2.ask("entities/insert", row),
        v2.ask("entities/upsert", row),
        v1.ask("delete", {"collectionName": "named", "id": 1}),
        v2.ask("entities/upsert", row),
        v2.ask("entities/delete", {"collectionName": "named", "filter": "id in [1]"}),
    ]
    statuses = [index.visible(answer.headers["X-Mutation-Id"]) for answer in writes]
    assert [status["position"] for status in statuses] == sorted(status["position"] for status in statuses)
    assert [status["counts"]["deleted"] for status in statuses] == [0, 0, 0, 0, 1, 0, 1]
    # Asked to wait it says what it saw, and a read that does not wait sees it too.
    answer = v2.ask("entities/insert", row, **WAIT)
    assert answer.headers["X-Mutation-State"] == "visible"
    assert answer.headers["Preference-Applied"] == "wait=30"
    bounded = {"collectionName": "named", "filter": "id == 1", "consistencyLevel": "Eventually"}
    assert len(v2.data("entities/query", bounded)) == 1


def test_a_strong_read_sees_what_was_acknowledged_anywhere(v2: Milvus, other_v2: Milvus) -> None:
    v2.data("collections/create", {"collectionName": "fresh", "dimension": 2, "metricType": "L2"})
    for n in range(15):
        here, there = (v2, other_v2) if n % 2 else (other_v2, v2)
        here.data("entities/upsert", {"collectionName": "fresh", "data": [{"id": n, "vector": [n, 0]}]})
        rows = there.data("entities/query", strong({"collectionName": "fresh", "filter": "id >= 0"}))
        assert len(rows) == n + 1
        hits = here.data("entities/search", strong({"collectionName": "fresh", "data": [[n, 0]], "limit": 1}))
        assert hits[0]["id"] == n
        (row,) = there.data("entities/get", strong({"collectionName": "fresh", "id": n}))
        assert row["vector"] == [n, 0]


def test_a_key_makes_a_request_count_once(v2: Milvus, other_v2: Milvus) -> None:
    v2.data("collections/create", {"collectionName": "once", "dimension": 2, "autoID": True})
    row = {"collectionName": "once", "data": [{"vector": [1, 2]}]}
    first = v2.ask("entities/insert", row, Idempotency_Key="k")
    again = other_v2.ask("entities/insert", row, Idempotency_Key="k")
    assert again.headers["X-Mutation-Id"] == first.headers["X-Mutation-Id"]
    assert again.headers["Idempotency-Replayed"] == "true" and again.json["data"] == first.json["data"]
    rows = v2.data("entities/query", strong({"collectionName": "once", "filter": "id != 0"}))
    assert [row["id"] for row in rows] == first.json["data"]["insertIds"]


# Ids that no double holds.


@pytest.mark.parametrize("as_text", [False, True])
def test_large_ids_are_exact(v2: Milvus, as_text: bool) -> None:
    name = f"large_{as_text}".lower()
    v2.data("collections/create", {"collectionName": name, "dimension": 2, "metricType": "L2"})
    sent = [str(id) for id in LARGE_IDS] if as_text else LARGE_IDS
    headers = {"Accept_Type_Allow_Int64": str(not as_text).lower()}
    data = [{"id": id, "vector": [n, n], "n": LARGE_IDS[n]} for n, id in enumerate(sent)]
    told = v2.write("entities/upsert", {"collectionName": name, "data": data}, **headers)
    assert told == {"upsertCount": 5, "upsertIds": sent}
    for n, id in enumerate(sent):
        filters = {
            "filter": f"id == {LARGE_IDS[n]}" if LARGE_IDS[n] > -(2**63) else f"id in [{LARGE_IDS[n]}]"
        }
        (row,) = v2.data("entities/query", {"collectionName": name} | filters, **headers)
        assert (row["id"], row["vector"]) == (id, [n, n])
        (row,) = v2.data("entities/get", {"collectionName": name, "id": [id]}, **headers)
        assert row["id"] == id and row["n"] == LARGE_IDS[n]
        asked = {"collectionName": name, "data": [[n, n]], "limit": 1, "outputFields": ["id"]}
        assert v2.data("entities/search", asked, **headers) == [{"id": id, "distance": 0}]
    # Not one digit is lost in the text either.
    everything = {"collectionName": name, "filter": "id >= 0 or id < 0", "outputFields": ["id"]}
    door = Milvus(v2.api, 2, {"Accept-Type-Allow-Int64": headers["Accept_Type_Allow_Int64"]})
    text = text_of(door, "/v2/vectordb/entities/query", everything)
    for id in LARGE_IDS:
        assert (f'"id":"{id}"' if as_text else f'"id":{id}}}') in text


def test_large_ids_in_v1(v1: Milvus) -> None:
    v1.data("collections/create", {"collectionName": "large_v1", "dimension": 2})
    data = [{"id": id, "vector": [1, 1]} for id in LARGE_IDS]
    assert v1.write("upsert", {"collectionName": "large_v1", "data": data})["upsertIds"] == LARGE_IDS
    got = v1.data("get", {"collectionName": "large_v1", "id": LARGE_IDS}, Accept_Type_Allow_Int64="false")
    assert {row["id"] for row in got} == {str(id) for id in LARGE_IDS}
    v1.write("delete", {"collectionName": "large_v1", "id": [str(LARGE_IDS[0]), LARGE_IDS[1]]})
    left = v1.data("query", {"collectionName": "large_v1", "filter": "id >= 0 or id < 0"})
    assert {row["id"] for row in left} == set(LARGE_IDS[2:])


def test_many_that_begin_at_once_lose_nothing(v2: Milvus, other_v2: Milvus) -> None:
    """Each makes sure of its collection, of its index, which says how vectors are compared, and that it is loaded; then it writes."""
    fields = [
        {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
        {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
    ]
    index = {"fieldName": "v", "indexName": "v", "metricType": "IP"}

    def begin(name: str, n: int) -> None:
        door = other_v2 if n % 2 else v2
        door.data("collections/create", {"collectionName": name, "schema": {"fields": fields}})
        door.data("indexes/create", {"collectionName": name, "indexParams": [index]})
        door.data("collections/load", {"collectionName": name})
        door.data("entities/insert", {"collectionName": name, "data": [{"id": n, "v": [n, 1]}]})

    for number in range(8):
        name = f"begun_{number}"
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(begin, name, n) for n in range(4)]:
                done.result()
        asked = strong({"collectionName": name, "data": [[1, 0]], "limit": 9})
        assert [hit["distance"] for hit in other_v2.data("entities/search", asked)] == [3, 2, 1, 0]
