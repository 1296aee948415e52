"""The parameters of searches, checked: by which vectors of which field, how near, in which groups; how several are made one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingest.body.floats import read_numbers
from ingest.body.precise import describe
from ingest.doors.milvus.context import Collection
from ingest.doors.milvus.errors import Code, MilvusError, invalid, not_json, refused
from ingest.doors.milvus.facts import BM25_METRIC, METRIC_NAMES, SPARSE_METRIC, bm25_of
from ingest.doors.milvus.fields import VARCHAR_BYTES_MAX
from ingest.doors.milvus.output_fields import dynamic_name
from ingest.doors.milvus.vectors import DENSE, SPARSE, SparseRow, read_sparse
from upwell.changeset import Matrix
from upwell.errors import Invalid
from upwell.kinds import IndexKind
from upwell.query.fusion import RANK_K_MAX, RANK_K_MIN, ByRank, ByScore, Scored
from upwell.query.grouped import Grouping
from upwell.query.ranged import Bounds
from upwell.query.sparse import Bm25
from upwell.schema import FieldType, RowSchema
from upwell.shard.metric import Metric
from upwell.text.analyzer import analyzer_of
from upwell.text.counts import term_counts

#: Rows of one group that may be asked for.
GROUP_SIZE_MAX: Final = 10
#: Searches that may be made one.
SEARCHES_MAX: Final = 1_024
#: Kinds of fields that rows can be grouped by.
GROUPED_BY: Final = frozenset(
    (FieldType.BOOL, FieldType.VARCHAR, *(one for one in FieldType if one.is_integer))
)
SCORED: Final = {
    Metric.COSINE: Scored.COSINE,
    Metric.DOT_PRODUCT: Scored.INNER_PRODUCT,
    Metric.EUCLIDEAN: Scored.SQUARED_DISTANCE,
}

#: A dense vector or a sparse one.
Vector = Matrix | SparseRow
How = ByRank | ByScore


@dataclass(frozen=True, slots=True)
class Texts:
    """How a field is searched whose vectors are made of texts: by texts too. ``analyzer``: the parameters of what finds their terms."""

    analyzer: Mapping[str, Any]
    bm25: Bm25


@dataclass(frozen=True, slots=True)
class Field:
    """The vector field that a search is about."""

    name: str
    is_sparse: bool
    metric: Metric
    #: None: it is searched by vectors.
    texts: Texts | None = None

    @property
    def metric_name(self) -> str:
        """What Milvus calls what it is compared by."""
        if self.texts is not None:
            return BM25_METRIC
        return SPARSE_METRIC if self.is_sparse else METRIC_NAMES[self.metric]

    @property
    def bm25(self) -> Bm25 | None:
        """How counts of terms are compared; None: its vectors are none."""
        return None if self.texts is None else self.texts.bm25

    @property
    def scored(self) -> Scored:
        """What the scores of a search by it are."""
        return SCORED[self.metric] if self.texts is None else Scored.BM25


def field_of(collection: Collection, name: str) -> Field:
    """The field of this name; "": the only one. Raises MilvusError."""
    schema, record = collection.schema, collection.index.record
    there = {}
    if record.kind.has_dense:
        there[schema.vector_field] = Field(schema.vector_field, False, record.metric)
    if record.kind.has_sparse:
        bm25 = bm25_of(schema, collection.facts)
        texts = None if bm25 is None else Texts(schema.text_analyzer, bm25)
        there[schema.sparse_field] = Field(schema.sparse_field, True, Metric.DOT_PRODUCT, texts)
    if name:
        if name not in there:
            raise not_json(f"cannot find a vector field named: {name}")
        return there[name]
    if record.kind is IndexKind.HYBRID:
        names = ", ".join(there)
        raise not_json(f"search without annsField, but already found multiple vector fields: [{names},,,]")
    return next(iter(there.values()))


def vectors_of(field: Field, data: Sequence[Any], dimensions: int, go_on: Callable[[], None]) -> list[Vector]:
    """What is searched by, as a client sends it: of texts, how often they have each term. ``go_on`` is called between texts, and may raise
    to end it. Raises MilvusError."""
    if field.texts is not None:
        return _counts(field.texts.analyzer, data, go_on)
    try:
        if field.is_sparse:
            return [read_sparse(one) for one in data]
        return [_dense(one, f"data[{place}]", dimensions) for place, one in enumerate(data)]
    except Invalid as error:
        raise not_json(error.detail) from None
    except MilvusError as error:
        if error.code == Code.NOT_JSON:
            raise
        raise not_json(error.detail) from None


def _counts(analyzer: Mapping[str, Any], data: Sequence[Any], go_on: Callable[[], None]) -> list[Vector]:
    for place, given in enumerate(data):
        if not isinstance(given, str):
            shown = (
                DENSE if isinstance(given, list) else SPARSE if isinstance(given, dict) else describe(given)
            )
            raise invalid(f"please provide varchar/text for BM25 Function based search, got {shown}")
        size = len(given) if given.isascii() else len(given.encode())
        # No row's is longer.
        if size > VARCHAR_BYTES_MAX:
            raise invalid(f"data[{place}]: expected a text of at most {VARCHAR_BYTES_MAX} bytes, got {size}")
    counts = term_counts(analyzer_of(analyzer), data, go_on)
    return [counts.row(place) for place in range(len(data))]


def check_by_ids(field: Field) -> None:
    """Raise MilvusError unless the vectors of rows can be searched by: those that are made of texts are not shown, and so not read."""
    if field.texts is not None:
        raise refused(f"not allowed to retrieve raw data of field {field.name}")


def _dense(given: Any, where: str, dimensions: int) -> Matrix:
    if not isinstance(given, list):
        raise not_json(
            f"{where}: expected an array of numbers, got {describe(given)}: invalid parameter"
            f"[expected=FloatVector][actual={describe(given)}]"
        )
    if len(given) != dimensions:
        raise not_json(
            f"dimension: {dimensions}, but length of []float: {len(given)}: invalid parameter"
            f"[expected=FloatVector][actual={describe(given)}]"
        )
    return read_numbers(given, where)


def vector_v1(given: Sequence[Any], dimensions: int) -> Matrix:
    """What v1 searches by, which it does not look at before the engine does. Raises MilvusError."""
    if len(given) != dimensions:
        raise refused(
            f"vector dimension mismatch, expected vector size(byte) {4 * dimensions}, actual {4 * len(given)}."
        )
    try:
        return read_numbers(list(given), "vector")
    except Invalid as error:
        raise not_json(error.detail) from None


def check_nq(number: int, most: int) -> None:
    """Raise MilvusError unless there may be so many vectors in one search."""
    if not 1 <= number <= most:
        raise refused(
            f"nq [{number}] is invalid, nq (number of search vector per search request) should be in range [1, {most}], "
            f"but got {number}"
        )


def check_limit(limit: int, offset: int, most: int) -> None:
    """Raise MilvusError unless a search may find so many rows after so many others."""
    for name, number in (("topk", limit), ("offset", offset), ("offset+topk", limit + offset)):
        if not 1 <= number <= most and not (name == "offset" and number == 0):
            raise refused(
                f"{name} [{number}] is invalid, it should be in range [1, {most}], but got {number}"
            )


def flat_params(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a search, whether they are in ``params`` or beside it. Raises MilvusError if both, and not the same."""
    inner = given.get("params")
    if inner is not None and not isinstance(inner, dict):
        raise invalid("searchParams.params must be a dict")
    flat = dict(inner or {})
    for name, value in given.items():
        if name == "params":
            continue
        if name in flat and flat[name] != value:
            raise invalid(
                f"ambiguous parameter: {name}, in search_param: {describe(value)}, "
                f"in search_param.params: {describe(flat[name])}"
            )
        flat[name] = value
    return flat


