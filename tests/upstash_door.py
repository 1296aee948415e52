"""The Upstash door in this very process: a front end on a real socket, and a drain that can be held still."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson

from tests.front_house import FrontHouse, front_house
from upwell.catalog.names import NewIndex
from upwell.changeset import KeyScope
from upwell.engine import Index
from upwell.kinds import IndexKind
from upwell.shard.metric import Metric

TOKEN = "upstash-token-0123456789"


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


class UpstashHouse(FrontHouse):
    """A front end that is asked at this door."""

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


def upstash_house(folder: Path, **settings: object) -> AbstractAsyncContextManager[UpstashHouse]:
    """A house for one test."""
    return front_house(UpstashHouse, folder, TOKEN, settings)
