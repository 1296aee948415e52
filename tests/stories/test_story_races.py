"""Races between real processes, caught at named steps: whoever sleeps there finds, on waking, that the world went on without him.

A process is stopped (SIGSTOP) once it has reported that it is at a step, so that it sleeps for as long as a test wants, and past whatever
lease, grace period or index it believed in.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.receiver import Receiver, receiving
from tests.replaying import Replay, identity, traffic
from tests.service import Index, Service, running, until
from upwell.engine import open_engine
from upwell.failpoint import VARIABLE, Step
from upwell.log.receipt import Receipt, parse
from upwell.settings import Settings

LEASE_S = 1.0
GRACE_S = 3.0
SETTINGS = {
    "UPWELL_LEASE_TTL_S": str(LEASE_S),
    "UPWELL_SWEEP_INTERVAL_S": "0.2",
    "UPWELL_GRACE_S": str(GRACE_S),
    "UPWELL_RESULTS_S": str(GRACE_S),
    "UPWELL_POLL_DELAY_S": "0.05",
    "UPWELL_COMPACTION_FANOUT": "2",
    "UPWELL_COMPACTION_SETTLE_S": "0.1",
    "UPWELL_WEBHOOK_PRIVATE_ADDRESSES": "true",
    "UPWELL_LOG_LEVEL": "error",
}
#: A step's own pause; a process is stopped within it, and goes on at once when it wakes.
NAP_S = 1.5


class Sleeper:
    """A worker that falls asleep at a step, when a test wants it to."""

    def __init__(self, service: Service, number: int) -> None:
        self._plan = service.folder / f"steps-{number}"
        service.settings[VARIABLE] = str(self._plan)
        self.process = service.start_worker()
        del service.settings[VARIABLE]

    def falls_asleep_at(self, step: Step) -> None:
        """Wait until it is there, and stop it."""
        taken = Path(f"{self._plan}.taken")
        taken.unlink(missing_ok=True)
        self._plan.write_text(f"{step} pause:{NAP_S}\n")
        for _ in until(60, every_s=0.005):
            if taken.exists() and str(step) in taken.read_text():
                break
        os.kill(self.process.pid, signal.SIGSTOP)
        self._plan.write_text("")

    def stops(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wakes(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def house() -> Iterator[Service]:
    """Two front ends, a worker, and two that fall asleep."""
    with running(2, 1, **SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def sleepers(house: Service) -> list[Sleeper]:
    return [Sleeper(house, number) for number in range(2)]


@contextmanager
def only(house: Service, *awake: Sleeper) -> Iterator[None]:
    """All other workers are stopped meanwhile."""
    others = [one for one in house.workers if one not in [sleeper.process for sleeper in awake]]
    for process in others:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in others:
            process.send_signal(signal.SIGCONT)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize("first", [0, 1])
def test_two_that_believe_they_hold_the_lease_wake_in_either_order(
    house: Service, sleepers: list[Sleeper], first: int
) -> None:
    """Each with a whole batch ready, a moment before it commits: one of them wins, and the other finds that it has not."""
    one, two = sleepers
    with traffic(house, f"leases-{first}", forgets=True) as now, only(house):
        one.wakes()
        one.falls_asleep_at(Step.MANIFEST_COMMIT_BEFORE)
        two.wakes()
        two.falls_asleep_at(Step.MANIFEST_COMMIT_BEFORE)
        now.goes_on(3)
        sleepers[first].wakes()
        now.goes_on(2)
        sleepers[1 - first].wakes()
        now.resumes()


OVERSLEPT = [
    pytest.param(step, marks=pytest.mark.slow)
    for step in (
        Step.MANIFEST_COMMIT_BEFORE,
        Step.BATCH_READ,
        Step.APPLY_ROWS,
        Step.SEGMENT_WRITTEN,
        Step.DELETIONS_WRITTEN,
        Step.MANIFEST_COMMIT_AFTER,
        Step.DRAIN_RELEASE,
        Step.COMPACT_COMMIT_BEFORE,
        Step.COMPACT_BUILT,
        Step.COMPACT_WRITTEN,
        Step.COMPACT_COMMIT_AFTER,
        Step.GARBAGE_LOG_BEFORE,
        Step.GARBAGE_MANIFEST_BEFORE,
        Step.GARBAGE_SEGMENT_BEFORE,
    )
]


@pytest.mark.parametrize("step", OVERSLEPT)
def test_one_sleeps_past_its_lease_and_past_the_collection_of_what_it_knew(
    house: Service, sleepers: list[Sleeper], step: Step
) -> None:
    """Others drain, merge and collect for two grace periods and more; then it goes on where it was."""
    sleeper = sleepers[0]
    with traffic(house, f"sleeps-{step.replace('.', '-')}", forgets=True) as now:
        with only(house, sleeper):
            sleeper.falls_asleep_at(step)
        woken_at = time.monotonic() + 2.5 * GRACE_S
        versions = manifests(house, now.index.name)
        while time.monotonic() < woken_at or versions & manifests(house, now.index.name):
            now.goes_on(3)
        sleeper.wakes()
        now.goes_on(5)
        now.resumes()


def manifests(house: Service, name: str) -> set[str]:
    folder = house.data / "store" / "index" / identity(house, name) / "manifest"
    return {path.name for path in folder.iterdir()}


def test_an_index_is_deleted_under_its_drain_and_another_gets_its_name(
    house: Service, sleepers: list[Sleeper], receiver: Receiver
) -> None:
    """Of other dimensions. The old one's worker wakes and commits: nothing of it reaches the new one, nor does what hangs on it."""
    old = house.apis[0].index("again")
    assert old.create(2, "euclidean").status == 200
    key = {"Idempotency-Key": "once"}
    old.visible(
        old.post("metadata_index/create", {"propertyName": "colour", "indexType": "string"}).result[
            "mutationId"
        ]
    )
    rows = [{"id": f"v{n}", "values": [n, n]} for n in range(5)]
    first = old.post("upsert", {"vectors": rows}, headers=key).result["mutationId"]
    old.visible(first)
    cursor = old.get("/list?count=2").result["nextCursor"]
    hook = old.post("webhooks", {"url": receiver.url}).result["id"]
    old_id = identity(house, "again")
    asleep = threading.Thread(target=sleepers[0].falls_asleep_at, args=(Step.MANIFEST_COMMIT_BEFORE,))
    last = first
    with only(house, sleepers[0]):
        asleep.start()
        while asleep.is_alive():
            last = old.upsert([{"id": "late", "values": [1, 1]}])
            time.sleep(0.02)
    assert old.api.call("DELETE", old.path()).status == 200
    new = house.apis[1].index("again")
    assert new.create(3, "cosine").status == 200
    new_id = identity(house, "again")
    assert new_id != old_id
    expect_nothing_of_the_old(new, [first, last], cursor, hook)
    again = new.post("upsert", {"vectors": [{"id": "v0", "values": [1, 2, 3]}]}, headers=key)
    assert "Idempotency-Replayed" not in again.headers
    sleepers[0].wakes()
    new.visible(again.result["mutationId"])
    for number in range(10):
        last = new.upsert([{"id": f"n{number}", "values": [number, 1, 1]}])
    new.visible(last)
    for side in (new, house.apis[0].index("again")):
        expect_nothing_of_the_old(side, [first], cursor, hook)
        assert side.get("/info").result["vectorCount"] == 11
        assert set(side.fetch("v0", "v1", "late", "n9")) == {"v0", "n9"}
        assert side.get("").result["config"]["dimensions"] == 3
    # A collector takes its time, a grace period at least, and then nothing of it is left.
    for _ in until(60, every_s=0.2):
        if not (house.data / "store" / "index" / old_id / "manifest").exists():
            break


