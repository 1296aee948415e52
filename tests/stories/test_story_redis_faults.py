"""Redis is a doorbell: whatever becomes of it, writes are acknowledged, queries answered, and visibility comes back by itself.

One service for all cases, whose way to Redis leads through a proxy: no process of it is started anew, whatever the case before did. Each
case has traffic of its own, which must go on while the fault lasts, and add up to the last count afterwards.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.replaying import AT_ONCE_S, Traffic, identity, traffic
from tests.service import Service, running
from tests.tcp_proxy import TcpProxy, Weather
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import (
    COMMITTED_CHANNEL,
    COMPACTION_QUEUE,
    DRAIN_QUEUE,
    EMBED_QUEUE,
    applying_key,
    drain_job_id,
    generation_key,
    knock_key,
    lease_key,
    swept_key,
    tries_key,
)

QUICK = {"UPWELL_LEASE_TTL_S": "1", "UPWELL_SWEEP_INTERVAL_S": "0.3", "UPWELL_POLL_DELAY_S": "0.05"}
NAMES = itertools.count()


@pytest.fixture(scope="module")
def proxy() -> Iterator[TcpProxy]:
    with TcpProxy(None) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def house(proxy: TcpProxy) -> Iterator[Service]:
    with running(2, 2, UPWELL_REDIS=proxy.url, UPWELL_LOG_LEVEL="error", **QUICK) as service:
        yield service


@pytest.fixture
def service(house: Service, proxy: TcpProxy) -> Iterator[Service]:
    """The house, with a fresh Redis at the end of its proxy."""
    house.valkey.stop()
    house.valkey.start()
    proxy.lead_to(socket_of(house.valkey))
    yield house
    proxy.change(Weather())
    proxy.resume()


@pytest.fixture
def second(house: Service) -> Iterator[EmbeddedValkey]:
    """Another server, empty."""
    other = EmbeddedValkey(house.folder / "second")
    other.start()
    yield other
    other.stop()


def slow(*cases: str) -> list[Any]:
    """Cases that are left to those who have the time."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


def socket_of(valkey: EmbeddedValkey) -> str:
    return valkey.url.removeprefix("unix://").partition("?")[0]


@contextmanager
def client(valkey: EmbeddedValkey, **how: Any) -> Iterator[redis.Redis]:
    with closing(redis.Redis(unix_socket_path=socket_of(valkey), **how)) as client:
        yield client


def say(server: redis.Redis, *words: str | bytes | int) -> Any:
    """A command for which the client has no name of its own, or an untyped one."""
    return server.execute_command(*words)  # type: ignore[no-untyped-call]


def going(service: Service, **how: Any) -> Any:
    return traffic(service, f"redis-{next(NAMES)}", **how)


def test_it_is_not_there_at_first_and_then_wants_another_password() -> None:
    """Front ends and workers start before there is any Redis, and hear of a wrong password when there is."""
    with TcpProxy(None) as proxy:
        address = proxy.url.replace("redis://", "redis://:secret@")
        with (
            running(1, 1, UPWELL_REDIS=address, UPWELL_LOG_LEVEL="error", **QUICK) as service,
            traffic(service, "early") as now,
        ):
            now.goes_on()
            with client(service.valkey) as admin:
                admin.config_set("requirepass", "another")
                proxy.lead_to(socket_of(service.valkey))
                now.goes_on()
                assert now.index.status(next(iter(now.replay.expected)))["state"] == "queued"
                admin.config_set("requirepass", "secret")
                now.resumes()


def test_killed_and_started_again_empty(service: Service) -> None:
    with going(service) as now:
        assert service.valkey.pid is not None
        os.kill(service.valkey.pid, signal.SIGKILL)
        now.goes_on()
        service.valkey.start()
        now.resumes()


def test_wiped_again_and_again_in_the_middle_of_drains(service: Service) -> None:
    with going(service) as now, client(service.valkey) as admin:
        for _ in range(25):
            now.goes_on(1)
            admin.flushall()


