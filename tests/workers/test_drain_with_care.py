"""Batches that never come to an end: tried a few times, then looked into; and what is no mutation's fault blames none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, cast

import pytest
from arq.connections import ArqRedis

from tests.fake_engine import BATCH, FakeEngine
from upwell.clock import SystemClock
from upwell.doorbell.keys import DRAIN_QUEUE, lease_key, tries_key
from upwell.doorbell.tries import count_try
from upwell.errors import Corrupt, Invalid, NotFound, Unavailable, UpwellError
from upwell.log.receipt import Receipt
from upwell.settings import Settings
from upwell.shard.embedding import TextClaims
from workers.drain import Drainer
from workers.trial import Trials

#: Tells why a batch (None) or an entry without these mutations breaks.
Breaks = Callable[[Any], str | None]


class PoisonedEngine(FakeEngine):
    """Breaks on the positions in ``poison``, unless it is told to leave them out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.poison: set[int] = set()
        self.failed: list[Receipt] = []

    def breaks(self, broken: Any) -> str | None:
        first = self.through("a1") + 1
        reach = range(first, first + BATCH if broken is None else first + 1)
        left_out = {one.position for one in broken or ()}
        return next((f"broken by {one}" for one in reach if one in self.poison - left_out), None)

    def _apply(self, index_id: str, *how: Any) -> Any:
        reason = self.breaks(self.broken_now)
        if reason is not None:
            raise ZeroDivisionError(reason)
        self.failed += self.broken_now or ()
        self.batch = BATCH if self.broken_now is None else 1
        return super()._apply(index_id, *how)

    def apply_batch(self, index_id: str, *how: Any, claims: TextClaims | None = None) -> Any:
        self.broken_now = how[3]
        return super().apply_batch(index_id, *how, claims=claims)


class FakeTrials:
    """Trials that are made on the spot."""

    def __init__(self, breaks: Breaks) -> None:
        self.asked: list[Any] = []
        self._breaks = breaks

    async def breaks(self, broken: Any) -> str | None:
        self.asked.append(broken)
        return self._breaks(broken)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def engine(tmp_path: Path) -> PoisonedEngine:
    engine = PoisonedEngine(tmp_path)
    for _ in range(3 * BATCH):
        engine.append("a1")
    return engine


@pytest.fixture
def trials(engine: PoisonedEngine) -> FakeTrials:
    return FakeTrials(engine.breaks)


@pytest.fixture
def drainer(engine: PoisonedEngine, trials: FakeTrials) -> Iterator[Drainer]:
    with ThreadPoolExecutor(4) as executor:
        chosen: Any = lambda _: trials  # noqa: E731
        yield Drainer(engine, Settings(apply_tries_max=3), SystemClock(), executor, trials=chosen)


async def test_after_three_tries_the_culprit_fails_and_all_others_are_applied(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis
) -> None:
    engine.poison = {BATCH + 3}
    # The first one gets somewhere, which counts as no try.
    for _ in range(4):
        await drainer.drain(redis, "a1")
        # The lease is given back, so that others may try; what is before the batch is applied once and for all.
        assert not await redis.exists(lease_key("a1")) and engine.through("a1") == BATCH
        assert trials.asked == []
    await drainer.drain(redis, "a1")
    while engine.has_backlog("a1"):
        await drainer.drain(redis, "a1")
    assert engine.failed == [Receipt(BATCH + 3, 0)]
    assert trials.asked[0] is None and engine.through("a1") == 3 * BATCH
    engine.history("a1")


async def test_tries_are_forgotten_once_a_batch_came_to_an_end(
    engine: PoisonedEngine, drainer: Drainer, redis: ArqRedis
) -> None:
    engine.poison = {1}
    for _ in range(2):
        await drainer.drain(redis, "a1")
    assert await redis.get(tries_key("a1")) == b"2"
    engine.poison = set()
    await drainer.drain(redis, "a1")
    assert not await redis.exists(tries_key("a1")) and engine.through("a1") == 3 * BATCH


async def test_workers_that_were_killed_by_something_else_cost_one_trial_and_nothing_more(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis
) -> None:
    for _ in range(5):
        await count_try(redis, "a1")
    await drainer.drain(redis, "a1")
    assert trials.asked == [None] and engine.failed == [] and engine.through("a1") == 3 * BATCH


async def test_nobody_is_blamed_for_an_index_that_breaks_by_itself(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis
) -> None:
    trials._breaks = lambda _: "the newest segment cannot be opened"
    engine.poison = {1}
    for _ in range(9):
        await drainer.drain(redis, "a1")
    assert engine.failed == [] and engine.through("a1") == 0
    # It is looked into now and then, and not each time.
    assert trials.asked.count(None) == 2


