"""Watching an index's mutations: the recent ones as a list, and each as an event when it becomes visible."""

from __future__ import annotations

import itertools
import json
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.service import TOKEN, Index, Service, running, until
from tests.wire import Wire, request

NAMES = itertools.count()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    index = service.apis[0].index(f"watching-{next(NAMES)}")
    assert index.create(2).status == 200
    return index


def one(name: str) -> list[dict[str, Any]]:
    return [{"id": name, "values": [1, 2]}]


@contextmanager
def events_of(index: Index, last: str | None = None) -> Iterator[queue.Queue[tuple[str, str, Any]]]:
    """A stream's events, as (id, event, data), from once it is open."""
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Last-Event-ID": last} if last else {})
    stream = urlopen(Request(index.api.url + index.path("/mutations/events"), headers=headers), timeout=60)
    assert stream.headers["Content-Type"] == "text/event-stream"
    found: queue.Queue[tuple[str, str, Any]] = queue.Queue()

    def read() -> None:
        fields: dict[str, str] = {}
        for line in stream:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif fields.get("data"):
                found.put((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                fields = {}

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield found


def test_each_mutation_is_an_event_in_order_and_a_broken_stream_goes_on(index: Index) -> None:
    index.visible(index.upsert(one("before")))
    with events_of(index) as events:
        mutations = [index.upsert(one(f"v{number}")) for number in range(12)]
        got = [events.get(timeout=60) for _ in mutations]
    assert [event[0] for event in got] == mutations
    assert {event[1] for event in got} == {"visible"}
    assert all(event[2]["counts"]["inserted"] == 1 and event[2]["mutationId"] == event[0] for event in got)
    with events_of(index, last=mutations[4]) as events:
        assert [events.get(timeout=60)[0] for _ in range(7)] == mutations[5:]


def test_the_recent_ones_newest_first(service: Service, index: Index) -> None:
    mutations = [index.upsert(one(f"v{number}")) for number in range(5)]
    index.visible(mutations[-1])
    assert [status["mutationId"] for status in index.get("/mutations").result] == mutations[::-1]
    assert [status["mutationId"] for status in index.get("/mutations?limit=2").result] == mutations[:2:-1]
    service.workers[0].send_signal(signal.SIGSTOP)
    waiting = [index.upsert(one("w1")), index.delete(["w1"])]
    states = [(s["mutationId"], s["state"], s["operation"]) for s in index.get("/mutations?limit=3").result]
    service.workers[0].send_signal(signal.SIGCONT)
    assert states == [
        (waiting[1], "queued", "delete"),
        (waiting[0], "queued", "upsert"),
        (mutations[-1], "visible", "upsert"),
    ]
    for limit in ("0", "-1", "x", "1001", "9" * 5000):
        assert index.get(f"/mutations?limit={limit}").error[0] == 400


def test_a_stream_that_was_idle_for_long_misses_nothing() -> None:
    with running(UPWELL_GRACE_S="3", UPWELL_RESULTS_S="3", UPWELL_SWEEP_INTERVAL_S="0.3") as service:
        index = service.apis[0].index("idle")
        index.create(2)
        with events_of(index) as events:
            # The second makes garbage of the first one's segment, and collecting that makes a version of its own.
            for _ in range(2):
                index.visible(index.upsert(one("a")))
            assert [events.get(timeout=60)[1] for _ in range(2)] == ["visible"] * 2
            (manifests,) = service.data.glob("store/index/*/manifest")
            for _ in until(60, every_s=0.2):
                # The first is of the empty index, the third of the second upsert.
                if min(int(path.name) for path in manifests.iterdir()) > 3:
                    break
            after = index.upsert(one("b"))
            assert events.get(timeout=60)[:2] == (after, "visible")


def test_a_stream_wants_a_token_and_an_id_of_this_index(index: Index) -> None:
    assert index.get("/mutations/events", token=None).error[0] == 401
    foreign = {"Last-Event-ID": "00000000-0001-8000-8000-000000000000"}
    status, _, says = index.get("/mutations/events", headers=foreign).error
    assert status == 404 and says.startswith("Last-Event-ID: expected the id of a mutation of this index")


def test_waiting_ends_with_the_index(service: Service, index: Index) -> None:
    service.workers[0].send_signal(signal.SIGSTOP)
    mutation = index.upsert(one("never"))
    answers: queue.Queue[Any] = queue.Queue()
    waiter = threading.Thread(target=lambda: answers.put(index.get(f"/mutations/{mutation}?wait=60")))
    waiter.start()
    time.sleep(0.3)
    assert index.api.call("DELETE", index.path()).status == 200
    gone = answers.get(timeout=60)
    service.workers[0].send_signal(signal.SIGCONT)
    waiter.join()
    assert gone.error[:2] == (410, 3005)


def test_waiting_requests_do_not_keep_a_front_end_from_stopping(service: Service, index: Index) -> None:
    api = service.start_api()
    watched = api.index(index.name)
    service.workers[0].send_signal(signal.SIGSTOP)
    mutation = watched.upsert(one("never yet"))
    with Wire(api) as waiter, events_of(watched):
        assert waiter.send(request("GET", watched.path(f"/mutations/{mutation}?wait=60")))
        # Once those who came later have been answered, twice, it is waiting.
        for _ in range(2):
            assert watched.get("").status == 200
        api.process.terminate()
        assert api.process.wait(30) == 0
        # Had it not been let go, it would have been cut off.
        head, _, body = waiter.read().partition(b"\r\n\r\n")
    service.workers[0].send_signal(signal.SIGCONT)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["result"]["state"] in {"queued", "applying"}
    index.visible(mutation)
