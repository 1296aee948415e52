"""The Upstash door from outside: two front ends, workers, and clients that write and read at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service import Answer, Api, Service, running, until


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=1) as service:
        yield service


def make(service: Service, name: str) -> list[Door]:
    """A new index, by each front end."""
    assert service.apis[0].index(name).create(2).status == 200
    return [Door(api, name) for api in service.apis]


class Door:
    """One index through one front end's Upstash door."""

    def __init__(self, api: Api, index: str) -> None:
        self.api = api
        self.index = index

    def call(self, command: str, body: Any = None, **headers: str) -> Answer:
        sent = None if body is None else json.dumps(body)
        return self.api.call("POST", f"/upstash/default/{self.index}/{command}", sent, headers=headers)

    def result(self, command: str, body: Any = None, **headers: str) -> Any:
        answer = self.call(command, body, **headers)
        assert answer.status == 200 and answer.json.keys() == {"result"}, answer
        return answer.json["result"]


def test_whoever_was_acknowledged_is_seen_through_every_front_end(service: Service) -> None:
    here, there = make(service, "seen")
    for n in range(20):
        one, other = (here, there) if n % 2 else (there, here)
        assert one.result("upsert/ns", {"id": "a", "vector": [1, n], "metadata": {"n": n}}) == "Success"
        asked = {"ids": ["a"], "includeMetadata": True}
        assert other.result("fetch/ns", asked) == [{"id": "a", "metadata": {"n": n}}]
        assert other.result("update/ns", {"id": "a", "data": str(n)}) == {"updated": 1}
        assert one.result("range/ns", {"includeData": True})["vectors"] == [{"id": "a", "data": str(n)}]
    assert here.result("reset/ns") == "Success"
    assert there.result("fetch/ns", {"prefix": "a"}) == []
    assert there.result("list-namespaces") == ["", "ns"]
    assert here.result("delete-namespace/ns") == "Success"
    assert there.call("delete-namespace/ns").status == 404


def test_updates_at_once_are_each_the_truth_in_one_order(service: Service) -> None:
    doors = make(service, "order")
    doors[0].result("upsert", {"id": "a", "vector": [1, 2], "metadata": {"n": {}}})

    def patch(n: int) -> dict[str, int]:
        change = {"id": "a", "metadata": {"n": {str(n): n}}, "metadataUpdateMode": "PATCH"}
        return dict(doors[n % 2].result("update", change))

    def delete(n: int) -> dict[str, int]:
        return dict(doors[n % 2].result("delete", {"ids": ["a", "b"]}))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(patch, range(40))) == [{"updated": 1}] * 40, "none is lost, none counts twice"
        (row,) = doors[1].result("fetch", {"ids": ["a"], "includeMetadata": True})
        assert row["metadata"] == {"n": {str(n): n for n in range(40)}}
        deleted = list(pool.map(delete, range(8)))
    assert sorted(one["deleted"] for one in deleted) == [0] * 7 + [1], "only one of them found it"
    assert doors[0].result("update", {"id": "a", "metadata": {}}) == {"updated": 0}


def test_the_other_door_knows_what_became_of_a_write(service: Service) -> None:
    door, _ = make(service, "known")
    index = service.apis[1].index("known")
    written = door.call(
        "upsert", [{"id": "a", "vector": [1, 2], "metadata": {"k": 1}}, {"id": "b", "vector": [1, 3]}]
    )
    status = index.visible(written.headers["X-Mutation-Id"])
    assert (status["counts"]["received"], status["counts"]["inserted"]) == (2, 2)
    assert index.fetch("a")["a"]["metadata"] == {"k": 1}
    changed = door.call("update", {"id": "a", "metadata": {"k": 2}})
    assert index.status(changed.headers["X-Mutation-Id"])["state"] == "visible", "its answer waited for it"
    waited = door.call("delete", {"filter": "k = 2"}, Prefer="wait=30")
    assert waited.json == {"result": {"deleted": 1}}
    assert index.status(waited.headers["X-Mutation-Id"])["counts"]["deleted"] == 1
    gone = index.delete(["b"])
    assert door.result("fetch", {"ids": ["a", "b"]}) == [None, None], (
        "it sees what came by the other door, too"
    )
    assert index.status(gone)["state"] == "visible"


def test_what_is_pending_comes_to_nothing_and_then_is_found(service: Service) -> None:
    here, there = make(service, "pending")
    many = [{"id": n, "vector": [1, n]} for n in range(1_000)]
    for namespace in range(5):
        assert here.result(f"upsert/ns-{namespace}", many) == "Success"
    for _ in until(60):
        if (info := there.result("info"))["pendingVectorCount"] == 0:
            break
    else:
        raise AssertionError("until() fails before")
    assert info["vectorCount"] == 5_000
    assert info["namespaces"]["ns-3"] == {"vectorCount": 1_000, "pendingVectorCount": 0}
    assert [one["id"] for one in there.result("query/ns-3", {"vector": [1, 0], "topK": 3})] == ["0", "1", "2"]


def test_a_query_that_goes_on_does_so_where_it_began(service: Service) -> None:
    here, there = make(service, "resumed")
    here.result("upsert", [{"id": n, "vector": [1, n]} for n in range(4)], Prefer="wait=30")
    begun = here.result("resumable-query", {"vector": [1, 0], "topK": 2})
    here.result("reset", Prefer="wait=30")
    more = {"uuid": begun["uuid"], "additionalK": 5}
    assert there.call("resumable-query-next", more).status == 404
    assert [one["id"] for one in here.result("resumable-query-next", more)] == ["2", "3"], "as when it began"
    assert here.result("resumable-query-end", {"uuid": begun["uuid"]}) == "Success"
