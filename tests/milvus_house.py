"""The Milvus door in this very process: a front end on a real socket, and a drain that can be held still."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson

from tests.front_house import FrontHouse, front_house
from upwell.engine import Index

TOKEN = "milvus-token-0123456789"
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


class MilvusHouse(FrontHouse):
    """A front end that is asked at this door."""

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


def milvus_house(folder: Path, **settings: object) -> AbstractAsyncContextManager[MilvusHouse]:
    """A house for one test."""
    return front_house(MilvusHouse, folder, TOKEN, settings)
