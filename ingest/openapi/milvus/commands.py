"""The commands of the Milvus door as they are described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from ingest.doors.milvus import (
    aliases,
    analyzing,
    collections,
    databases,
    field_changes,
    indexes,
    partitions,
    schema_bodies,
)
from ingest.doors.milvus.context import Body, OfCollection, Params, Version
from ingest.doors.milvus.queries import Get, Query, QueryV1
from ingest.doors.milvus.search_bodies import HybridSearch, SearchV1, SearchV2
from ingest.doors.milvus.unsupported import REASONS, OfRole, OfUser
from ingest.doors.milvus.writes import Deletion
from ingest.openapi.milvus.shapes import (
    MilvusAlias,
    MilvusAnalyzed,
    MilvusCollection,
    MilvusCount,
    MilvusDatabase,
    MilvusDeleted,
    MilvusHas,
    MilvusInserted,
    MilvusLoadState,
    MilvusRows,
    MilvusUpsert,
    MilvusUpserted,
)
from ingest.openapi.operation import Schema

EMPTY: Schema = {"type": "object"}
NAMES: Schema = {"type": "array", "items": {"type": "string"}}
ROWS: Schema = {"type": "array", "items": {"type": "object"}}
_DOCS = {"collectionName": "docs"}
_A_ROW = {"id": 1, "vector": [0.1, 0.2, 0.3], "lang": "en"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A command as it is described. A GET has its body's members in the query string."""

    version: Version = Version.V2
    name: str
    summary: str
    body: type[BaseModel]
    result: Schema = field(default_factory=lambda: EMPTY)
    example: Mapping[str, Any] = field(default_factory=lambda: _DOCS)
    writes: bool = False
    method: Literal["get", "post"] = "post"


def commands() -> Iterator[Described]:
    """All of them."""
    yield from _v1()
    yield from _collections()
    yield from _entities()
    yield from _databases()
    yield from _partitions()
    yield from _indexes()
    yield from _aliases_and_people()
    for name in REASONS:
        yield Described(name=name, summary="Refused, with the reason", body=Body, example={})


def _v1() -> Iterator[Described]:
    def one(name: str, summary: str, body: type[BaseModel], **more: Any) -> Described:
        return Described(version=Version.V1, name=name, summary=summary, body=body, **more)

    made = _DOCS | {"dimension": 3, "metricType": "COSINE"}
    by_key, by_filter = _DOCS | {"id": [1]}, _DOCS | {"filter": 'lang == "en"'}
    yield one("collections", "List collections", Params, method="get", result=NAMES, example={})
    yield one("collections/create", "Make a collection", schema_bodies.V1CollectionAsked, example=made)
    yield one(
        "collections/describe", "Describe a collection", OfCollection, method="get", result=MilvusCollection
    )
    yield one("collections/drop", "Drop a collection", OfCollection, example={"collectionName": "victim"})
    put = _DOCS | {"data": [_A_ROW]}
    yield one(
        "insert", "Put rows into a collection", MilvusRows, result=MilvusInserted, writes=True, example=put
    )
    yield one("upsert", "Put or replace rows", MilvusUpsert, result=MilvusUpserted, writes=True, example=put)
    yield one("delete", "Remove rows by their keys or a filter", Deletion, writes=True, example=by_key)
    yield one("get", "Get rows by their keys", Get, result=ROWS, example=by_key)
    yield one("query", "Get the rows that a filter leaves", QueryV1, result=ROWS, example=by_filter)
    sought = _DOCS | {"vector": [0.1, 0.2, 0.3], "limit": 3}
    yield one("search", "Find the closest rows", SearchV1, result=ROWS, example=sought)


