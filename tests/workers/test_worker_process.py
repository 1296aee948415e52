"""A worker's process on a real Valkey with an engine made of lists: who drains when, and what becomes of kills and wipes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
import redis as blocking_redis
from arq.worker import Worker

from upwell.clock import SystemClock
from upwell.doorbell.bell import Bell
from upwell.doorbell.connection import connect
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import lease_key
from upwell.errors import Fenced, Unavailable
from upwell.garbage import Collected
from upwell.log.receipt import Receipt
from upwell.settings import Settings
from upwell.shard.apply import Applied
from workers.drain import Drainer
from workers.hold import renewed
from workers.worker import WorkerProcess


class ListEngine:
    """A log that is a number, applied by another; commits as the manifest does, first come first served."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.appended: dict[str, int] = {}
        self.applied: dict[str, int] = {}
        self.fenced = 0
        self.overlapping = 0
        self.at_once: dict[str, int] = {}
        #: What a batch that begins from now on waits for, before it commits.
        self.gate: threading.Event | None = None
        #: Asks on behalf of the newest batch whether it still may commit.
        self.still_ours: Callable[[], bool] = lambda: True
        #: Batches that were begun.
        self.begun = 0
        self.broken: set[str] = set()

    def append(self, index_id: str) -> None:
        with self.lock:
            self.appended[index_id] = self.appended.get(index_id, 0) + 1

    def all_applied(self) -> bool:
        with self.lock:
            return self.appended == {name: count for name, count in self.applied.items() if count}

    def has_backlog(self, index_id: str) -> bool:
        with self.lock:
            return self.applied.get(index_id, 0) < self.appended.get(index_id, 0)

    def backlogged(self) -> Iterator[str]:
        return iter([name for name in list(self.appended) if self.has_backlog(name)])

    def live_indexes(self) -> list[str]:
        return list(self.appended)

    def compactions_due(self) -> Iterator[tuple[str, int]]:
        return iter(())

    def compact(self, *_: object) -> None:
        raise AssertionError("nothing is due")

    def collect_garbage(self, index_id: str) -> Collected:
        return Collected()

    def collect_dead_indexes(self) -> int:
        return 0

    def help_apply(self, *_: object) -> int:
        return 0

    def embed_ahead(self, *_: object) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to let go of."""

    def webhook_indexes(self) -> list[str]:
        return []

    def webhooks_due(self, _index_id: str) -> list[str]:
        return []

    def webhook_delivery(self, *_: object) -> None:
        return None

    def next_entry(self, index_id: str) -> list[Receipt]:
        return [Receipt(self.applied.get(index_id, 0) + 1, 0)] if self.has_backlog(index_id) else []

    def apply_batch(
        self,
        index_id: str,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None],
        sharing: object = None,
        broken: object = None,
        *,
        claims: object = None,
    ) -> Applied | None:
        if index_id in self.broken:
            raise Unavailable("a broken disk")
        with self.lock:
            before, through = self.applied.get(index_id, 0), self.appended.get(index_id, 0)
            if before == through:
                return None
            self.at_once[index_id] = self.at_once.get(index_id, 0) + 1
            self.overlapping += self.at_once[index_id] > 1
            gate, self.still_ours = self.gate, still_ours
            self.begun += 1
        applying(through)
        assert gate is None or gate.wait(60), "nobody opened the gate"
        with self.lock:
            self.at_once[index_id] -= 1
            if self.applied.get(index_id, 0) != before or not still_ours():
                self.fenced += 1
                raise Fenced
            self.applied[index_id] = through
        return Applied(
            version=through, first_position=before + 1, through_position=through, mutations=1, vectors=1
        )


@asynccontextmanager
async def working(
    engine: ListEngine, url: str, processes: int = 1, **settings: object
) -> AsyncIterator[None]:
    chosen = Settings.model_validate({"lease_ttl_s": 30.0, "sweep_interval_s": 0.2, **settings})
    workers = [WorkerProcess(engine, chosen, SystemClock(), url) for _ in range(processes)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def eventually(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.005)


async def test_bursts_at_random_times_are_all_drained_without_the_sweep(valkey: EmbeddedValkey) -> None:
    """Two appends close together, again and again: where a job id that is merely unique strands one in five."""
    engine, bell = ListEngine(), Bell(valkey.url)
    async with working(engine, valkey.url, processes=3, sweep_interval_s=1000.0):
        for burst in range(150):
            for pause in (burst % 13, burst % 7):
                engine.append("index")
                bell.ring("index")
                await asyncio.sleep(pause / 2000)
            if burst % 10 == 9:
                await eventually(engine.all_applied)
        await eventually(engine.all_applied)
    assert engine.overlapping == 0
    await bell.close()


async def test_indexes_are_drained_side_by_side(valkey: EmbeddedValkey) -> None:
    engine, bell = ListEngine(), Bell(valkey.url)
    names = [f"index{number}" for number in range(20)]
    async with working(engine, valkey.url, processes=2):
        for name in names * 10:
            engine.append(name)
            bell.ring(name)
        await eventually(engine.all_applied)
    assert engine.overlapping == 0
    await bell.close()


async def test_without_any_bell_the_sweep_finds_what_waits(valkey: EmbeddedValkey) -> None:
    engine = ListEngine()
    for _ in range(3):
        engine.append("index")
    async with working(engine, valkey.url):
        await eventually(engine.all_applied)
        engine.append("later")
        await eventually(engine.all_applied)


async def test_a_lease_left_by_the_dead_is_waited_out(valkey: EmbeddedValkey) -> None:
    engine = ListEngine()
    engine.append("index")
    with blocking_redis.Redis.from_url(valkey.url) as client:
        client.set(lease_key("index"), "a worker that was killed", px=1500)
    async with working(engine, valkey.url):
        await eventually(engine.all_applied)


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases last so long that no machine is busy until they end, and are renewed as often as short ones would be."""
    monkeypatch.setattr("workers.drain.renewed", lambda lease, _: renewed(lease, 0.05))


