"""The Milvus door in this very process: a front end on a real socket, and a drain that can be held still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, web

from ingest.app import Parts, assemble, create_app
from ingest.keys import OPERATIONS
from ingest.operations import Operations
from upwell.engine import Engine, Index, open_engine
from upwell.settings import Settings

TOKEN = "milvus-token-0123456789"
NO_REDIS = "redis://127.0.0.1:1/0"
PATHS = {1: "/v1/vector", 2: "/v2/vectordb"}
SUCCESS = {1: 200, 2: 0}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: status, headers, and the body as JSON, or as text where it is none."""

    version: int
    status: int
    headers: dict[str, str]
    json: Any

    @property
    def data(self) -> Any:
        """The data of a success; the whole answer is the message when it is none."""
        assert self.status == 200 and self.json["code"] == SUCCESS[self.version], self
        return self.json["data"]

    @property
    def error(self) -> tuple[int, str]:
        """Code and text of a refusal."""
        assert self.json.keys() == {"code", "message"}, self
        assert self.json["code"] != SUCCESS[self.version], self
        return self.json["code"], self.json["message"]


@dataclass
class MilvusHouse:
    """A front end, its engine, and a drain that applies what comes unless it is told to wait."""

    engine: Engine
    parts: Parts
    operations: Operations
    session: ClientSession
    #: Cleared: nothing is applied.
    drains: asyncio.Event = field(default_factory=asyncio.Event)
    #: Mutations to come that are to fail, and why.
    fails: str | None = None

    async def ask(
        self,
        version: int,
        command: str,
        body: Any = None,
        *,
        method: str = "POST",
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        """One request; bytes are sent as they are, None is no body."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        text = body if isinstance(body, bytes) else orjson.dumps(body)
        how: dict[str, Any] = {} if body is None else {"data": BytesIO(text)}
        url = f"{PATHS[version]}/{command}"
        async with self.session.request(method, url, headers=sent, params=query, **how) as reply:
            got = await reply.read()
            is_json = reply.content_type == "application/json"
            return Answer(
                version, reply.status, dict(reply.headers), orjson.loads(got) if is_json else got.decode()
            )

    async def call(self, version: int, command: str, body: Any = None, **how: Any) -> Row:
        """The whole answer to a request as JSON, whether it is a success or not."""
        answer: Row = (await self.ask(version, command, body, **how)).json
        return answer

    async def data(self, command: str, body: Any = None, *, version: int = 2, **how: Any) -> Any:
        """The data of a request that must succeed."""
        return (await self.ask(version, command, body, **how)).data

    async def error(self, command: str, body: Any = None, *, version: int = 2, **how: Any) -> tuple[int, str]:
        """Code and text of a request that must be refused."""
        return (await self.ask(version, command, body, **how)).error

    async def make(self, name: str = "c", dimension: int = 2, **more: Any) -> Index:
        """A new, empty collection of the quick sort: Int64 ids "id", vectors "vector", metric COSINE, dynamic fields."""
        await self.data("collections/create", {"collectionName": name, "dimension": dimension, **more})
        return self.engine.find(more.get("dbName", "default"), name)

    async def make_full(
        self,
        fields: Sequence[Row],
        name: str = "c",
        *,
        metrics: dict[str, str] | None = None,
        dynamic: bool = False,
        auto_id: bool = False,
        **more: Any,
    ) -> Index:
        """A new, empty collection with a schema, loaded; ``metrics`` are of its vector fields, COSINE (sparse: IP) for those not named."""
        ready = {
            one["fieldName"]: "IP" if one["dataType"] == "SparseFloatVector" else "COSINE"
            for one in fields
            if one["dataType"].endswith("Vector")
        } | (metrics or {})
        body = {
            "collectionName": name,
            "schema": {"autoId": auto_id, "enableDynamicField": dynamic, "fields": list(fields)},
            "indexParams": [
                {"fieldName": one, "indexName": one, "metricType": metric, "indexType": "AUTOINDEX"}
                for one, metric in ready.items()
            ],
        }
        await self.data("collections/create", body | more)
        return self.engine.find(more.get("dbName", "default"), name)

    async def settle(self, name: str = "c", database: str = "default") -> None:
        """Return once all that was acknowledged is visible."""
        await self.operations.caught_up(self.engine.find(database, name), 30.0)


@asynccontextmanager
async def milvus_house(folder: Path, **settings: object) -> AsyncIterator[MilvusHouse]:
    """A house for one test."""
    chosen = Settings.model_validate(
        {"data": folder / "data", "token": TOKEN, "parse_processes": 0, **settings}
    )
    engine = open_engine(chosen)
    parts = assemble(engine, NO_REDIS)
    app = create_app(parts)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            house = MilvusHouse(engine, parts, app[OPERATIONS], session)
            house.drains.set()
            draining = asyncio.create_task(_drain(house))
            try:
                yield house
            finally:
                draining.cancel()
                await asyncio.wait([draining])
    finally:
        await runner.cleanup()


async def _drain(house: MilvusHouse) -> None:
    """Apply whatever comes, one log entry after the other, and tell those who wait."""
    while True:
        await house.drains.wait()
        for index_id in await asyncio.to_thread(lambda: list(house.engine.backlogged())):
            broken = None
            if house.fails is not None:
                entry = await asyncio.to_thread(house.engine.next_entry, index_id)
                broken = dict.fromkeys(entry, house.fails)
            await asyncio.to_thread(house.engine.apply_batch, index_id, lambda: True, broken=broken)
            house.parts.visibility.notice(index_id)
        await asyncio.sleep(0.005)