def _collections() -> Iterator[Described]:
    def one(name: str, summary: str, body: type[BaseModel] = OfCollection, **more: Any) -> Described:
        return Described(name=f"collections/{name}", summary=summary, body=body, **more)

    yield one("list", "List collections", Params, result=NAMES, example={})
    yield one("has", "Tell whether there is a collection", result=MilvusHas)
    yield one("describe", "Describe a collection", result=MilvusCollection)
    yield one("get_stats", "Count the rows that queries see", result=MilvusCount)
    yield one("get_load_state", "Tell whether a collection is loaded", result=MilvusLoadState)
    made = _DOCS | {"dimension": 3}
    yield one(
        "create", "Make a collection, quickly or by a schema", schema_bodies.CollectionAsked, example=made
    )
    yield one("drop", "Drop a collection", example={"collectionName": "victim"})
    yield one("truncate", "Remove all rows", writes=True, example={"collectionName": "victim"})
    renamed = {"collectionName": "victim", "newCollectionName": "renamed"}
    yield one("rename", "Give a collection another name", collections.Renaming, example=renamed)
    yield one("load", "Let a collection be read")
    yield one("refresh_load", "The same")
    yield one("release", "Let a collection not be read", example={"collectionName": "victim"})
    yield one(
        "alter_properties",
        "Remember properties, which change nothing",
        collections.CollectionProperties,
        example=_DOCS | {"properties": {"mmap.enabled": "true"}},
    )
    yield one(
        "drop_properties",
        "Forget properties",
        collections.CollectionPropertyKeys,
        example=_DOCS | {"propertyKeys": ["mmap.enabled"]},
    )
    yield one("compact", "Nothing: it is done by itself", result={})
    yield one("get_compaction_state", "Tell that it is done", Params, result={}, example={})
    yield one("flush", "Wait until all that was acknowledged is visible", result={})
    added = {"fieldName": "year", "dataType": "Int32", "nullable": True}
    yield one(
        "fields/add", "Add a nullable field", field_changes.FieldAdded, example=_DOCS | {"schema": added}
    )
    yield one(
        "fields/alter_properties",
        "Change how long a field's values may be",
        field_changes.FieldChanged,
        example=_DOCS | {"fieldName": "title", "fieldParams": {"max_length": 100}},
    )


def _entities() -> Iterator[Described]:
    def one(name: str, summary: str, body: type[BaseModel], **more: Any) -> Described:
        return Described(name=f"entities/{name}", summary=summary, body=body, **more)

    put, by_filter = _DOCS | {"data": [_A_ROW]}, _DOCS | {"filter": 'lang == "en"'}
    yield one(
        "insert", "Put rows into a collection", MilvusRows, result=MilvusInserted, writes=True, example=put
    )
    yield one("upsert", "Put or replace rows", MilvusUpsert, result=MilvusUpserted, writes=True, example=put)
    yield one(
        "delete", "Remove the rows that a filter leaves", Deletion, result=MilvusDeleted, writes=True,
        example=_DOCS | {"filter": "id in [7]"},
    )  # fmt: skip
    yield one("get", "Get rows by their keys", Get, result=ROWS, example=_DOCS | {"id": [1]})
    yield one("query", "Get the rows that a filter leaves", Query, result=ROWS, example=by_filter)
    sought = _DOCS | {"data": [[0.1, 0.2, 0.3]], "limit": 3, "outputFields": ["*"]}
    yield one(
        "search", "Find the closest rows to each vector, or each text", SearchV2, result=ROWS, example=sought
    )
    several = {"search": [{"data": [[0.1, 0.2, 0.3]], "limit": 3}], "rerank": {"strategy": "rrf"}, "limit": 3}
    for name in ("hybrid_search", "advanced_search"):
        yield one(name, "Make several searches one", HybridSearch, result=ROWS, example=_DOCS | several)


def _one(name: str, summary: str, body: type[BaseModel], **more: Any) -> Described:
    return Described(name=name, summary=summary, body=body, **more)


