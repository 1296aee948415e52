"""``indexes/…``: Milvus's clients make indexes on fields before they load a collection; here vectors are always searchable.

So an index is what was asked for, remembered: its name, type and parameters. Two things of it matter. The metric of dense vectors
is that of Upwell's index, and fixed when that is made; a collection that was made without indexes is made anew with another metric, as
long as nothing was written to it. And where a function makes the sparse vectors, searches compare them with its ``bm25_k1`` and ``bm25_b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import Call, Collection, ListOf, Name, OfCollection
from ingest.doors.milvus.errors import (
    MISSING_REQUIRED,
    Code,
    MilvusError,
    duplicate,
    invalid,
    no_index,
    refused,
)
from ingest.doors.milvus.facts import (
    AUTOINDEX,
    METRIC_NAMES,
    Facts,
    IndexFact,
    change_facts,
    facts_in,
    vector_metrics,
)
from ingest.doors.milvus.fields import check_sparse_params, metric_of, sparse_metric
from ingest.doors.milvus.names import check_index
from ingest.doors.milvus.scalar_indexes import declare, undeclare
from ingest.doors.milvus.schema_bodies import (
    IndexAsked,
    PropertiesAsked,
    PropertyKeysAsked,
    param_text,
    param_texts,
)
from ingest.doors.milvus.shown_schema import pairs
from ingest.doors.milvus.values import FALSE, TRUE
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.engine import Engine, Index
from upwell.errors import Conflict, NotFound
from upwell.kinds import IndexKind
from upwell.schema import RowSchema
from upwell.shard.metric import Metric

DEFAULT_METRIC: Final = "COSINE"
SCALAR_INDEX: Final = "INVERTED"
#: What may be said of an index later; SWITCHES are true or false.
SWITCHES: Final = frozenset(("mmap.enabled", "indexoffsetcache.enabled"))
CHANGEABLE: Final = SWITCHES | {"warmup"}
#: How often a collection that others change meanwhile is looked at again.
TRIES: Final = 10
ONE_PER_FIELD: Final = "CreateIndex failed: at most one distinct index is allowed per field"


class OfIndex(OfCollection):
    """The body of a request about an index."""

    index_name: Name


class IndexesAsked(OfCollection):
    """The body of ``indexes/create``."""

    index_params: ListOf[IndexAsked]


class IndexProperties(OfIndex, PropertiesAsked):
    """The body of ``indexes/alter_properties``."""


class IndexPropertyKeys(OfIndex, PropertyKeysAsked):
    """The body of ``indexes/drop_properties``."""


async def list_(call: Call) -> web.Response:
    """``indexes/list``: names."""
    collection = await call.collection(await call.params(OfCollection), Access.READ)
    return success(call, [one.name for one in collection.facts.indexes])


async def describe(call: Call) -> web.Response:
    """``indexes/describe``. Vectors are searchable as soon as they are visible, so no rows are ever pending."""
    asked = await call.params(OfIndex)
    collection = await call.collection(asked, Access.READ)
    index = collection.facts.index(asked.index_name)
    if index is None:
        raise no_index(asked.index_name)
    rows = await call.ops.read(collection.index, lambda view: view.manifest.vectors)
    shown = {
        "indexName": index.name,
        "fieldName": index.field,
        "indexType": index.type,
        "metricType": index.metric,
        "indexParams": pairs(_params_of(index)),
        "totalRows": rows,
        "indexedRows": rows,
        "pendingRows": 0,
        "indexState": "Finished",
        "failReason": "",
    }
    return success(call, [shown])


def _params_of(index: IndexFact) -> dict[str, str]:
    """What was said of an index, as Milvus shows it: its parameters are the text of one object, what was altered stands beside it."""
    shown = {"index_type": index.type}
    if index.metric:
        shown["metric_type"] = index.metric
    if index.params:
        given = {name: _value_of(text) for name, text in index.params.items()}
        shown["params"] = orjson.dumps(given).decode()
    return shown | index.altered


def _value_of(text: str) -> object:
    """A parameter as it was likely sent, a number or a truth value if it reads as one: only its text is kept."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) else text


