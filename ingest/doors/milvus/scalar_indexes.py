"""Indexes on fields that are no vectors: metadata indexes where there can be such, so that filters need not read the metadata.

Filters mean the same with and without. What cannot be one (a JSON field, an array, one more than the server lets an index have) is
remembered as asked for, and nothing else.
"""

from __future__ import annotations

from typing import Final

from ingest.appending import Sender
from ingest.doors.milvus.context import Call
from ingest.doors.milvus.facts import Facts, facts_of
from upwell.changeset import Operation, about_property
from upwell.engine import Index
from upwell.properties import MetadataIndex, PropertyType
from upwell.schema import FieldType, ScalarField

TYPES: Final = {
    FieldType.BOOL: PropertyType.BOOLEAN,
    FieldType.INT8: PropertyType.NUMBER,
    FieldType.INT16: PropertyType.NUMBER,
    FieldType.INT32: PropertyType.NUMBER,
    FieldType.INT64: PropertyType.NUMBER,
    FieldType.FLOAT: PropertyType.NUMBER,
    FieldType.DOUBLE: PropertyType.NUMBER,
    FieldType.VARCHAR: PropertyType.STRING,
}


async def declare(call: Call, index: Index) -> None:
    """Let there be a metadata index for each index on a field that there is not one for yet.

    Not before a metric is chosen: that is done by making an empty collection anew, and with this it is not empty any more.
    """
    ops = call.ops
    for lacking in await ops.look(_lacking, index, call.settings.metadata_indexes_max):
        await ops.admit(index)
        changeset = about_property(Operation.CREATE_METADATA_INDEX, lacking)
        await ops.append(index, changeset, Sender(call.grant.id))


async def undeclare(call: Call, index: Index, field: str) -> None:
    """Let there be no metadata index for a field."""
    ops = call.ops
    declared = await ops.look(_declared, index)
    if field in declared:
        await ops.admit(index)
        changeset = about_property(Operation.DELETE_METADATA_INDEX, declared[field])
        await ops.append(index, changeset, Sender(call.grant.id))


def _declared(index: Index) -> dict[str, MetadataIndex]:
    return {one.index.property: one.index for one in index.head.refresh().metadata_indexes}


def _lacking(index: Index, most: int) -> list[MetadataIndex]:
    """The metadata indexes that are yet to be made. Blocks."""
    facts, record = facts_of(index), index.record
    schema = record.row_schema
    if schema is None or (record.kind.has_dense and facts.on_field(schema.vector_field) is None):
        return []
    declared = _declared(index)
    wanted = [_metadata_index(one) for one in (*schema.fields, *facts.added) if _is_wanted(one, facts)]
    return [one for one in wanted if one.property not in declared][: max(0, most - len(declared))]


def _is_wanted(field: ScalarField, facts: Facts) -> bool:
    return field.type in TYPES and facts.on_field(field.name) is not None


def _metadata_index(field: ScalarField) -> MetadataIndex:
    return MetadataIndex(property=field.name, type=TYPES[field.type])
