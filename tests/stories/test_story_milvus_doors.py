"""One collection through two doors shows the same vectors: Cloudflare and Milvus, Upstash and Milvus, in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.milvus_door import Milvus, by_id, strong
from tests.service import Service, running

#: Exact as float32, so that all doors show the same digits.
VECTORS = {1: [1.0, 0.5], 2: [0.25, 2.0], 3: [-4.0, 0.125]}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=1, workers=1) as service:
        yield service


@pytest.fixture
def milvus(service: Service) -> Milvus:
    return Milvus(service.apis[0], 2)


def upstash(service: Service, index: str, command: str, body: Any) -> Any:
    """A call at the Upstash door; returns its result."""
    answer = service.apis[0].call("POST", f"/upstash/default/{index}/{command}", json.dumps(body))
    assert answer.status == 200, answer
    return answer.json["result"]


def fetched(service: Service, index: str, *ids: str) -> list[Any]:
    """What the Upstash door shows of rows."""
    asked = {"ids": list(ids), "includeVectors": True, "includeMetadata": True}
    found = upstash(service, index, "fetch", asked)
    assert isinstance(found, list)
    return found


def test_what_milvus_made_is_an_index_for_cloudflare(service: Service, milvus: Milvus) -> None:
    index = service.apis[0].index("shared_m")
    milvus.data("collections/create", {"collectionName": index.name, "dimension": 2, "metricType": "L2"})
    config = index.get("").result["config"]
    assert (config["dimensions"], config["metric"]) == (2, "euclidean")
    rows = [{"id": id, "vector": vector, "n": id, "tags": ["a", id]} for id, vector in VECTORS.items()]
    milvus.write("entities/insert", {"collectionName": index.name, "data": rows})
    seen = index.fetch("1", "2", "3")
    assert {id: (one["values"], one["metadata"]) for id, one in seen.items()} == {
        str(id): (vector, {"n": id, "tags": ["a", id]}) for id, vector in VECTORS.items()
    }
    (hit,) = index.query(VECTORS[2], topK=1, returnMetadata="all")
    assert hit["id"] == "2" and hit["metadata"]["n"] == 2

    # And back: another vector and other metadata under an id, a new row, and one that goes.
    changed = {"id": "2", "values": [8, 8], "metadata": {"n": 20, "kind": {"deep": True}}}
    index.visible(index.upsert([changed, {"id": "4", "values": [0.5, 0.5]}]))
    index.visible(index.delete(["3"]))
    found = by_id(milvus.data("entities/query", {"collectionName": index.name, "filter": "id > 0"}))
    assert found == {
        1: rows[0],
        2: {"id": 2, "vector": [8, 8], "n": 20, "kind": {"deep": True}},
        4: {"id": 4, "vector": [0.5, 0.5]},
    }
    asked = {"collectionName": index.name, "data": [[8, 8]], "filter": 'kind["deep"] == true', "limit": 5}
    (hit,) = milvus.data("entities/search", asked | {"outputFields": ["n"]})
    assert hit == {"id": 2, "n": 20, "distance": 0}
    assert milvus.data("collections/get_stats", {"collectionName": index.name}) == {"rowCount": 3}


def test_what_cloudflare_made_is_a_collection_for_milvus(service: Service, milvus: Milvus) -> None:
    index = service.apis[0].index("shared-c")
    assert index.create(2, "euclidean").status == 200
    told = milvus.data("collections/describe", {"collectionName": index.name})
    assert told["collectionName"] == index.name and told["load"] == "LoadStateLoaded"
    assert [(one["name"], one["type"], one["primaryKey"]) for one in told["fields"]] == [
        ("id", "VarChar", True),
        ("vector", "FloatVector", False),
    ]
    assert index.name in milvus.data("collections/list")
    index.visible(index.upsert([{"id": "a", "values": [1, 2], "metadata": {"n": 1}}]))
    asked = {"collectionName": index.name, "filter": 'id == "a" and n == 1'}
    assert milvus.data("entities/query", strong(asked)) == [{"id": "a", "vector": [1, 2], "n": 1}]
    told = milvus.write(
        "entities/upsert",
        {
            "collectionName": index.name,
            "data": [{"id": "a", "vector": [3, 4]}, {"id": "ü b", "vector": [5, 6]}],
        },
    )
    assert told["upsertIds"] == ["a", "ü b"]
    seen = index.fetch("a", "ü b")
    assert {id: one["values"] for id, one in seen.items()} == {"a": [3, 4], "ü b": [5, 6]}
    assert not seen["a"].get("metadata")
    milvus.write("entities/delete", {"collectionName": index.name, "filter": 'id in ["a"]'})
    assert index.fetch("a") == {}


def test_what_milvus_made_is_an_index_for_upstash(service: Service, milvus: Milvus) -> None:
    name = "shared_u"
    asked = {"collectionName": name, "dimension": 2, "idType": "VarChar", "metricType": "COSINE"}
    milvus.data("collections/create", asked | {"params": {"max_length": 64}})
    rows = [{"id": f"r{id}", "vector": vector, "n": id} for id, vector in VECTORS.items()]
    milvus.write("entities/upsert", {"collectionName": name, "data": rows})
    assert fetched(service, name, "r1", "r2", "nobody") == [
        {"id": "r1", "vector": VECTORS[1], "metadata": {"n": 1}},
        {"id": "r2", "vector": VECTORS[2], "metadata": {"n": 2}},
        None,
    ]
    (hit,) = upstash(service, name, "query", {"vector": VECTORS[3], "topK": 1, "filter": "n = 3"})
    assert (hit["id"], hit["score"]) == ("r3", 1)

    row = {"id": "r2", "vector": [16, 1], "metadata": {"n": 22, "new": "x"}}
    assert upstash(service, name, "upsert", [row, {"id": "r4", "vector": [1, 1]}]) == "Success"
    found = by_id(milvus.data("entities/query", strong({"collectionName": name, "filter": 'id like "r%"'})))
    assert found["r2"] == {"id": "r2", "vector": [16, 1], "n": 22, "new": "x"}
    assert found["r4"] == {"id": "r4", "vector": [1, 1]} and len(found) == 4
    assert upstash(service, name, "delete", ["r1"]) == {"deleted": 1}
    assert milvus.data("entities/get", strong({"collectionName": name, "id": "r1"})) == []


def test_a_partition_is_a_namespace(service: Service, milvus: Milvus) -> None:
    name = "shared_p"
    asked = {"collectionName": name, "dimension": 2, "idType": "VarChar", "params": {"max_length": 64}}
    milvus.data("collections/create", asked)
    milvus.data("partitions/create", {"collectionName": name, "partitionName": "east"})
    row = {"id": "a", "vector": [1, 1]}
    milvus.write("entities/insert", {"collectionName": name, "partitionName": "east", "data": [row]})
    assert upstash(service, name, "fetch/east", {"ids": ["a"], "includeVectors": True}) == [
        {"id": "a", "vector": [1, 1]}
    ]
    assert upstash(service, name, "fetch", {"ids": ["a"]}) == [None]
    assert service.apis[0].index(name).fetch("a")["a"]["namespace"] == "east"
    assert upstash(service, name, "upsert/west", {"id": "b", "vector": [2, 1]}) == "Success"
    stats = strong({"collectionName": name, "filter": "", "partitionNames": ["west"], "limit": 9})
    assert milvus.data("entities/query", stats) == [{"id": "b", "vector": [2, 1]}]
    listed = milvus.data("partitions/list", {"collectionName": name})
    assert set(listed) == {"_default", "east", "west"}
