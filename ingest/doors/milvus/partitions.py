"""``partitions/…``: a partition is a namespace. Milvus's clients declare them before they write to them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import Call, Collection, ListOf, Name, OfCollection, namespace_of
from ingest.doors.milvus.errors import invalid, refused
from ingest.doors.milvus.facts import DEFAULT_PARTITION, Facts, change_facts, made_elsewhere
from ingest.doors.milvus.indexes import check_loadable
from ingest.doors.milvus.mutations import apply
from ingest.doors.milvus.names import check_partition
from upwell.catalog.tokens import Access
from upwell.changeset import Operation, Selection
from upwell.shard.view import View

#: That a client may declare of one collection, as in Milvus.
PARTITIONS_MAX: Final = 1_024


class OfPartition(OfCollection):
    """The body of a request about a partition."""

    partition_name: Name


class OfPartitions(OfCollection):
    """The body of a request about some partitions."""

    partition_names: ListOf[Name]


async def list_(call: Call) -> web.Response:
    """``partitions/list``: names, the default one's first."""
    collection = await call.collection(await call.params(OfCollection), Access.READ)
    return success(call, await partition_names(collection))


async def has(call: Call) -> web.Response:
    """``partitions/has``."""
    asked = await call.params(OfPartition)
    collection = await call.collection(asked, Access.READ)
    return success(call, {"has": await collection.has_partition(asked.partition_name)})


async def get_stats(call: Call) -> web.Response:
    """``partitions/get_stats``: how many rows queries see there."""
    asked = await call.params(OfPartition)
    collection = await call.collection(asked, Access.READ)
    [namespace] = await collection.namespaces([asked.partition_name])
    rows = await call.ops.read(
        collection.index, lambda view: view.counts.get(view.namespaces.called(namespace), 0)
    )
    return success(call, {"rowCount": rows})


async def create(call: Call) -> web.Response:
    """``partitions/create``: the same again is no error."""
    asked = await call.params(OfPartition)
    collection = await call.collection(asked, Access.WRITE)
    name = check_partition(asked.partition_name)
    if collection.schema.partition_key is not None:
        raise invalid("disable create partition if partition key mode is used")

    def declared(facts: Facts) -> Facts:
        if name in (DEFAULT_PARTITION, *facts.partitions):
            return facts
        if len(facts.partitions) >= PARTITIONS_MAX:
            raise refused(
                f"partition number ({len(facts.partitions)}) exceeds max configuration ({PARTITIONS_MAX}), "
                f"collection: {collection.name}"
            )
        return facts.model_copy(update={"partitions": (*facts.partitions, name)})

    await call.ops.look(change_facts, collection.index, declared)
    return success(call, {})


async def drop(call: Call) -> web.Response:
    """``partitions/drop``: remove a partition with all its rows, which must not be loaded; of one that is not there it is no error."""
    asked = await call.params(OfPartition)
    collection = await call.collection(asked, Access.WRITE)
    name = asked.partition_name.strip()
    if name == DEFAULT_PARTITION:
        raise invalid("default partition cannot be deleted")
    if collection.schema.partition_key is not None:
        raise invalid("disable drop partition if partition key mode is used")
    if not await collection.has_partition(name):
        return success(call, {})
    if collection.facts.loaded and name not in collection.facts.released:
        raise invalid("partition cannot be dropped, partition is loaded, please release it first")
    headers = await apply(collection, Operation.DELETE_NAMESPACE, Selection(namespace=namespace_of(name)))

    def without(facts: Facts) -> Facts:
        return facts.model_copy(
            update={
                "partitions": tuple(one for one in facts.partitions if one != name),
                "released": tuple(one for one in facts.released if one != name),
            }
        )

    await call.ops.look(change_facts, collection.index, without)
    return success(call, {}, headers)


async def load(call: Call) -> web.Response:
    """``partitions/load``: of a collection that was not loaded, only these are then."""
    collection, names = await _named(call)
    every = await partition_names(collection)

    def loaded(facts: Facts) -> Facts:
        check_loadable(collection, facts)
        # Others may have been declared since.
        released = facts.released if facts.loaded else dict.fromkeys((*every, *facts.partitions))
        left = tuple(one for one in released if one not in names)
        return facts.model_copy(update={"loaded": True, "released": left})

    await call.ops.look(change_facts, collection.index, loaded)
    return success(call, {})


async def release(call: Call) -> web.Response:
    """``partitions/release``: with the last one the collection is released, unless it is one that stays loaded."""
    collection, names = await _named(call)
    every = await partition_names(collection)

    def released(facts: Facts) -> Facts:
        if not facts.loaded:
            return facts
        gone = tuple(dict.fromkeys([*facts.released, *names]))
        if {*every, *facts.partitions} <= {*gone} and not made_elsewhere(collection.index):
            return facts.model_copy(update={"loaded": False, "released": ()})
        return facts.model_copy(update={"released": gone})

    await call.ops.look(change_facts, collection.index, released)
    return success(call, {})


async def _named(call: Call) -> tuple[Collection, list[str]]:
    """The collection and the partitions that are meant, which are there."""
    asked = await call.params(OfPartitions)
    collection = await call.collection(asked, Access.WRITE)
    await collection.namespaces(asked.partition_names)
    return collection, asked.partition_names


async def partition_names(collection: Collection) -> list[str]:
    """The names of a collection's partitions: the default one's, those that were declared, and those with rows."""
    namespaces = await collection.call.ops.read(collection.index, _namespaces)
    return list(dict.fromkeys([DEFAULT_PARTITION, *collection.facts.partitions, *namespaces]))


def _namespaces(view: View) -> list[str]:
    with_rows = sorted(view.namespaces.name(identity) for identity in view.counts)
    return [name for name in dict.fromkeys([*view.namespaces.identities, *with_rows]) if name]
