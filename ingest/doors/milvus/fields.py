"""Fields that somebody would declare: what each may be, or the refusal in Milvus's words."""

from __future__ import annotations

import math
from typing import Any, Final

from ingest.doors.milvus.errors import Code, MilvusError, invalid
from ingest.doors.milvus.facts import METRICS, SPARSE_METRIC
from ingest.doors.milvus.schema_bodies import FieldAsked, param_text
from ingest.doors.milvus.values import FALSE, RANGES, TRUE
from ingest.doors.milvus.vectors import DENSE, SPARSE
from upwell.schema import FieldType, ScalarField
from upwell.shard.metric import Metric

VARCHAR_BYTES_MAX: Final = 65_535
CAPACITY_MAX: Final = 4_096
VECTORS: Final = (DENSE, SPARSE)
#: Those of Milvus's types that are known there and not here.
FOREIGN_TYPES: Final = (
    "BinaryVector",
    "Float16Vector",
    "BFloat16Vector",
    "Int8Vector",
    "ArrayOfVector",
    "ArrayOfStruct",
    "Struct",
    "String",
    "Text",
    "Geometry",
    "Timestamptz",
    "None",
)


def check_type(field: FieldAsked) -> None:
    """Raise MilvusError unless a field can be of its type."""
    if field.data_type in FOREIGN_TYPES:
        raise invalid(
            f"data type {field.data_type} of field {field.field_name} is not supported here; vectors are {DENSE} and {SPARSE}"
        )
    if field.data_type not in VECTORS and field.data_type not in list(FieldType):
        raise MilvusError(
            Code.INVALID_PARAMETER,
            f"invalid parameter, data type {field.data_type[:64]} is invalid(case sensitive).",
        )


def check_vector(field: FieldAsked) -> None:
    """Raise MilvusError for what is said of a vector and cannot be."""
    if field.nullable:
        raise invalid(f"vector type not support null, field name = {field.field_name}")
    if field.default_value is not None:
        raise invalid(f"convert defaultValue fail, err:Wrong defaultValue type, {field.data_type} has none")
    if field.data_type == SPARSE and "dim" in field.told:
        raise invalid(f"dim should not be specified for sparse vector field {field.field_name}")


def check_id(field: FieldAsked) -> None:
    """Raise MilvusError unless a field can be the primary key."""
    if field.data_type not in (FieldType.INT64, FieldType.VARCHAR):
        raise invalid("the data type of primary key should be Int64 or VarChar")
    if field.default_value is not None:
        raise invalid("primary field not support default_value")
    if field.nullable:
        raise invalid("primary field not support null")


def check_partition_key(key: FieldAsked | None) -> None:
    """Raise MilvusError unless a field, if there is one, can be the partition key."""
    if key is None:
        return
    if key.is_primary:
        raise invalid("the partition key field must not be primary field")
    if key.data_type not in (FieldType.INT64, FieldType.VARCHAR):
        raise invalid("the data type of partition key should be Int64 or VarChar")
    if key.nullable:
        raise invalid(f"partition key field not support nullable, field name = {key.field_name}")


def scalar_field(asked: FieldAsked) -> ScalarField:
    """A field that is neither id nor vector. Raises MilvusError."""
    kind, told, name = FieldType(asked.data_type), asked.told, asked.field_name
    element = capacity = None
    if kind is FieldType.ARRAY:
        element, capacity = _element(asked), capacity_of(name, told)
    is_text = FieldType.VARCHAR in (kind, element)
    bytes_max = max_length(name, told) if is_text else None
    return ScalarField(
        name=name,
        type=kind,
        description=asked.description,
        nullable=asked.nullable,
        default=_default(asked.default_value, kind, bytes_max),
        bytes_max=bytes_max,
        element=element,
        capacity=capacity,
    )


def _element(asked: FieldAsked) -> FieldType:
    element = asked.element_data_type
    if element in list(FieldType) and element not in (FieldType.ARRAY, FieldType.JSON):
        return FieldType(element)
    if element in (*FieldType, *VECTORS, *FOREIGN_TYPES):
        raise invalid(f"element type {element} is not supported, field name = {asked.field_name}")
    raise MilvusError(
        Code.INVALID_PARAMETER,
        f"invalid parameter, element data type {element[:64]} is invalid(case sensitive).",
    )


