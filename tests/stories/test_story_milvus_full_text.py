"""Full-text search of Milvus's API v2, by hand-written calls to real processes: texts go in, and are found by their words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.milvus_door import Milvus, by_id, strong
from tests.plain_full_text import FUNCTION, TEXT_FIELDS, bm25_scores, ranked
from tests.service import Service, running, until

NAMES = itertools.count()
ID = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
DENSE = {"fieldName": "dense", "dataType": "FloatVector", "elementTypeParams": {"dim": "2"}}
WORDS = ["vector", "index", "queue", "shard", "worker", "segment", "log", "door", "query", "manifest"]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=1, UPWELL_COMPACTION_SETTLE_S="0.2") as service:
        yield service


@pytest.fixture
def door(service: Service) -> Milvus:
    return Milvus(service.apis[0], 2)


def make(door: Milvus, *more: dict[str, Any], **params: str) -> str:
    """A new collection of texts, loaded; returns its name."""
    name = f"texts_{next(NAMES)}"
    schema = {
        "autoId": False,
        "enableDynamicField": True,
        "fields": [ID, *TEXT_FIELDS, *more],
        "functions": [FUNCTION],
    }
    indexes = [{"fieldName": "sparse", "indexName": "by_text", "metricType": "BM25", "params": params}]
    indexes += [{"fieldName": one["fieldName"], "metricType": "COSINE"} for one in more]
    door.data("collections/create", {"collectionName": name, "schema": schema, "indexParams": indexes})
    return name


def found(door: Milvus, name: str, query: str, **asked: Any) -> dict[int, float]:
    """The ids that a text finds, and their scores; best first."""
    body = strong({"collectionName": name, "data": [query], "annsField": "sparse", "limit": 100} | asked)
    hits = by_id(door.data("entities/search", body))
    assert list(hits) == ranked({id: hit["distance"] for id, hit in hits.items()})
    return {id: hit["distance"] for id, hit in hits.items()}


def test_texts_go_in_and_are_found_by_their_words(door: Milvus, service: Service) -> None:
    name = make(door, bm25_k1="1.5", bm25_b="0.5")
    texts = {
        1: "a log is a queue",
        2: "the queue of the queue",
        3: "an index of vectors has shards and segments and a log",
        4: "shards",
    }
    rows = [{"id": id, "text": text} for id, text in texts.items()]
    named = {"collectionName": name}
    assert door.data("entities/insert", named | {"data": rows})["insertCount"] == 4
    # Whichever front end is asked.
    other = Milvus(service.apis[1], 2)
    for query in ("queue", "Log!", "the shards of a queue", "nothing here but segments"):
        expected = bm25_scores(query.lower().strip("!"), texts, k1=1.5, b=0.5)
        assert found(other, name, query) == pytest.approx(expected, rel=1e-5)
    assert list(found(door, name, "shards")) == [4, 3], "the shorter first"
    assert list(found(door, name, "queue")) == [2, 1], "more often first"
    assert list(found(door, name, "a the")) == [2, 1, 3], "the rarer first"
    assert found(door, name, "unheard") == found(door, name, "") == {}

    door.data("entities/upsert", named | {"data": [{"id": 4, "text": "a log"}], "partialUpdate": True})
    door.data("entities/upsert", named | {"data": [{"id": 2, "kind": "note"}], "partialUpdate": True})
    assert list(found(door, name, "shards")) == [3]
    assert list(found(door, name, "log")) == [4, 1, 3]
    assert list(found(door, name, "queue", filter='kind == "note"')) == [2]
    door.data("entities/delete", named | {"filter": "id in [3]"})
    texts = {1: texts[1], 2: texts[2], 4: "a log"}
    assert found(door, name, "shards a log") == pytest.approx(
        bm25_scores("shards a log", texts, 1.5, 0.5), rel=1e-5
    )
    everything = strong(named | {"filter": "id > 0", "outputFields": ["*"]})
    assert by_id(door.data("entities/query", everything)) == {
        1: {"id": 1, "text": texts[1]},
        2: {"id": 2, "text": texts[2], "kind": "note"},
        4: {"id": 4, "text": "a log"},
    }


def test_dense_vectors_and_texts_are_made_one_ranking(door: Milvus) -> None:
    name = make(door, DENSE)
    rows = [
        {"id": 1, "text": "a queue", "dense": [1, 0]},
        {"id": 2, "text": "a log of a queue", "dense": [0, 1]},
        {"id": 3, "text": "a log", "dense": [1, 1]},
    ]
    door.data("entities/insert", {"collectionName": name, "data": rows})
    parts = [
        {"data": [[1, 0]], "annsField": "dense", "limit": 3},
        {"data": ["log"], "annsField": "sparse", "limit": 3, "metricType": "BM25"},
    ]
    for rerank, first in (
        ({"strategy": "rrf", "params": {"k": 10}}, 3),
        ({"strategy": "weighted", "params": {"weights": [1.0, 0.0]}}, 1),
        ({"strategy": "weighted", "params": {"weights": [0.0, 1.0]}}, 3),
    ):
        body = strong(
            {"collectionName": name, "search": parts, "rerank": rerank, "limit": 3, "outputFields": ["text"]}
        )
        hits = door.data("entities/hybrid_search", body)
        assert hits[0]["id"] == first and {hit["id"] for hit in hits} == {1, 2, 3}, rerank
        assert all(hit.keys() == {"id", "text", "distance"} for hit in hits)


def test_scores_outlive_workers_and_compactions(door: Milvus, service: Service) -> None:
    """Goal: whatever becomes of segments, scores are those of the rows there are. Method: many small writes, a killed worker, and a
    body that is large enough to be parsed in a process of its own."""
    name, chance = make(door), Random(7)
    named, texts = {"collectionName": name}, dict[int, str]()

    def some(count: int, words: int) -> list[dict[str, Any]]:
        new = {chance.randrange(400): " ".join(chance.choices(WORDS, k=words)) for _ in range(count)}
        texts.update(new)
        return [{"id": id, "text": text} for id, text in new.items()]

    for _ in range(12):
        door.write("entities/upsert", named | {"data": some(10, 6)})
    service.workers[-1].kill()
    large = some(200, 300)
    assert sum(len(row["text"]) for row in large) > 256 << 10
    door.data("entities/upsert", named | {"data": large})
    service.start_worker()
    query = "manifest of the log log"
    assert found(door, name, query, limit=400) == pytest.approx(bm25_scores(query, texts), rel=1e-5)

    def compaction() -> dict[str, Any]:
        told: dict[str, Any] = service.apis[0].index(name).get("/info").result["compaction"]
        return told

    before = compaction()["writeAmplification"]
    gone = list(texts)[:120]
    door.data("entities/delete", named | {"filter": f"id in {gone}"})
    texts = {id: text for id, text in texts.items() if id not in gone}
    assert found(door, name, query, limit=400) == pytest.approx(bm25_scores(query, texts), rel=1e-5)
    # So many are deleted that what is left is written anew.
    for _ in until(60):
        if compaction()["writeAmplification"] > before:
            break
    assert found(door, name, query, limit=400) == pytest.approx(bm25_scores(query, texts), rel=1e-5)


def test_mistakes_are_told(door: Milvus) -> None:
    name = make(door)
    named = {"collectionName": name}
    vector = {"id": 1, "text": "a", "sparse": {"1": 1.0}}
    code, says = door.refusal("entities/insert", named | {"data": [vector]})
    assert code == 1100 and "unexpected function output field `sparse`" in says
    code, says = door.refusal("entities/insert", named | {"data": [{"id": 1}]})
    assert code == 1804 and "text" in says
    code, says = door.refusal("entities/search", named | {"data": [{"1": 1.0}]})
    assert code == 1100 and "please provide varchar/text for BM25 Function based search" in says
    code, says = door.refusal("entities/query", named | {"filter": "id > 0", "outputFields": ["sparse"]})
    assert "not allowed to retrieve raw data of field sparse" in says


@pytest.mark.slow
def test_a_large_collection_of_texts_alone_is_merged_and_kills_nobody() -> None:
    """Goal: many segments of one shard, of rows that have no dense vectors at all, become few, and scores stay what they are. Method: so
    many rows that dense ones would get lists, in small writes, some of them twice."""
    settings = {"UPWELL_COMPACTION_SETTLE_S": "0.2", "UPWELL_COMPACTION_FANOUT": "2", "UPWELL_SHARDS": "1"}
    with running(apis=1, workers=1, **settings) as service:
        api, (worker,) = service.apis[0], service.workers
        door, chance, texts = Milvus(api, 2), Random(3), dict[int, str]()
        name = make(door)

        def write(ids: range) -> None:
            new = {id: f"w{id % 997} " + " ".join(chance.choices(WORDS, k=3)) for id in ids}
            texts.update(new)
            rows = [{"id": id, "text": text} for id, text in new.items()]
            door.write("entities/upsert", {"collectionName": name, "data": rows})

        for first in range(0, 18_000, 600):
            write(range(first, first + 600))
        for first in range(0, 1_500, 50):
            write(range(first, first + 50))
        info: dict[str, Any] = {}
        for _ in until(120):
            assert worker.poll() is None, "compacting killed it"
            info = api.index(name).get("/info").result
            if info["compaction"]["segments"] <= 3 and info["compaction"]["pending"] == 0:
                break
        assert info["vectorCount"] == 18_000 == len(texts)
        for query in ("w7 w8", "w996 w500 unheard"):
            assert found(door, name, query) == pytest.approx(bm25_scores(query, texts), rel=1e-5)
