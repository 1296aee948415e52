"""Writers go on while front ends, workers and Redis are killed, paused and wiped under them; then everything adds up.

Each writer has keys of its own and sends one request at a time, so the order of its mutations is known. A request whose answer
was lost may or may not count: a key may then hold either. What was acknowledged counts, once, in order.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from http.client import HTTPException

import pytest
import redis

from tests.service import Api, Service, running

WRITERS = 5
KEYS = 8
FAULTS = 24
#: A key holds two numbers, or nothing.
Value = tuple[float, ...] | None


class Writer(threading.Thread):
    """Writes at random through whichever front end, and keeps what each of its keys may hold."""

    def __init__(self, number: int, apis: list[Api], stop: threading.Event) -> None:
        super().__init__()
        self.name = f"writer{number}"
        self._random = random.Random(number)
        self._apis, self._halt = apis, stop
        self.may_hold: dict[str, set[Value]] = {f"{self.name}-{key}": {None} for key in range(KEYS)}
        self.acknowledged: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        step = 0
        while not self._halt.is_set():
            step += 1
            names = self._random.choices(list(self.may_hold), k=self._random.choice([1, 1, 3, 12]))
            self._write(self._random.choice(["upsert", "upsert", "insert", "delete"]), names, step)

    def _write(self, operation: str, names: list[str], step: int) -> None:
        index = self._random.choice(self._apis).index("soak")
        rows: list[tuple[str, tuple[float, ...]]] = [
            (name, (float(step), float(place))) for place, name in enumerate(names)
        ]
        try:
            if operation == "delete":
                mutation = index.delete(names)
            else:
                vectors = [{"id": name, "values": list(values)} for name, values in rows]
                mutation = index.upsert(vectors, operation)
        except (OSError, HTTPException):
            self._note(operation, rows, certain=False)
            time.sleep(0.02)
            return
        self._note(operation, rows, certain=True)
        self.acknowledged.append(mutation)
        if self._random.random() < 0.1:
            self._check_visible_everywhere(mutation)

    def _note(self, operation: str, rows: list[tuple[str, tuple[float, ...]]], *, certain: bool) -> None:
        after = {name: set(held) for name, held in self.may_hold.items()}
        for name, values in rows:
            match operation:
                case "upsert":
                    after[name] = {values}
                case "insert":
                    after[name] = {values if held is None else held for held in after[name]}
                case "delete":
                    after[name] = {None}
        for name, held in after.items():
            self.may_hold[name] = held if certain else self.may_hold[name] | held

    def _check_visible_everywhere(self, mutation: str) -> None:
        try:
            states = [
                self._random.choice(self._apis).index("soak").status(mutation, wait_s=wait_s)["state"]
                for wait_s in (2, 0)
            ]
        except (OSError, HTTPException):
            return
        if states[0] == "visible" and states[1] != "visible":
            self.wrong.append(f"{mutation} was visible and then {states[1]}")


def kill_a_worker(service: Service, dice: random.Random) -> None:
    victim = service.workers.pop(dice.randrange(len(service.workers)))
    victim.kill()
    victim.wait()
    service.start_worker()


def kill_a_front_end(service: Service, dice: random.Random) -> None:
    place = dice.randrange(2)
    service.apis[place].process.kill()
    service.apis[place].process.wait()
    service.start_api()
    # In its place, so that writers, who hold this very list, find it.
    service.apis[place] = service.apis.pop()


def pause_a_worker(service: Service, dice: random.Random) -> None:
    victim = dice.choice(service.workers)
    victim.send_signal(signal.SIGSTOP)
    time.sleep(dice.uniform(0.1, 1.2))
    victim.send_signal(signal.SIGCONT)


def wipe_redis(service: Service, _dice: random.Random) -> None:
    with redis.Redis.from_url(service.valkey.url) as client:
        client.flushall()


def take_redis_away(service: Service, dice: random.Random) -> None:
    service.valkey.stop()
    time.sleep(dice.uniform(0, 0.5))
    service.valkey.start()


MISFORTUNES: list[Callable[[Service, random.Random], None]] = [
    kill_a_worker, kill_a_worker, kill_a_front_end, pause_a_worker, wipe_redis, take_redis_away,
]  # fmt: skip


@pytest.mark.parametrize("seed", [1])
def test_after_any_misfortunes_everything_acknowledged_counts_once_and_in_order(seed: int) -> None:
    dice = random.Random(seed)
    # A grace period so short that garbage is collected all the while; a lease so short that pauses outlive it.
    settings = {"UPWELL_GRACE_S": "4", "UPWELL_LEASE_TTL_S": "0.8", "UPWELL_SWEEP_INTERVAL_S": "0.3"}
    with running(apis=2, workers=2, **settings) as service:
        index = service.apis[0].index("soak")
        assert index.create(2, "euclidean", shards=3).status == 200
        stop = threading.Event()
        writers = [Writer(number, service.apis, stop) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(FAULTS):
            time.sleep(dice.uniform(0.05, 0.6))
            dice.choice(MISFORTUNES)(service, dice)
        stop.set()
        for writer in writers:
            writer.join()
        assert [wrong for writer in writers for wrong in writer.wrong] == []
        for writer in writers:
            everyone = set(writer.acknowledged)
            assert len(everyone) == len(writer.acknowledged) > 10
        for api in service.apis:
            seen = api.index("soak")
            seen.visible(seen.upsert([{"id": "the last", "values": [0, 0]}]))
            for writer in writers:
                found = {name: tuple(row["values"]) for name, row in seen.fetch(*writer.may_hold).items()}
                for name, held in writer.may_hold.items():
                    assert found.get(name) in held, (name, found.get(name), held)