@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_frozen_nobody_waits_for_it(service: Service, seconds: float) -> None:
    with going(service, call_s=AT_ONCE_S) as now:
        assert service.valkey.pid is not None
        os.kill(service.valkey.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
            now.goes_on()
        finally:
            os.kill(service.valkey.pid, signal.SIGCONT)
        now.resumes()


def test_a_way_to_it_that_swallows_everything(service: Service, proxy: TcpProxy) -> None:
    """No answer, and no end of the connection either."""
    with going(service, call_s=AT_ONCE_S) as now:
        proxy.pause()
        now.goes_on()
        proxy.resume()
        now.resumes()


def test_its_address_leads_to_another_that_is_empty(
    service: Service, proxy: TcpProxy, second: EmbeddedValkey
) -> None:
    with going(service) as now:
        proxy.lead_to(socket_of(second))
        now.resumes()
        proxy.lead_to(socket_of(service.valkey))
        now.resumes()
        # Some are here, some there, and none can tell.
        proxy.lead_to(socket_of(second), cut=False)
        for _ in range(4):
            proxy.cut(0.4)
            now.goes_on(2)
        now.resumes()


def test_a_replica_takes_its_place_with_what_the_dead_left_in_it(
    service: Service, proxy: TcpProxy, second: EmbeddedValkey
) -> None:
    """A lease, and a job in progress, of workers that have long gone on elsewhere; it knows nothing of their end."""
    with (
        TcpProxy(socket_of(service.valkey)) as between,
        client(service.valkey) as first,
        client(second) as other,
        going(service) as now,
    ):
        say(other, "REPLICAOF", "127.0.0.1", str(between.port))
        name = identity(service, now.index.name)
        now.goes_on(4)
        plant_a_dead_worker(first, name)
        wait_for_replica(first)
        between.lead_to(None)
        now.goes_on(4)
        say(other, "REPLICAOF", "NO", "ONE")
        proxy.lead_to(socket_of(second))
        now.resumes()


def plant_a_dead_worker(admin: redis.Redis, index_id: str) -> None:
    generation = "0123456789abcdef"
    job = drain_job_id(index_id, generation)
    admin.set(lease_key(index_id), "the dead", px=1500)
    admin.set(generation_key(index_id), generation, ex=3600)
    admin.zadd(DRAIN_QUEUE, {job: 1})
    admin.set(f"arq:job:{job}", "{}", ex=3600)
    admin.set(f"arq:in-progress:{job}", "1", ex=900)


def wait_for_replica(admin: redis.Redis) -> None:
    admin.set("upwell:a-mark", "1", ex=60)
    assert say(admin, "WAIT", 1, 20_000) == 1


def test_a_password_that_nobody_was_told(service: Service, proxy: TcpProxy) -> None:
    with going(service) as now, client(service.valkey) as admin:
        admin.config_set("requirepass", "new")
        # Who is in stays in; who comes anew does not get in.
        proxy.cut(0.5)
        now.goes_on(3)
        proxy.cut()
        now.goes_on()
        with client(service.valkey, password="new") as owner:
            owner.config_set("requirepass", "")
        now.resumes()


@pytest.mark.parametrize("command", ["eval", "psetex", *slow("set", "time", "zadd", "exec", "zrangebyscore")])
def test_a_right_that_is_missing_for_a_while(service: Service, command: str) -> None:
    with going(service) as now, client(service.valkey) as admin:
        say(admin, "ACL", "SETUSER", "default", f"-{command}")
        now.goes_on(10)
        say(admin, "ACL", "SETUSER", "default", f"+{command}")
        now.resumes()


@pytest.mark.parametrize("command", ["publish", *slow("subscribe", "incr", "pttl")])
def test_a_right_that_hints_need_is_hardly_missed(service: Service, proxy: TcpProxy, command: str) -> None:
    """Without it, for good: what is acknowledged becomes visible all the same."""
    with going(service) as now, client(service.valkey) as admin:
        say(admin, "ACL", "SETUSER", "default", f"-{command}")
        if command == "subscribe":
            proxy.cut()
        now.goes_on(3)
        now.resumes()


@pytest.mark.slow
def test_far_away_and_over_a_thin_wire(service: Service, proxy: TcpProxy) -> None:
    with going(service) as now:
        proxy.change(Weather(latency_s=0.2, jitter_s=0.1, bytes_per_s=50_000))
        now.goes_on()
        now.resumes()
        proxy.cut()
        now.resumes()


def test_connections_cut_at_random(service: Service, proxy: TcpProxy) -> None:
    before = proxy.cut_count
    with going(service) as now:
        for _ in range(30):
            proxy.cut(0.3)
            now.goes_on(1)
        assert proxy.cut_count > before + 30
        now.resumes()


def test_full(service: Service) -> None:
    with going(service) as now, client(service.valkey) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
        with pytest.raises(redis.OutOfMemoryError):
            admin.set("upwell:more", "1", ex=60)
        now.goes_on(10)
        admin.config_set("maxmemory", "0")
        now.resumes()


def test_a_replica_that_takes_no_writes(service: Service) -> None:
    with going(service) as now, client(service.valkey) as admin:
        say(admin, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(redis.ReadOnlyError):
            admin.set("upwell:more", "1", ex=60)
        now.goes_on(10)
        say(admin, "REPLICAOF", "NO", "ONE")
        now.resumes()


def test_connections_stay_with_one_that_became_a_replica(
    service: Service, proxy: TcpProxy, second: EmbeddedValkey
) -> None:
    """Its address leads to the new one already; whoever is connected must go there by himself."""
    with going(service) as now, client(service.valkey) as admin:
        proxy.lead_to(socket_of(second), cut=False)
        say(admin, "REPLICAOF", "127.0.0.1", "1")
        now.resumes()


POISONS: dict[str, Callable[[str], str]] = {
    "generation": generation_key,
    "lease": lease_key,
    "knock": knock_key,
    "applying": applying_key,
    "swept": swept_key,
    "tries": tries_key,
    "queue": lambda _: DRAIN_QUEUE,
    "queue of merges": lambda _: COMPACTION_QUEUE,
    "queue of texts": lambda _: EMBED_QUEUE,
}


def poisoned(now: Traffic, admin: redis.Redis, key: str, kind: str) -> None:
    # At once: in between somebody may make it anew.
    with admin.pipeline() as pipe:
        pipe.delete(key)
        match kind:
            case "hash":
                pipe.hset(key, "a", "b")
            case "no text":
                pipe.set(key, b"\xff\xfe\x00 not ours")
            case "member":
                pipe.zadd(key, {b"\xff\xfe\x00": 1, b"drain:nothing": 2, b"": 3})
        pipe.execute()
    now.goes_on(2)
    now.resumes()


@pytest.mark.parametrize("kind", ["hash", *slow("no text")])
def test_a_key_that_holds_what_we_never_wrote(service: Service, kind: str) -> None:
    """Each in turn, without a time to live, and nobody takes it away: what is acknowledged becomes visible all the same."""
    with going(service) as now, client(service.valkey) as admin:
        name = identity(service, now.index.name)
        for make in POISONS.values():
            poisoned(now, admin, make(name), kind)


def test_what_we_never_said_in_queues_and_on_the_channel(service: Service) -> None:
    with going(service) as now, client(service.valkey) as admin:
        for said in (b"\xff", b"[]", b"{}", b'{"index_id":{},"version":"x","through":null}'):
            say(admin, "PUBLISH", COMMITTED_CHANNEL, said)
        for queue in (DRAIN_QUEUE, COMPACTION_QUEUE, EMBED_QUEUE):
            poisoned(now, admin, queue, "member")


def test_the_house_still_has_all_its_processes(house: Service) -> None:
    """Last of all: nothing above was mended by starting something anew."""
    assert [process.poll() for process in [*house.workers, *(api.process for api in house.apis)]] == [
        None
    ] * 4
    assert {path.name for path in Path(house.data).iterdir()} != set()
