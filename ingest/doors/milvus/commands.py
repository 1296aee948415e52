"""The table of this door's commands.

Whoever may write may also declare partitions, load and release; what a database has, and what a collection is, is for admins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from ingest.doors.milvus import (
    aliases,
    analyzing,
    collections,
    databases,
    field_changes,
    indexes,
    partitions,
    queries,
    searches,
    unsupported,
    writes,
)
from ingest.doors.milvus.context import Call, Version
from upwell.catalog.tokens import Access


@dataclass(frozen=True, slots=True)
class Command:
    """A command: who does it, what a token needs for it, and by which method it is called."""

    handler: Callable[[Call], Awaitable[web.Response]]
    access: Access = Access.READ
    method: str = hdrs.METH_POST


_V1: Final = {
    "collections": Command(collections.list_, method=hdrs.METH_GET),
    "collections/create": Command(collections.create, Access.ADMIN),
    "collections/describe": Command(collections.describe, method=hdrs.METH_GET),
    "collections/drop": Command(collections.drop, Access.ADMIN),
    "insert": Command(writes.insert, Access.WRITE),
    "upsert": Command(writes.upsert, Access.WRITE),
    "delete": Command(writes.delete, Access.WRITE),
    "get": Command(queries.get),
    "query": Command(queries.query),
    "search": Command(searches.search),
}
_COLLECTIONS: Final = {
    "collections/list": Command(collections.list_),
    "collections/has": Command(collections.has),
    "collections/describe": Command(collections.describe),
    "collections/get_stats": Command(collections.get_stats),
    "collections/get_load_state": Command(collections.get_load_state),
    "collections/create": Command(collections.create, Access.ADMIN),
    "collections/drop": Command(collections.drop, Access.ADMIN),
    "collections/truncate": Command(collections.truncate, Access.WRITE),
    "collections/rename": Command(collections.rename, Access.ADMIN),
    "collections/load": Command(collections.load, Access.WRITE),
    "collections/refresh_load": Command(collections.refresh_load, Access.WRITE),
    "collections/release": Command(collections.release, Access.WRITE),
    "collections/alter_properties": Command(collections.alter_properties, Access.ADMIN),
    "collections/drop_properties": Command(collections.drop_properties, Access.ADMIN),
    "collections/compact": Command(collections.compact, Access.WRITE),
    "collections/get_compaction_state": Command(collections.get_compaction_state),
    "collections/flush": Command(collections.flush, Access.WRITE),
    "collections/fields/add": Command(field_changes.add, Access.ADMIN),
    "collections/fields/alter_properties": Command(field_changes.alter_properties, Access.ADMIN),
}
_ENTITIES: Final = {
    "entities/insert": Command(writes.insert, Access.WRITE),
    "entities/upsert": Command(writes.upsert, Access.WRITE),
    "entities/delete": Command(writes.delete, Access.WRITE),
    "entities/get": Command(queries.get),
    "entities/query": Command(queries.query),
    "entities/search": Command(searches.search),
    "entities/hybrid_search": Command(searches.hybrid_search),
    "entities/advanced_search": Command(searches.hybrid_search),
}
_OTHERS: Final = {
    "databases/list": Command(databases.list_),
    "databases/describe": Command(databases.describe),
    "databases/create": Command(databases.create, Access.ADMIN),
    "databases/drop": Command(databases.drop, Access.ADMIN),
    "databases/alter": Command(databases.alter, Access.ADMIN),
    "databases/alter_properties": Command(databases.alter, Access.ADMIN),
    "databases/drop_properties": Command(databases.drop_properties, Access.ADMIN),
    "partitions/list": Command(partitions.list_),
    "partitions/has": Command(partitions.has),
    "partitions/get_stats": Command(partitions.get_stats),
    "partitions/create": Command(partitions.create, Access.WRITE),
    "partitions/drop": Command(partitions.drop, Access.WRITE),
    "partitions/load": Command(partitions.load, Access.WRITE),
    "partitions/release": Command(partitions.release, Access.WRITE),
    "indexes/list": Command(indexes.list_),
    "indexes/describe": Command(indexes.describe),
    "indexes/create": Command(indexes.create, Access.ADMIN),
    "indexes/drop": Command(indexes.drop, Access.ADMIN),
    "indexes/alter_properties": Command(indexes.alter_properties, Access.ADMIN),
    "indexes/drop_properties": Command(indexes.drop_properties, Access.ADMIN),
    "aliases/list": Command(aliases.list_),
    "aliases/describe": Command(aliases.describe),
    "aliases/create": Command(aliases.create, Access.ADMIN),
    "aliases/drop": Command(aliases.drop, Access.ADMIN),
    "aliases/alter": Command(aliases.alter, Access.ADMIN),
    "common/run_analyzer": Command(analyzing.run_analyzer),
    "users/list": Command(unsupported.list_users),
    "users/describe": Command(unsupported.describe_user),
    "roles/list": Command(unsupported.list_roles),
    "roles/describe": Command(unsupported.describe_role),
}
_REFUSED: Final = dict.fromkeys(unsupported.REASONS, Command(unsupported.refuse))

COMMANDS: Final[dict[Version, dict[str, Command]]] = {
    Version.V1: _V1,
    Version.V2: _COLLECTIONS | _ENTITIES | _OTHERS | _REFUSED,
}
