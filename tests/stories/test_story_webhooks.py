"""Webhooks as an operator meets them: front end, workers and Valkey as processes, and a receiver that checks every signature."""

from __future__ import annotations

import itertools
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.receiver import Received, Receiver, receiving
from tests.service import Answer, Index, Service, running, until

NAMES = itertools.count()
PRIVATE_TOO = {"UPWELL_WEBHOOK_PRIVATE_ADDRESSES": "true"}
SECRET = "whsec_" + b64encode(b"a secret of the operator's own, 41 bytes!").decode()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=2, **PRIVATE_TOO) as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    return fresh(service)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def fresh(service: Service) -> Index:
    index = service.apis[0].index(f"hooks-{next(NAMES)}")
    assert index.create(2).status == 200
    return index


def register(index: Index, receiver: Receiver, **more: object) -> dict[str, Any]:
    result = index.post("webhooks", {"url": receiver.url, **more}).result
    assert isinstance(result, dict)
    return result


def listed(index: Index) -> dict[str, Any]:
    """The index's only webhook."""
    (only,) = index.get("/webhooks").result
    assert isinstance(only, dict)
    return only


def delete(index: Index, webhook_id: str, **how: Any) -> Answer:
    return index.api.call("DELETE", index.path(f"/webhooks/{webhook_id}"), **how)


def one(name: str) -> list[dict[str, Any]]:
    return [{"id": name, "values": [1, 2]}]


def write(index: Index, count: int) -> list[str]:
    return [index.upsert(one(f"v{number}")) for number in range(count)]


def wait_for(receiver: Receiver, mutations: list[str], seconds: float = 60) -> None:
    """Until all are told; in order, and nothing else."""
    for _ in until(seconds):
        if len(receiver.taken()) >= len(mutations):
            break
    assert receiver.taken() == mutations


def test_every_mutation_is_told_in_order_signed_and_as_status_has_it(
    service: Service, index: Index, receiver: Receiver
) -> None:
    index.visible(index.upsert(one("before")))
    made = register(index, receiver, secret=SECRET)
    assert made["secret"] == SECRET and made["events"] == ["visible", "failed"]
    other = service.apis[1].index(index.name)
    mutations = [side.upsert(one("v")) for side in [index, other] * 10] + [index.delete(["v"])]
    wait_for(receiver, mutations)
    for got in receiver.received:
        message = got.verified(SECRET)
        status = index.status(message["data"]["mutationId"])
        data = message["data"]
        assert (data.pop("account"), data.pop("index")) == ("default", index.name)
        assert data | {"visibleThrough": 0} == status | {"visibleThrough": 0}
        assert message["type"] == "mutation.visible" and message["timestamp"] == status["visibleAt"]
    for _ in until(60):
        if listed(index)["deliveredThrough"] == mutations[-1]:
            break
    shown = listed(index)
    assert shown["state"] == "active" and shown["throughPosition"] == 22 and shown["lastError"] is None
    assert SECRET not in str(shown) and "secret" not in shown
    assert delete(index, made["id"]).result is None
    assert index.get("/webhooks").result == []


