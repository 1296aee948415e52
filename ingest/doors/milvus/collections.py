"""``collections/…``: a collection is an index, with a schema in its record, and with what clients did to it remembered beside."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import (
    Call,
    Collection,
    Name,
    OfCollection,
    Params,
    Version,
)
from ingest.doors.milvus.errors import (
    Code,
    MilvusError,
    duplicate,
    invalid,
    no_collection,
    not_loaded,
    refused,
)
from ingest.doors.milvus.facts import Facts, change_facts, made_elsewhere
from ingest.doors.milvus.fields import metric_of
from ingest.doors.milvus.indexes import TRIES, check_loadable, index_facts, make_indexes, vectors_of
from ingest.doors.milvus.mutations import apply
from ingest.doors.milvus.names import check_collection
from ingest.doors.milvus.partitions import partition_names
from ingest.doors.milvus.scalar_indexes import declare
from ingest.doors.milvus.schema_bodies import (
    CollectionAsked,
    PropertiesAsked,
    PropertyKeysAsked,
    V1CollectionAsked,
)
from ingest.doors.milvus.schemas import Wanted, wanted, wanted_v1
from ingest.doors.milvus.shown_schema import described, load_state
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import ANY, Access
from upwell.changeset import KeyScope, Operation, Selection
from upwell.engine import Engine, Index
from upwell.errors import Exists, NotFound
from upwell.shard.metric import Metric

Asked = TypeVar("Asked", bound=OfCollection)


class Renaming(OfCollection):
    """The body of ``collections/rename``."""

    new_collection_name: Name
    new_db_name: str = ""


class CollectionProperties(OfCollection, PropertiesAsked):
    """The body of ``collections/alter_properties``."""


class CollectionPropertyKeys(OfCollection, PropertyKeysAsked):
    """The body of ``collections/drop_properties``."""


async def list_(call: Call) -> web.Response:
    """``collections/list``, v1's ``collections``: the names of those that the token may see."""
    asked = await call.params(Params)
    database, only = call.named_database(asked.db_name), call.grant.index
    call.grant.check(Access.READ, database, None if only == ANY else only)
    await call.demand_database(database)
    names = await call.ops.look(lambda: list(call.ops.engine.catalog.names(database)))
    return success(call, [name for name in names if only in (ANY, name)])


async def has(call: Call) -> web.Response:
    """``collections/has``."""
    asked = await call.params(OfCollection)
    try:
        await call.collection(asked, Access.READ)
    except MilvusError as error:
        if error.code != Code.COLLECTION_NOT_FOUND:
            raise
        return success(call, {"has": False})
    return success(call, {"has": True})


async def describe(call: Call) -> web.Response:
    """``collections/describe``."""
    collection = await call.collection(await call.params(OfCollection), Access.READ)
    databases, name = call.ops.engine.databases, collection.index.record.name
    aliases = await call.ops.look(databases.aliases, collection.database)
    shown = described(
        collection,
        aliases=sorted(alias for alias, meant in aliases.items() if meant == name),
        partitions=len(await partition_names(collection)),
    )
    return success(call, shown) if call.version is Version.V1 else success(call, shown, message="")


async def get_stats(call: Call) -> web.Response:
    """``collections/get_stats``: how many rows queries see."""
    collection = await call.collection(await call.params(OfCollection), Access.READ)
    rows = await call.ops.read(collection.index, lambda view: view.manifest.vectors)
    return success(call, {"rowCount": rows})


async def get_load_state(call: Call) -> web.Response:
    """``collections/get_load_state``."""
    facts = (await call.collection(await call.params(OfCollection), Access.READ)).facts
    shown: dict[str, Any] = {"loadState": load_state(facts)}
    return success(call, shown | {"loadProgress": 100} if facts.loaded else shown, message="")


async def create(call: Call) -> web.Response:
    """``collections/create``: the same again is no error."""
    if call.version is Version.V1:
        return await _create(call, await call.params(V1CollectionAsked), wanted_v1)
    return await _create(call, await call.params(CollectionAsked), wanted)


async def _create(call: Call, asked: Asked, wants: Callable[[Asked, int], Wanted]) -> web.Response:
    database = await call.database(asked, Access.ADMIN)
    name = check_collection(asked.collection_name)
    what = await call.ops.parse(lambda: wants(asked, call.settings.dimensions_max))
    for _ in range(TRIES):
        # Whoever makes sure of the same at the same time may have put another in its place by now, or dropped it.
        with suppress(NotFound):
            await declare(call, await call.ops.look(_created, call.ops.engine, database, name, what))
            return success(call, {})
    raise refused(f"collection {name} was changed by others all the time; try again")


def _created(engine: Engine, database: str, name: str, what: Wanted) -> Index:
    """Make a collection, or find it made. Raises MilvusError, or NotFound if somebody else changed it meanwhile. Blocks."""
    indexes = index_facts(what.indexes, what.schema, vectors_of(what.schema, what.kind))
    if engine.databases.meant_by(database, name) is not None:
        raise refused(
            f"collection name [{name}] conflicts with an existing alias, please choose a unique name"
        )
    dense = next(
        (one for one in indexes if what.kind.has_dense and one.field == what.schema.vector_field), None
    )
    index = _made(engine, database, name, what, Metric.COSINE if dense is None else metric_of(dense.metric))
    record = index.record
    if (record.kind, record.dimensions, record.row_schema) != (what.kind, what.dimensions, what.schema):
        raise duplicate(name)
    return make_indexes(engine, index, indexes, what.facts)


