"""What ``collections/describe`` shows."""

from __future__ import annotations

from typing import Any, Final

from ingest.doors.milvus.context import Collection, Version
from ingest.doors.milvus.facts import Facts
from ingest.doors.milvus.schema_bodies import param_text
from ingest.doors.milvus.vectors import DENSE, SPARSE
from upwell.catalog.record import IndexRecord
from upwell.schema import FieldType, IdType, RowSchema, ScalarField

#: Of the first field. Those before are Milvus's own.
FIRST_FIELD: Final = 100
#: Of the first function, likewise; and what its type is as a number.
FIRST_FUNCTION: Final = 100
BM25_TYPE: Final = 1
#: Of an identity's hexadecimal digits: as many as a number has that JavaScript can tell from others.
NUMBER_DIGITS: Final = 13
#: What a default value is called by its type, and 32 bits.
DEFAULTS: Final = {
    FieldType.BOOL: "BoolData",
    FieldType.INT8: "IntData",
    FieldType.INT16: "IntData",
    FieldType.INT32: "IntData",
    FieldType.INT64: "LongData",
    FieldType.FLOAT: "FloatData",
    FieldType.DOUBLE: "DoubleData",
    FieldType.VARCHAR: "StringData",
}
Shown = dict[str, Any]


def load_state(facts: Facts) -> str:
    """Whether a collection is loaded, in Milvus's words."""
    return "LoadStateLoaded" if facts.loaded else "LoadStateNotLoad"


def described(collection: Collection, *, aliases: list[str], partitions: int) -> Shown:
    """A collection. ``partitions``: how many it has."""
    record, schema, facts = collection.index.record, collection.schema, collection.facts
    version = collection.call.version
    shown: Shown = {
        "collectionName": record.name,
        "description": record.description or "",
        "fields": _fields(record, schema, facts, version),
        "indexes": [
            {"indexName": one.name, "fieldName": one.field, "metricType": one.metric} for one in facts.indexes
        ],
        "load": load_state(facts),
        "shardsNum": facts.shards,
        "enableDynamicField": schema.dynamic,
    }
    if version is Version.V1:
        # As Milvus called it before 2.3.2.
        return shown | {"enableDynamic": schema.dynamic}
    return shown | {
        "collectionID": number_of(record.id),
        "autoId": schema.auto_id,
        "functions": _functions(schema),
        "aliases": aliases,
        "partitionsNum": facts.key_partitions if schema.partition_key is not None else partitions,
        "consistencyLevel": str(schema.consistency),
        "properties": pairs(facts.properties),
    }


def number_of(identity: str) -> int:
    """A number for an identity."""
    return int(identity[:NUMBER_DIGITS], 16)


def pairs(properties: dict[str, str]) -> list[Shown]:
    """Properties as Milvus shows them."""
    return [{"key": name, "value": value} for name, value in properties.items()]


def _fields(record: IndexRecord, schema: RowSchema, facts: Facts, version: Version) -> list[Shown]:
    ids = "Int64" if schema.ids is IdType.INT64 else "VarChar"
    id_params = {} if schema.id_bytes_max is None else {"max_length": str(schema.id_bytes_max)}
    fields = {schema.id_field: _field(schema.id_field, ids, id_params, schema.id_description)}
    fields[schema.id_field] |= {"primaryKey": True, "autoId": schema.auto_id}
    if record.kind.has_dense:
        fields[schema.vector_field] = _field(
            schema.vector_field, DENSE, {"dim": str(record.dimensions)}, schema.vector_description
        )
    if record.kind.has_sparse:
        fields[schema.sparse_field] = _field(schema.sparse_field, SPARSE, {}, schema.sparse_description)
        if schema.full_text is not None:
            fields[schema.sparse_field]["isFunctionOutput"] = True
    for one in schema.fields:
        fields[one.name] = _scalar(one)
    shown = [fields[name] for name in schema.order or fields]
    for number, field in enumerate(shown):
        name, params = field["name"], field["params"] | facts.params.get(field["name"], {})
        field["partitionKey"] = name == schema.partition_key
        field["clusteringKey"] = name == facts.clustering_key
        # As with Milvus: none at all where there are none.
        del field["params"]
        if version is Version.V1:
            size = params.get("dim", params.get("max_length"))
            field["type"] += "" if size is None else f"({size})"
            field.pop("elementType", None)
        else:
            field["id"] = FIRST_FIELD + number
            if params:
                field["params"] = pairs(params)
    return shown


def _functions(schema: RowSchema) -> list[Shown]:
    """The function, if there is one: a type is a number here, and having no parameters is having none at all, as with Milvus."""
    function = schema.full_text
    if function is None:
        return []
    shown = {
        "name": function.name,
        "description": function.description,
        "type": BM25_TYPE,
        "id": FIRST_FUNCTION,
        "inputFieldNames": [function.field],
        "outputFieldNames": [schema.sparse_field],
        "params": None,
    }
    return [shown]


def _field(name: str, kind: str, params: dict[str, str], description: str) -> Shown:
    return {
        "name": name,
        "type": kind,
        "primaryKey": False,
        "autoId": False,
        "nullable": False,
        "description": description,
        "params": params,
    }


def _scalar(field: ScalarField) -> Shown:
    params = {}
    if field.bytes_max is not None:
        params["max_length"] = param_text(field.bytes_max)
    if field.capacity is not None:
        params["max_capacity"] = param_text(field.capacity)
    shown = _field(field.name, field.type, params, field.description) | {"nullable": field.nullable}
    if field.default is not None:
        shown["defaultValue"] = {"Data": {DEFAULTS[field.type]: field.default}}
    if field.element is not None:
        shown["elementType"] = str(field.element)
    return shown
