"""A row as JSON, wherever this door shows whole ones: in what is fetched, exported, and told of a mutation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

#: As ``orjson.dumps`` is to write rows: numbers are the shortest that read back as the same float32.
ROW_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE

SparseVector = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def row_result(
    id: str,
    *,
    values: npt.NDArray[np.float32] | None,
    sparse: SparseVector | None,
    namespace: str | None,
    metadata: bytes | None,
    data: str | None,
) -> dict[str, Any]:
    """A row with everything that it has. Sparse vectors and data, which Cloudflare does not have, are called as at Upstash."""
    shown: dict[str, Any] = {"id": id}
    if values is not None and values.size:
        shown["values"] = values
    if sparse is not None:
        indices, numbers = sparse
        shown["sparseVector"] = {"indices": indices, "values": numbers}
    if namespace is not None:
        shown["namespace"] = namespace
    if metadata is not None:
        shown["metadata"] = orjson.Fragment(metadata)
    if data is not None:
        shown["data"] = data
    return shown
