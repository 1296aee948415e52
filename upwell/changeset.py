"""A mutation in columns: what a door hands to the log, and the log to the drain.

Text is parsed once, at the door; from here on ids are an Arrow array and vectors one float32 matrix, so that nothing
downstream ever sees a JSON float. Encoding is one Arrow IPC stream; decoding is zero-copy over the bytes it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.columns import decode_batch, encode_batch
from upwell.errors import LineProblem
from upwell.properties import MetadataIndex

Matrix = npt.NDArray[np.float32]

#: How many discarded lines a mutation names one by one; beyond it only their count is kept.
DISCARDED_NAMED_MAX = 100


class Operation(StrEnum):
    """What a mutation does: to each of its ids, or to the index's properties.

    With one more, LOG_ENTRY's version rises: an older worker must leave an entry alone that it does not understand, and not fail it.
    """

    #: Keep what exists, add what does not; of the same id twice in one body the first counts.
    INSERT = "insert"
    #: Replace whole or add; of the same id twice in one body the last counts.
    UPSERT = "upsert"
    #: Remove by id; unknown ids are no error.
    DELETE = "delete"
    #: Declare that a property can be filtered by; the same again changes nothing.
    CREATE_METADATA_INDEX = "create-metadata-index"
    #: Take that back; an unknown property is no error.
    DELETE_METADATA_INDEX = "delete-metadata-index"

    @property
    def brings_vectors(self) -> bool:
        """Are its rows vectors?"""
        return self in (Operation.INSERT, Operation.UPSERT)

    @property
    def names_property(self) -> bool:
        """Is it about a metadata index, and has no rows?"""
        return self in (Operation.CREATE_METADATA_INDEX, Operation.DELETE_METADATA_INDEX)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changeset:
    """One mutation's rows, and what was left out of it on purpose.

    ``ids``         Arrow ``utf8``, n values, no nulls, duplicates allowed (their order is their meaning)
    ``vectors``     float32, shape (n, dimensions), C-contiguous; None unless the operation brings vectors
    ``namespaces``  Arrow ``utf8`` with nulls for "none", n values; None when no row has one
    ``metadata``    Arrow ``binary`` holding compact JSON objects, nulls for "none", n values; None when no row has any
    ``received``    lines, rows or ids that the client sent, the discarded ones included
    ``discarded``   the first DISCARDED_NAMED_MAX lines left out at the client's wish, and why
    ``discarded_count``  how many were left out in all
    ``metadata_index``   what is created or deleted by an operation that names a property; for deleting only its name counts
    """

    operation: Operation
    ids: pa.Array
    vectors: Matrix | None = None
    namespaces: pa.Array | None = None
    metadata: pa.Array | None = None
    received: int
    discarded: tuple[LineProblem, ...] = ()
    discarded_count: int = 0
    metadata_index: MetadataIndex | None = None

    def __post_init__(self) -> None:
        rows = len(self.ids)
        if self.vectors is not None and (
            self.vectors.dtype != np.float32 or self.vectors.shape[:1] != (rows,)
        ):
            raise ValueError(
                f"vectors are {self.vectors.dtype}{self.vectors.shape}, expected float32({rows}, d)"
            )
        for column in (self.namespaces, self.metadata):
            if column is not None and len(column) != rows:
                raise ValueError(f"a column has {len(column)} rows, expected {rows}")
        if (self.vectors is not None) != self.operation.brings_vectors:
            raise ValueError(f"{self.operation} and vectors do not go together")
        if (self.metadata_index is not None) != self.operation.names_property:
            raise ValueError(f"{self.operation} and a metadata index do not go together")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Roughly how large the encoded columns are, in bytes."""
        columns = (self.ids, self.namespaces, self.metadata)
        return sum(int(c.nbytes) for c in columns if c is not None) + (
            0 if self.vectors is None else self.vectors.nbytes
        )


def encode_columns(changeset: Changeset) -> pa.Buffer:
    """Encode the rows (not ``received`` and ``discarded``) as one Arrow IPC stream."""
    arrays: dict[str, pa.Array] = {"id": changeset.ids}
    if changeset.vectors is not None:
        flat = pa.array(np.ascontiguousarray(changeset.vectors).reshape(-1))
        arrays["values"] = pa.FixedSizeListArray.from_arrays(flat, changeset.vectors.shape[1])
    if changeset.namespaces is not None:
        arrays["namespace"] = changeset.namespaces
    if changeset.metadata is not None:
        arrays["metadata"] = changeset.metadata
    return encode_batch(arrays)


def decode_columns(
    data: pa.Buffer | bytes | memoryview,
    operation: Operation,
    *,
    received: int,
    discarded: tuple[LineProblem, ...] = (),
    discarded_count: int = 0,
    metadata_index: MetadataIndex | None = None,
) -> Changeset:
    """Rebuild a changeset over ``data`` without copying its columns. Raises Corrupt."""
    columns = decode_batch(data, "a changeset")
    vectors: Matrix | None = None
    if "values" in columns:
        values = columns["values"]
        vectors = values.flatten().to_numpy(zero_copy_only=True).reshape(len(values), values.type.list_size)
    return Changeset(
        operation=operation,
        ids=columns["id"],
        vectors=vectors,
        namespaces=columns.get("namespace"),
        metadata=columns.get("metadata"),
        received=received,
        discarded=discarded,
        discarded_count=discarded_count,
        metadata_index=metadata_index,
    )


def about_property(operation: Operation, metadata_index: MetadataIndex) -> Changeset:
    """A mutation that creates or deletes a metadata index."""
    return Changeset(
        operation=operation, ids=pa.array([], pa.utf8()), received=0, metadata_index=metadata_index
    )
