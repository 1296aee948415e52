"""Actors on one store that take turns at its calls, in whatever order a schedule says: every interleaving can be had, and had again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.dict_store import DictStore
from upwell.errors import UpwellError
from upwell.streamed import Part

#: Long beyond what any call takes.
STUCK_S = 30.0


class _Actor(threading.Thread):
    def __init__(self, turns: TurnsStore, doing: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.turns = turns
        self.doing = doing
        self.may_go = threading.Semaphore(0)
        self.rests = threading.Semaphore(0)
        self.dies = False
        self.done = False
        #: What came of it.
        self.result: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        self.turns.here.actor = self
        try:
            self.wait()
            self.result = self.doing()
        except BaseException as error:  # noqa: BLE001  it is looked at by whoever asks for the outcome
            self.error = error
        self.done = True
        self.rests.release()

    def wait(self) -> None:
        assert self.may_go.acquire(timeout=STUCK_S)
        if self.dies:
            raise KilledError

    def step(self) -> None:
        """Let it go on to its next call, or its end."""
        self.may_go.release()
        assert self.rests.acquire(timeout=STUCK_S), "an actor is stuck"


class KilledError(BaseException):
    """The process was killed here."""


class TurnsStore(DictStore):
    """A store whose callers wait for their turn before each call, if they are actors."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        super().__init__(objects)
        self.here = threading.local()

    def play(
        self,
        doings: Sequence[Callable[[], object]],
        schedule: Sequence[tuple[int, int]],
        *,
        dies: int | None = None,
    ) -> list[object]:
        """Have each of ``doings`` done: ``schedule`` says who goes on, and for how many calls; then each goes on to its end, in order. The
        actor ``dies`` is killed where the schedule leaves it. Returns what each returned, or the UpwellError that it raised."""
        actors = [_Actor(self, doing) for doing in doings]
        for actor in actors:
            actor.start()
        for which, calls in schedule:
            for _ in range(calls):
                if not actors[which].done:
                    actors[which].step()
        if dies is not None:
            actors[dies].dies = True
        for actor in actors:
            while not actor.done:
                actor.step()
            actor.join(STUCK_S)
        outcomes: list[object] = []
        for actor in actors:
            if actor.error is not None and not isinstance(actor.error, UpwellError | KilledError):
                raise actor.error
            outcomes.append(actor.error or actor.result)
        return outcomes

    def calls_of(self, doing: Callable[[], object]) -> int:
        """How many calls something makes, and one more for its end."""
        actor = _Actor(self, doing)
        actor.start()
        steps = 0
        while not actor.done:
            actor.step()
            steps += 1
        actor.join(STUCK_S)
        return steps

    def _turn(self) -> None:
        actor = getattr(self.here, "actor", None)
        if actor is not None:
            actor.rests.release()
            actor.wait()

    def create(self, key: str, *parts: Part) -> None:
        self._turn()
        super().create(key, *parts)

    def read(self, key: str) -> memoryview:
        self._turn()
        return super().read(key)

    def exists(self, key: str) -> bool:
        self._turn()
        return super().exists(key)

    def list(self, folder: str, *, after: str = "") -> Iterator[Any]:
        self._turn()
        return super().list(folder, after=after)

    def delete(self, key: str) -> None:
        self._turn()
        super().delete(key)
