"""Rows as answers show them: flat objects, with every value as the field's type has it.

Numbers of vectors never become Python objects, and have the shortest digits that read back as the same float32; so have distances and
fields of type Float. JSON fields are the JSON itself, as Milvus's are from 3.0.1 on (``proxy.http.nativeJSONResponse``), or strings that hold
it, as before (``milvus_json_as_text``). What is declared and not there is its default, or null. Any other member is shown as it is kept,
null too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from ingest.doors.milvus.output_fields import Shown
from ingest.large import encode
from upwell.query.lookup import Found
from upwell.query.search import Match
from upwell.schema import FieldType, IdType, ScalarField
from upwell.shard.metric import Metric

DISTANCE: Final = "distance"
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_FLOAT32_MOST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Style:
    """How values are written: as a client and the server's settings want them."""

    ids: IdType
    #: Integers of 64 bits as strings.
    int64_as_text: bool = False
    json_as_text: bool = False

    def id(self, text: str) -> int | str:
        """An id."""
        if self.ids is IdType.TEXT or self.int64_as_text or not _INTEGER.fullmatch(text):
            return text
        return int(text)

    def field(self, field: ScalarField, value: Any) -> Any:
        """A field's value. One that is not of its type, as other doors may have written it, stays what it is."""
        if value is None:
            return None
        match field.type:
            case FieldType.JSON:
                return orjson.dumps(value).decode() if self.json_as_text else value
            case FieldType.ARRAY if isinstance(value, list):
                return [self._scalar(field.element, one) for one in value]
            case _:
                return self._scalar(field.type, value)

    def _scalar(self, kind: FieldType | None, value: Any) -> Any:
        if kind is FieldType.INT64 and self.int64_as_text and type(value) is int:
            return str(value)
        if kind is FieldType.FLOAT and type(value) in (int, float) and abs(value) <= _FLOAT32_MOST:
            return np.float32(value)
        return value


def row_of(found: Found, shown: Shown, style: Style) -> dict[str, Any]:
    """A row."""
    row: dict[str, Any] = {shown.id_name: style.id(found.id)}
    if shown.needs_metadata:
        text = found.metadata
        members = {} if text is None else orjson.loads(text)
        for field in shown.fields:
            value = members.get(field.name)
            row[field.name] = style.field(field, field.default if value is None else value)
        if shown.all_others:
            row |= {name: value for name, value in members.items() if name not in shown.taken}
        elif shown.others:
            row |= {name: value for name, value in members.items() if name in shown.others}
    if shown.vector is not None:
        row[shown.vector] = found.values
    if shown.sparse is not None and (sparse := found.sparse) is not None:
        row[shown.sparse] = orjson.Fragment(sparse_text(*sparse))
    return row


def least_bytes(shown: Shown, dimensions: int) -> int:
    """No row has fewer bytes, whose dense vector has so many dimensions."""
    row: dict[str, Any] = {shown.id_name: 0} | {one.name: 0 for one in shown.fields}
    if shown.vector is not None:
        row[shown.vector] = [0] * dimensions
    return len(encode(row))


def hit_of(match: Match, shown: Shown, style: Style, distance: Callable[[float], float]) -> dict[str, Any]:
    """A row that was found, with its distance."""
    row = row_of(match.found, shown, style)
    row[DISTANCE] = np.float32(distance(match.closeness))
    return row


def distance_of(metric: Metric) -> Callable[[float], float]:
    """What Milvus calls the distance of a closeness: of L2 the smaller the closer, of the others the larger."""
    sign = -1.0 if metric is Metric.EUCLIDEAN else 1.0

    def of(closeness: float) -> float:
        # Added to zero: there is no zero below zero.
        return min(max(0.0 + sign * closeness, -_FLOAT32_MOST), _FLOAT32_MOST)

    return of


def sparse_text(indices: npt.NDArray[np.int32], values: npt.NDArray[np.float32]) -> bytes:
    """A sparse vector as ``{"index": value}``, by ascending index; one that it has twice, as other doors allow, with the sum."""
    if len(indices) == 0:
        return b"{}"
    # Milvus's are unsigned: see ``vectors.py``.
    unique, place = np.unique(np.ascontiguousarray(indices).view(np.uint32), return_inverse=True)
    sums = np.bincount(place, weights=values.astype(np.float64), minlength=len(unique))
    numbers = encode(np.clip(sums, -_FLOAT32_MOST, _FLOAT32_MOST).astype(np.float32))[1:-1].split(b",")
    pairs = zip(unique.tolist(), numbers, strict=True)
    return b"{" + b",".join(b'"%d":%s' % pair for pair in pairs) + b"}"
