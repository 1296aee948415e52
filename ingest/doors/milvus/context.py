"""What every command of this door needs of a request: who asks, for what, in which database and collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, TypeVar

import orjson
from aiohttp import hdrs
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from ingest.doors.milvus.errors import (
    NOT_JSON,
    Code,
    MilvusError,
    missing,
    no_collection,
    no_database,
    no_partition,
    not_json,
    not_loaded,
)
from ingest.doors.milvus.facts import DEFAULT_PARTITION, Facts, facts_of, schema_with
from ingest.granted import QUESTION_BYTES_MAX, Granted
from upwell.catalog.tokens import Access
from upwell.engine import Engine, Index
from upwell.errors import NotFound, TooLarge
from upwell.schema import RowSchema
from upwell.shard.view import View

DEFAULT_DATABASE: Final = "default"
#: Milvus says "should be nil", and means the opposite.
EMPTY_BODY: Final = f"{NOT_JSON}, the request body should not be empty, however {{}} is valid"
#: Arrays and objects in the body of a question, and values in them. Python's lock is held until all of it is decoded, and again until all of
#: that is given back; and of an empty object pydantic makes a thousand bytes.
NESTS_MAX: Final = 100_000
VALUES_MAX: Final = 2_000_000
#: A body with no more of them is not nested too deeply to be written again, which some of it is: decoders go deeper than encoders.
WRITABLE_NESTS: Final = 200

P = TypeVar("P", bound="Body")


class Version(IntEnum):
    """Of the RESTful API; they differ in what is a success, in what may be asked, and in how it is called."""

    V1 = 1
    V2 = 2

    @property
    def success(self) -> int:
        """The code of a success."""
        return 200 if self is Version.V1 else 0


T = TypeVar("T")
#: Fields, partitions, searches and the like of one request.
NAMED_MAX: Final = 4_096
#: Those in a body. It ends at the first mistake: who sends a million is told of one.
ListOf = Annotated[list[T], FailFast(), Field(max_length=NAMED_MAX)]
#: Of something that must be named.
Name = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    """An object in a request. What is not known is passed over, as Milvus does; null is as good as nothing."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, given: object) -> object:
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given


class Params(Body):
    """The body of a request."""

    db_name: str | None = None


