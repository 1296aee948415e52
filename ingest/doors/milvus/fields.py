"""Fields that somebody would declare: what each may be, or the refusal in Milvus's words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingest.doors.milvus.errors import Code, MilvusError, invalid
from ingest.doors.milvus.facts import BM25_METRIC, METRICS, SPARSE_METRIC
from ingest.doors.milvus.schema_bodies import FieldAsked, param_text
from ingest.doors.milvus.values import FALSE, RANGES, TRUE
from ingest.doors.milvus.vectors import DENSE, SPARSE
from upwell.errors import Invalid
from upwell.schema import FieldType, ScalarField
from upwell.shard.metric import Metric
from upwell.text.analyzer import analyzer_of

#: Parameters of a VarChar: has it words? And may filters look for them?
ANALYZED: Final = "enable_analyzer"
MATCHED: Final = "enable_match"
#: The longest that a VarChar can be.
VARCHAR_BYTES_MAX: Final = 65_535
VECTORS: Final = (DENSE, SPARSE)
#: In Milvus, and in its next version.
SPARSE_ALGORITHMS: Final = (
    *("DAAT_MAXSCORE", "DAAT_WAND", "TAAT_NAIVE"),
    *("BLOCK_MAX_MAXSCORE", "BLOCK_MAX_WAND"),
)
#: Of an index on sparse vectors: the largest that a number may be, and how that is told.
_SPARSE_NUMBERS: Final = {
    "bm25_k1": (3.0, "[0, 3]"),
    "bm25_b": (1.0, "[0, 1]"),
    "drop_ratio_build": (math.nextafter(1.0, 0.0), "[0, 1)"),
}
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?", re.ASCII)
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


@dataclass(frozen=True, slots=True)
class Size:
    """A size that fields are declared with, and how Milvus speaks of it: ``lacks`` it, and ``is`` too large. ``{}``: a field's name."""

    param: str
    most: int
    lacks: str
    is_too_large: str

    def of(self, name: str, told: Mapping[str, str]) -> int:
        """That of the field of this name. Raises MilvusError."""
        given = told.get(self.param)
        if given is None:
            raise invalid(f"type param({self.param}) should be specified for {self.lacks.format(name)}")
        number = whole_number(given)
        if number is None:
            raise invalid(f"the value for {self.param} of field {name} must be an integer")
        if not 0 < number <= self.most:
            raise invalid(
                f"the maximum {self.is_too_large.format(name)} should be in (0, {self.most}], but got {number} instead"
            )
        return number


#: The bytes that a text may have.
LENGTH: Final = Size(
    "max_length", VARCHAR_BYTES_MAX, "varChar field({})", "length specified for a VarChar field({})"
)
#: How many elements an array may have.
CAPACITY: Final = Size("max_capacity", 4_096, "array field {}", "capacity specified for a Array")


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
    if enables(field.told, MATCHED):
        raise invalid(f"primary field not support {MATCHED} here, field name = {field.field_name}")


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
        element, capacity = _element(asked), CAPACITY.of(name, told)
    is_text = FieldType.VARCHAR in (kind, element)
    bytes_max = LENGTH.of(name, told) if is_text else None
    return ScalarField(
        name=name,
        type=kind,
        description=asked.description,
        nullable=asked.nullable,
        default=_default(asked.default_value, kind, bytes_max),
        bytes_max=bytes_max,
        element=element,
        capacity=capacity,
        analyzer=_analyzer(name, told) if kind is FieldType.VARCHAR else None,
        matches=kind is FieldType.VARCHAR and enables(told, MATCHED),
    )


def enables(told: Mapping[str, str], switch: str) -> bool:
    """Is this said of a field? Raises MilvusError if it is neither said nor denied."""
    return flag(switch, told.get(switch), default=False)


def _analyzer(name: str, told: Mapping[str, str]) -> dict[str, Any] | None:
    """How the words of a text are found, None if nobody will ask. Raises MilvusError."""
    analyzed = enables(told, ANALYZED)
    if not analyzed and enables(told, MATCHED):
        raise invalid(
            f"field {name} which has enable_match or is input of BM25 function must also enable_analyzer"
        )
    if "multi_analyzer_params" in told:
        raise invalid(f"multi_analyzer_params are not supported here, field name = {name}")
    return _analyzer_params(told.get("analyzer_params", ""), name) if analyzed else None


def _analyzer_params(text: str, name: str) -> dict[str, Any]:
    params = analyzer_told(text)
    try:
        analyzer_of(params)
    except Invalid as error:
        raise invalid(f"{error.detail}, field name = {name}") from None
    return params


def analyzer_told(given: dict[str, Any] | str) -> dict[str, Any]:
    """What an analyzer's parameters, or their text, say; nothing, if it is blank. Raises MilvusError."""
    if isinstance(given, str):
        try:
            given = orjson.loads(given) if given.strip() else {}
        except orjson.JSONDecodeError as error:
            raise invalid(f"analyzer params should be JSON: {error}") from None
    if not isinstance(given, dict):
        raise invalid("params should be a json map")
    return given


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


def sparse_metric(name: str, *, made: bool) -> str:
    """What sparse vectors are compared by that this is said of: ``made`` by a function, or sent. Raises MilvusError."""
    only = BM25_METRIC if made else SPARSE_METRIC
    metric = name.upper() or only
    if metric == only:
        return only
    if made:
        raise invalid(f"index metric type of BM25 function output field must be BM25, got {name[:64]}")
    if metric == BM25_METRIC:
        raise invalid("only BM25 Function output field support BM25 metric type")
    raise invalid(f"only IP is the supported metric type for sparse index here, got {name[:64]}")


def check_sparse_params(params: Mapping[str, str]) -> None:
    """Raise MilvusError unless an index on sparse vectors can have these parameters. Those that choose how to search change nothing here."""
    problem = None
    for name, (most, shown) in _SPARSE_NUMBERS.items():
        if name in params and not (_DECIMAL.fullmatch(params[name]) and 0 <= float(params[name]) <= most):
            problem = f"invalid {name}: {params[name][:64]}, must be in range {shown}"
    algorithm = params.get("inverted_index_algo", SPARSE_ALGORITHMS[0])
    if algorithm not in SPARSE_ALGORITHMS:
        supported = " ".join(SPARSE_ALGORITHMS)
        problem = f"sparse inverted index algo {algorithm[:64]} not found or not supported, supported: [{supported}]"
    if problem is not None:
        raise invalid(problem, "valid index params", "invalid index params")