async def test_a_store_that_is_away_counts_for_nothing(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis
) -> None:
    engine.away = True
    for _ in range(6):
        await drainer.drain(redis, "a1")
    assert trials.asked == []
    engine.away = False

    def away(_: Any) -> str | None:
        raise Unavailable("the store is away")

    trials._breaks = away
    engine.poison = {1}
    for _ in range(5):
        await drainer.drain(redis, "a1")
    assert engine.failed == [] and trials.asked


async def test_a_worker_that_is_told_to_stop_leaves_the_search_to_another(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis
) -> None:
    # All of the first batch but its last entry is fine, so the search is longest.
    engine.poison = {BATCH}
    for _ in range(3):
        await drainer.drain(redis, "a1")

    def stopping(broken: Any) -> str | None:
        drainer.stopping = engine.through("a1") == 2
        return engine.breaks(broken)

    trials._breaks = stopping
    await drainer.drain(redis, "a1")
    # It ended after the entry it was at, touched nothing else, and somebody goes on, as careful as before.
    assert engine.through("a1") == 3 and engine.failed == []
    assert await redis.get(tries_key("a1")) == b"4"
    assert await redis.zcard(DRAIN_QUEUE) == 1
    drainer.stopping, trials._breaks = False, engine.breaks
    await drainer.drain(redis, "a1")
    assert engine.failed == [Receipt(BATCH, 0)] and engine.through("a1") == 3 * BATCH


@pytest.mark.parametrize("kind", [NotFound, Corrupt, Invalid])
async def test_an_index_that_lacks_something_ends_the_drain_and_counts_for_nothing(
    engine: PoisonedEngine, drainer: Drainer, trials: FakeTrials, redis: ArqRedis, kind: type[UpwellError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def lacking(*_: Any, **__: Any) -> Any:
        raise kind("a segment")

    monkeypatch.setattr(engine, "apply_batch", lacking)
    for _ in range(5):
        await drainer.drain(redis, "a1")
    assert trials.asked == [] and not await redis.exists(tries_key("a1"))


async def test_a_batch_that_breaks_workers_and_no_trial_is_applied_entry_by_entry(
    engine: PoisonedEngine,
    drainer: Drainer,
    trials: FakeTrials,
    redis: ArqRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials._breaks = lambda _: None
    monkeypatch.setattr(engine, "breaks", lambda broken: "too much at once" if broken is None else None)
    for _ in range(6):
        await drainer.drain(redis, "a1")
    assert engine.through("a1") == 0
    await drainer.drain(redis, "a1")
    assert engine.through("a1") == 3 * BATCH and engine.failed == []


async def test_a_worker_whose_batch_hangs_ends_itself_and_the_try_stays_counted(
    engine: PoisonedEngine, trials: FakeTrials, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.drain.WAKING_S", 0.1)
    released, chosen = threading.Event(), cast("Callable[[str], Trials]", lambda _: trials)

    class EndedError(BaseException):
        pass

    def end() -> None:
        released.set()
        raise EndedError

    def hang(*_: object, **__: object) -> None:
        released.wait(30)

    monkeypatch.setattr(engine, "apply_batch", hang)
    with ThreadPoolExecutor(1) as executor:
        drainer = Drainer(
            engine, Settings(), SystemClock(), executor, trials=chosen, hung_after_s=0.2, end=end
        )
        with pytest.raises(EndedError):
            await drainer.drain(redis, "a1")
    assert await redis.get(tries_key("a1")) == b"1"


async def test_a_batch_that_ends_just_as_its_worker_wakes_does_not_hang(
    engine: PoisonedEngine, trials: FakeTrials, redis: ArqRedis
) -> None:
    engine.apply_s = 0.4
    chosen = cast("Callable[[str], Trials]", lambda _: trials)

    def end() -> None:
        raise AssertionError("it was not hanging")

    with ThreadPoolExecutor(1) as executor:
        drainer = Drainer(
            engine, Settings(), SystemClock(), executor, trials=chosen, hung_after_s=0.1, end=end
        )
        await drainer.drain(redis, "a1")
    assert engine.through("a1") == 3 * BATCH


async def test_a_batch_whose_texts_take_long_does_not_hang(
    engine: PoisonedEngine, trials: FakeTrials, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as vectors are made, however slowly."""
    monkeypatch.setattr("workers.drain.WAKING_S", 0.1)
    chosen, slow = cast("Callable[[str], Trials]", lambda _: trials), engine.apply_batch

    def slowly(*how: Any, claims: TextClaims) -> Any:
        for _ in range(12 if engine.calls == 0 else 0):
            time.sleep(0.1)
            claims.went_on()
        return slow(*how, claims=claims)

    def end() -> None:
        raise AssertionError("it was not hanging")

    monkeypatch.setattr(engine, "apply_batch", slowly)
    with ThreadPoolExecutor(1) as executor:
        drainer = Drainer(
            engine, Settings(), SystemClock(), executor, trials=chosen, hung_after_s=0.4, end=end
        )
        await drainer.drain(redis, "a1")
    assert engine.through("a1") == 3 * BATCH
