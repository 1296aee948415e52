"""Couriers on a real Valkey, a real store and a real receiver: one at a time, none in another's way, and nothing done for nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from blockbuster import BlockingError, blockbuster_ctx

from tests.making import Client, drain, make_index, upsert
from tests.receiver import Received, Receiver, receiving
from tests.valkey_server import ValkeyServer, eventually
from upwell.clock import SystemClock
from upwell.doorbell.connection import connect
from upwell.doorbell.ending import end
from upwell.doorbell.keys import tells_key
from upwell.doorbell.lease import Lease
from upwell.engine import Engine, Index
from upwell.settings import Settings
from upwell.store import DirectoryStore
from upwell.webhook import Event, Progress, Webhook
from workers import webhooks as webhooks_module
from workers.hold import renewed
from workers.webhooks import Courier

#: Quick where something is to be done, and without an end that a busy machine could reach before it is.
BRIEF = {
    "sweep_interval_s": 0.05,
    "lease_ttl_s": 60.0,
    "webhook_private_addresses": True,
    "webhook_timeout_s": 60.0,
}
STUCK_S = 50.0


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    settings = Settings.model_validate(BRIEF | {"data": tmp_path})
    return Engine(DirectoryStore(tmp_path / "store"), settings, SystemClock())


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def write(engine: Engine, index: Index, count: int) -> list[str]:
    client = Client(index)
    made = [client.append(upsert((f"v{n}", (n, 0))))[0] for n in range(count)]
    drain(engine, index)
    return made


def register(index: Index, receiver: Receiver) -> Webhook:
    return index.webhooks.create(receiver.url, tuple(Event), None)


def progress(index: Index) -> Progress:
    ((_, progress),) = index.webhooks.everything()
    return progress


@asynccontextmanager
async def couriers(
    engine: Engine, server: ValkeyServer, count: int = 1, **settings: float
) -> AsyncIterator[list[Courier]]:
    """Couriers of so many workers."""
    chosen = Settings.model_validate(BRIEF | settings)
    made = [Courier(engine, chosen, engine.clock) for _ in range(count)]
    pools = [connect(server.url) for _ in made]
    tasks = [asyncio.create_task(one.run(redis)) for one, redis in zip(made, pools, strict=True)]
    try:
        yield made
    finally:
        await end(*tasks)
        for courier, redis in zip(made, pools, strict=True):
            await asyncio.to_thread(courier.close)
            await redis.aclose(close_connection_pool=True)


async def test_of_several_couriers_one_delivers_at_a_time_and_in_order(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    def answer(_: Received) -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        threading.Event().wait(0.005)
        with lock:
            busy -= 1
        return 200

    receiver.answer = answer
    register(index, receiver)
    made: list[str] = []
    async with couriers(engine, server, 3) as all_of_them:
        for _ in range(10):
            made += await asyncio.to_thread(write, engine, index, 5)
            for courier in all_of_them:
                courier.committed(index.record.id)
        await eventually(lambda: len(receiver.received) >= len(made))
        await eventually(lambda: progress(index).delivered == made[-1])
    assert [one.json["data"]["mutationId"] for one in receiver.received] == made, "each once, in order"
    assert most == 1


async def test_a_commit_is_told_at_once_and_the_lease_is_given_back(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    webhook = register(index, receiver)
    async with couriers(engine, server, sweep_interval_s=3600, lease_ttl_s=3600) as (courier,):
        await asyncio.sleep(0.1)
        made = await asyncio.to_thread(write, engine, index, 1)
        assert receiver.received == [], "nobody said anything"
        courier.committed(index.record.id)
        await eventually(lambda: receiver.taken() == made)
        await eventually(lambda: tells_key(index.record.id, webhook.id) not in server.all_keys())


async def test_a_dead_couriers_webhook_is_taken_over_when_its_lease_ends(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer, redis: ArqRedis
) -> None:
    webhook = register(index, receiver)
    made = await asyncio.to_thread(write, engine, index, 2)
    assert await Lease(redis, index.record.id, 60.0, webhook=webhook.id).claim()
    async with couriers(engine, server, 2):
        await asyncio.sleep(0.5)
        assert receiver.received == [], "its lease is still held"
        assert await redis.pexpire(tells_key(index.record.id, webhook.id), 1)
        await eventually(lambda: receiver.taken() == made)


async def test_a_slow_receivers_webhook_stays_with_its_courier(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its lease is given back its whole time again and again."""
    monkeypatch.setattr(webhooks_module, "renewed", lambda lease, _: renewed(lease, 0.05))
    go_on = threading.Event()
    receiver.answer = lambda _: 200 if go_on.wait(STUCK_S) else 500
    key = tells_key(index.record.id, register(index, receiver).id)
    made = await asyncio.to_thread(write, engine, index, 1)
    async with couriers(engine, server, 2):
        await eventually(lambda: receiver.received)
        for _ in range(3):
            assert await redis.pexpire(key, 30_000)
            async with asyncio.timeout(20):
                while await redis.pttl(key) <= 30_000:  # noqa: ASYNC110  a key of Redis
                    await asyncio.sleep(0.01)
        go_on.set()
        await eventually(lambda: progress(index).delivered == made[-1])
    assert len(receiver.received) == 1


