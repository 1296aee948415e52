"""A worker process end to end, on a real Valkey: nothing is stranded, whatever happens to Redis or to the worker."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.fake_engine import BATCH, FakeEngine
from tests.valkey_server import ValkeyServer, eventually
from upwell.clock import SystemClock
from upwell.doorbell.bell import Bell
from upwell.doorbell.keys import lease_key
from upwell.settings import Settings
from workers.worker import WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
#: So rare that it plays no part: what passes with it needs no sweep.
NO_SWEEP_S = 3600.0


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@asynccontextmanager
async def working(
    engine: FakeEngine, server: ValkeyServer, workers: int = 1, **settings: float
) -> AsyncIterator[Bell]:
    """Workers on this loop, and a bell to ring for them."""
    chosen = Settings.model_validate({"lease_ttl_s": 1.0, "sweep_interval_s": 0.3, **settings})
    processes = [WorkerProcess(engine, chosen, SystemClock(), server.url) for _ in range(workers)]
    tasks = [asyncio.create_task(process.run()) for process in processes]
    bell = Bell(server.url)
    try:
        yield bell
    finally:
        for process in processes:
            process.stop()
        await asyncio.gather(*tasks)
        await bell.close()


def drained(engine: FakeEngine) -> bool:
    return not list(engine.backlogged())


async def test_wipes_in_the_middle_strand_nothing(engine: FakeEngine, server: ValkeyServer) -> None:
    engine.apply_s = 0.01
    async with working(engine, server, workers=2) as bell:
        for number in range(120):
            index_id = f"a{number % 4}"
            engine.append(index_id)
            bell.ring(index_id)
            if number % 10 == 5:
                server.flush()
            await asyncio.sleep(0.01)
        await eventually(lambda: drained(engine))
    assert all(engine.history(f"a{number}")[-1][2] == 30 for number in range(4))


async def test_redis_gone_in_the_middle_of_a_batch(engine: FakeEngine, server: ValkeyServer) -> None:
    engine.apply_s = 0.5
    async with working(engine, server) as bell:
        for _ in range(2 * BATCH):
            engine.append("a1")
        bell.ring("a1")
        await eventually(lambda: engine.calls)
        server.restart_empty()
        engine.apply_s = 0.0
        await eventually(lambda: drained(engine))
    assert engine.history("a1")[-1][2] == 2 * BATCH


async def test_a_frozen_redis_is_waited_for(engine: FakeEngine, server: ValkeyServer) -> None:
    async with working(engine, server) as bell:
        await asyncio.sleep(0.2)
        server.pause()
        engine.append("a1")
        bell.ring("a1")
        await asyncio.sleep(1)
        server.resume()
        await eventually(lambda: drained(engine))


async def test_more_indexes_than_slots_all_get_their_turn_and_the_queue_stays_short(
    engine: FakeEngine, server: ValkeyServer
) -> None:
    """Sweeps see indexes that wait for a slot: they must not make the queue longer."""
    engine.apply_s = 0.15
    longest = 0
    async with working(engine, server, worker_jobs=2, sweep_interval_s=0.05) as bell:
        for number in range(40):
            engine.append(f"a{number}")
            bell.ring(f"a{number}")
        while not drained(engine):
            longest = max(longest, len(server.queued()))
            await asyncio.sleep(0.05)
    assert longest <= 45


async def test_stopping_while_redis_is_away_ends(engine: FakeEngine, server: ValkeyServer) -> None:
    async with asyncio.timeout(60):
        async with working(engine, server):
            await asyncio.sleep(0.2)
            server.stop()
            await asyncio.sleep(0.3)


# Real processes.


@contextmanager
def process(folder: Path, server: ValkeyServer, apply_s: float) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_engine", str(folder), server.url, str(apply_s)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None and worker.stdout.readline() == "working\n"
            yield worker
        finally:
            worker.kill()


async def test_a_killed_workers_index_is_taken_over_long_before_arq_would(
    engine: FakeEngine, server: ValkeyServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """arq keeps a dead worker's job to itself for a quarter of an hour; here it takes a lease and two sweeps."""
    bell = Bell(server.url)
    for _ in range(2 * BATCH):
        engine.append("a1")
    with process(tmp_path, server, apply_s=60) as victim:
        bell.ring("a1")
        await eventually(lambda: lease_key("a1") in server.all_keys())
        victim.kill()
        victim.wait()
        killed = time.monotonic()
        assert any(key.startswith("arq:in-progress:drain:a1:") for key in server.all_keys())
        with process(tmp_path, server, apply_s=0):
            await eventually(lambda: drained(engine))
            record_property("recovered_s", time.monotonic() - killed)
    await bell.close()
    assert engine.history("a1")[-1][2] == 2 * BATCH


async def test_sigterm_ends_a_busy_worker_with_0_and_its_batch_committed(
    engine: FakeEngine, server: ValkeyServer, tmp_path: Path
) -> None:
    bell = Bell(server.url)
    for _ in range(20 * BATCH):
        engine.append("a1")
    with process(tmp_path, server, apply_s=0.5) as worker:
        bell.ring("a1")
        await eventually(lambda: engine.through("a1") >= BATCH)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 30) == 0
    await bell.close()
    assert BATCH <= engine.history("a1")[-1][2] < 20 * BATCH
    assert lease_key("a1") not in server.all_keys()


@pytest.mark.slow
async def test_killed_again_and_again_by_chance(
    engine: FakeEngine, server: ValkeyServer, tmp_path: Path
) -> None:
    bell = Bell(server.url)
    for _ in range(3):
        with process(tmp_path, server, apply_s=0.02) as worker:
            for number in range(30):
                engine.append(f"a{number % 3}")
                bell.ring(f"a{number % 3}")
                await asyncio.sleep(random.uniform(0, 0.03))
            worker.kill()
    with process(tmp_path, server, apply_s=0), process(tmp_path, server, apply_s=0):
        await eventually(lambda: drained(engine))
    await bell.close()
    assert all(engine.history(f"a{number}")[-1][2] == 30 for number in range(3))