def expect_nothing_of_the_old(new: Index, mutations: list[str], cursor: str, hook: str) -> None:
    for mutation in mutations:
        assert new.get(f"/mutations/{mutation}").error[0] in {404, 410}
    assert new.get(f"/list?cursor={cursor}").error[0] in {400, 404, 410}
    assert new.get("/metadata_index/list").result["metadataIndexes"] == []
    assert new.get("/webhooks").result == []
    assert new.api.call("DELETE", new.path(f"/webhooks/{hook}")).error[0] == 404


@pytest.mark.slow
def test_drains_merges_sweeps_and_collections_at_once(house: Service) -> None:
    """Three writers with indexes of their own, in which most of what there is comes and goes, while everything cleans up behind."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: long_story(house, number), range(3)))


def long_story(house: Service, number: int) -> None:
    name = f"long-{number}"
    assert house.apis[0].index(name).create(2, "euclidean", shards=2).status == 200
    replay = Replay([api.index(name) for api in house.apis[:2]], random.Random(number), forgets=True)
    for _ in range(50):
        replay.write()
    replay.check()


def test_four_front_ends_append_to_one_index_at_once(house: Service) -> None:
    """One order, without gaps, in which nothing acknowledged earlier comes after what was sent later."""
    house.start_api()
    house.start_api()
    assert house.apis[0].index("four").create(2, "euclidean", shards=2).status == 200
    sides = [api.index("four") for api in house.apis]
    sent: dict[str, tuple[float, float, str, int]] = {}

    def write(number: int) -> None:
        name, began = f"k{number % 10}", time.monotonic()
        mutation = sides[number % 4].upsert([{"id": name, "values": [number, 1]}])
        sent[mutation] = (began, time.monotonic(), name, number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(write, range(120)))
    order = in_order(house, "four", sent)
    newest_start = 0.0
    for mutation in order:
        began, acknowledged, _, _ = sent[mutation]
        # Whatever comes before it in the order was sent before it was acknowledged.
        assert newest_start < acknowledged
        newest_start = max(newest_start, began)
    sides[0].visible(order[-1])
    looked = time.monotonic()
    held: dict[str, int] = {}
    known = 0
    for mutation in order:
        _, _, name, number = sent[mutation]
        counts = sides[1].status(mutation)["counts"]
        known += counts is not None
        assert counts is None or (counts["inserted"], counts["replaced"]) == (
            (0, 1) if name in held else (1, 0)
        )
        held[name] = number
    assert known or time.monotonic() > looked + GRACE_S, "counts are kept for a moment"
    for side in sides:
        assert {name: row["values"][0] for name, row in side.fetch(*held).items()} == held


def in_order(service: Service, name: str, mutations: Iterable[str]) -> list[str]:
    """Mutations in the log's order, whose positions must be all there are."""
    record = open_engine(Settings.model_validate({"data": service.data})).find("default", name).record
    receipts: dict[Receipt, str] = {}
    for mutation in mutations:
        receipts[parse(record.receipt_key, mutation)] = mutation
    ordered = sorted(receipts)
    entries: dict[int, list[int]] = {}
    for receipt in ordered:
        entries.setdefault(receipt.position, []).append(receipt.place)
    assert list(entries) == list(range(1, len(entries) + 1))
    assert all(places == list(range(len(places))) for places in entries.values())
    return [receipts[receipt] for receipt in ordered]