async def test_a_wiped_redis_delays_nothing_and_an_absent_one_only_delays(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    webhook = register(index, receiver)
    async with couriers(engine, server):
        made = await asyncio.to_thread(write, engine, index, 3)
        await eventually(lambda: receiver.taken() == made)
        server.flush()
        made += await asyncio.to_thread(write, engine, index, 3)
        await eventually(lambda: receiver.taken() == made)
        # Who is still at it holds a lease, and may go on without Redis for as long as that lasts.
        await eventually(lambda: tells_key(index.record.id, webhook.id) not in server.all_keys())
        server.stop()
        made += await asyncio.to_thread(write, engine, index, 3)
        await asyncio.sleep(0.3)
        assert len(receiver.taken()) == 6
        server.start()
        await eventually(lambda: receiver.taken() == made)


async def test_a_slow_receiver_keeps_no_other_waiting(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    slow_answers = threading.Event()
    with receiving() as slow:
        slow.answer = lambda _: 200 if slow_answers.wait(STUCK_S) else 500
        for _ in range(3):
            register(index, slow)
        register(index, receiver)
        async with couriers(engine, server):
            made = await asyncio.to_thread(write, engine, index, 4)
            await eventually(lambda: receiver.taken() == made)
            assert len(slow.received) <= 3
            slow_answers.set()
            await eventually(lambda: slow.taken() == made and len(slow.received) >= 12)


async def test_more_webhooks_than_turns_all_get_theirs(
    engine: Engine, receiver: Receiver, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "AT_ONCE", 2)
    monkeypatch.setattr(webhooks_module, "TURN_S", 0.0)
    made: list[str] = []
    indexes = [make_index(engine, f"i{number}") for number in range(5)]
    for one in indexes:
        register(one, receiver)
        made += await asyncio.to_thread(write, engine, one, 3)
    async with couriers(engine, server, 2, sweep_interval_s=3600):
        await eventually(lambda: sorted(receiver.taken()) == sorted(made))


async def test_who_has_no_webhooks_is_looked_at_once_in_a_while_only(
    engine: Engine, index: Index, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    find, due = engine.webhook_indexes, engine.webhooks_due

    def finding() -> list[str]:
        looks.append("find")
        return find()

    def looking(index_id: str) -> list[str]:
        looks.append(index_id)
        return due(index_id)

    monkeypatch.setattr(engine, "webhook_indexes", finding)
    monkeypatch.setattr(engine, "webhooks_due", looking)
    async with couriers(engine, server, sweep_interval_s=0.01) as (courier,):
        await eventually(lambda: looks)
        await asyncio.sleep(0.5)
        assert looks == ["find"]
        courier.committed(index.record.id)
        await eventually(lambda: looks == ["find", index.record.id])
        await asyncio.sleep(0.2)
        assert len(looks) == 2
    assert server.all_keys() == set()


async def test_a_deleted_webhook_and_a_deleted_index_are_told_no_more(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    other = make_index(engine, "other")
    first, second = register(index, receiver), register(other, receiver)
    gate = threading.Semaphore(2)
    receiver.answer = lambda _: 200 if gate.acquire(timeout=STUCK_S) else 500
    await asyncio.to_thread(write, engine, index, 20)
    await asyncio.to_thread(write, engine, other, 20)
    async with couriers(engine, server):
        await eventually(lambda: len(receiver.received) >= 4)
        await asyncio.to_thread(index.webhooks.delete, first.id)
        await asyncio.to_thread(engine.catalog.delete, "default", "other")
        gate.release(100)
        await asyncio.sleep(0.5)
        assert len(receiver.received) == 4, "only what was on its way"
    assert second.id in {one.id for one, _ in other.webhooks.everything()}


async def test_one_that_fails_is_tried_again_and_what_was_wrong_is_told(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    register(index, receiver)
    answers, first_seen = iter([500, 503]), threading.Event()

    def answer(_: Received) -> int:
        status = next(answers, 200)
        return status if status == 500 or first_seen.wait(STUCK_S) else 599

    receiver.answer = answer
    async with couriers(engine, server):
        made = await asyncio.to_thread(write, engine, index, 3)
        await eventually(lambda: progress(index).tries)
        tried = progress(index)
        assert tried.tries == 1 and tried.last_problem is not None
        assert (tried.last_problem.reason, tried.last_problem.mutation_id) == (
            "answered 500 Internal Server Error",
            made[0],
        )
        first_seen.set()
        await eventually(lambda: progress(index).delivered == made[-1])
    assert [one.json["data"]["mutationId"] for one in receiver.received] == [made[0]] * 2 + made
    assert len(receiver.ids()) == 3, "the same id on every try"
    assert len({one.body for one in receiver.received}) == 3, "and the same body"


async def test_no_step_of_delivering_blocks_the_loop(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer
) -> None:
    register(index, receiver)
    answers = iter([500])
    receiver.answer, receiver.body = lambda _: next(answers, 200), b"x" * 100_000
    with blockbuster_ctx(["upwell", "workers", "aiohttp"]):
        with pytest.raises(BlockingError):
            index.webhooks.everything()
        async with couriers(engine, server) as (courier,):
            made = await asyncio.to_thread(write, engine, index, 3)
            courier.committed(index.record.id)
            await eventually(lambda: receiver.taken() == made)
            await asyncio.to_thread(
                index.webhooks.create, f"http://localhost:{receiver.port}/", tuple(Event), None
            )
            await asyncio.to_thread(write, engine, index, 1)
            courier.committed(index.record.id)
            await eventually(lambda: any(one.path == "/" for one in receiver.received))


async def test_410_disables(engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer) -> None:
    register(index, receiver)
    receiver.answer = lambda _: 410
    async with couriers(engine, server) as (courier,):
        await asyncio.to_thread(write, engine, index, 3)
        await eventually(lambda: progress(index).disabled_at)
        await asyncio.to_thread(write, engine, index, 1)
        courier.committed(index.record.id)
        await asyncio.sleep(0.3)
    assert len(receiver.received) == 1


async def test_a_damaged_registration_keeps_no_other_index_waiting(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer, tmp_path: Path
) -> None:
    other = make_index(engine, "other")
    webhook = register(index, receiver)
    register(other, receiver)
    path = tmp_path / "store" / index.record.folder / "webhook" / webhook.id
    path.write_bytes(path.read_bytes()[:50])
    made = await asyncio.to_thread(write, engine, other, 2)
    await asyncio.to_thread(write, engine, index, 2)
    async with couriers(engine, server):
        await eventually(lambda: receiver.taken() == made)


async def test_told_to_stop_it_ends_after_the_message_on_its_way_and_has_kept_count(
    engine: Engine, index: Index, receiver: Receiver, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "FINISH_S", STUCK_S)
    register(index, receiver)
    on_its_way, go_on = threading.Event(), threading.Event()

    def answer(_: Received) -> int:
        on_its_way.set()
        return 200 if go_on.wait(STUCK_S) else 500

    receiver.answer = answer
    made = await asyncio.to_thread(write, engine, index, 5)
    async with couriers(engine, server) as (courier,):
        await eventually(on_its_way.is_set)
        courier.stopping = True
        ending = asyncio.create_task(courier.finish())
        await asyncio.sleep(0.1)
        assert not ending.done()
        go_on.set()
        await ending
        assert progress(index).delivered == made[0]
    assert len(receiver.received) == 1