async def create(call: Call) -> web.Response:
    """``indexes/create``."""
    asked = await call.params(IndexesAsked)

    def made(collection: Collection) -> Index:
        schema, kind = collection.schema, collection.index.record.kind
        facts = index_facts(asked.index_params, schema, vectors_of(schema, kind))
        return make_indexes(call.ops.engine, collection.index, facts)

    for _ in range(TRIES):
        collection = await call.collection(asked, Access.ADMIN)
        # Whoever asks for the same at the same time may have made it anew: then there is another to look at, or none.
        with suppress(NotFound):
            await declare(call, await call.ops.look(made, collection))
            return success(call, {})
    raise refused("the collection was changed by others all the time; try again")


async def drop(call: Call) -> web.Response:
    """``indexes/drop``: of one that is not there it is no error. That of a vector stays as long as the collection is loaded."""
    asked = await call.params(OfIndex)
    collection = await call.collection(asked, Access.ADMIN)
    vectors = vector_metrics(collection.index)

    def without(facts: Facts) -> Facts:
        index = facts.index(asked.index_name)
        if index is not None and facts.loaded and index.field in vectors:
            raise invalid(f"vector index cannot be dropped on loaded collection: {collection.name}")
        return facts.model_copy(update={"indexes": tuple(one for one in facts.indexes if one != index)})

    await call.ops.look(change_facts, collection.index, without)
    dropped = collection.facts.index(asked.index_name)
    if dropped is not None:
        await undeclare(call, collection.index, dropped.field)
    return success(call, {})


async def alter_properties(call: Call) -> web.Response:
    """``indexes/alter_properties``: they are remembered, and change nothing."""
    asked = await call.params(IndexProperties)
    _check_changeable(asked.properties)
    for name in asked.properties.keys() & SWITCHES:
        given = param_text(asked.properties[name])
        if given not in TRUE | FALSE:
            raise invalid(f"invalid {name} value: {given[:64]}, expected: true, false")
    return await _with_params(call, asked, asked.added_to)


async def drop_properties(call: Call) -> web.Response:
    """``indexes/drop_properties``."""
    asked = await call.params(IndexPropertyKeys)
    _check_changeable(asked.property_keys)
    return await _with_params(call, asked, asked.taken_from)


def _check_changeable(names: Iterable[str]) -> None:
    for name in names:
        if name not in CHANGEABLE:
            raise invalid(f"{name[:64]} is not a configable index property")


async def _with_params(
    call: Call, asked: OfIndex, make: Callable[[dict[str, str]], dict[str, str]]
) -> web.Response:
    collection = await call.collection(asked, Access.ADMIN)

    def changed(facts: Facts) -> Facts:
        if facts.index(asked.index_name) is None:
            raise no_index(asked.index_name)
        return facts.model_copy(
            update={
                "indexes": tuple(
                    one.model_copy(update={"altered": make(one.altered)})
                    if one.name == asked.index_name
                    else one
                    for one in facts.indexes
                )
            }
        )

    await call.ops.look(change_facts, collection.index, changed)
    return success(call, {})


def index_facts(
    asked: Sequence[IndexAsked], schema: RowSchema, vectors: Mapping[str, bool]
) -> list[IndexFact]:
    """Indexes that are asked for on fields of ``schema``; of its ``vectors`` it is told whether they are sparse. Raises MilvusError."""
    return [_index_fact(one, schema, vectors) for one in asked]


def _index_fact(asked: IndexAsked, schema: RowSchema, vectors: Mapping[str, bool]) -> IndexFact:
    field = asked.field_name
    params = param_texts(asked.params)
    metric = asked.metric_type or params.pop("metric_type", "")
    given_type = asked.index_type or params.pop("index_type", "")
    if (
        field not in vectors
        and field != schema.id_field
        and schema.field(field) is None
        and not schema.dynamic
    ):
        raise MilvusError(
            Code.MISSING_REQUIRED, f"{MISSING_REQUIRED}, error: `{field[:64]}` hasn't defined in schema"
        )
    if field not in vectors:
        metric = ""
    elif vectors[field]:
        metric = sparse_metric(metric, made=schema.full_text is not None)
        check_sparse_params(params)
    else:
        metric = metric.upper() or DEFAULT_METRIC
        metric_of(metric)
    return IndexFact(
        name=check_index(asked.index_name or field),
        field=field,
        type=given_type or (AUTOINDEX if field in vectors else SCALAR_INDEX),
        metric=metric,
        params=params,
    )


