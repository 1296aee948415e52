"""Traffic for stories of faults: one writer to an index, who works out beside the service what must come of each mutation.

It writes, asks, and looks at a front end's own pages, each with a bound, while a test does to Redis or to processes what it likes. In the end
every mutation must have had the effect that it has in a dict, once and in order: contents and counts by status.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from tests.service import Api, Index, Service, until
from upwell.engine import open_engine
from upwell.settings import Settings

KEYS = [f"k{number}" for number in range(12)]
CALL_S = 30.0
#: Shorter than any wait for Redis that has not a bound of its own: a front end that waited for it would be found out.
AT_ONCE_S = 4.0
#: Between two rounds: it is not the load that is tried here.
PAUSE_S = 0.04
#: How long visibility may take to come back, on a machine that has other things to do as well.
BACK_S = 60.0


@dataclass
class Replay:
    """One index, what was written to it in order, and what must have come of it."""

    indexes: list[Index]
    dice: random.Random
    held: dict[str, list[float]] = field(default_factory=dict)
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Is the service told to keep counts for so short a while that they may be gone?
    forgets: bool = False
    #: How long a call may take.
    call_s: float = CALL_S

    def write(self) -> str:
        """One acknowledged mutation, through whichever front end; returns its id."""
        index = self.dice.choice(self.indexes)
        names = self.dice.sample(KEYS, self.dice.choice([1, 2, 5]))
        number = float(len(self.expected) + 1)
        operation = self.dice.choice(["upsert", "upsert", "insert", "delete"])
        known = sum(name in self.held for name in names)
        if operation == "delete":
            answer = index.post("delete_by_ids", {"ids": names}, timeout_s=self.call_s)
            counts = {"deleted": known}
        else:
            rows = [{"id": name, "values": [number, float(place)]} for place, name in enumerate(names)]
            answer = index.post(operation, {"vectors": rows}, timeout_s=self.call_s)
            counts = {"inserted": len(names) - known}
            counts["replaced" if operation == "upsert" else "skipped"] = known
        mutation = str(answer.result["mutationId"])
        assert mutation not in self.expected
        self.expected[mutation] = {"received": len(names), **counts}
        for place, name in enumerate(names):
            if operation == "delete":
                self.held.pop(name, None)
            elif operation == "upsert" or name not in self.held:
                self.held[name] = [number, float(place)]
        return mutation

    def check(self) -> None:
        """Wait until everything is visible, and compare it with what it must be, on every front end."""
        *_, last = self.expected
        for index in self.indexes:
            status: dict[str, Any] = {}
            for _ in until(BACK_S):
                status = index.status(last, wait_s=5)
                if status["state"] == "visible":
                    break
            found = {name: row["values"] for name, row in index.fetch(*KEYS).items()}
            assert found == self.held
            assert index.get("/info").result["vectorCount"] == len(self.held)
            matches = index.query([1, 1], topK=50)
            assert sorted(match["id"] for match in matches) == sorted(self.held)
        positions = []
        for mutation, counts in self.expected.items():
            status = self.indexes[0].status(mutation)
            assert status["state"] == "visible"
            positions.append(status["position"])
            if status["counts"] is None and self.forgets:
                continue
            assert {name: count for name, count in status["counts"].items() if count} == {
                name: count for name, count in counts.items() if count
            }, mutation
        assert positions == sorted(positions), "the order of acknowledgement is the order"


class Traffic:
    """A thread that writes and asks without pause, until the block ends. Whatever failed fails the block."""

    def __init__(self, apis: list[Api], name: str, **how: Any) -> None:
        self.index = apis[0].index(name)
        assert self.index.create(2, "euclidean", shards=2).status == 200
        self.replay = Replay([api.index(name) for api in apis], random.Random(len(name)), **how)
        #: Rounds that began and ended: a write, a query, a status, and a front end's own pages.
        self.rounds = 0
        self.problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on(2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._no_problem()

    def goes_on(self, rounds: int = 6) -> None:
        """Wait for rounds that begin after now: whatever goes on now keeps nobody from writing and asking."""
        enough = self.rounds + rounds + 1
        for _ in until(BACK_S):
            self._no_problem()
            if self.rounds >= enough:
                return

    def resumes(self) -> None:
        """Wait until what is written now is visible, while all goes on."""
        last = list(self.replay.expected)[-1]
        for _ in until(BACK_S, every_s=0.1):
            self._no_problem()
            if self.index.status(last)["state"] == "visible":
                return

    def _no_problem(self) -> None:
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._round()
                self.rounds += 1
                self._stop.wait(PAUSE_S)
        except BaseException as problem:  # noqa: BLE001  told to whoever waits
            self.problem = problem

    def _round(self) -> None:
        mutation, call_s = self.replay.write(), self.replay.call_s
        index = self.replay.dice.choice(self.replay.indexes)
        assert index.post("query", {"vector": [1, 1]}, timeout_s=call_s).status == 200
        state = index.get(f"/mutations/{mutation}", timeout_s=call_s).result["state"]
        assert state in {"queued", "applying", "visible"}, state
        assert index.api.call("GET", "/readyz", timeout_s=call_s).json["status"] == "ready"
        with urlopen(index.api.url + "/metrics", timeout=call_s) as page:
            assert page.status == 200


@contextmanager
def traffic(service: Service, name: str, **how: Any) -> Iterator[Traffic]:
    """Traffic to an index of its own; when the block ends, everything is checked. ``how`` are fields of Replay."""
    with Traffic(service.apis, name, **how) as going:
        yield going
    going.replay.check()


def identity(service: Service, name: str) -> str:
    """What an index is called behind its name."""
    engine = open_engine(Settings.model_validate({"data": service.data}))
    return engine.find("default", name).record.id