def test_what_fails_is_told_too(receiver: Receiver) -> None:
    with running(apis=1, workers=0, **PRIVATE_TOO) as service, receiving() as only_failures:
        index = fresh(service)
        secret = register(index, receiver)["secret"]
        register(index, only_failures, events=["failed"])
        good = write(index, 2)
        large = index.upsert(
            {"id": f"large{n}", "values": [n, 1], "metadata": {"m": "x" * 9_000}} for n in range(300)
        )
        good += write(index, 2)
        (payload,) = Path(service.data).glob("store/index/*/payload/*")
        data = bytearray(payload.read_bytes())
        data[len(data) // 2] ^= 1
        payload.write_bytes(data)
        service.start_worker()
        wait_for(receiver, good)
        # Each webhook has a courier of its own, and neither waits for the other.
        for _ in until(60):
            if only_failures.received:
                break
        assert receiver.taken("mutation.failed") == [large] == only_failures.taken("mutation.failed")
        order = [got.json["data"]["position"] for got in receiver.received]
        assert order == [1, 2, 3, 4, 5]
        told = receiver.received[2].verified(secret)["data"]
        assert (told["state"], told["error"]) == ("failed", index.status(large)["error"]) and told["error"]
        for _ in until(60):
            if {hook["throughPosition"] for hook in index.get("/webhooks").result} == {5}:
                break
        assert len(only_failures.received) == 1


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(index: Index) -> None:
    with receiving() as receiver:
        register(index, receiver)
    mutations = write(index, 5)
    index.visible(mutations[-1])
    for _ in until(60):
        if listed(index)["tries"] >= 2:
            break
    shown = listed(index)
    assert shown["state"] == "retrying" and shown["nextAttemptAt"] and shown["deliveredThrough"] is None
    assert (
        shown["lastError"]["mutationId"] == mutations[0] and "cannot connect" in shown["lastError"]["message"]
    )
    with receiving(port=receiver.port) as back:
        wait_for(back, mutations)


def test_errors_are_tried_again_with_the_same_id(index: Index, receiver: Receiver) -> None:
    secret = register(index, receiver)["secret"]
    answers = iter([500, 200, 302, 503, 200])
    receiver.answer = lambda _: next(answers, 204)
    mutations = write(index, 3)
    wait_for(receiver, mutations)
    tries = [got.verified(secret)["data"]["mutationId"] for got in receiver.received]
    assert tries == [mutations[0]] * 2 + [mutations[1]] * 3 + [mutations[2]]
    assert len(receiver.ids()) == 3


def test_410_disables_a_webhook(index: Index, receiver: Receiver) -> None:
    register(index, receiver)
    receiver.answer = lambda _: 410
    index.visible(index.upsert(one("a")))
    for _ in until(60):
        if listed(index)["state"] == "disabled":
            break
    index.visible(index.upsert(one("b")))
    with receiving() as other:
        register(index, other)
        wait_for(other, [index.upsert(one("c"))])
    assert len(receiver.received) == 1
    first = next(hook for hook in index.get("/webhooks").result if hook["url"] == receiver.url)
    assert first["disabledAt"] and "410" in first["lastError"]["message"]


def test_workers_killed_in_the_middle_lose_nothing(receiver: Receiver) -> None:
    """Killed outright, again and again, with messages on their way, and Redis wiped between."""
    with running(apis=1, workers=2, UPWELL_LEASE_TTL_S="0.5", **PRIVATE_TOO) as service:
        index = fresh(service)
        secret = register(index, receiver)["secret"]
        lock = threading.Lock()

        def slowly(_: Received) -> int:
            with lock:
                threading.Event().wait(0.01)
            return 200

        receiver.answer = slowly
        mutations: list[str] = []
        for round_number in range(4):
            # Counted before the writes: on a slow machine most of them may be told before the last is accepted.
            told = len(receiver.taken())
            mutations += write(index, 30)
            for _ in until(60):
                if len(receiver.taken()) > told + 10:
                    break
            for worker in service.workers[-2:]:
                worker.kill()
                worker.wait()
            if round_number % 2:
                service.valkey.stop()
                service.valkey.start()
            service.start_worker()
            service.start_worker()
        wait_for(receiver, mutations)
        assert {got.verified(secret)["data"]["state"] for got in receiver.received} == {"visible"}
        # Those that were repeated carry the id by which a receiver knows it.
        assert len(receiver.ids()) == len(mutations)


def test_redis_away_delays_and_comes_back_empty(receiver: Receiver) -> None:
    with running(apis=1, workers=1, **PRIVATE_TOO) as service:
        index = fresh(service)
        register(index, receiver)
        mutations = write(index, 3)
        wait_for(receiver, mutations)
        service.valkey.stop()
        mutations += write(index, 3)
        assert listed(index)["state"] == "active"
        service.valkey.start()
        wait_for(receiver, mutations)


def test_a_deleted_index_and_its_successor(service: Service, receiver: Receiver) -> None:
    index = fresh(service)
    register(index, receiver)
    mutations = write(index, 2)
    wait_for(receiver, mutations)
    assert index.api.call("DELETE", index.path()).status == 200
    assert index.get("/webhooks").error[:2] == (410, 3005)
    assert index.post("webhooks", {"url": receiver.url}).error[0] == 410
    assert index.create(2).status == 200
    assert index.get("/webhooks").result == []
    index.visible(index.upsert(one("a")))
    with receiving() as other:
        register(index, other)
        wait_for(other, [index.upsert(one("b"))])
    assert len(receiver.received) == 2


def test_a_deleted_webhook_is_told_nothing_more(index: Index, receiver: Receiver) -> None:
    made = register(index, receiver)
    wait_for(receiver, write(index, 1))
    assert delete(index, made["id"]).status == 200
    assert delete(index, made["id"]).error == (404, 50404, f"there is no such webhook, id='{made['id']}'")
    with receiving() as other:
        register(index, other)
        wait_for(other, write(index, 3))
    assert len(receiver.received) == 1


# Refusals.


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    """A service that allows public addresses only."""
    with running() as service:
        yield service


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/", "loopback"),
        ("http://localhost/", "loopback"),
        ("http://10.1.2.3/", "private"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://100.64.1.1/", "CGNAT"),
        ("http://0.0.0.0/", "this network"),
        ("https://[::1]/", "loopback"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[64:ff9b::a00:1]/", "private"),
        ("http://[2002:7f00:1::]/", "loopback"),
        ("http://[fd00::1]/", "private"),
        ("http://127.1/", "four decimal"),
        ("http://0x7f000001/", "four decimal"),
        ("http://2130706433/", "four decimal"),
        ("http://user:pass@example.com/", "user name"),
        ("ftp://example.com/", "http://"),
        ("http://nobody.invalid/", "cannot be resolved"),
        ("", "at least 1 character"),
    ],
)
def test_where_a_webhook_must_not_lead(strict: Service, url: str, says: str) -> None:
    index = fresh(strict)
    status, _, message = index.post("webhooks", {"url": url}).error
    assert status == 400 and says in message
    assert index.get("/webhooks").result == []


def test_a_worker_refuses_what_a_front_end_allowed(receiver: Receiver) -> None:
    """What counts is the address that is connected to, when it is."""
    with running(apis=1, workers=0, **PRIVATE_TOO) as service:
        index = fresh(service)
        register(index, receiver)
        service.settings.clear()
        service.start_worker()
        index.visible(index.upsert(one("a")))
        for _ in until(60):
            if listed(index)["tries"]:
                break
        assert "127.0.0.1 is not allowed: loopback" in listed(index)["lastError"]["message"]
        assert receiver.connections == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ("{", "JSON"),
        ({}, "url: expected a value, got nothing"),
        ({"url": None}, "url: expected a string"),
        ({"url": 7}, "url: expected a string"),
        ({"url": "https://example.com", "events": []}, "events"),
        ({"url": "https://example.com", "events": "visible"}, "events"),
        ({"url": "https://example.com", "events": ["visible", "gone"]}, "events.1"),
        ({"url": "https://example.com", "event": ["visible"]}, "event: "),
        ({"url": "https://example.com", "secret": "short"}, "secret"),
        ({"url": "https://example.com", "secret": "whsec_c2hvcnQ="}, "24 to 64 bytes"),
        ({"url": "https://example.com", "secret": 5}, "secret"),
    ],
)
def test_a_body_that_is_wrong_is_refused_and_changes_nothing(index: Index, body: Any, says: str) -> None:
    status, _, message = index.post("webhooks", body).error
    assert status == 400 and says in message and "hunter2" not in message
    assert index.get("/webhooks").result == []


