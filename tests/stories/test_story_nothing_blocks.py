"""Nothing blocks an event loop: the front end and a worker on one loop, with every blocking call forbidden there.

blockbuster makes file, socket, lock and sleep calls raise when they are made on a running loop; so do FAISS searches, segment
building and large parses here, by looking at the thread that they run in.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from blockbuster import blockbuster_ctx

import ingest.doors.cloudflare.queries
import ingest.doors.cloudflare.vectors
import ingest.parsing
import upwell.log.entry
import upwell.shard.part
from ingest.app import assemble, create_app
from upwell.clock import SystemClock
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.engine import open_engine
from upwell.settings import Settings
from workers.worker import WorkerProcess

TOKEN = "blocking-is-forbidden"
BASE = "/client/v4/accounts/default/vectorize/v2/indexes"


@pytest.fixture
async def service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[ClientSession, set[str]]]:
    """A client of a front end and a worker that share this loop, and the names of what was seen to run off it."""
    valkey = EmbeddedValkey(tmp_path / "valkey")
    valkey.start()
    settings = Settings.model_validate({"data": tmp_path / "data", "token": TOKEN, "redis": valkey.url})
    engine = open_engine(settings)
    seen: set[str] = set()
    loop_thread = threading.get_ident()
    for module, name in (
        (ingest.doors.cloudflare.queries, "search"),
        (ingest.parsing, "parse_upload"),
        (ingest.doors.cloudflare.vectors, "lookup"),
        (upwell.shard.part, "encode_segment"),
        (upwell.log.entry, "encode_columns"),
    ):
        monkeypatch.setattr(module, name, _off_loop(getattr(module, name), loop_thread, seen))
    app = create_app(assemble(engine, valkey.url))
    runner = web.AppRunner(app, auto_decompress=False)
    worker = WorkerProcess(engine, settings, SystemClock(), valkey.url)
    with blockbuster_ctx(["ingest", "upwell", "workers", "arq", "aiohttp"]) as guard:
        # Into an anonymous file: that is a copy in memory.
        guard.functions["os.write"].can_block_in("ingest/spool.py", "write")
        # A byte into a pipe, to wake the thread that hands work to parsing processes; and their start, once.
        guard.functions["os.write"].can_block_in("multiprocessing/connection.py", "_send")
        for call in guard.functions.values():
            call.can_block_in("concurrent/futures/process.py", "_spawn_process")
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        working = asyncio.create_task(worker.run())
        port = runner.addresses[0][1]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            yield session, seen
        worker.stop()
        await working
        await runner.cleanup()
    valkey.stop()


def _off_loop(function: Callable[..., Any], loop_thread: int, seen: set[str]) -> Callable[..., Any]:
    def checked(*args: Any, **kwargs: Any) -> Any:
        assert threading.get_ident() != loop_thread, f"{function.__name__} runs on the event loop"
        seen.add(function.__name__)
        return function(*args, **kwargs)

    return checked


async def test_no_step_of_a_mutations_way_blocks_a_loop(service: tuple[ClientSession, set[str]]) -> None:
    session, seen = service

    async def call(method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body) if isinstance(body, dict) else body
        async with session.request(method, path, data=data) as answer:
            envelope = await answer.json()
            assert answer.status == 200, envelope
            return envelope["result"]

    await call("POST", BASE, {"name": "flow", "config": {"dimensions": 4, "metric": "cosine"}})
    await call("GET", BASE)
    lines = [json.dumps({"id": f"v{n}", "values": [n, 1, 2, 3], "metadata": {"n": n}}) for n in range(2000)]
    mutation = ""
    for operation in ("insert", "upsert"):
        mutation = (await call("POST", f"{BASE}/flow/{operation}", "\n".join(lines)))["mutationId"]
        status = await call("GET", f"{BASE}/flow/mutations/{mutation}?wait=30")
        assert status["state"] == "visible"
    found = await call("POST", f"{BASE}/flow/query", {"vector": [5, 1, 2, 3], "topK": 3, "after": mutation})
    assert found["matches"][0]["id"] == "v5"
    assert len(await call("POST", f"{BASE}/flow/get_by_ids", {"ids": ["v1", "v2"]})) == 2
    gone = (await call("POST", f"{BASE}/flow/delete_by_ids", {"ids": ["v1"]}))["mutationId"]
    assert (await call("GET", f"{BASE}/flow/mutations/{gone}?wait=30"))["counts"]["deleted"] == 1
    await call("GET", f"{BASE}/flow/info")
    await call("POST", "/upwell/v1/tokens", {"account": "default"})
    await call("DELETE", f"{BASE}/flow")
    for path in ("/healthz", "/readyz", "/metrics"):
        async with session.get(path) as answer:
            assert answer.status == 200
    assert seen == {"search", "parse_upload", "lookup", "encode_segment", "encode_columns"}


async def test_no_command_of_milvus_blocks_a_loop(service: tuple[ClientSession, set[str]]) -> None:
    session, _ = service
    here = {"collectionName": "flow", "consistencyLevel": "Strong"}
    rows = [{"id": n, "vector": [n, 1, 2, 3], "n": n} for n in range(3000)]
    part = {"data": [{"id": 1, "n": 7}], "partialUpdate": True}
    by_vector = {"data": [[5, 1, 2, 3]], "annsField": "vector", "limit": 2}
    for command, body in (
        ("databases/create", {"dbName": "shelf"}),
        ("databases/list", {}),
        ("collections/create", {"dimension": 4}),
        ("collections/alter_properties", {"properties": {"mmap.enabled": True}}),
        ("aliases/create", {"aliasName": "other"}),
        ("partitions/create", {"partitionName": "p"}),
        ("entities/insert", {"data": rows}),
        ("entities/upsert", {"data": rows[:9], "partitionName": "p"}),
        ("entities/upsert", part),
        ("entities/query", {"filter": "n > 5", "limit": 3}),
        ("entities/query", {"filter": "n > 5", "limit": 0}),
        ("entities/get", {"id": [1, 2]}),
        ("entities/search", by_vector | {"filter": "n < 9", "groupingField": "n"}),
        ("entities/search", {"ids": [1, 2], "limit": 2}),
        ("entities/hybrid_search", {"search": [by_vector, by_vector], "limit": 2}),
        ("entities/delete", {"filter": "id in [1, 2]"}),
        ("entities/delete", {"filter": "n > 2000"}),
        ("partitions/release", {"partitionNames": ["p"]}),
        ("partitions/drop", {"partitionName": "p"}),
        ("indexes/describe", {"indexName": "vector"}),
        ("collections/describe", {}),
        ("collections/flush", {}),
        ("collections/truncate", {}),
        ("aliases/drop", {"aliasName": "other"}),
        ("collections/rename", {"newCollectionName": "flown"}),
        ("collections/drop", {"collectionName": "flown"}),
    ):
        async with session.post(f"/v2/vectordb/{command}", data=json.dumps(here | body)) as answer:
            told = await answer.json()
            assert answer.status == 200 and told["code"] == 0, (command, told)


async def test_the_guard_itself_works(service: tuple[ClientSession, set[str]]) -> None:
    with pytest.raises(Exception, match="Blocking call"):
        _look_on_the_loop()


def _look_on_the_loop() -> None:
    from upwell.store import DirectoryStore

    DirectoryStore(Path("/nowhere/at/all"))
