"""From the body of ``collections/create`` to the collection that it asks for: by a few words, from which the rest follows, or a whole schema.

What a single field may be is told in ``fields.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingest.doors.milvus.errors import invalid, missing
from ingest.doors.milvus.facts import Facts
from ingest.doors.milvus.fields import (
    LENGTH,
    VECTORS,
    check_dimension,
    check_id,
    check_partition_key,
    check_type,
    check_vector,
    dimension_of,
    flag,
    scalar_field,
    whole_number,
)
from ingest.doors.milvus.functions import full_text_of
from ingest.doors.milvus.names import check_field
from ingest.doors.milvus.schema_bodies import (
    CollectionAsked,
    FieldAsked,
    IndexAsked,
    V1CollectionAsked,
    param_text,
    param_texts,
)
from ingest.doors.milvus.vectors import DENSE, SPARSE
from upwell.kinds import IndexKind
from upwell.schema import Consistency, FieldType, IdType, RowSchema

FIELDS_MAX: Final = 64
KEY_PARTITIONS: Final = 64
SHARDS: Final = 1
V1_INDEX: Final = "vector_idx"
DEFAULT_METRIC: Final = "COSINE"
CONSISTENCIES: Final = ", ".join(Consistency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A collection that can be."""

    kind: IndexKind
    #: 0 without dense vectors.
    dimensions: int
    schema: RowSchema
    facts: Facts
    description: str
    #: Indexes to be made on it at once. If there are any, it is loaded then.
    indexes: Sequence[IndexAsked]


def wanted(asked: CollectionAsked, dimensions_max: int) -> Wanted:
    """The collection that v2's create asks for. Raises MilvusError."""
    if asked.collection_schema.fields:
        return _full(asked, dimensions_max)
    if asked.collection_schema.functions:
        raise invalid("functions are not supported for quickly create collection", "schema", "functions")
    if asked.dimension == 0:
        raise invalid(
            f"dimension is required for quickly create collection(default metric type: {DEFAULT_METRIC})",
            "collectionName & dimension",
            "collectionName",
        )
    if asked.id_type not in ("", "Int64", "int64", "VarChar", "Varchar"):
        raise invalid(
            "idType can only be [Int64, VarChar], default: Int64", "Int64, Varchar", asked.id_type[:64]
        )
    ids = IdType.TEXT if asked.id_type.lower() == "varchar" else IdType.INT64
    id_field = asked.primary_field_name or "id"
    id_params = {}
    if ids is IdType.TEXT:
        given = {name: param_text(value) for name, value in asked.params.items() if name == LENGTH.param}
        id_params = {LENGTH.param: str(LENGTH.of(id_field, given))}
    return _quick(
        asked,
        IndexAsked(
            field_name=asked.vector_field_name or "vector", metric_type=asked.metric_type or DEFAULT_METRIC
        ),
        RowSchema(
            id_field=id_field,
            ids=ids,
            id_bytes_max=int(id_params[LENGTH.param]) if id_params else None,
            auto_id=asked.auto_id,
            vector_field=asked.vector_field_name or "vector",
            dynamic=flag("enableDynamicField", asked.params.get("enableDynamicField"), default=True),
            consistency=_consistency(asked),
        ),
        dimensions_max,
        _facts(asked, {id_field: id_params} if id_params else {}),
    )


def wanted_v1(asked: V1CollectionAsked, dimensions_max: int) -> Wanted:
    """The collection that v1's create asks for: with ids that are made for rows that come without. Raises MilvusError."""
    if asked.dimension == 0:
        raise missing("collectionName", "dimension")
    schema = RowSchema(
        id_field=asked.primary_field,
        ids=IdType.INT64,
        auto_id=True,
        vector_field=asked.vector_field,
        dynamic=asked.enable_dynamic_field,
    )
    index = IndexAsked(field_name=asked.vector_field, index_name=V1_INDEX, metric_type=asked.metric_type)
    return _quick(asked, index, schema, dimensions_max, Facts(made=True))


def _quick(
    asked: CollectionAsked | V1CollectionAsked,
    index: IndexAsked,
    schema: RowSchema,
    dimensions_max: int,
    facts: Facts,
) -> Wanted:
    for name in (schema.id_field, schema.vector_field):
        check_field(name)
    if schema.id_field == schema.vector_field:
        raise invalid(f"duplicated field name {schema.id_field} found")
    check_dimension(schema.vector_field, asked.dimension, dimensions_max)
    params = facts.params | {schema.vector_field: {"dim": str(asked.dimension)}}
    return Wanted(
        kind=IndexKind.DENSE,
        dimensions=asked.dimension,
        # With its order told it is none of those that other doors make.
        schema=schema.model_copy(update={"order": (schema.id_field, schema.vector_field)}),
        facts=facts.model_copy(update={"params": params}),
        description=asked.description,
        indexes=[index],
    )


