"""What a segment knows of its namespaces: how many rows each has, and which of them was written last.

    Arrow IPC stream: name utf8 ("" for rows without a namespace), rows int64, last uint32: the row with the largest sequence

So counting a namespace, and numbering what is written into it next, looks at a few numbers per segment and not at its rows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.columns import decode_batch, encode_batch
from upwell.shard.rows import Sequenced


class Space(NamedTuple):
    """One namespace's part of a segment: its rows, deleted ones included, and the row written last."""

    rows: int
    last: int


def spaces_of(namespaces: pa.Array | None, sequence: Sequenced) -> dict[str, Space]:
    """The namespaces of rows, with those of none as ""."""
    if len(sequence) == 0:
        return {}
    if namespaces is None or namespaces.null_count == len(namespaces):
        return {"": Space(len(sequence), int(np.argmax(sequence)))}
    found = pc.fill_null(namespaces, "").dictionary_encode()
    codes = found.indices.to_numpy().astype(np.int64)
    order = np.lexsort((sequence, codes))
    counts = np.bincount(codes, minlength=len(found.dictionary))
    ends = np.cumsum(counts) - 1
    return {
        name: Space(int(counts[code]), int(order[ends[code]]))
        for code, name in enumerate(found.dictionary.to_pylist())
    }


def in_space(namespaces: pa.Array | None, rows: int, identity: str) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` rows are in a namespace, or ("") in none: bool (rows,)."""
    if namespaces is None:
        return np.full(rows, not identity)
    same = pc.equal(namespaces, pa.scalar(identity, pa.utf8())) if identity else namespaces.is_null()
    return np.asarray(pc.fill_null(same, False).to_numpy(zero_copy_only=False))


def in_any_space(namespaces: pa.Array, identities: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which rows are in any of some namespaces: bool (rows,). However many there are, it takes as long as some six of them one by one."""
    wanted = pa.array(identities, pa.utf8())
    found = pc.is_in(pc.fill_null(namespaces, ""), value_set=wanted)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def counts_of(namespaces: pa.Array | None, rows: int) -> dict[str, int]:
    """How many of ``rows`` rows each namespace has."""
    if rows == 0:
        return {}
    if namespaces is None:
        return {"": rows}
    counted = pc.fill_null(namespaces, "").value_counts()
    return {one["values"]: one["counts"] for one in counted.to_pylist()}


def sums_of(namespaces: pa.Array | None, numbers: npt.NDArray[np.float64]) -> dict[str, float]:
    """The sum of the numbers of each namespace's rows."""
    if namespaces is None:
        return {"": float(numbers.sum())}
    found = pc.fill_null(namespaces, "").dictionary_encode()
    sums = np.bincount(found.indices.to_numpy(), weights=numbers)
    return dict(zip(found.dictionary.to_pylist(), sums.tolist(), strict=True))


def encode_spaces(spaces: dict[str, Space]) -> pa.Buffer:
    """The bytes of a segment's namespaces."""
    return encode_batch(
        {
            "name": pa.array(list(spaces), pa.utf8()),
            "rows": pa.array([one.rows for one in spaces.values()], pa.int64()),
            "last": pa.array([one.last for one in spaces.values()], pa.uint32()),
        }
    )


def decode_spaces(data: memoryview) -> dict[str, Space]:
    """The inverse of ``encode_spaces``. Raises Corrupt."""
    columns = decode_batch(data, "a segment's namespaces")
    names, rows, last = (columns[name].to_pylist() for name in ("name", "rows", "last"))
    return {name: Space(count, row) for name, count, row in zip(names, rows, last, strict=True)}
