"""A mutation in columns: what a door hands to the log, and the log to the drain.

Text is parsed once, at the door; from here on ids are an Arrow array and vectors one float32 matrix, so that nothing
downstream ever sees a JSON float. Encoding is one Arrow IPC stream; decoding is zero-copy over the bytes it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from upwell.columns import decode_batch, encode_batch
from upwell.errors import Corrupt, LineProblem
from upwell.properties import MetadataIndex
from upwell.sparse import Sparse

Matrix = npt.NDArray[np.float32]

#: How many discarded lines a mutation names one by one; beyond it only their count is kept.
DISCARDED_NAMED_MAX = 100


class Operation(StrEnum):
    """What a mutation does: to each of its ids, to rows that it describes, or to the index's properties or namespaces.

    With one more, LOG_ENTRY's version rises: an older worker must leave an entry alone that it does not understand, and not fail it.
    """

    #: Keep what exists, add what does not; of the same id twice in one body the first counts.
    INSERT = "insert"
    #: Replace whole or add; of the same id twice in one body the last counts.
    UPSERT = "upsert"
    #: Change what is given of each row that exists, keep the rest; what does not exist stays so, unless its details say ``adds``. Of
    #: the same id twice in one body each counts, in order.
    UPDATE = "update"
    #: Remove by id; unknown ids are no error.
    DELETE = "delete"
    #: Remove what a selection describes.
    DELETE_MATCHING = "delete-matching"
    #: Remove all rows of a namespace, or of all; namespaces stay.
    RESET = "reset"
    #: Remove a namespace with all its rows; one that is not there is no error.
    DELETE_NAMESPACE = "delete-namespace"
    #: Give a namespace another name. Fails if there is no such namespace, or if the new name is taken.
    RENAME_NAMESPACE = "rename-namespace"
    #: Declare that a property can be filtered by; the same again changes nothing.
    CREATE_METADATA_INDEX = "create-metadata-index"
    #: Take that back; an unknown property is no error.
    DELETE_METADATA_INDEX = "delete-metadata-index"

    @property
    def brings_rows(self) -> bool:
        """Are its rows always whole ones, to be kept? Those of an update may be (Changeset.brings_rows)."""
        return self in (Operation.INSERT, Operation.UPSERT)

    @property
    def names_property(self) -> bool:
        """Is it about a metadata index, and has no rows?"""
        return self in (Operation.CREATE_METADATA_INDEX, Operation.DELETE_METADATA_INDEX)

    @property
    def selects(self) -> bool:
        """Does it remove rows that it describes instead of naming them?"""
        return self in (Operation.DELETE_MATCHING, Operation.RESET, Operation.DELETE_NAMESPACE)


class KeyScope(StrEnum):
    """Within what an id is unique."""

    #: One row per id (Cloudflare): writing an id with another namespace moves it.
    INDEX = "index"
    #: One row per namespace and id (Upstash).
    NAMESPACE = "namespace"
    #: Not decided: the first write that names a namespace decides, by what its door means. Until then no row has one, and what
    #: has none has the same key in either scope.
    OPEN = "open"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(_Frozen):
    """Rows that are described: those for which all that is given holds."""

    #: "": rows without a namespace; None: of any.
    namespace: str | None = None
    prefix: str | None = None
    #: As JSON (shard/filter.py); None: no filter.
    filter: Any = None


class Rename(_Frozen):
    """A namespace's new name. ``delete_existing``: what has the new name already is removed first."""

    namespace: str
    new_namespace: str
    delete_existing: bool = False


