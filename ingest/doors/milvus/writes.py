"""insert, upsert and delete: each becomes one mutation, which is durable when it is answered and named by ``X-Mutation-Id``.

They are answered at once, but for a v2 delete by a filter that does more than name keys: how many it removes is known only when it is
applied, so it waits for that, as long as the server lets anybody wait or ``Request-Timeout`` says, and answers without the number if it takes
longer. Given ``Prefer: wait=N``, all wait that long, and ``X-Mutation-State`` says what they saw. See also ``mutations.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
from aiohttp import web

from ingest.admission import check_room
from ingest.appending import Accepted, Sender
from ingest.body import Rules
from ingest.body.documents import Span
from ingest.doors.milvus.answers import answer, success
from ingest.doors.milvus.context import Call, Collection, OfCollection, Version
from ingest.doors.milvus.errors import invalid, missing
from ingest.doors.milvus.expressions import parse_expression
from ingest.doors.milvus.mutations import acknowledged, outcome_of, sender_of
from ingest.doors.milvus.reads import ids_of
from ingest.doors.milvus.rows import Target
from ingest.doors.milvus.write_bodies import DATA, Find, Heading, Write
from ingest.large import encode
from ingest.operations import Operations
from ingest.parsing import Received
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, Details, KeyScope, Operation, Selection, decode_columns, without_rows
from upwell.log.entry import PreparedMutation
from upwell.outcome import State
from upwell.query.lookup import lookup
from upwell.schema import IdType
from upwell.settings import Settings
from upwell.shard.filter import Filter, OfId, OneOf
from upwell.shard.filter_json import filter_to_json


async def insert(call: Call) -> web.Response:
    """``insert``: put new rows into a collection. As in Milvus nobody looks whether their keys are taken; the newest row counts."""
    return await _put(call, inserts=True)


async def upsert(call: Call) -> web.Response:
    """``upsert``: put rows in the place of those with their keys, or beside them; with ``partialUpdate`` only what they give."""
    return await _put(call, inserts=False)


async def _put(call: Call, *, inserts: bool) -> web.Response:
    ops, settings = call.ops, call.settings
    sender = sender_of(call)
    with await ops.receive(call.request, settings.request_bytes_max) as received:
        heading = await ops.look_into(received, _finder(call))
        if heading.collection is None or heading.rows is None:
            raise missing("collectionName", DATA)
        named = call.named_database(heading.database)
        collection = await call.collection_called(named, heading.collection, Access.WRITE)
        await ops.admit(collection.index, adds_rows=True)
        how = await _how(collection, heading, heading.rows, sender, inserts=inserts)
        accepted, prepared = await _taken(ops, collection, received, how, sender)
    data = await ops.parse(lambda: _told(call, collection, prepared, "insert" if inserts else "upsert"))
    return answer(call, data, await acknowledged(collection, accepted))


def _finder(call: Call) -> Find:
    settings = call.settings
    rules = Rules(
        dimensions=0,
        vectors_max=settings.milvus_vectors_max,
        bytes_max=settings.request_bytes_max,
        metadata_bytes_max=settings.milvus_metadata_bytes_max,
    )
    return Find(content_encoding=call.encoding, rules=rules)


async def _how(
    collection: Collection, heading: Heading, rows: tuple[Span, ...], sender: Sender, *, inserts: bool
) -> Write:
    """How the rows are to be read. Raises MilvusError for what the heading says wrongly."""
    call, record = collection.call, collection.index.record
    settings = call.settings
    if len(rows) > settings.milvus_vectors_max:
        raise invalid(f"{DATA}: expected at most {settings.milvus_vectors_max} rows, got {len(rows)}")
    for field, operation in heading.operations:
        if operation != "REPLACE":
            raise invalid(f"fieldOps: {operation} of {field} is not supported", "REPLACE", operation)
    namespace = await _namespace(collection, heading.partition)
    return Write(
        target=Target(
            schema=collection.schema,
            kind=record.kind,
            dimensions=record.dimensions,
            id_bytes_max=_id_bytes_max(collection),
            metadata_bytes_max=settings.milvus_metadata_bytes_max,
            inserts=inserts,
            partial=heading.partial and not inserts,
            json_as_text=settings.milvus_json_as_text,
            analysis_s_max=settings.milvus_analysis_s_max,
        ),
        rows=rows,
        namespace=namespace or "",
        inside=namespace is not None,
        sender=None if sender.key is None else (sender.by, sender.key),
        bytes_max=settings.request_bytes_max,
        content_encoding=call.encoding,
        accepted_at=call.ops.engine.clock.now(),
    )


async def _namespace(collection: Collection, partition: str | None) -> str | None:
    """The namespace that a partition is; None if none was named. v1 knows of no partitions. Raises MilvusError for one that is not there."""
    if not partition or collection.call.version is Version.V1:
        return None
    if collection.schema.partition_key is not None:
        raise invalid("not support manually specifying the partition names if partition key mode is used")
    (namespace,) = await collection.namespaces([partition])
    return namespace


def _id_bytes_max(collection: Collection) -> int:
    """How long an id may be that is a text. What another door takes, this one takes too."""
    settings = collection.call.settings
    return collection.schema.id_bytes_max or max(settings.id_bytes_max, settings.upstash_id_bytes_max)


async def _taken(
    ops: Operations, collection: Collection, received: Received, how: Write, sender: Sender
) -> tuple[Accepted, PreparedMutation]:
    """Read the rows, and make them durable."""
    index, settings = collection.index, collection.call.settings

    def room() -> None:
        check_room(index, settings.vectors_max)

    if sender.key is None and not how.target.partial:
        # What cannot be a request that is known already, or one that adds no rows, need not be read to be refused.
        await ops.look(room)
    prepared = await ops.read_received(received, how)
    patches = how.target.partial and not prepared.mutation.details.adds
    if patches:
        await ops.caught_up(index, collection.call.bounded(settings.milvus_read_wait_s))

    def may() -> None:
        if patches:
            _demand_there(collection, how, prepared)
        else:
            room()

    return await ops.append_prepared(index, prepared, sender, may), prepared


def _demand_there(collection: Collection, how: Write, prepared: PreparedMutation) -> None:
    """Raise MilvusError unless all rows are there that are to be changed: none of them can be added. Blocks."""
    changeset = _rows_of(prepared)
    ids, view = changeset.ids.to_pylist(), collection.index.newest.get()
    found = {one.id for one in lookup(view, ids, how.namespace, within_namespace=how.inside)}
    absent = next((id for id in ids if id not in found), None)
    if absent is not None:
        raise invalid(
            f"fieldSchema({_lacking(how.target, changeset)}) has no corresponding fieldData pass in, "
            f"and there is no row with the primary key {absent} to be updated"
        )


def _lacking(target: Target, changeset: Changeset) -> str:
    """The first field that rows lack to be whole."""
    given = set()
    if changeset.vectors is not None:
        given.add(target.schema.vector_field)
    if changeset.sparse is not None:
        given.add(target.schema.sparse_field)
    if changeset.metadata is not None:
        given |= orjson.loads(changeset.metadata[0].as_py() or b"{}").keys()
    return next(name for name in target.needed if name not in given)


def _rows_of(prepared: PreparedMutation) -> Changeset:
    mutation = prepared.mutation
    return decode_columns(
        prepared.columns, mutation.operation, received=mutation.received, details=mutation.details
    )


def _told(call: Call, collection: Collection, prepared: PreparedMutation, verb: str) -> bytes:
    """How many rows were put, and their ids in order."""
    ids: list[str] = _rows_of(prepared).ids.to_pylist()
    are_numbers = collection.schema.ids is IdType.INT64 and not call.ids_as_text
    shown = f"[{','.join(ids)}]".encode() if are_numbers else encode(ids)
    return b'{"%sCount":%d,"%sIds":%s}' % (verb.encode(), len(ids), verb.encode(), shown)


class Deletion(OfCollection):
    """The body of a delete."""

    partition_name: str | None = None
    #: One or many, of v1; a filter counts more.
    id: Any = None
    filter: str = ""
    expr_params: dict[str, Any] = {}  # noqa: RUF012  pydantic copies it


@dataclass(frozen=True, slots=True)
class _Meant:
    """What is to be deleted: rows by their ids, or else what a filter describes."""

    ids: list[str] | None = None
    filter: Filter | None = None


async def delete(call: Call) -> web.Response:
    """``delete``: remove rows by a filter; in v1 also by their ids."""
    params = await call.params(Deletion)
    if not params.filter and call.version is Version.V2:
        raise missing("collectionName", "filter")
    if not params.filter and params.id is None:
        raise missing("collectionName", "id/filter")
    collection = await call.collection(params, Access.WRITE)
    meant = await call.ops.parse(lambda: _meant(collection, params, call.settings))
    namespace = await _namespace(collection, params.partition_name)
    changeset = await call.ops.parse(lambda: _removing(collection, meant, namespace))
    await call.ops.admit(collection.index)
    accepted = await call.ops.append(collection.index, changeset, sender_of(call))
    if call.version is Version.V1:
        return success(call, {}, await acknowledged(collection, accepted))
    if meant.ids is not None:
        return success(call, {"deleteCount": len(meant.ids)}, await acknowledged(collection, accepted))
    outcome, headers = await outcome_of(collection, accepted, call.bounded(call.settings.wait_s_max))
    result = outcome.result if outcome.state is State.VISIBLE else None
    return success(call, {} if result is None else {"deleteCount": result.deleted}, headers)


def _meant(collection: Collection, params: Deletion, settings: Settings) -> _Meant:
    schema = collection.schema
    if not params.filter:
        return _Meant(ids_of(schema.ids, params.id))
    asked = parse_expression(params.filter, schema, params.expr_params, settings.milvus_filter_bytes_max)
    if asked is None:
        raise invalid("invalid expression", "valid expr", "empty expr")
    kind = int if schema.ids is IdType.INT64 else str
    match asked:
        case OfId(OneOf(_, values)) if all(type(value) is kind for value in values):
            return _Meant([str(value) for value in values])
        case _:
            return _Meant(filter=asked)


def _removing(collection: Collection, meant: _Meant, namespace: str | None) -> Changeset:
    """The mutation that removes what is meant; of one namespace, or, with None, of all."""
    ids, record = meant.ids, collection.index.record
    if ids is not None and namespace is None and record.key_scope is KeyScope.INDEX:
        return Changeset(
            operation=Operation.DELETE,
            ids=pa.array(ids, pa.utf8()),
            received=len(ids),
            details=Details(scope=KeyScope.INDEX),
        )
    # An id does not say which namespace its row is in, where that is asked for or part of the key.
    asked = meant.filter if ids is None else OfId(OneOf("", tuple(ids)))
    assert asked is not None
    selection = Selection(namespace=namespace, filter=filter_to_json(asked))
    return without_rows(
        Operation.DELETE_MATCHING, Details(scope=KeyScope.INDEX, namespace=namespace, selection=selection)
    )
