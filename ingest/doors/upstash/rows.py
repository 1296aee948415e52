"""What a vector has as a client sends it: numbers, metadata and data, of which a mistake is named and nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from ingest.body import Rules
from ingest.body.floats import read_numbers
from ingest.body.precise import describe
from ingest.doors.upstash.errors import DENSE_REQUIRED, SPARSE_REQUIRED, wrong_dimensions
from ingest.doors.upstash.fields import Fields
from upwell.errors import Invalid
from upwell.kinds import IndexKind

SparseRow = tuple[list[int], list[float]]

_INTEGERS: Final = frozenset((int,))
_INT32: Final = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the index takes, and how much of it."""

    kind: IndexKind
    dimensions: int
    #: Can it make vectors of text?
    embeds: bool
    rules: Rules
    sparse_max: int


def read_dense(fields: Fields, dimensions: int) -> npt.NDArray[np.float32] | None:
    """``vector``: float32 (dimensions,); None if there is none."""
    given = fields.get("vector")
    if given is None:
        return None
    if not isinstance(given, list | np.ndarray):
        raise Invalid(f"vector: expected an array of numbers, got {describe(given)}")
    numbers = read_numbers(given, "vector")
    if len(given) != dimensions:
        raise Invalid(wrong_dimensions(len(given), dimensions))
    return numbers


def read_sparse(fields: Fields, entries_max: int) -> SparseRow | None:
    """``sparseVector``: indices in any order, repeated or not, and a value for each; None if there is none."""
    given = fields.get("sparseVector")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise Invalid(f"sparseVector: expected an object with indices and values, got {describe(given)}")
    indices, values = (_numbers_at(given, name) for name in ("indices", "values"))
    if len(indices) != len(values):
        raise Invalid(
            f"sparseVector: expected as many values as indices, got {len(indices)} indices and {len(values)} values"
        )
    if len(indices) > entries_max:
        raise Invalid(
            f"sparseVector: expected at most {entries_max} values that are not zero, got {len(indices)}"
        )
    _check_int32(indices)
    read_numbers(values, "sparseVector.values")
    return indices, values


def _numbers_at(given: dict[str, Any], name: str) -> list[Any]:
    numbers = given.get(name)
    if not isinstance(numbers, list):
        got = "nothing" if numbers is None else describe(numbers)
        raise Invalid(f"sparseVector.{name}: expected an array of numbers, got {got}")
    return numbers


def _check_int32(indices: list[Any]) -> None:
    if _INTEGERS.issuperset(map(type, indices)) and (
        not indices or (_INT32.min <= min(indices) and max(indices) <= _INT32.max)
    ):
        return
    for place, index in enumerate(indices):
        if isinstance(index, bool) or not isinstance(index, int) or not _INT32.min <= index <= _INT32.max:
            raise Invalid(
                f"sparseVector.indices[{place}]: expected an integer of 32 bits, got {describe(index)}"
            )


def read_metadata(fields: Fields, bytes_max: int) -> bytes | None:
    """``metadata`` as compact JSON; None if there is none."""
    given = fields.get("metadata")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise Invalid(f"metadata: expected an object, got {describe(given)}")
    try:
        compact = orjson.dumps(given)
    except orjson.JSONEncodeError:
        # It reads what is nested deeper than what it writes.
        raise Invalid("metadata: expected JSON that is not nested so deeply") from None
    if len(compact) > bytes_max:
        raise Invalid(f"metadata: expected at most {bytes_max} bytes as compact JSON, got {len(compact)}")
    return compact


def read_data(fields: Fields, bytes_max: int) -> str | None:
    """``data``; None if there is none."""
    given = fields.get("data")
    if given is None:
        return None
    if not isinstance(given, str):
        raise Invalid(f"data: expected a string, got {describe(given)}")
    size = len(given.encode())
    if size > bytes_max:
        raise Invalid(f"data: expected at most {bytes_max} bytes, got {size}")
    return given


def check_kind(kind: IndexKind, *, dense: bool, sparse: bool) -> None:
    """Raise Invalid unless there are just the vectors that a row of such an index has."""
    if kind.has_dense and not dense:
        raise Invalid(DENSE_REQUIRED)
    if kind.has_sparse and not sparse:
        raise Invalid(SPARSE_REQUIRED)
    check_no_others(kind, dense=dense, sparse=sparse)


def check_no_others(kind: IndexKind, *, dense: bool, sparse: bool) -> None:
    """Raise Invalid if there are vectors that a row of such an index has not."""
    if dense and not kind.has_dense:
        raise Invalid(f"{SPARSE_REQUIRED}; vector must not be set")
    if sparse and not kind.has_sparse:
        raise Invalid(f"{DENSE_REQUIRED}; sparseVector must not be set")