class Details(_Frozen):
    """What an operation is told beside its rows."""

    #: Of an operation that selects.
    selection: Selection | None = None
    rename: Rename | None = None
    #: Of an update: is its metadata merged into a row's own (RFC 7396), or put in its place?
    patch: bool = False
    #: Of a patch: are top-level members put in the place of the row's own whole, and not merged into them? Null removes one all the same.
    shallow: bool = False
    #: Of an update whose rows have every vector that their index's rows have: are those added that are not there? They are added as
    #: they are given, as to a row without metadata and data.
    adds: bool = False
    #: Of an update: does it mean only rows in the namespaces that it names, also where an id is unique in the whole index?
    inside: bool = False
    #: Are its vectors still to be made from its data, by a worker?
    embed: bool = False
    #: What its door takes ids to be unique in.
    scope: KeyScope = KeyScope.INDEX
    #: The namespace of all its rows, "" for none; None: it has several, or nobody said.
    namespace: str | None = None


#: Of an operation that is told nothing besides.
NO_DETAILS = Details()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changeset:
    """One mutation's rows, and what was left out of it on purpose.

    ``ids``         Arrow ``utf8``, n values, no nulls, duplicates allowed (their order is their meaning)
    ``vectors``     float32, shape (n, dimensions), C-contiguous; None for rows without dense vectors, and for those yet to be made
    ``sparse``      n sparse vectors; None likewise
    ``namespaces``  Arrow ``utf8`` with nulls for "none", n values; None when no row has one
    ``metadata``    Arrow ``binary`` holding compact JSON objects, nulls for "none", n values; None when no row has any
    ``data``        Arrow ``utf8`` with nulls for "none", n values; None when no row has any
    ``received``    lines, rows or ids that the client sent, the discarded ones included
    ``discarded``   the first DISCARDED_NAMED_MAX lines left out at the client's wish, and why
    ``discarded_count``  how many were left out in all
    ``metadata_index``   what is created or deleted by an operation that names a property; for deleting only its name counts
    """

    operation: Operation
    ids: pa.Array
    vectors: Matrix | None = None
    sparse: Sparse | None = None
    namespaces: pa.Array | None = None
    metadata: pa.Array | None = None
    data: pa.Array | None = None
    received: int
    discarded: tuple[LineProblem, ...] = ()
    discarded_count: int = 0
    metadata_index: MetadataIndex | None = None
    details: Details = NO_DETAILS

    def __post_init__(self) -> None:
        rows = len(self.ids)
        if self.vectors is not None and (
            self.vectors.dtype != np.float32 or self.vectors.shape[:1] != (rows,)
        ):
            raise ValueError(
                f"vectors are {self.vectors.dtype}{self.vectors.shape}, expected float32({rows}, d)"
            )
        for column in (self.namespaces, self.metadata, self.data, self.sparse):
            if column is not None and len(column) != rows:
                raise ValueError(f"a column has {len(column)} rows, expected {rows}")
        self._check_operation()

    def _check_operation(self) -> None:
        if self.details.scope is KeyScope.OPEN:
            raise ValueError("whoever writes says what ids are unique in")
        has_vectors = self.vectors is not None or self.sparse is not None
        self._check_update(has_vectors=has_vectors)
        if self.details.embed and (has_vectors or self.data is None or self.data.null_count):
            raise ValueError("vectors are made from data where there are none yet, and nowhere else")
        fits = {True: has_vectors or self.details.embed, False: not has_vectors}
        if self.operation is not Operation.UPDATE and not fits[self.operation.brings_rows]:
            raise ValueError(f"{self.operation} and vectors do not go together")
        if (self.metadata_index is not None) != self.operation.names_property:
            raise ValueError(f"{self.operation} and a metadata index do not go together")
        if (self.details.selection is not None) != self.operation.selects:
            raise ValueError(f"{self.operation} and a selection do not go together")
        if (self.details.rename is not None) != (self.operation is Operation.RENAME_NAMESPACE):
            raise ValueError(f"{self.operation} and a new name do not go together")

    def _check_update(self, *, has_vectors: bool) -> None:
        """Which vectors a row of its index needs, whoever applies it knows (shard/batch.py)."""
        if self.details.shallow and not self.details.patch:
            raise ValueError("only of a patch can members be put in the place of others whole")
        if self.details.inside and self.operation is not Operation.UPDATE:
            raise ValueError(f"only of an update it is said where the rows lie that {self.operation} means")
        if not self.details.adds:
            return
        if self.operation is not Operation.UPDATE:
            raise ValueError(f"{self.operation} and rows that it may add do not go together")
        if self.details.embed or not has_vectors:
            raise ValueError("an update adds rows only with vectors that it brings")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def brings_rows(self) -> bool:
        """Are its rows whole ones, of which each may be kept as it is?"""
        return self.operation.brings_rows or self.details.adds

    @property
    def vector_bytes(self) -> int:
        """Bytes of its vectors, dense and sparse."""
        return sum(one.nbytes for one in (self.vectors, self.sparse) if one is not None)

    @property
    def nbytes(self) -> int:
        """Roughly how large the encoded columns are, in bytes."""
        columns = (self.ids, self.namespaces, self.metadata, self.data)
        return sum(int(c.nbytes) for c in columns if c is not None) + self.vector_bytes