def vectors_of(schema: RowSchema, kind: IndexKind) -> dict[str, bool]:
    """The fields of a row that are vectors, and whether they are sparse."""
    dense = {schema.vector_field: False} if kind.has_dense else {}
    return dense | ({schema.sparse_field: True} if kind.has_sparse else {})


def make_indexes(
    engine: Engine, index: Index, asked: Sequence[IndexFact], begin: Facts | None = None
) -> Index:
    """Remember indexes, and load the collection if it is being created (``begin``: what there is to be remembered of it at first).

    The same again changes nothing. Returns the collection's index, which may be another one by now. Raises MilvusError, or NotFound if somebody
    else put another in its place. Blocks.
    """
    wanted = next((metric_of(one.metric) for one in asked if _is_dense(index, one.field)), None)
    if wanted is not None and wanted is not index.record.metric:
        index = _made_anew(engine, index, wanted)

    def remembered(facts: Facts) -> Facts:
        if begin is not None and not facts.made:
            facts = begin
        for one in asked:
            facts = _with_index(facts, one)
        loads = begin is not None and bool(asked) and not _unindexed(index, facts)
        return facts.model_copy(update={"loaded": True}) if loads else facts

    lacking = _unindexed(index, change_facts(index, remembered))
    if begin is not None and asked and lacking:
        # The collection is there, and so are these indexes: it is the loading that fails.
        raise _not_indexed(lacking)
    return index


def check_loadable(collection: Collection, facts: Facts) -> None:
    """Raise MilvusError unless each vector has an index, as Milvus wants it."""
    if not facts.indexes:
        raise MilvusError(Code.INDEX_NOT_FOUND, f"index not found[collection={collection.name}]")
    lacking = _unindexed(collection.index, facts)
    if lacking:
        raise _not_indexed(lacking)


def _unindexed(index: Index, facts: Facts) -> list[str]:
    return [field for field in vector_metrics(index) if facts.on_field(field) is None]


def _not_indexed(fields: Sequence[str]) -> MilvusError:
    return refused(f"there is no vector index on field: [{' '.join(fields)}], please create index firstly")


def _is_dense(index: Index, field: str) -> bool:
    return index.record.kind.has_dense and field == index.record.effective_schema.vector_field


def _with_index(facts: Facts, asked: IndexFact) -> Facts:
    """With an index that may be there already. Raises MilvusError if another is in its place."""
    known = facts.on_field(asked.field) or facts.index(asked.name)
    if known is None:
        return facts.model_copy(update={"indexes": (*facts.indexes, asked)})
    if known.model_copy(update={"altered": {}}) != asked:
        raise refused(ONE_PER_FIELD)
    return facts


def _made_anew(engine: Engine, index: Index, metric: Metric) -> Index:
    """An index like an empty one but for its metric, in its place: with its name, what is remembered of it, and its aliases; nothing that
    was acknowledged is lost with the old one. Raises MilvusError, or NotFound if it is not there any more.
    """
    old = index.record

    def may(notes: dict[str, Any]) -> None:
        known = facts_in(index, notes)
        if not known.made:
            raise duplicate(old.name)
        if known.on_field(old.effective_schema.vector_field) is not None:
            raise refused(ONE_PER_FIELD)

    may(index.notes.read())
    try:
        # Others may have chosen meanwhile.
        return engine.replace(index, NewIndex.like(old, metric), may=may)
    except Conflict as error:
        raise invalid(
            f"{error.detail}: its vectors are compared by {METRIC_NAMES[old.metric]}, and it cannot be made anew to compare them "
            f"by {METRIC_NAMES[metric]}; make another collection, with indexParams"
        ) from None
