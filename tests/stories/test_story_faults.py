"""What users must not notice: two front ends and two workers, and the things that happen to them."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.service import Api, Index, Service, running, until

NAMES = itertools.count()


@pytest.fixture
def service() -> Iterator[Service]:
    with running(apis=2, workers=2) as service:
        yield service


def fresh(api: Api, **more: object) -> Index:
    index = api.index(f"faults-{next(NAMES)}")
    assert index.create(2, "euclidean", **more).status == 200
    return index


def one(name: str, *values: float) -> dict[str, object]:
    return {"id": name, "values": list(values)}


def test_visible_on_one_front_end_is_visible_on_the_other_at_once(service: Service) -> None:
    first = fresh(service.apis[0])
    second = service.apis[1].index(first.name)
    for number in range(40):
        mutation = first.upsert([one("moving", number, 0)])
        first.visible(mutation)
        assert second.fetch("moving")["moving"]["values"] == [number, 0]
        assert second.query([number, 0], topK=1)[0]["score"] == 0
        assert second.status(mutation)["state"] == "visible"


def test_two_front_ends_append_to_one_index_and_nothing_is_lost_or_doubled(service: Service) -> None:
    index = fresh(service.apis[0], shards=3)
    sides = [api.index(index.name) for api in service.apis]

    def write(number: int) -> str:
        return sides[number % 2].upsert([one(f"v{number}", number, 1)], "insert")

    with ThreadPoolExecutor(16) as pool:
        mutations = list(pool.map(write, range(200)))
    assert len(set(mutations)) == 200
    for mutation in mutations:
        assert sides[0].visible(mutation)["counts"]["inserted"] == 1
    assert sides[1].get("/info").result["vectorCount"] == 200
    assert {match["id"] for match in sides[1].query([3, 1], topK=100)} == {f"v{n}" for n in range(100)}


def test_no_query_sees_half_of_a_mutation_across_shards(service: Service) -> None:
    index = fresh(service.apis[0], shards=4)
    other = service.apis[1].index(index.name)
    names = [f"n{number}" for number in range(12)]
    index.visible(index.upsert([one(name, 0, 0) for name in names]))
    torn: list[set[float]] = []
    done = threading.Event()

    def read(reader: Index) -> None:
        while not done.is_set():
            seen = {value["values"][0] for value in reader.fetch(*names).values()}
            scores = {match["score"] for match in reader.query([0, 0], topK=20)}
            torn.extend(found for found in (seen, scores) if len(found) != 1)

    readers = [threading.Thread(target=read, args=(reader,)) for reader in (index, other)]
    for reader in readers:
        reader.start()
    last = ""
    for generation in range(1, 60):
        last = index.upsert([one(name, generation, 0) for name in names])
    index.visible(last)
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []


@pytest.mark.slow
def test_a_killed_worker_delays_visibility_by_seconds_only() -> None:
    with running(apis=1, workers=1) as service:
        index = fresh(service.apis[0])
        index.visible(index.upsert([one("before", 1, 1)]))
        stop = threading.Event()
        mutations: list[str] = []

        def write() -> None:
            while not stop.is_set():
                mutations.append(index.upsert([one(f"v{len(mutations)}", 1, 2)]))

        writer = threading.Thread(target=write)
        writer.start()
        for _ in until(60):
            if len(mutations) > 20:
                break
        # In the middle of draining, lease in hand, without a chance to give it back.
        service.workers[0].kill()
        service.start_worker()
        for _ in until(60):
            if len(mutations) > 60:
                break
        stop.set()
        writer.join()
        status = index.status(mutations[-1], wait_s=30)
        assert status["state"] == "visible"
        assert index.get("/info").result["vectorCount"] == len(mutations) + 1


def test_a_worker_killed_with_a_job_in_hand_does_not_block_the_next(service: Service) -> None:
    index = fresh(service.apis[0])
    for round_number in range(2):
        victim = service.workers[round_number]
        victim.send_signal(signal.SIGSTOP)
        mutation = index.upsert([one(f"r{round_number}", 1, 1)])
        victim.kill()
        service.start_worker()
        index.visible(mutation)


def test_flushall_while_mutations_wait_loses_none(service: Service) -> None:
    index = fresh(service.apis[0])
    for worker in service.workers:
        worker.send_signal(signal.SIGSTOP)
    mutations = [index.upsert([one(f"v{number}", number, 0)]) for number in range(10)]
    assert {index.status(mutation)["state"] for mutation in mutations} <= {"queued", "applying"}
    with redis.Redis.from_url(service.valkey.url) as client:
        client.flushall()
    assert index.status(mutations[0])["counts"]["received"] == 1
    for worker in service.workers:
        worker.send_signal(signal.SIGCONT)
    for mutation in mutations:
        index.visible(mutation)
    assert len(index.fetch(*(f"v{number}" for number in range(10)))) == 10


def test_flushall_again_and_again_during_writes(service: Service) -> None:
    index = fresh(service.apis[0])
    mutations = []
    with redis.Redis.from_url(service.valkey.url) as client:
        for number in range(60):
            mutations.append(index.upsert([one(f"v{number}", number, 0)]))
            if number % 7 == 0:
                client.flushall()
    assert [index.visible(mutation)["counts"]["inserted"] for mutation in mutations] == [1] * 60


def test_without_redis_writes_are_acknowledged_and_queries_answered(service: Service) -> None:
    index = fresh(service.apis[0])
    other = service.apis[1].index(index.name)
    index.visible(index.upsert([one("before", 1, 1)]))
    service.rests()
    service.valkey.stop()
    meanwhile = index.upsert([one("meanwhile", 2, 2)])
    assert index.query([1, 1], topK=1)[0]["id"] == "before"
    assert other.status(meanwhile)["state"] == "queued"
    assert "meanwhile" not in other.fetch("meanwhile")
    assert service.apis[0].call("GET", "/readyz").json["status"] == "ready"
    service.valkey.start()
    other.visible(meanwhile)
    assert other.fetch("meanwhile")["meanwhile"]["values"] == [2, 2]


def test_a_front_end_killed_after_acknowledging_has_lost_nothing(service: Service) -> None:
    index = fresh(service.apis[0])
    for worker in service.workers:
        worker.send_signal(signal.SIGSTOP)
    mutations = [index.upsert([one(f"v{number}", number, 0)]) for number in range(5)]
    service.apis[0].process.kill()
    for worker in service.workers:
        worker.send_signal(signal.SIGCONT)
    other = service.apis[1].index(index.name)
    for mutation in mutations:
        other.visible(mutation)
    assert len(other.fetch(*(f"v{number}" for number in range(5)))) == 5


def test_a_paused_worker_that_wakes_after_its_lease_does_no_harm(service: Service) -> None:
    index = fresh(service.apis[0])
    pausing = service.workers[0]
    last = ""
    for number in range(3):
        pausing.send_signal(signal.SIGSTOP)
        for step in range(10):
            last = index.upsert([one("same", number, step)])
        index.visible(last)
        pausing.send_signal(signal.SIGCONT)
    assert index.fetch("same")["same"]["values"] == [2, 9]
    assert index.visible(index.upsert([one("same", 9, 9)]))["position"] == 31