def _full(asked: CollectionAsked, dimensions_max: int) -> Wanted:
    schema = asked.collection_schema
    if schema.struct_fields:
        raise invalid(
            "structFields (arrays of structs) are not supported here; a JSON field holds such arrays"
        )
    if len(schema.fields) > FIELDS_MAX:
        raise invalid(f"maximum field's number should be limited to {FIELDS_MAX}")
    id_field, dense, sparse, scalars = _sorted_out(schema.fields)
    dimensions = 0
    if dense is not None:
        dimensions = dimension_of(dense, dimensions_max)
    told = {one.field_name: one.told for one in schema.fields if one.told}
    key = _the_one([one for one in schema.fields if one.is_partition_key], "partition")
    clustering = _the_one([one for one in schema.fields if one.is_clustering_key], "clustering")
    check_partition_key(key)
    full_text = full_text_of(schema.functions, schema.fields)
    row_schema = RowSchema(
        id_field=id_field.field_name,
        ids=IdType.INT64 if id_field.data_type == FieldType.INT64 else IdType.TEXT,
        id_bytes_max=None
        if id_field.data_type == FieldType.INT64
        else LENGTH.of(id_field.field_name, id_field.told),
        auto_id=schema.auto_id,
        id_description=id_field.description,
        vector_field="vector" if dense is None else dense.field_name,
        vector_description="" if dense is None else dense.description,
        sparse_field="sparse" if sparse is None else sparse.field_name,
        sparse_description="" if sparse is None else sparse.description,
        fields=tuple(scalar_field(one) for one in scalars),
        dynamic=schema.enable_dynamic_field,
        order=tuple(one.field_name for one in schema.fields),
        partition_key=None if key is None else key.field_name,
        full_text=full_text,
        consistency=_consistency(asked),
    )
    facts = _facts(asked, told).model_copy(
        update={"clustering_key": None if clustering is None else clustering.field_name}
    )
    return Wanted(
        kind=_kind(dense, sparse),
        dimensions=dimensions,
        schema=row_schema,
        facts=facts if key is not None else facts.model_copy(update={"key_partitions": 0}),
        description=asked.description or schema.description,
        indexes=asked.index_params,
    )


def _sorted_out(
    fields: Sequence[FieldAsked],
) -> tuple[FieldAsked, FieldAsked | None, FieldAsked | None, list[FieldAsked]]:
    """The id, the dense and the sparse vector, and the others."""
    seen: set[str] = set()
    vectors: dict[str, FieldAsked] = {}
    ids: list[FieldAsked] = []
    scalars = []
    for one in fields:
        check_type(one)
        check_field(one.field_name)
        if one.field_name in seen:
            raise invalid(f"duplicated field name {one.field_name} found")
        seen.add(one.field_name)
        if one.is_primary:
            ids.append(one)
        elif one.data_type not in VECTORS:
            scalars.append(one)
        elif one.data_type in vectors:
            raise invalid(
                f"more than one {one.data_type} field is not supported here, field name = "
                f"{vectors[one.data_type].field_name}, {one.field_name}"
            )
        else:
            check_vector(one)
            vectors[one.data_type] = one
    id_field = _the_one(ids, "primary")
    if id_field is None:
        raise invalid("primary key is not specified")
    check_id(id_field)
    if not vectors:
        raise invalid("schema does not contain vector field")
    return id_field, vectors.get(DENSE), vectors.get(SPARSE), scalars


def _the_one(fields: Sequence[FieldAsked], what: str) -> FieldAsked | None:
    if len(fields) > 1:
        names = f"{fields[0].field_name}, {fields[1].field_name}"
        raise invalid(f"there are more than one {what} key, field name = {names}")
    return fields[0] if fields else None


def _kind(dense: FieldAsked | None, sparse: FieldAsked | None) -> IndexKind:
    if dense is None:
        return IndexKind.SPARSE
    return IndexKind.DENSE if sparse is None else IndexKind.HYBRID


def _consistency(asked: CollectionAsked) -> Consistency:
    given = asked.params.get("consistencyLevel", asked.consistency_level)
    if given is None:
        return Consistency.BOUNDED
    if given not in list(Consistency):
        raise invalid(
            f"consistencyLevel can only be [{CONSISTENCIES}], default: Bounded",
            CONSISTENCIES,
            param_text(given)[:64],
        )
    return Consistency(given)


def _facts(asked: CollectionAsked, told: dict[str, dict[str, str]]) -> Facts:
    properties = param_texts(asked.properties)
    for param, name in (
        ("ttlSeconds", "collection.ttl.seconds"),
        ("partitionKeyIsolation", "partitionkey.isolation"),
    ):
        if param in asked.params:
            properties[name] = param_text(asked.params[param])
    shards = whole_number(param_text(asked.params.get("shardsNum", SHARDS)))
    key_partitions = whole_number(param_text(asked.params.get("partitionsNum", KEY_PARTITIONS)))
    return Facts(
        made=True,
        properties=properties,
        shards=shards if shards is not None and shards > 0 else SHARDS,
        key_partitions=key_partitions
        if key_partitions is not None and key_partitions > 0
        else KEY_PARTITIONS,
        params=told,
    )
