"""Texts that workers turn into vectors after they were acknowledged: nothing is lost and nothing half, whatever the model does."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.embedding_server import (
    DIMENSIONS,
    Answer,
    Asked,
    EmbeddingServer,
    embedding_server,
    sound,
    vector_of,
)
from tests.service import Api, Index, Service, running, until

#: Longer than any test takes.
PATIENCE_S = 300.0


@pytest.fixture
def patience_s() -> float:
    """How long a mutation waits for a model that is away."""
    return PATIENCE_S


@pytest.fixture
def model() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture
def service(model: EmbeddingServer, patience_s: float) -> Iterator[Service]:
    letters = {"url": f"{model.url}/v1/embeddings", "model": "letters", "dimensions": DIMENSIONS}
    settings = {
        "UPWELL_EMBEDDING_PATIENCE_S": str(patience_s),
        "UPWELL_EMBEDDING_MODELS": json.dumps({"LETTERS": letters}),
    }
    with running(1, 2, **settings) as service:
        made = (
            service.apis[0]
            .index("texts")
            .create(dimensions=DIMENSIONS, embeddingModel="LETTERS", metric="euclidean")
        )
        assert made.status == 200, made
        yield service


def away(_: Asked) -> Answer:
    """The answer of a model that is away."""
    return Answer({"error": {"message": "come back later"}}, 503)


def there(asked: Asked) -> Answer:
    """The answer of one that is not."""
    return Answer(sound(asked.texts))


def door(api: Api, command: str, body: Any, **how: Any) -> Any:
    """A call at the Upstash door; returns its result."""
    answer = api.call("POST", f"/upstash/default/texts/{command}", json.dumps(body), **how)
    assert answer.status == 200, answer
    return answer.json["result"]


def send(api: Api, *rows: tuple[str, str]) -> str:
    """Send texts; returns the mutationId."""
    body = json.dumps([{"id": name, "data": text} for name, text in rows])
    answer = api.call("POST", "/upstash/default/texts/upsert-data", body)
    assert (answer.status, answer.json) == (200, {"result": "Success"})
    return answer.headers["X-Mutation-Id"]


def test_texts_are_visible_in_order_with_their_vectors(service: Service) -> None:
    api = service.apis[0]
    index = api.index("texts")
    send(api, ("a", "one"), ("b", "two"))
    last = send(api, ("a", "uno"))
    assert index.visible(last)["counts"]["replaced"] == 1
    found = door(api, "fetch", {"ids": ["a", "b", "c"], "includeVectors": True, "includeData": True})
    assert found[2] is None
    assert [(one["data"], one["vector"]) for one in found[:2]] == [
        ("uno", vector_of("uno")),
        ("two", vector_of("two")),
    ]
    (best,) = door(api, "query-data", {"data": "two", "topK": 1})
    assert (best["id"], best["score"]) == ("b", 1)
    assert door(api, "update", {"id": "b", "data": "six"}) == {"updated": 1}
    assert door(api, "fetch", {"ids": ["b"], "includeVectors": True})[0]["vector"] == vector_of("six")


def test_a_model_that_is_away_keeps_mutations_waiting_and_loses_none(
    service: Service, model: EmbeddingServer
) -> None:
    api = service.apis[0]
    index = api.index("texts")
    model.answer = away
    text = send(api, ("a", "one"))
    behind = index.upsert([{"id": "v", "values": [1, 2, 3, 4]}])
    for _ in until(60):
        if model.asked:
            break
    assert [index.status(one)["state"] for one in (text, behind)] == ["queued", "queued"]
    model.answer = there
    index.visible(behind)
    assert sorted(index.fetch("a", "v")) == ["a", "v"]


@pytest.mark.parametrize("patience_s", [2.0])
def test_what_waits_too_long_for_a_model_fails_with_the_reason_and_can_be_retried(
    service: Service, model: EmbeddingServer
) -> None:
    api = service.apis[0]
    index = api.index("texts")
    model.answer = away
    text = send(api, ("a", "one"), ("b", "two"))
    behind = index.upsert([{"id": "v", "values": [1, 2, 3, 4]}])
    index.visible(behind, wait_s=60)
    status = index.status(text)
    assert status["state"] == "failed"
    assert "no vectors could be made of its text for 2 s" in status["error"]
    assert list(index.fetch("a", "b", "v")) == ["v"]
    model.answer = there
    again = index.post(f"mutations/{text}/retry", {}).result["mutationId"]
    index.visible(again)
    assert sorted(index.fetch("a", "b")) == ["a", "b"]


def test_a_worker_that_is_killed_while_it_waits_for_vectors_loses_nothing(
    service: Service, model: EmbeddingServer
) -> None:
    api = service.apis[0]
    index: Index = api.index("texts")
    asked, goes_on = threading.Event(), threading.Event()

    def held(question: Asked) -> Answer:
        asked.set()
        goes_on.wait(60)
        return there(question)

    model.answer = held
    mutations = [send(api, (f"t{number}", f"text {number}")) for number in range(20)]
    assert asked.wait(60)
    for worker in service.workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    model.answer = there
    goes_on.set()
    service.start_worker()
    for mutation in mutations:
        index.visible(mutation)
    assert len(index.fetch(*(f"t{number}" for number in range(20)))) == 20


@pytest.mark.slow
def test_a_model_that_hangs_does_not_hold_a_worker_that_is_told_to_stop(
    service: Service, model: EmbeddingServer
) -> None:
    api = service.apis[0]
    model.answer = model.hang
    mutation = send(api, ("a", "one"))
    for _ in until(60):
        if model.asked:
            break
    for worker in service.workers:
        worker.terminate()
    # One of them may only have been starting, and dies of the signal; it is not the one that waits for the model.
    ends = {worker.wait(25) for worker in service.workers}
    assert 0 in ends and ends <= {0, -signal.SIGTERM}
    model.answer = there
    service.start_worker()
    api.index("texts").visible(mutation)


@pytest.mark.slow
def test_redis_goes_while_texts_become_vectors_and_all_are_made(
    service: Service, model: EmbeddingServer
) -> None:
    """Claims, and those who were asked to help, are forgotten: whoever is at it makes them by himself."""
    api = service.apis[0]
    asked, goes_on = threading.Event(), threading.Event()

    def held(question: Asked) -> Answer:
        asked.set()
        goes_on.wait(60)
        return there(question)

    model.answer = held
    mutations = [send(api, (f"t{number}", f"text {number}")) for number in range(10)]
    assert asked.wait(60)
    service.valkey.stop()
    mutations += [send(api, (f"t{number}", f"text {number}")) for number in range(10, 20)]
    model.answer = there
    goes_on.set()
    service.valkey.start()
    for mutation in mutations:
        api.index("texts").visible(mutation)
    assert len(api.index("texts").fetch(*(f"t{number}" for number in range(20)))) == 20
