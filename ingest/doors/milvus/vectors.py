"""The types of vectors, and sparse ones as Milvus writes them: ``{"1": 0.5, "7": 1}``, or ``{"indices": [1, 7], "values": [0.5, 1]}``.

Dimensions of sparse vectors are unsigned there and signed here, both of 32 bits: the upper half is kept as negative ones, and shown as it came.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.body.floats import read_numbers
from ingest.doors.milvus.errors import MilvusError
from ingest.doors.milvus.values import refuse
from upwell.errors import Invalid

#: As Milvus calls them.
DENSE: Final = "FloatVector"
SPARSE: Final = "SparseFloatVector"
#: The first that is none.
INDEX_END: Final = (1 << 32) - 1
_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)

SparseRow = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def read_sparse(given: Any) -> SparseRow:
    """Indices, ascending, and their values. Raises MilvusError."""
    if not isinstance(given, dict):
        raise refuse(SPARSE, given, "expected an object")
    indices, values = given.get("indices"), given.get("values")
    if isinstance(indices, list) != isinstance(values, list):
        raise refuse(SPARSE, given, "invalid JSON input")
    if not (isinstance(indices, list) and isinstance(values, list)):
        indices, values = [_of_digits(name, given) for name in given], list(given.values())
    if len(indices) != len(values):
        raise refuse(SPARSE, given, "indices and values length mismatch")
    try:
        numbers = read_numbers(values, "values")
    except Invalid as error:
        raise refuse(SPARSE, given, error.detail) from None
    unsigned = np.array([_index(one, given) for one in indices], np.uint32)
    order = np.argsort(unsigned, kind="stable")
    unsigned = unsigned[order]
    if (unsigned[1:] == unsigned[:-1]).any():
        raise refuse(SPARSE, given, "unsorted or same indices in sparse float vector")
    return unsigned.view(np.int32), numbers[order]


def _of_digits(name: str, given: Any) -> int:
    if not _DIGITS.fullmatch(name):
        raise refuse(SPARSE, given, f'strconv.ParseUint: parsing "{name[:32]}": invalid syntax')
    return int(name)


def _index(one: Any, given: Any) -> int:
    if isinstance(one, float) and one.is_integer():
        one = int(one)
    if isinstance(one, bool) or not isinstance(one, int):
        raise _wrong_index(one, given, "invalid index type in JSON")
    if one < 0:
        raise _wrong_index(one, given, "negative index in JSON")
    if one >= INDEX_END:
        raise _wrong_index(one, given, "index too large in JSON")
    return one


def _wrong_index(one: Any, given: Any, says: str) -> MilvusError:
    return refuse(SPARSE, given, f"{says}: {str(one)[:32]}")