def check_metric(field: Field, params: Mapping[str, Any]) -> None:
    """Raise MilvusError if a search is to compare by something else than its field does."""
    for name in ("metricType", "metric_type"):
        given = params.get(name)
        if given and str(given).upper() != field.metric_name:
            raise invalid("metric type not match", field.metric_name, str(given)[:64])


def bounds_of(field: Field, params: Mapping[str, Any]) -> Bounds | None:
    """How near a search is to look; None: at all distances. Raises MilvusError.

    ``radius`` is how far, that itself left out; ``range_filter``, if it is there, how near, that itself included.
    """
    radius, nearest = (_number(name, params.get(name)) for name in ("radius", "range_filter"))
    if radius is None:
        if nearest is not None:
            raise not_json("invalid search params")
        return None
    if field.metric is Metric.EUCLIDEAN:
        if nearest is not None and nearest > radius:
            raise refused("range_filter must less than radius except IP/COSINE")
        return Bounds(furthest=-radius, closest=None if nearest is None else -nearest)
    if nearest is not None and nearest < radius:
        raise refused("range_filter must more than radius when IP/COSINE")
    return Bounds(furthest=radius, closest=nearest)


def _number(name: str, given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise invalid(f"{name} must be a number", "number", describe(given))
    return float(given)


def grouping_of(
    schema: RowSchema, name: str, *, size: int, strict: bool, groups: int, bounds: Bounds | None
) -> Grouping | None:
    """In which groups rows are to be found; None: in none, or each in its own. Raises MilvusError."""
    if not name:
        return None
    if bounds is not None:
        raise invalid("Not allowed to do range-search when doing search-group-by", "", "")
    if size < 0 or size > GROUP_SIZE_MAX:
        raise invalid(
            f"input group size:{size} exceeds configured max group size:{GROUP_SIZE_MAX}"
            if size > 0
            else f"input group size:{size} is negative, failed to do search_groupby"
        )
    if name == schema.id_field:
        return None
    declared = schema.field(name)
    if declared is None:
        if not schema.dynamic or name in (schema.vector_field, schema.sparse_field):
            raise MilvusError(
                Code.FIELD_NOT_FOUND, f"groupBy field not found in schema: field not found[field={name}]"
            )
        name = dynamic_name(name)
    elif declared.type not in GROUPED_BY:
        raise invalid(f"unsupported data type {declared.type} for group by operator")
    if "." in name:
        raise invalid(f"a field whose name contains a dot cannot be grouped by: {name}")
    nothing = None if declared is None else declared.default
    return Grouping(path=name, groups=groups, size=size or 1, strict=strict, nothing=nothing)


def fusion_of(strategy: str, params: Mapping[str, Any], fields: Sequence[Field]) -> How:
    """How searches by these fields are made one. Raises MilvusError."""
    match strategy:
        case "rrf" | "":
            # Whoever names no strategy need not say how.
            if strategy and "k" not in params:
                raise refused("k not found in rank_params")
            k = params.get("k", ByRank().k)
            if isinstance(k, bool) or not isinstance(k, int | float):
                raise refused("The type of rank param k should be float")
            if not RANK_K_MIN < k < RANK_K_MAX:
                raise refused(f"The rank params k should be in range ({RANK_K_MIN}, {RANK_K_MAX})")
            return ByRank(float(k))
        case "weighted":
            return ByScore(
                _weights(params, len(fields)),
                tuple(field.scored for field in fields),
                normalised=_flag("norm_score", params.get("norm_score", True)),
            )
    raise refused(f"unsupported rank type {strategy}")


def _weights(params: Mapping[str, Any], count: int) -> tuple[float, ...]:
    if "weights" not in params:
        raise refused("weights not found in rank_params")
    weights = params["weights"]
    if not isinstance(weights, list):
        raise refused("The weights param should be an array")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or math.isnan(weight):
            raise refused("The type of rank param weight should be float")
        if not 0 <= weight <= 1:
            raise refused("rank param weight should be in range [0, 1]")
    if len(weights) != count:
        raise invalid(
            "the length of weights param mismatch with ann search requests", str(count), str(len(weights))
        )
    return tuple(map(float, weights))


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise invalid(f"{name} must be true or false", "bool", describe(given))
    return given
