"""``collections/fields/…``: fields that are added later, and what may change of one. Rows of before have a new field's default,
or nothing (``expression_defaults.py``)."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from pydantic import AliasChoices, Field

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import Call, Collection, Name, OfCollection
from ingest.doors.milvus.errors import Code, MilvusError, invalid
from ingest.doors.milvus.facts import Facts, change_facts, made_elsewhere, schema_with, vector_metrics
from ingest.doors.milvus.fields import CAPACITY, LENGTH, VECTORS, check_type, scalar_field
from ingest.doors.milvus.names import check_field
from ingest.doors.milvus.schema_bodies import PARAMS_MAX, FieldAsked, param_texts
from ingest.doors.milvus.schemas import FIELDS_MAX
from upwell.catalog.tokens import Access
from upwell.schema import FieldType, IdType

#: What may be said of a field later.
CHANGEABLE: Final = (LENGTH.param, CAPACITY.param, "mmap.enabled", "mmap_enabled")


class FieldAdded(OfCollection):
    """The body of ``collections/fields/add``."""

    added: FieldAsked = Field(validation_alias=AliasChoices("schema", "field"))


class FieldChanged(OfCollection):
    """The body of ``collections/fields/alter_properties``."""

    field_name: Name
    field_params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX)


async def add(call: Call) -> web.Response:
    """``collections/fields/add``."""
    asked = await call.params(FieldAdded)
    collection = await call.collection(asked, Access.ADMIN)
    added = asked.added
    check_type(added)
    check_field(added.field_name)
    if added.data_type in VECTORS:
        raise invalid(f"not support to add vector field, field name = {added.field_name}")
    if added.is_primary or added.is_partition_key:
        raise invalid(f"not support to add a primary or partition key field, field name = {added.field_name}")
    if not added.nullable:
        raise invalid(f"added field must be nullable, please check it, field name = {added.field_name}")
    if made_elsewhere(collection.index):
        raise invalid("a collection that was made at another door has no fields; any may be in its rows")
    field = await call.ops.parse(lambda: scalar_field(added))

    def more(facts: Facts) -> Facts:
        names = _names(collection, facts)
        if added.field_name in names:
            raise invalid(f"duplicate field name: {added.field_name}")
        if len(names) >= FIELDS_MAX:
            raise invalid(f"The number of fields has reached the maximum value {FIELDS_MAX}")
        params = facts.params | ({field.name: added.told} if added.told else {})
        return facts.model_copy(update={"added": (*facts.added, field), "params": params})

    await call.ops.look(change_facts, collection.index, more)
    return success(call, {})


async def alter_properties(call: Call) -> web.Response:
    """``collections/fields/alter_properties``: how long a text or an array may be. Rows that are there already stay as they are."""
    asked = await call.params(FieldChanged)
    collection = await call.collection(asked, Access.ADMIN)
    told = param_texts(asked.field_params)
    if asked.field_name not in _names(collection, collection.facts):
        raise MilvusError(Code.FIELD_NOT_FOUND, f"field not found[field={asked.field_name}]")
    _check(collection, asked.field_name, told)

    def changed(facts: Facts) -> Facts:
        params = facts.params.get(asked.field_name, {}) | told
        return facts.model_copy(update={"params": facts.params | {asked.field_name: params}})

    await call.ops.look(change_facts, collection.index, changed)
    return success(call, {})


def _names(collection: Collection, facts: Facts) -> list[str]:
    schema = schema_with(collection.index.record.effective_schema, facts)
    return [schema.id_field, *vector_metrics(collection.index), *(one.name for one in schema.fields)]


def _check(collection: Collection, name: str, told: dict[str, str]) -> None:
    """Raise MilvusError unless this may be said of the field."""
    for param in told:
        if param not in CHANGEABLE:
            raise invalid(f"{param[:64]} does not allow update in collection field param")
    schema = collection.schema
    field = schema.field(name)
    types = (None, None) if field is None else (field.type, field.element)
    is_text_id = name == schema.id_field and schema.ids is IdType.TEXT
    if LENGTH.param in told:
        if FieldType.VARCHAR not in types and not is_text_id:
            raise invalid(f"{name} can not modify the maxlength for non-string types")
        LENGTH.of(name, told)
    if CAPACITY.param in told:
        if types[0] is not FieldType.ARRAY:
            raise invalid(f"{name} can not modify the maxcapacity for non-array types")
        CAPACITY.of(name, told)
