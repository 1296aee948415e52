"""The main job, told once: upload, follow, query. One front end and one worker, as processes, on a real Valkey."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.service import Index, Service, running


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    index = service.apis[0].index(f"i{uuid.uuid1().hex[:20]}")
    assert index.create(3).result["config"] == {"dimensions": 3, "metric": "cosine"}
    return index


def vector(id: str, *values: float, **more: object) -> dict[str, object]:
    return {"id": id, "values": list(values), **more}


def test_an_upload_is_acknowledged_then_visible_then_found(index: Index) -> None:
    mutation = index.upsert([vector("a", 1, 0, 0, metadata={"t": "x"}), vector("b", 0, 1, 0, namespace="n")])
    status = index.visible(mutation)
    assert status["mutationId"] == mutation and len(mutation) == 36
    assert status["operation"] == "upsert" and status["position"] == status["visibleThrough"] == 1
    assert status["acceptedAt"] <= status["visibleAt"]
    assert status["counts"] == {
        "received": 2, "inserted": 2, "replaced": 0, "skipped": 0, "updated": 0, "deleted": 0, "discarded": 0,
    }  # fmt: skip
    assert status["error"] is None
    hits = index.query([1, 0.1, 0], topK=1, returnValues=True, returnMetadata="all")
    assert hits[0]["id"] == "a" and hits[0]["values"] == [1, 0, 0] and hits[0]["metadata"] == {"t": "x"}
    assert hits[0]["score"] == pytest.approx(1 / (1 + 0.01) ** 0.5)
    assert index.query([1, 0, 0], namespace="n") == [{"id": "b", "score": 0.0, "namespace": "n"}]
    info = index.get("/info").result
    assert info["vectorCount"] == 2 and info["dimensions"] == 3 and info["processedUpToMutation"] == mutation


def test_insert_keeps_the_first_upsert_replaces_whole_delete_removes(index: Index) -> None:
    index.upsert([vector("a", 1, 0, 0, metadata={"v": 1}), vector("a", 0, 1, 0)], "insert")
    kept = index.upsert([vector("a", 0, 0, 1), vector("b", 0, 0, 1)], "insert")
    assert index.visible(kept)["counts"]["skipped"] == 1
    assert index.fetch("a")["a"] == {"id": "a", "values": [1, 0, 0], "metadata": {"v": 1}}
    replaced = index.upsert([vector("a", 9, 0, 0), vector("a", 0, 2, 0, namespace="n")])
    counts = index.visible(replaced)["counts"]
    assert (counts["received"], counts["inserted"], counts["replaced"]) == (2, 0, 2)
    assert index.fetch("a")["a"] == {"id": "a", "values": [0, 2, 0], "namespace": "n"}
    deleted = index.delete(["a", "never was"])
    assert index.visible(deleted)["counts"]["deleted"] == 1
    assert index.fetch("a", "b").keys() == {"b"}


def test_order_across_requests_is_the_order_of_acknowledgement(index: Index) -> None:
    last = ""
    for number in range(30):
        last = index.upsert([vector("same", number + 1, 0, 1)])
    index.visible(last)
    assert index.fetch("same")["same"]["values"] == [30, 0, 1]


def test_a_query_can_wait_for_a_mutation(index: Index) -> None:
    for number in range(20):
        mutation = index.upsert([vector(f"v{number}", 1, number, 0)])
        answer = index.post("query", {"vector": [1, number, 0], "topK": 1, "after": mutation})
        assert answer.result["matches"][0]["id"] == f"v{number}"


def test_discarded_lines_are_named_in_the_answer_and_in_the_status(index: Index) -> None:
    body = (
        b'{"id":"a","values":[1,2,3]}\n\n{"id":"b","values":[1,2]}\r\nnot json\n{"id":"c","values":[1,2,4]}'
    )
    answer = index.post("upsert?unparsable-behavior=discard", body)
    assert [m["code"] for m in answer.json["messages"]] == [40012, 40023]
    assert (
        "line 3" in answer.json["messages"][0]["message"]
        and "line 4" in answer.json["messages"][1]["message"]
    )
    status = index.visible(answer.result["mutationId"])
    assert (
        status["counts"]["received"] == 4
        and status["counts"]["discarded"] == 2
        and status["counts"]["inserted"] == 2
    )
    assert [line["line"] for line in status["discarded"]] == [3, 4]
    assert status["discarded"][0]["id"] == "b" and status["discarded"][0]["field"] == "values"


def test_without_discard_nothing_is_enqueued_from_a_refused_body(index: Index) -> None:
    before = index.upsert([vector("a", 1, 0, 0)])
    body = b'{"id":"x","values":[1,2,3]}\n{"id":"y","values":[1,2]}\n'
    status, code, message = index.post("upsert", body).error
    assert (status, code) == (400, 40012) and "line 2" in message and 'id="y"' in message
    after = index.upsert([vector("b", 1, 0, 0)])
    assert index.visible(after)["position"] == index.visible(before)["position"] + 1
    assert index.fetch("x") == {}


def test_foreign_invented_and_malformed_mutation_ids_are_unknown(service: Service, index: Index) -> None:
    other = service.apis[0].index(f"o{uuid.uuid1().hex[:20]}")
    other.create(3)
    foreign = other.upsert([vector("a", 1, 0, 0)])
    index.upsert([vector("a", 1, 0, 0)])
    for unknown in (
        foreign,
        str(uuid.uuid1()),
        "00000000-0001-8000-8000-000000000000",
        "x",
        foreign.upper() + "0",
    ):
        status, _, message = index.get(f"/mutations/{unknown}").error
        assert status == 404 and "mutation" in message


def test_a_deleted_index_is_gone_and_its_name_can_be_used_again(index: Index) -> None:
    old = index.upsert([vector("a", 1, 0, 0)])
    assert index.api.call("DELETE", index.path()).result is None
    assert index.get("").error[:2] == (410, 3005)
    assert index.post("upsert", b'{"id":"a","values":[1,2,3]}').error[:2] == (410, 3005)
    assert index.create(4).status == 200
    assert index.get(f"/mutations/{old}").error[0] == 404
    assert index.get("/info").result == {
        "dimensions": 4,
        "vectorCount": 0,
        "backlog": {"mutations": 0, "bytes": 0},
        "compaction": {"pending": 0, "unindexed": 0, "segments": 0, "writeAmplification": None},
    }
    assert index.create(4).error[:2] == (400, 3002)


@pytest.mark.parametrize(
    ("metric", "scores"), [("cosine", [1.0, 0.8]), ("euclidean", [0.0, 5.0]), ("dot-product", [-75.0, -25.0])]
)
def test_scores_are_those_of_the_metric(index: Index, metric: str, scores: list[float]) -> None:
    mine = index.api.index(f"{index.name}m")
    mine.create(2, metric)
    mine.visible(
        mine.upsert([vector("a", 3, 4), vector("b", 9, 12) if metric == "dot-product" else vector("b", 0, 8)])
    )
    hits = mine.query([3, 4])
    if metric == "euclidean":
        assert [hit["id"] for hit in hits] == ["a", "b"] and hits[1]["score"] == pytest.approx(5.0)
    assert [hit["score"] for hit in hits] == pytest.approx(scores)
    assert mine.post("query", {"vectorId": "a", "topK": 1}).result["matches"][0]["id"] == hits[0]["id"]