def test_who_may_do_what(service: Service, index: Index, receiver: Receiver) -> None:
    api = service.apis[0]

    def token(access: str, **more: str) -> str:
        asked = {"access": access, "account": "default", "index": index.name, **more}
        return str(api.call("POST", "/upwell/v1/tokens", asked).result["token"])

    reader, writer, stranger = token("read"), token("write"), token("admin", index="other")
    body = {"url": receiver.url}
    assert index.post("webhooks", body, token=reader).error[0] == 403
    made = index.post("webhooks", body, token=writer).result
    (seen,) = index.get("/webhooks", token=reader).result
    assert seen["url"].endswith("/…") and receiver.url.startswith(seen["url"].removesuffix("…"))
    assert index.get("/webhooks", token=writer).result[0]["url"] == receiver.url
    assert delete(index, made["id"], token=reader).error[0] == 403
    for call in (
        index.post("webhooks", body, token=stranger),
        index.get("/webhooks", token=stranger),
        delete(index, made["id"], token=stranger),
    ):
        assert call.error[0] == 403
    assert index.get("/webhooks", token=None).error[0] == 401
    for wrong in ("x", "0" * 32, "%2e%2e%2frecord", "A" * 32, "0" * 500):
        assert delete(index, wrong, token=writer).error[0] == 404
    assert delete(index, made["id"], token=writer).status == 200


def test_an_index_has_ten_at_most(index: Index, receiver: Receiver) -> None:
    for _ in range(10):
        register(index, receiver)
    assert (
        index.post("webhooks", {"url": receiver.url}).error[2].startswith("an index has at most 10 webhooks")
    )
