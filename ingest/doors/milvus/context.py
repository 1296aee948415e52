"""What every command of this door needs of a request: who asks, for what, in which database and collection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from ingest.body import inflate
from ingest.doors.milvus.errors import missing, no_collection, no_database, not_json
from ingest.keys import OPERATIONS
from ingest.operations import Operations
from ingest.requests import read_body
from upwell.catalog.tokens import Access, Grant
from upwell.engine import Index
from upwell.errors import NotFound
from upwell.query.patience import Patience
from upwell.schema import OPEN_SCHEMA, RowSchema
from upwell.settings import Settings

DEFAULT_DATABASE: Final = "default"
#: Of a body that brings no rows to be kept. Decoded it may take thirty times as much.
QUESTION_BYTES_MAX: Final = 4 << 20

P = TypeVar("P", bound="Params")


class Version(IntEnum):
    """Of the RESTful API; they differ in what is a success, in what may be asked, and in how it is called."""

    V1 = 1
    V2 = 2

    @property
    def success(self) -> int:
        """The code of a success."""
        return 200 if self is Version.V1 else 0


class Params(BaseModel):
    """The body of a request. What is not known is passed over, as Milvus does; null is as good as nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel)

    db_name: str | None = None


class OfCollection(Params):
    """The body of a request about a collection."""

    collection_name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A request of somebody whose token is known. What it is about is known when its body is."""

    request: web.Request
    version: Version
    command: str
    grant: Grant

    @property
    def ops(self) -> Operations:
        return self.request.config_dict[OPERATIONS]

    @property
    def settings(self) -> Settings:
        return self.ops.engine.settings

    @property
    def ids_as_text(self) -> bool:
        """Does the client want integers of 64 bits as strings? JavaScript cannot tell large ones apart."""
        return self.request.headers.get("Accept-Type-Allow-Int64", "").strip().lower() == "false"

    def patience(self) -> Patience:
        """How long a question may take that is asked now."""
        return Patience(self.ops.engine.clock, self.settings.filter_s_max)

    async def params(self, model: type[P]) -> P:
        """The body of a question, as ``model``. Raises MilvusError, which names the field, TooLarge or TooSlow."""
        bytes_max = min(QUESTION_BYTES_MAX, self.settings.request_bytes_max)
        body = await read_body(self.request, bytes_max)
        encoding = self.request.headers.get("Content-Encoding")
        return await self.ops.parse(lambda: parse(bytes(inflate(body, encoding, bytes_max)), model))

    async def database(self, params: Params, access: Access = Access.READ) -> str:
        """The database that is meant, once the token is known to allow ``access`` to all of it. Raises Forbidden or MilvusError."""
        name = self.named_database(params)
        self.grant.check(access, name, None)
        await self.demand_database(name)
        return name

    def named_database(self, params: Params) -> str:
        """What the request calls its database."""
        return params.db_name or self.request.headers.get("DB-Name") or DEFAULT_DATABASE

    async def demand_database(self, name: str) -> None:
        """Raise MilvusError unless there is a database of this name."""
        if not await self.ops.look(self.ops.engine.databases.exists, name):
            raise no_database(name)

    async def collection(self, params: OfCollection, access: Access) -> Collection:
        """The collection that is meant, once the token is known to allow ``access`` to it. Raises Forbidden or MilvusError."""
        return await self.collection_called(self.named_database(params), params.collection_name, access)

    async def collection_called(self, database: str, name: str, access: Access) -> Collection:
        """The same by its name, or by an alias of it; what the token allows is asked of the name that the request uses."""
        if not name:
            raise missing("collectionName")
        self.grant.check(access, database, name)
        ops = self.ops
        try:
            index = await ops.find_index(database, name)
        except NotFound:
            meant = await ops.look(ops.engine.databases.meant_by, database, name)
            if meant is None:
                await self.demand_database(database)
                raise no_collection(database, name) from None
            self.grant.check(access, database, meant)
            try:
                index = await ops.find_index(database, meant)
            except NotFound:
                raise no_collection(database, name) from None
        return Collection(self, database, name, index)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection that a request is about. ``name`` is what the request calls it, which may be an alias."""

    call: Call
    database: str
    name: str
    index: Index

    @property
    def schema(self) -> RowSchema:
        """Its fields."""
        return self.index.record.row_schema or OPEN_SCHEMA


def parse(body: bytes, model: type[P]) -> P:
    """A body as ``model``. Raises MilvusError."""
    if not body.strip():
        raise not_json("the request body should not be empty, however {} is valid")
    try:
        given = orjson.loads(body)
        if isinstance(given, dict):
            given = {name: value for name, value in given.items() if value is not None}
        return model.model_validate(given)
    except orjson.JSONDecodeError as error:
        raise not_json(str(error)) from None
    except ValidationError as error:
        lacks = [
            str(one["loc"][0]) for one in error.errors() if one["type"] == "missing" and len(one["loc"]) == 1
        ]
        if lacks:
            raise missing(*lacks) from None
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise not_json(f"{where}: {first['msg']}" if where else first["msg"]) from None