@pytest.mark.usefixtures("renewed_often")
async def test_a_long_batch_keeps_its_lease(valkey: EmbeddedValkey) -> None:
    """It is given back its whole time again and again, while another worker is sent for the index, and sweeps look at it."""
    engine, bell = ListEngine(), Bell(valkey.url)
    engine.gate = threading.Event()
    key = lease_key("index")
    with blocking_redis.Redis.from_url(valkey.url) as client:
        async with working(engine, valkey.url, processes=2):
            engine.append("index")
            bell.ring("index")
            await eventually(lambda: engine.begun)
            engine.append("index")
            bell.ring("index")
            assert client.pexpire(key, 10_000)
            await eventually(lambda: client.pttl(key) > 10_000)
            engine.gate.set()
            await eventually(engine.all_applied)
    assert (engine.overlapping, engine.fenced) == (0, 0)
    await bell.close()


@pytest.mark.usefixtures("renewed_often")
async def test_a_wipe_in_the_middle_of_a_batch_voids_it_and_nothing_is_lost(valkey: EmbeddedValkey) -> None:
    engine, bell = ListEngine(), Bell(valkey.url)
    engine.gate = gate = threading.Event()
    async with working(engine, valkey.url):
        engine.append("index")
        bell.ring("index")
        await eventually(lambda: engine.begun)
        with blocking_redis.Redis.from_url(valkey.url) as client:
            client.flushall()
        voided = engine.still_ours
        await eventually(lambda: not voided())
        engine.gate = None
        gate.set()
        await eventually(engine.all_applied)
    assert engine.fenced == 1
    await bell.close()


async def test_redis_restarted_empty_is_come_back_to(valkey: EmbeddedValkey) -> None:
    engine = ListEngine()
    async with working(engine, valkey.url):
        engine.append("before")
        await eventually(engine.all_applied)
        valkey.stop()
        engine.append("meanwhile")
        await asyncio.sleep(0.5)
        assert engine.has_backlog("meanwhile")
        valkey.start()
        await eventually(engine.all_applied)


async def test_a_failure_inside_arq_does_not_end_the_worker(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it meets a job id twice: its loop raises KeyError."""
    run, failures = Worker.async_run, []  # type: ignore[var-annotated]

    async def fail_once(worker: Worker) -> None:
        if not failures:
            failures.append(True)
            raise KeyError("drain:index:twice")
        await run(worker)

    monkeypatch.setattr(Worker, "async_run", fail_once)
    engine = ListEngine()
    engine.append("index")
    async with working(engine, valkey.url):
        await eventually(engine.all_applied)
    assert failures


async def test_a_broken_index_does_not_hold_up_the_others(valkey: EmbeddedValkey) -> None:
    engine, bell = ListEngine(), Bell(valkey.url)
    engine.broken.add("broken")
    async with working(engine, valkey.url):
        for name in ("broken", "sound"):
            engine.append(name)
            bell.ring(name)
        await eventually(lambda: not engine.has_backlog("sound"))
        assert engine.has_backlog("broken")
        engine.broken.clear()
        await eventually(engine.all_applied)
    await bell.close()


async def test_stopping_finishes_the_batch_and_gives_the_lease_back(valkey: EmbeddedValkey) -> None:
    engine, bell = ListEngine(), Bell(valkey.url)
    engine.gate = threading.Event()
    async with working(engine, valkey.url):
        engine.append("index")
        bell.ring("index")
        await eventually(lambda: engine.begun)
        # Opened by itself, some time after the workers were told to stop.
        threading.Timer(0.5, engine.gate.set).start()
    assert engine.all_applied()
    with blocking_redis.Redis.from_url(valkey.url) as client:
        assert not client.exists(lease_key("index"))
    await bell.close()


async def test_a_drain_ends_its_slice_and_leaves_a_job_behind(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.drain.SLICE_S", -1.0)
    engine = ListEngine()
    engine.append("index")
    pool = connect(valkey.url)
    with ThreadPoolExecutor(1) as executor:
        drainer = Drainer(engine, Settings(), SystemClock(), executor)
        await drainer.drain(pool, "index")
    assert not engine.has_backlog("index")
    assert await pool.zcard(pool.default_queue_name) == 1
    assert not await pool.exists(lease_key("index"))
    await pool.aclose(close_connection_pool=True)
