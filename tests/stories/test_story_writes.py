"""What a client may wish beside a write: to try it, to wait for it, to send it again; and which mutation `info` tells it of."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service import Answer, Index, Service, running

NAMES = itertools.count()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2) as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    index = service.apis[0].index(f"writes-{next(NAMES)}")
    assert index.create(2).status == 200
    return index


def line(name: str, *values: float) -> str:
    return json.dumps({"id": name, "values": values or (1, 2)})


def counts(index: Index, mutation: str) -> dict[str, int]:
    found = index.visible(mutation)["counts"]
    return {name: count for name, count in found.items() if count}


# Trying.


def test_a_dry_run_tells_every_mistake_and_changes_nothing(index: Index) -> None:
    wrong = [line("a"), "{", line("b", 1), "", line("c" * 65), line("d")]
    report = index.post("upsert?dry-run=true", "\n".join(wrong)).result
    assert {name: report[name] for name in ("dryRun", "valid", "received", "accepted", "problemCount")} == {
        "dryRun": True,
        "valid": False,
        "received": 5,
        "accepted": 2,
        "problemCount": 3,
    }
    assert [(one["line"], one["field"], one["code"]) for one in report["problems"]] == [
        (2, "", 40023),
        (3, "values", 40012),
        (5, "id", 40008),
    ]
    assert (
        report["problems"][1]["id"] == "b"
        and "expected 2 dimensions, and got 1" in report["problems"][1]["message"]
    )
    assert index.post("insert?dry-run=true", line("a")).result["valid"] is True
    assert index.post("delete_by_ids?dry-run=true", {"ids": ["a"]}).result["received"] == 1
    body = {"propertyName": "p", "indexType": "string"}
    assert index.post("metadata_index/create?dry-run=true", body).result["valid"] is True
    assert index.get("/mutations").result == [] and index.get("/info").result["vectorCount"] == 0


def test_a_dry_run_of_many_mistakes_names_the_first_and_counts_all(index: Index) -> None:
    report = index.post("upsert?dry-run=true", "\n".join(["x"] * 250)).result
    assert report["problemCount"] == 250 and len(report["problems"]) == 100 and report["accepted"] == 0


def test_what_is_wrong_with_the_request_itself_is_refused_as_ever(index: Index) -> None:
    assert index.post("upsert?dry-run=true", "").error[:2] == (400, 50400)
    assert index.post("delete_by_ids?dry-run=true", {"ids": []}).error[0] == 400
    assert "dry-run: expected true or false" in index.post("upsert?dry-run=yes", line("a")).error[2]


def test_what_cannot_be_tried_is_not_done_instead(index: Index) -> None:
    for method, path, body in (
        ("DELETE", index.path("?dry-run=true"), None),
        ("POST", index.path().rsplit("/", 1)[0] + "?dry-run=true", {"name": "never", "config": {}}),
        ("POST", index.path("/webhooks?dry-run=true"), {"url": "https://example.com"}),
    ):
        status, code, says = index.api.call(method, path, body).error
        assert (status, code) == (400, 50400) and "can be tried" in says
    assert index.get("").status == 200 and index.get("/webhooks").result == []


# Waiting.


def test_prefer_wait_answers_once_the_mutation_is_visible(index: Index) -> None:
    answer = index.post("upsert", line("a"), headers={"Prefer": "respond-async, wait=20"})
    assert answer.result["state"] == "visible" and answer.headers["Preference-Applied"] == "wait=20"
    assert index.fetch("a")
    for operation, body in (
        ("delete_by_ids", {"ids": ["a"]}),
        ("metadata_index/create", {"propertyName": "p", "indexType": "string"}),
        ("metadata_index/delete", {"propertyName": "p"}),
    ):
        answer = index.post(operation, body, headers={"Prefer": 'wait="20"; x=1'})
        assert answer.result["state"] == "visible", operation
    for prefer in ("wait", "wait=soon", "wait=-1", "handling=lenient", ""):
        answer = index.post("upsert", line("b"), headers={"Prefer": prefer})
        assert list(answer.result) == ["mutationId"] and "Preference-Applied" not in answer.headers


def test_waiting_ends_when_it_must_and_the_write_stays(service: Service) -> None:
    with running(workers=0) as lame:
        index = lame.apis[0].index("lame")
        index.create(2)
        answer = index.post("upsert", line("a"), headers={"Prefer": "wait=1"})
        assert answer.result["state"] == "queued"
        assert [one["state"] for one in index.get("/mutations?state=queued").result] == ["queued"]
        lame.start_worker()
        index.visible(answer.result["mutationId"])


def test_a_failure_is_told_to_who_waits(index: Index) -> None:
    for number in range(9):
        index.post("metadata_index/create", {"propertyName": f"p{number}", "indexType": "string"})
    wanted = [{"propertyName": f"q{number}", "indexType": "string"} for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda body: index.post("metadata_index/create", body, headers={"Prefer": "wait=20"}), wanted
            )
        )
    refused = [one for one in answers if one.status == 400 or one.result["state"] == "failed"]
    assert len(refused) == 5
    for one in refused:
        says = one.error[2] if one.status == 400 else one.result["error"]
        assert "too many metadata indexes; max is 10" in says


# Sending again.


def keyed(index: Index, body: str, key: str = "k1", operation: str = "insert", **how: Any) -> Answer:
    return index.post(operation, body, headers={"Idempotency-Key": key}, **how)


def test_the_same_request_is_the_same_mutation(service: Service, index: Index) -> None:
    first = keyed(index, line("a"))
    again = keyed(service.apis[1].index(index.name), line("a"))
    assert first.result == again.result
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert counts(index, first.result["mutationId"]) == {"received": 1, "inserted": 1}
    assert keyed(index, line("a")).result == first.result
    assert len(index.get("/mutations").result) == 1
    status, code, says = keyed(index, line("b")).error
    assert (status, code) == (422, 50422) and "Idempotency-Key was used for another request" in says
    assert keyed(index, line("a"), operation="upsert").error[0] == 422
    assert keyed(index, line("b"), key="k2").result != first.result
    assert set(index.fetch("a", "b")) <= {"a", "b"}


def test_all_writes_may_be_sent_again(index: Index) -> None:
    index.visible(index.upsert([{"id": "a", "values": [1, 2]}]))
    writes: list[tuple[str, dict[str, Any]]] = [
        ("delete_by_ids", {"ids": ["a"]}),
        ("metadata_index/create", {"propertyName": "p", "indexType": "string"}),
        ("metadata_index/delete", {"propertyName": "p"}),
    ]
    for number, (operation, body) in enumerate(writes):
        headers = {"Idempotency-Key": f"w{number}"}
        first, second = (index.post(operation, body, headers=headers).result for _ in range(2))
        assert first == second
    other = {"propertyName": "q", "indexType": "string"}
    assert index.post("metadata_index/create", other, headers={"Idempotency-Key": "w1"}).error[0] == 422


def test_a_key_belongs_to_its_token_and_its_index(service: Service, index: Index) -> None:
    token = new_token(service, "other writer")
    mine, theirs = keyed(index, line("a")), keyed(index, line("z"), token=token)
    assert mine.result != theirs.result
    elsewhere = service.apis[0].index(f"writes-{next(NAMES)}")
    elsewhere.create(2)
    assert keyed(elsewhere, line("y")).status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "é"])
def test_a_key_that_is_none_is_refused(index: Index, key: str) -> None:
    assert "Idempotency-Key: expected 1 to 255" in keyed(index, line("a"), key=key).error[2]


def test_many_at_once_are_one(service: Service, index: Index) -> None:
    others = [api.index(index.name) for api in service.apis]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: keyed(others[n % 2], line("a"), operation="insert"), range(48)))
    (mutation,) = {one.result["mutationId"] for one in answers}
    assert counts(index, mutation) == {"received": 1, "inserted": 1}
    applied = index.get("/mutations?limit=1000").result
    assert sum(one["counts"]["inserted"] + one["counts"]["skipped"] for one in applied) == 1


def test_copies_of_a_request_in_the_log_are_seen_by_nobody(service: Service, index: Index) -> None:
    """Two front ends take the same requests at once, so that some are in the log twice. Who was given an id must see it come up."""
    others = [api.index(index.name) for api in service.apis]
    given: set[str] = set()
    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            body, key = line(f"v{number}"), f"round-{number}"
            answers = list(
                pool.map(lambda n, body=body, key=key: keyed(others[n % 2], body, key=key), range(4))
            )
            (mutation,) = {one.result["mutationId"] for one in answers}
            given.add(mutation)
            index.visible(mutation)
            assert index.get("/info").result["processedUpToMutation"] == mutation
    listed = index.get("/mutations?limit=1000").result
    assert {one["mutationId"] for one in listed} == given and len(listed) == len(given)
    positions = [one["position"] for one in listed]
    assert len(set(positions)) == len(given) <= max(positions)


def test_what_was_accepted_once_is_not_refused_for_what_came_of_it() -> None:
    with running(UPWELL_VECTORS_MAX="2", UPWELL_METADATA_INDEXES_MAX="1") as service:
        index = service.apis[0].index("full")
        index.create(2)
        body = f"{line('a')}\n{line('b')}"
        first = keyed(index, body)
        index.visible(first.result["mutationId"])
        assert keyed(index, body).result == first.result
        assert keyed(index, line("c")).error[0] == 422
        assert "max is 2, it has 2" in keyed(index, line("c"), key="new").error[2]
        assert "max is 2, it has 2" in index.post("insert", line("c")).error[2]
        wanted = {"propertyName": "p", "indexType": "string"}
        made = keyed(index, json.dumps(wanted), key="p", operation="metadata_index/create")
        index.visible(made.result["mutationId"])
        again = {"propertyName": "q", "indexType": "string"}
        index.visible(index.post("metadata_index/delete", {"propertyName": "p"}).result["mutationId"])
        index.visible(index.post("metadata_index/create", again).result["mutationId"])
        operation = "metadata_index/create"
        assert keyed(index, json.dumps(wanted), key="p", operation=operation).result == made.result
        assert keyed(index, json.dumps(again), key="p", operation=operation).error[0] == 422
        assert "max is 1" in keyed(index, json.dumps(wanted), key="r", operation=operation).error[2]


def test_other_discarded_lines_are_another_request(index: Index) -> None:
    operation = "insert?unparsable-behavior=discard"
    first = keyed(index, line("a") + "\n" + line("b", 1), operation=operation)
    assert keyed(index, line("a") + "\n" + line("b", 1), operation=operation).result == first.result
    assert keyed(index, line("a") + "\n" + line("c", 1), operation=operation).error[0] == 422


def test_keys_outlive_redis_and_every_process() -> None:
    with running() as service:
        index = service.apis[0].index("outlives")
        index.create(2)
        first = keyed(index, line("a")).result
        index.visible(first["mutationId"])
        service.valkey.stop()
        service.valkey.start()
        service.apis[0].process.kill()
        service.apis[0].process.wait()
        index = service.start_api().index("outlives")
        assert keyed(index, line("a")).result == first
        assert keyed(index, line("b")).error[0] == 422
        assert index.visible(index.upsert([{"id": "b", "values": [1, 2]}]))["position"] == 2


# Which mutation `info` tells of.


def new_token(service: Service, name: str) -> str:
    body = {"name": name, "access": "write"}
    return str(service.apis[0].call("POST", "/upwell/v1/tokens", body).result["token"])


def test_info_tells_each_token_of_its_own_newest_mutation(service: Service, index: Index) -> None:
    token = new_token(service, "patient")
    fresh = new_token(service, "never wrote")
    mine = index.post("upsert", line("mine"), token=token).result["mutationId"]
    index.visible(mine)
    other = index.upsert([{"id": "other", "values": [1, 2]}])
    index.visible(other)

    def told(by: str | None, api: int) -> str:
        answer = service.apis[api].index(index.name).get("/info", **({"token": by} if by else {}))
        return str(answer.result["processedUpToMutation"])

    for api in (0, 1):
        assert told(token, api) == mine and told(None, api) == other and told(fresh, api) == other
    later = index.post("upsert", line("mine"), token=token).result["mutationId"]
    index.visible(later)
    assert told(token, 1) == later and told(None, 0) == other


def test_who_waits_for_its_own_id_sees_it_while_another_writes_without_pause(
    service: Service, index: Index
) -> None:
    """As clients of Cloudflare wait: by equality, now and then."""
    token, stop = new_token(service, "waits"), threading.Event()

    def write() -> None:
        while not stop.is_set():
            index.upsert([{"id": "noise", "values": [1, 2]}])

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for number in range(5):
            mine = index.post("upsert", line(f"v{number}"), token=token).result["mutationId"]
            index.visible(mine)
            index.upsert([{"id": "more noise", "values": [1, 2]}])
            assert index.get("/info", token=token).result["processedUpToMutation"] == mine
    finally:
        stop.set()
        for writer in writers:
            writer.join()


# The list of mutations.


def test_mutations_are_listed_by_state_and_page_by_page(index: Index) -> None:
    made = [index.upsert([{"id": f"v{n}", "values": [1, 2]}]) for n in range(7)]
    index.visible(made[-1])
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = index.get(f"/mutations?state=visible&limit=3&cursor={cursor}")
        found += [one["mutationId"] for one in answer.result]
        info = answer.json["result_info"]
        assert info["count"] == len(answer.result)
        cursor = info["cursor"]
    assert found == made[::-1]
    assert index.get("/mutations?state=failed").result == []
    assert index.get("/mutations?state=queued").result == []
    assert (
        "state: expected one of queued, applying, visible, failed" in index.get("/mutations?state=x").error[2]
    )
    status, _, says = index.get("/mutations?cursor=nonsense").error
    assert status == 404 and says.startswith("cursor: expected the id of a mutation of this index")
    assert index.get("/mutations?state=applying").result == []
