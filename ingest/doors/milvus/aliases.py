"""``aliases/…``: other names of collections."""

from __future__ import annotations

from contextlib import suppress

from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import Call, Name, Params
from ingest.doors.milvus.errors import Code, MilvusError, no_collection
from ingest.doors.milvus.names import check_collection
from upwell.catalog.tokens import ANY, Access
from upwell.errors import Exists, NotFound


class OfAlias(Params):
    """The body of a request about an alias."""

    alias_name: Name


class AliasOfCollection(OfAlias):
    """The body of ``aliases/create`` and ``aliases/alter``."""

    collection_name: Name


class MaybeOfCollection(Params):
    """The body of ``aliases/list``."""

    collection_name: str = ""


async def list_(call: Call) -> web.Response:
    """``aliases/list``: those of a collection, or of all that the token may see."""
    asked = await call.params(MaybeOfCollection)
    database = call.named_database(asked.db_name)
    only = call.grant.index
    call.grant.check(Access.READ, database, asked.collection_name or (None if only == ANY else only))
    await call.demand_database(database)
    found = await call.ops.look(call.ops.engine.databases.aliases, database)
    if asked.collection_name:
        collection = await call.collection_called(database, asked.collection_name, Access.READ)
        only = collection.index.record.name
    return success(call, sorted(alias for alias, name in found.items() if only in (ANY, name)))


async def describe(call: Call) -> web.Response:
    """``aliases/describe``."""
    asked = await call.params(OfAlias)
    database, meant = await _meant(call, asked)
    return success(call, {"dbName": database, "collectionName": meant, "aliasName": asked.alias_name})


async def create(call: Call) -> web.Response:
    """``aliases/create``: the same again is no error."""
    return await _set(call, new=True)


async def alter(call: Call) -> web.Response:
    """``aliases/alter``: let an alias mean another collection."""
    return await _set(call, new=False)


async def drop(call: Call) -> web.Response:
    """``aliases/drop``: of one that is not there it is no error."""
    asked = await call.params(OfAlias)
    database = await call.database(asked, Access.ADMIN)
    with suppress(NotFound):
        await call.ops.look(call.ops.engine.databases.drop_alias, database, asked.alias_name)
    return success(call, {})


async def _set(call: Call, *, new: bool) -> web.Response:
    asked = await call.params(AliasOfCollection)
    database = await call.database(asked, Access.ADMIN)
    alias, name = check_collection(asked.alias_name, "alias"), asked.collection_name
    databases = call.ops.engine.databases
    # Milvus lets an alias mean what another alias means.
    meant = await call.ops.look(databases.meant_by, database, name) or name
    try:
        await call.ops.look(lambda: databases.set_alias(database, alias, meant, new=new))
    except NotFound as error:
        if "alias" in error.facts:
            raise _no_alias(database, alias) from None
        raise no_collection(database, name) from None
    except Exists as error:
        if error.facts.get("index") == alias:
            raise MilvusError(
                Code.ALIAS_IS_COLLECTION,
                f"collection name [{alias}] conflicts with an existing collection: alias and collection name conflict"
                f"[database={database}][alias={alias}]",
            ) from None
        raise MilvusError(
            Code.ALIAS_TAKEN,
            f"{alias} is alias to another collection: {error.facts.get('index')}: alias already exist"
            f"[database={database}][alias={alias}]",
        ) from None
    return success(call, {})


async def _meant(call: Call, asked: OfAlias) -> tuple[str, str]:
    """The database, and the collection that an alias means in it. Raises MilvusError, or Forbidden for a token that may see neither.

    Who may see one collection only is not told whether there are aliases of others.
    """
    database = call.named_database(asked.db_name)
    call.grant.check(Access.READ, database, None if call.grant.index == ANY else call.grant.index)
    await call.demand_database(database)
    meant = await call.ops.look(call.ops.engine.databases.meant_by, database, asked.alias_name)
    call.grant.check(Access.READ, database, meant)
    if meant is None:
        raise _no_alias(database, asked.alias_name)
    return database, meant


def _no_alias(database: str, alias: str) -> MilvusError:
    return MilvusError(Code.ALIAS_NOT_FOUND, f"alias not found[database={database}][alias={alias}]")