def encode_columns(changeset: Changeset) -> pa.Buffer:
    """Encode the rows (not ``received`` and ``discarded``) as one Arrow IPC stream."""
    arrays = {"id": changeset.ids, **vector_columns(changeset.vectors, changeset.sparse)}
    if changeset.namespaces is not None:
        arrays["namespace"] = changeset.namespaces
    if changeset.metadata is not None:
        arrays["metadata"] = changeset.metadata
    if changeset.data is not None:
        arrays["data"] = changeset.data
    return encode_batch(arrays)


def decode_columns(
    data: pa.Buffer | bytes | memoryview,
    operation: Operation,
    *,
    received: int,
    discarded: tuple[LineProblem, ...] = (),
    discarded_count: int = 0,
    metadata_index: MetadataIndex | None = None,
    details: Details = NO_DETAILS,
) -> Changeset:
    """Rebuild a changeset over ``data`` without copying its columns. Raises Corrupt."""
    columns = decode_batch(data, "a changeset")
    return Changeset(
        operation=operation,
        ids=columns["id"],
        vectors=dense_in(columns),
        sparse=sparse_in(columns, "a changeset"),
        namespaces=columns.get("namespace"),
        metadata=columns.get("metadata"),
        data=columns.get("data"),
        received=received,
        discarded=discarded,
        discarded_count=discarded_count,
        metadata_index=metadata_index,
        details=details,
    )


def vector_columns(vectors: Matrix | None, sparse: Sparse | None) -> dict[str, pa.Array]:
    """Vectors as columns, those that are there."""
    columns: dict[str, pa.Array] = {}
    if vectors is not None:
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns["values"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    if sparse is not None:
        columns["sparse_indices"], columns["sparse_values"] = sparse.to_arrow()
    return columns


def dense_in(columns: dict[str, pa.Array]) -> Matrix | None:
    """The dense vectors among columns, not copied; None if there are none."""
    values = columns.get("values")
    if values is None:
        return None
    return np.asarray(values.flatten().to_numpy(zero_copy_only=True)).reshape(-1, values.type.list_size)


def sparse_in(columns: dict[str, pa.Array], of: str) -> Sparse | None:
    """The sparse vectors among columns, None if there are none. Raises Corrupt, which says whose they are (``of``)."""
    if "sparse_indices" not in columns:
        return None
    try:
        return Sparse.from_arrow(columns["sparse_indices"], columns["sparse_values"])
    except (ValueError, KeyError) as error:
        raise Corrupt(f"{of}'s sparse vectors cannot be read") from error


def about_property(operation: Operation, metadata_index: MetadataIndex) -> Changeset:
    """A mutation that creates or deletes a metadata index."""
    return Changeset(
        operation=operation, ids=pa.array([], pa.utf8()), received=0, metadata_index=metadata_index
    )


def without_rows(operation: Operation, details: Details) -> Changeset:
    """A mutation of rows that it describes, or of a namespace."""
    return Changeset(operation=operation, ids=pa.array([], pa.utf8()), received=0, details=details)
