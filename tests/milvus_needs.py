"""What the Milvus door's operations need of a token, and requests of each that change nothing, whoever is let in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from ingest.doors.milvus.unsupported import REASONS
from ingest.openapi.operation import Operation

V1_READS = ("CollectionsDescribe", "Get", "Query", "Search")
V1_WRITES = ("Insert", "Upsert", "Delete")
#: Of one collection.
READS = (
    *("CollectionsHas", "CollectionsDescribe", "CollectionsGetStats", "CollectionsGetLoadState"),
    *("EntitiesGet", "EntitiesQuery", "EntitiesSearch", "EntitiesHybridSearch", "EntitiesAdvancedSearch"),
    *("PartitionsList", "PartitionsHas", "PartitionsGetStats", "IndexesList", "IndexesDescribe"),
    "CommonRunAnalyzer",
)
WRITES = (
    *("EntitiesInsert", "EntitiesUpsert", "EntitiesDelete", "CollectionsTruncate", "CollectionsLoad"),
    *("CollectionsRefreshLoad", "CollectionsRelease", "CollectionsCompact", "CollectionsFlush"),
    *("PartitionsCreate", "PartitionsDrop", "PartitionsLoad", "PartitionsRelease"),
)
ADMINS = (
    *("CollectionsDrop", "CollectionsAlterProperties", "CollectionsDropProperties", "CollectionsFieldsAdd"),
    *("CollectionsFieldsAlterProperties", "IndexesCreate", "IndexesDrop", "IndexesAlterProperties"),
    "IndexesDropProperties",
)
#: Of a whole database.
DATABASE_READS = ("DatabasesDescribe", "AliasesDescribe")
DATABASE_ADMINS = (
    *("CollectionsCreate", "DatabasesCreate", "DatabasesDrop", "DatabasesAlter", "DatabasesAlterProperties"),
    *("DatabasesDropProperties", "AliasesCreate", "AliasesAlter", "AliasesDrop"),
)
#: Answered with what the token may see of the database.
SEEN = ("CollectionsList", "AliasesList")
#: Open to any token of this door.
OPEN = (
    *("DatabasesList", "UsersList", "UsersDescribe", "RolesList", "RolesDescribe"),
    "CollectionsGetCompactionState",
)


def _named(name: str) -> str:
    return "milvus" + "".join(word.capitalize() for piece in name.split("/") for word in piece.split("_"))


#: Refused with a reason, all alike.
REFUSED = tuple(map(_named, REASONS))


def ids(*names: str, version: int = 2) -> list[str]:
    """The ids of operations."""
    return [("milvusV1" if version == 1 else "milvus") + name for name in names]


#: Those that name one collection. To be renamed, it must not be the only one that the token is for.
OF_COLLECTION = frozenset(
    (*ids(*V1_READS, *V1_WRITES, "CollectionsDrop", version=1), *ids(*READS, *WRITES, *ADMINS))
)


def asked(
    operation: Operation, database: str, collection: str, never: str
) -> tuple[str, dict[str, Any] | None]:
    """The path, and the body if it has one. ``never``: the name of what there is not."""
    names = {"dbName": database, "collectionName": collection}
    if operation.method == "get":
        return f"{operation.path}?{urlencode(names)}", None
    command = operation.path.removeprefix("/v2/vectordb/").removeprefix("/v1/vector/")
    about: dict[str, dict[str, Any]] = {
        "collections/create": {"collectionName": never},
        "collections/rename": {"newCollectionName": never},
        "aliases/create": {"collectionName": never, "aliasName": "nobodys"},
        "aliases/alter": {"collectionName": never, "aliasName": "nobodys"},
        "aliases/list": {"collectionName": None},
    }
    return operation.path, {
        **names,
        "aliasName": never,
        "partitionName": never,
        "partitionNames": [never],
        "indexName": never,
        "indexParams": [{"fieldName": "x"}],
        "fieldName": "x",
        "schema": {"fieldName": "x", "dataType": "Bool"},
        "filter": "id == 1",
        "id": 1,
        "data": [[1]],
        "search": [{"data": [[1]]}],
        "vector": [1],
        "userName": "root",
        "roleName": "admin",
        **about.get(command, {}),
    }