def _default(value: Any, kind: FieldType, bytes_max: int | None) -> bool | int | float | str | None:
    """A default value. Raises MilvusError."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is FieldType.BOOL and isinstance(value, bool):
        return value
    if kind.is_integer and is_number and math.isfinite(value) and value == int(value):
        if int(value) in RANGES[kind]:
            return int(value)
    elif kind in (FieldType.FLOAT, FieldType.DOUBLE) and is_number:
        return float(value)
    elif kind is FieldType.VARCHAR and isinstance(value, str):
        if bytes_max is None or len(value.encode("utf-8", "replace")) <= bytes_max:
            return value
        raise invalid(f"the length ({len(value)}) of string exceeds max length ({bytes_max})")
    shown = param_text(value)[:64]
    raise MilvusError(
        Code.INVALID_PARAMETER,
        f"convert defaultValue fail, err:Wrong defaultValue type: invalid parameter[expected={kind}][actual={shown}]",
    )


def dimension_of(field: FieldAsked, dimensions_max: int) -> int:
    """The dimensions of a dense vector. Raises MilvusError."""
    told = field.told.get("dim")
    if told is None:
        raise invalid(
            f"dimension is not defined in field type params of field {field.field_name}, check type param `dim` for vector field"
        )
    dimension = whole_number(told)
    if dimension is None:
        raise invalid(f"invalid dimension: {told[:64]} of field {field.field_name}. should be a number")
    check_dimension(field.field_name, dimension, dimensions_max)
    return dimension


def check_dimension(name: str, dimension: int, dimensions_max: int) -> None:
    """Raise MilvusError unless the vectors of this field can have so many dimensions."""
    if not 1 <= dimension <= dimensions_max:
        raise invalid(
            f"invalid dimension: {dimension} of field {name}. float vector dimension should be in range 1 ~ {dimensions_max}"
        )


def max_length(name: str, told: dict[str, str]) -> int:
    """The bytes that a text may have. Raises MilvusError."""
    given = told.get("max_length")
    if given is None:
        raise invalid(f"type param(max_length) should be specified for varChar field({name})")
    number = whole_number(given)
    if number is None:
        raise invalid(f"the value for max_length of field {name} must be an integer")
    if not 0 < number <= VARCHAR_BYTES_MAX:
        raise invalid(
            f"the maximum length specified for a VarChar field({name}) should be in (0, {VARCHAR_BYTES_MAX}], "
            f"but got {number} instead"
        )
    return number


def capacity_of(name: str, told: dict[str, str]) -> int:
    """How many elements an array may have. Raises MilvusError."""
    given = told.get("max_capacity")
    if given is None:
        raise invalid(f"type param(max_capacity) should be specified for array field {name}")
    number = whole_number(given)
    if number is None:
        raise invalid(f"the value for max_capacity of field {name} must be an integer")
    if not 0 < number <= CAPACITY_MAX:
        raise invalid(f"the maximum capacity specified for a Array should be in (0, {CAPACITY_MAX}]")
    return number


def whole_number(text: str) -> int | None:
    """The integer, of at most nine digits, that a parameter is; None if it is none."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def flag(name: str, value: Any, *, default: bool) -> bool:
    """A flag in any of the spellings that Go takes."""
    if value is None:
        return default
    text = param_text(value)
    if text not in TRUE | FALSE:
        raise invalid(f"parse {name} fail, err: {text[:64]} is neither true nor false")
    return text in TRUE


def metric_of(name: str) -> Metric:
    """What a metric of dense vectors is called here. Raises MilvusError."""
    metric = METRICS.get(name.upper())
    if metric is None:
        raise invalid(
            f"metric type {name[:64]} not found or not supported, supported: [L2 IP COSINE]",
            "valid index params",
            "invalid index params",
        )
    return metric


def check_sparse_metric(name: str) -> None:
    """Raise MilvusError unless sparse vectors can be compared by this."""
    if name.upper() != SPARSE_METRIC:
        raise invalid(f"only IP is the supported metric type for sparse index here, got {name[:64]}")