def _databases() -> Iterator[Described]:
    shelf = {"dbName": "shelf"}
    told = shelf | {"properties": {"owner": "anne"}}
    yield _one("databases/list", "List databases", Body, result=NAMES, example={})
    yield _one(
        "databases/describe", "Describe a database", databases.OfDatabase, result=MilvusDatabase,
        example={"dbName": "default"},
    )  # fmt: skip
    yield _one("databases/create", "Make a database", databases.DatabaseProperties, example=told)
    yield _one("databases/drop", "Drop an empty database", databases.OfDatabase, example=shelf)
    for name in ("alter", "alter_properties"):
        yield _one(f"databases/{name}", "Remember properties", databases.DatabaseProperties, example=told)
    forgotten = shelf | {"propertyKeys": ["owner"]}
    yield _one(
        "databases/drop_properties", "Forget properties", databases.DatabasePropertyKeys, example=forgotten
    )


def _partitions() -> Iterator[Described]:
    part = _DOCS | {"partitionName": "part"}
    parts = _DOCS | {"partitionNames": ["part"]}
    yield _one("partitions/list", "List partitions", OfCollection, result=NAMES)
    yield _one(
        "partitions/has", "Tell whether there is one", partitions.OfPartition, result=MilvusHas, example=part
    )
    yield _one(
        "partitions/get_stats", "Count its rows", partitions.OfPartition, result=MilvusCount, example=part
    )
    yield _one("partitions/create", "Make a partition", partitions.OfPartition, example=part)
    yield _one(
        "partitions/drop",
        "Drop a partition that is released",
        partitions.OfPartition,
        example=part,
        writes=True,
    )
    yield _one("partitions/load", "Let partitions be read", partitions.OfPartitions, example=parts)
    yield _one("partitions/release", "Let partitions not be read", partitions.OfPartitions, example=parts)


def _indexes() -> Iterator[Described]:
    index = _DOCS | {"indexName": "vector"}
    asked_for = _DOCS | {"indexParams": [{"fieldName": "vector", "metricType": "COSINE"}]}
    yield _one("indexes/list", "List indexes", OfCollection, result=NAMES)
    yield _one("indexes/describe", "Describe an index", indexes.OfIndex, result=ROWS, example=index)
    yield _one("indexes/create", "Make indexes", indexes.IndexesAsked, example=asked_for)
    yield _one("indexes/drop", "Drop an index", indexes.OfIndex, example=index)
    properties = index | {"properties": {"mmap.enabled": True}}
    yield _one("indexes/alter_properties", "Remember properties", indexes.IndexProperties, example=properties)
    keys = index | {"propertyKeys": ["mmap.enabled"]}
    yield _one("indexes/drop_properties", "Forget properties", indexes.IndexPropertyKeys, example=keys)


def _aliases_and_people() -> Iterator[Described]:
    alias = {"aliasName": "books"}
    yield _one("aliases/list", "List aliases", aliases.MaybeOfCollection, result=NAMES, example={})
    yield _one(
        "aliases/describe", "Tell what an alias means", aliases.OfAlias, result=MilvusAlias, example=alias
    )
    yield _one(
        "aliases/create",
        "Give a collection another name beside its own",
        aliases.AliasOfCollection,
        example=_DOCS | alias,
    )
    yield _one(
        "aliases/alter",
        "Let an alias mean another collection",
        aliases.AliasOfCollection,
        example=_DOCS | alias,
    )
    yield _one("aliases/drop", "Drop an alias", aliases.OfAlias, example=alias)
    yield _one(
        "common/run_analyzer",
        "Tell which terms texts have",
        analyzing.Analyzing,
        result=MilvusAnalyzed,
        example={"text": ["The running foxes"], "analyzerParams": '{"type": "english"}', "withDetail": True},
    )
    yield _one("users/list", "List users: tokens have no names of users", Body, result=NAMES, example={})
    yield _one("users/describe", "Tell a user's roles", OfUser, result=NAMES, example={"userName": "root"})
    yield _one("roles/list", "List roles", Body, result=NAMES, example={})
    yield _one(
        "roles/describe", "Tell a role's privileges", OfRole, result=ROWS, example={"roleName": "admin"}
    )
