"""The Upstash door in this very process: a front end on a real socket, and a drain that can be held still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, web

from ingest.app import Parts, assemble, create_app
from upwell.catalog.names import NewIndex
from upwell.changeset import KeyScope
from upwell.engine import Engine, Index, open_engine
from upwell.kinds import IndexKind
from upwell.settings import Settings
from upwell.shard.metric import Metric

TOKEN = "upstash-token-0123456789"
NO_REDIS = "redis://127.0.0.1:1/0"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: status, headers, and the body as JSON."""

    status: int
    headers: dict[str, str]
    json: Any

    @property
    def result(self) -> Any:
        """The result; the whole answer is the message when there is none."""
        assert self.status == 200 and self.json.keys() == {"result"}, self
        return self.json["result"]

    @property
    def error(self) -> tuple[int, str]:
        """Status and text of a refusal."""
        assert self.json.keys() == {"error", "status"} and self.json["status"] == self.status, self
        assert self.status >= 400, self
        return self.status, self.json["error"]


@dataclass
class UpstashHouse:
    """A front end, its engine, and a drain that applies what comes unless it is told to wait."""

    engine: Engine
    parts: Parts
    session: ClientSession
    #: Cleared: nothing is applied.
    drains: asyncio.Event = field(default_factory=asyncio.Event)
    #: Mutations to come that are to fail, and why.
    fails: str | None = None

    def make(
        self,
        name: str = "index",
        kind: IndexKind = IndexKind.DENSE,
        dimensions: int = 2,
        metric: Metric = Metric.COSINE,
        key_scope: KeyScope = KeyScope.OPEN,
        embedding_model: str | None = None,
        sparse_embedding_model: str | None = None,
    ) -> Index:
        """A new, empty index."""
        new = NewIndex(
            name=name,
            description=None,
            dimensions=dimensions if kind.has_dense else 0,
            metric=metric,
            shards=2,
            kind=kind,
            key_scope=key_scope,
            embedding_model=embedding_model,
            sparse_embedding_model=sparse_embedding_model,
        )
        self.engine.catalog.create("default", new)
        return self.engine.find("default", name)

    async def call(
        self,
        command: str,
        body: Any = None,
        *,
        index: str = "index",
        method: str = "POST",
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; bytes are sent as they are, None is no body."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        text = body if isinstance(body, bytes) else orjson.dumps(body)
        how: dict[str, Any] = {} if body is None else {"data": BytesIO(text)}
        url = f"/upstash/default/{index}{'/' if command else ''}{command}"
        async with self.session.request(method, url, headers=sent, **how) as reply:
            return Answer(reply.status, dict(reply.headers), await reply.json())

    async def result(self, command: str, body: Any = None, **how: Any) -> Any:
        """The result of a request that must succeed."""
        return (await self.call(command, body, **how)).result

    async def error(self, command: str, body: Any = None, **how: Any) -> tuple[int, str]:
        """Status and text of a request that must be refused."""
        return (await self.call(command, body, **how)).error


@asynccontextmanager
async def upstash_house(folder: Path, **settings: object) -> AsyncIterator[UpstashHouse]:
    """A house for one test."""
    chosen = Settings.model_validate(
        {"data": folder / "data", "token": TOKEN, "parse_processes": 0, **settings}
    )
    engine = open_engine(chosen)
    parts = assemble(engine, NO_REDIS)
    runner = web.AppRunner(create_app(parts), auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            house = UpstashHouse(engine, parts, session)
            house.drains.set()
            draining = asyncio.create_task(_drain(house))
            try:
                yield house
            finally:
                draining.cancel()
                await asyncio.wait([draining])
    finally:
        await runner.cleanup()


async def _drain(house: UpstashHouse) -> None:
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