def _made(engine: Engine, database: str, name: str, what: Wanted, metric: Metric) -> Index:
    """The index of this name, made if there is none. Raises MilvusError, or NotFound if somebody else dropped it at once."""
    new = NewIndex(
        name=name,
        description=what.description or None,
        dimensions=what.dimensions,
        metric=metric,
        shards=engine.settings.shards,
        kind=what.kind,
        key_scope=KeyScope.INDEX,
        row_schema=what.schema,
    )
    if engine.catalog.identity(database, name) is None:
        most = engine.settings.indexes_max
        if most is not None and len(list(engine.catalog.names(database))) >= most:
            raise MilvusError(
                Code.TOO_MANY_COLLECTIONS, f"exceeded the limit number of collections[limit={most}]"
            )
        # Somebody else may be making it just now.
        with suppress(Exists):
            engine.create(database, new)
    return engine.find(database, name)


async def drop(call: Call) -> web.Response:
    """``collections/drop``: in v2 of one that is not there it is no error."""
    asked = await call.params(OfCollection)
    try:
        collection = await call.collection(asked, Access.ADMIN)
    except MilvusError as error:
        if error.code != Code.COLLECTION_NOT_FOUND or call.version is Version.V1:
            raise
        return success(call, {})
    if collection.is_alias:
        raise invalid(f"cannot drop the collection via alias = {collection.name}")
    database, name = collection.database, collection.name
    aliases = await call.ops.look(call.ops.engine.databases.aliases, database)
    held = sorted(alias for alias, meant in aliases.items() if meant == name)
    if held:
        raise refused(
            f"unable to drop the collection [{name}] because it has associated aliases [{' '.join(held)}], please remove "
            "all aliases before dropping the collection"
        )
    try:
        await call.ops.delete_index(database, name)
    except NotFound:
        if call.version is Version.V1:
            raise no_collection(database, name) from None
    return success(call, {})


async def truncate(call: Call) -> web.Response:
    """``collections/truncate``: remove all rows. Partitions and everything else stay."""
    collection = await call.collection(await call.params(OfCollection), Access.WRITE)
    headers = await apply(collection, Operation.RESET, Selection())
    return success(call, {}, headers)


async def rename(call: Call) -> web.Response:
    """``collections/rename``, within its database."""
    asked = await call.params(Renaming)
    collection = await call.collection(asked, Access.ADMIN)
    database, old = collection.database, collection.name
    call.grant.check(Access.ADMIN, database, None)
    new = check_collection(asked.new_collection_name)
    if collection.is_alias:
        raise refused(f"unsupported use an alias to rename collection, alias:{old}")
    if asked.new_db_name not in ("", database):
        raise invalid("a collection cannot be moved to another database here")
    if new == old:
        raise refused(f"duplicated new collection name {new} with other collection name or alias")
    engine = call.ops.engine
    try:
        await call.ops.look(engine.rename, database, old, new)
    except Exists:
        raise refused(f"duplicated new collection name {new} with other collection name or alias") from None
    except NotFound:
        raise no_collection(database, old) from None
    return success(call, {})


async def load(call: Call) -> web.Response:
    """``collections/load``: all its partitions with it."""
    collection = await call.collection(await call.params(OfCollection), Access.WRITE)

    def loaded(facts: Facts) -> Facts:
        check_loadable(collection, facts)
        return facts.model_copy(update={"loaded": True, "released": ()})

    return await _changed(collection, loaded)


async def refresh_load(call: Call) -> web.Response:
    """``collections/refresh_load``: nothing, of a collection that is loaded."""
    collection = await call.collection(await call.params(OfCollection), Access.WRITE)
    if not collection.facts.loaded:
        raise not_loaded(collection.name)
    return success(call, {})


async def release(call: Call) -> web.Response:
    """``collections/release``. One that was made at another door, which knows of no such thing, stays loaded."""
    collection = await call.collection(await call.params(OfCollection), Access.WRITE)
    if made_elsewhere(collection.index):
        return success(call, {})
    return await _changed(
        collection, lambda facts: facts.model_copy(update={"loaded": False, "released": ()})
    )


async def alter_properties(call: Call) -> web.Response:
    """``collections/alter_properties``: they are remembered, and change nothing."""
    asked = await call.params(CollectionProperties)
    return await _with_properties(call, asked, asked.added_to)


async def drop_properties(call: Call) -> web.Response:
    """``collections/drop_properties``."""
    asked = await call.params(CollectionPropertyKeys)
    return await _with_properties(call, asked, asked.taken_from)


async def compact(call: Call) -> web.Response:
    """``collections/compact``: Upwell merges segments by itself, so there is nothing to be done."""
    await call.collection(await call.params(OfCollection), Access.WRITE)
    return success(call, {"compactionID": 0})


async def get_compaction_state(call: Call) -> web.Response:
    """``collections/get_compaction_state``."""
    await call.params(Params)
    plans = dict.fromkeys(("executingPlanNo", "timeoutPlanNo", "completedPlanNo", "failedPlanNo"), 0)
    return success(call, {"compactionID": 0, "state": "Completed", **plans})


async def flush(call: Call) -> web.Response:
    """``collections/flush``: answered once queries see all that was acknowledged before."""
    collection = await call.collection(await call.params(OfCollection), Access.WRITE)
    await call.ops.caught_up(collection.index, call.bounded(call.settings.wait_s_max))
    return success(call, {})


async def _with_properties(
    call: Call, asked: OfCollection, make: Callable[[dict[str, str]], dict[str, str]]
) -> web.Response:
    collection = await call.collection(asked, Access.ADMIN)
    return await _changed(
        collection, lambda facts: facts.model_copy(update={"properties": make(facts.properties)})
    )


async def _changed(collection: Collection, make: Callable[[Facts], Facts]) -> web.Response:
    await collection.call.ops.look(change_facts, collection.index, make)
    return success(collection.call, {})
