"""Reaching Redis: bad addresses are refused, absent servers are not a reason to fail, jobs are JSON."""

from __future__ import annotations

import orjson
import pytest
from redis.exceptions import RedisError

from tests.valkey_server import ValkeyServer
from upwell.doorbell.connection import connect, deserialize, redis_settings, serialize
from upwell.doorbell.lease import enqueue_drain
from upwell.errors import Invalid


def test_addresses() -> None:
    plain = redis_settings("redis://user:secret@cache:6380/3")
    assert (plain.host, plain.port, plain.database, plain.username, plain.ssl) == (
        "cache",
        6380,
        3,
        "user",
        False,
    )
    assert redis_settings("rediss://cache").ssl
    local = redis_settings("unix:///run/server.sock?db=2")
    assert (local.unix_socket_path, local.database) == ("/run/server.sock", 2)


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://cache", "redis://cache:port/0", "redis://cache/zero"]
)
def test_what_is_no_address_is_refused_in_our_words(url: str) -> None:
    with pytest.raises(Invalid):
        redis_settings(url)
    with pytest.raises(Invalid):
        connect(url)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/at/all.sock?db=0"])
async def test_a_server_that_is_away_fails_a_command_and_not_the_connecting(url: str) -> None:
    redis = connect(url)
    with pytest.raises((RedisError, OSError)):
        await redis.ping()
    await redis.aclose()


@pytest.mark.parametrize(
    "scheme", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///nowhere.sock"]
)
async def test_a_connection_that_closes_amid_a_command_is_one_that_is_away(
    server: ValkeyServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop raises RuntimeError for a transport that the other side has closed a moment ago, and a task that listens would end of it."""

    async def closed(*_: object) -> None:
        raise RuntimeError(
            "unable to perform operation on <UnixTransport closed=True>; the handler is closed"
        )

    redis = connect(scheme)
    ours, pool = redis.connection_pool.connection_class, connect(server.url)
    assert await pool.ping()
    connection = await pool.connection_pool.get_connection()
    for sort in (ours, type(connection)):
        monkeypatch.setattr(sort, "_send_packed_command", closed)
    with pytest.raises(RedisError):
        await connection.send_command("PING")
    assert not connection.is_connected
    assert issubclass(ours, type(connection).__mro__[1])
    for one in (redis, pool):
        await one.aclose(close_connection_pool=True)


async def test_a_job_is_json_and_names_the_index_only(server: ValkeyServer) -> None:
    redis = connect(server.url)
    await enqueue_drain(redis, "a1")
    (name,) = server.queued()
    body = await redis.get(f"arq:job:{name}")
    await redis.aclose()
    job = orjson.loads(body)
    assert job["f"] == "drain" and job["a"] == ["a1"] and job["k"] == {}
    assert deserialize(serialize(job)) == job


def test_what_json_cannot_say_is_told_by_its_name() -> None:
    assert "ValueError" in deserialize(serialize({"r": ValueError("x")}))["r"]