class OfCollection(Params):
    """The body of a request about a collection."""

    collection_name: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Granted):
    """A request of this door. What it is about is known when its body is."""

    version: Version

    @property
    def ids_as_text(self) -> bool:
        """Does the client want integers of 64 bits as strings? JavaScript cannot tell large ones apart."""
        return self.request.headers.get("Accept-Type-Allow-Int64", "").strip().lower() == "false"

    def bounded(self, wait_s: float) -> float:
        """``wait_s``, or the seconds of ``Request-Timeout`` if those are fewer."""
        given = self.request.headers.get("Request-Timeout", "").strip()
        return (
            min(wait_s, int(given)) if given.isdecimal() and given.isascii() and len(given) <= 9 else wait_s
        )

    async def params(self, model: type[P], bytes_max: int = QUESTION_BYTES_MAX) -> P:
        """The body of a question, or what a GET has in its place, as ``model``.

        Raises MilvusError, which names the field, TooLarge or TooSlow.
        """
        if self.request.method == hdrs.METH_GET:
            return validated({name: value for name, value in self.request.query.items() if value}, model)
        return await self.question(lambda body: parse(body, model), bytes_max)

    async def database(self, params: Params, access: Access = Access.READ) -> str:
        """The database that is meant, once the token is known to allow ``access`` to all of it. Raises Forbidden or MilvusError."""
        name = self.named_database(params.db_name)
        self.grant.check(access, name, None)
        await self.demand_database(name)
        return name

    def named_database(self, given: str | None) -> str:
        """What the request calls its database. ``given``: what its body says, if anything."""
        return given or self.request.headers.get("DB-Name") or DEFAULT_DATABASE

    async def demand_database(self, name: str) -> None:
        """Raise MilvusError unless there is a database of this name."""
        if not await self.ops.look(self.ops.engine.databases.exists, name):
            raise no_database(name)

    async def collection(self, params: OfCollection, access: Access) -> Collection:
        """The collection that is meant, once the token is known to allow ``access`` to it. Raises Forbidden or MilvusError."""
        return await self.collection_called(
            self.named_database(params.db_name), params.collection_name, access
        )

    async def collection_called(self, database: str, name: str, access: Access) -> Collection:
        """The same by its name, or by an alias of it; what the token allows is asked of the name that the request uses."""
        if not name:
            raise missing("collectionName")
        self.grant.check(access, database, name)
        ops = self.ops
        try:
            index, facts = await ops.look(_opened, ops.engine, database, name)
        except NotFound:
            meant = await ops.look(ops.engine.databases.meant_by, database, name)
            if meant is None:
                await self.demand_database(database)
                raise no_collection(database, name) from None
            self.grant.check(access, database, meant)
            try:
                index, facts = await ops.look(_opened, ops.engine, database, meant)
            except NotFound:
                raise no_collection(database, name) from None
        schema = schema_with(index.record.effective_schema, facts)
        return Collection(self, database, name, index, facts, schema)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection that a request is about. ``name`` is what the request calls it, which may be an alias."""

    call: Call
    database: str
    name: str
    index: Index
    #: What was remembered of it when the request came.
    facts: Facts
    #: Its fields.
    schema: RowSchema

    @property
    def is_alias(self) -> bool:
        """Did the request call it by an alias?"""
        return self.name != self.index.record.name

    def demand_loaded(self, partitions: Sequence[str] = ()) -> None:
        """Raise MilvusError unless it is loaded, and each of these partitions. To be called before anything is read of its rows."""
        if not self.facts.loaded:
            raise not_loaded(self.name)
        for name in partitions:
            if name in self.facts.released:
                raise MilvusError(Code.PARTITION_NOT_LOADED, f"partition not loaded[partition={name}]")

    async def namespaces(self, partitions: Sequence[str]) -> list[str]:
        """The namespaces that partitions are, once it is known that there are such. Raises MilvusError."""
        undeclared = [name for name in partitions if not self._declares(name)]

        def lacking(view: View) -> str | None:
            return next((name for name in undeclared if not view.has_namespace(name)), None)

        absent = await self.call.ops.read(self.index, lacking) if undeclared else None
        if absent is not None:
            raise no_partition(absent)
        return [namespace_of(name) for name in partitions]

    async def has_partition(self, name: str) -> bool:
        """Is there a partition of this name: the default one, one that was declared, or one with rows?"""
        if self._declares(name):
            return True
        return await self.call.ops.read(self.index, lambda view: view.has_namespace(name))

    def _declares(self, name: str) -> bool:
        return name == DEFAULT_PARTITION or name in self.facts.partitions


def namespace_of(partition: str) -> str:
    """The namespace that a partition is; "" is the default one."""
    return "" if partition == DEFAULT_PARTITION else partition


def _opened(engine: Engine, database: str, name: str) -> tuple[Index, Facts]:
    """An index, and what is remembered of it. Raises NotFound. Blocks."""
    index = engine.find(database, name)
    return index, facts_of(index)


def parse(body: bytes, model: type[P]) -> P:
    """A body as ``model``. Raises MilvusError, or TooLarge for one that would take far more memory than bytes."""
    if not body.strip():
        raise MilvusError(Code.NOT_JSON, EMPTY_BODY)
    # In strings they count, too: no filter has so many.
    nests, values = body.count(b"[") + body.count(b"{"), body.count(b",")
    for what, most, number in (("arrays and objects", NESTS_MAX, nests), ("values", VALUES_MAX, values)):
        if number > most:
            raise TooLarge(f"the request body has {number} {what}; at most {most} are allowed")
    try:
        given = orjson.loads(body)
        if nests > WRITABLE_NESTS:
            orjson.dumps(given)
    except orjson.JSONDecodeError as error:
        raise not_json(str(error)) from None
    except orjson.JSONEncodeError:
        raise not_json("expected JSON that is not nested so deeply") from None
    # To Milvus null is {}; its own tests send it where there is nothing to say.
    return validated({} if given is None else given, model)


def validated(given: object, model: type[P]) -> P:
    """What is given as ``model``; "" where something must be is as good as nothing. Raises MilvusError."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    lacks = [str(one["loc"][0]) for one in problems if len(one["loc"]) == 1 and _is_lack(one)]
    if lacks:
        raise missing(*lacks)
    where = ".".join(map(str, problems[0]["loc"]))
    raise not_json(f"{where}: {problems[0]['msg']}" if where else problems[0]["msg"])


def _is_lack(problem: ErrorDetails) -> bool:
    return problem["type"] == "missing" or (problem["type"] == "string_too_short" and problem["input"] == "")
