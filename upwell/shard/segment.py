"""A segment: rows that one commit added to one shard, with what it takes to find and to search them. Never changed.

meta      {"id", "rows", "dimensions", "metric", "index": "Flat", "shared": is the raw matrix inside the FAISS index?}
sections  "rows"     Arrow IPC stream: id utf8, namespace utf8?, metadata binary?
          "hashes"   uint64 ascending: xxh3_64 of each row's key
          "order"    uint32: the row of each hash
          "faiss"    FLAT_PADDING zero bytes, then the serialised FAISS index. A flat index ends in its float32 matrix, and
                     the padding puts that matrix on a multiple of 64, so that it can be mapped as one.
          "vectors"  float32 (rows, dimensions) as the client sent them; absent if "shared": then it *is* the end of "faiss"

FAISS reads the mapped bytes in place (ZeroCopyIOReader), so an open segment costs no anonymous memory for its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import Buffer

from upwell.changeset import Matrix
from upwell.errors import Corrupt
from upwell.format import Box, Kind, pack, unpack
from upwell.shard.keys import Hashes, KeyScope, Rows, find_hashes, hash_keys, keys_of
from upwell.shard.metric import Metric, searchable

#: A serialised IndexFlat is this many bytes and then its matrix (checked at every build).
FLAT_HEADER_BYTES = 45
FLAT_PADDING = -FLAT_HEADER_BYTES % 64


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """Rows to make a segment of: columns of equal length, each key once.

    ``vectors`` float32 (n, d); ``namespaces`` utf8 with nulls or None; ``metadata`` binary JSON with nulls or None.
    """

    ids: pa.Array
    vectors: Matrix
    namespaces: pa.Array | None
    metadata: pa.Array | None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> SegmentRows:
        """The given rows, in the given order, copied."""
        indices = pa.array(rows)
        return SegmentRows(
            self.ids.take(indices),
            self.vectors[rows],
            None if self.namespaces is None else self.namespaces.take(indices),
            None if self.metadata is None else self.metadata.take(indices),
        )


def concat_rows(parts: Sequence[SegmentRows]) -> SegmentRows:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    return SegmentRows(
        pa.concat_arrays([part.ids for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        _concat_optional([part.namespaces for part in parts], parts, pa.utf8()),
        _concat_optional([part.metadata for part in parts], parts, pa.binary()),
    )


def _concat_optional(
    columns: Sequence[pa.Array | None], parts: Sequence[SegmentRows], kind: pa.DataType
) -> pa.Array | None:
    if all(column is None for column in columns):
        return None
    filled = (
        pa.nulls(len(part), kind) if column is None else column
        for column, part in zip(columns, parts, strict=True)
    )
    return pa.concat_arrays(list(filled))


def encode_segment(segment_id: str, rows: SegmentRows, metric: Metric, scope: KeyScope) -> list[Buffer]:
    """A segment's bytes. Builds its FAISS index: a matter of seconds for large ones."""
    hashes = hash_keys(keys_of(rows.ids, rows.namespaces, scope))
    order = np.argsort(hashes, kind="stable").astype(np.uint32)
    vectors = np.ascontiguousarray(rows.vectors)
    searched = searchable(metric, vectors)
    shared = searched is vectors
    sections: list[tuple[str, list[Buffer]]] = [
        ("rows", [_encode_row_columns(rows)]),
        ("hashes", [hashes[order].data]),
        ("order", [order.data]),
        ("faiss", [bytes(FLAT_PADDING), _flat_header(searched, metric), searched.data]),
    ]
    if not shared:
        sections.append(("vectors", [vectors.data]))
    meta = {
        "id": segment_id,
        "rows": len(rows),
        "dimensions": vectors.shape[1],
        "metric": metric,
        "index": "Flat",
        "shared": shared,
    }
    return pack(Kind.SEGMENT, meta, sections)


def _flat_header(vectors: Matrix, metric: Metric) -> bytes:
    """The first bytes of ``IndexFlat`` over ``vectors``: FAISS writes them for one row, and the two counts are patched.

    So the matrix is handed to the disk as it is, instead of being copied into an index and out of it again.
    """
    index = faiss.IndexFlat(vectors.shape[1], metric.faiss_metric)
    index.add(vectors[:1])
    one = faiss.serialize_index(index).tobytes()
    if len(one) != FLAT_HEADER_BYTES + vectors[:1].nbytes:
        raise Corrupt("this FAISS lays a flat index out in another way than Upwell knows", got=len(one))
    header = bytearray(one[:FLAT_HEADER_BYTES])
    # "IxFI" d:int32 ntotal:int64 …  and, last before the matrix, its length in float32 words:uint64
    header[8:16] = len(vectors).to_bytes(8, "little")
    header[-8:] = vectors.size.to_bytes(8, "little")
    return bytes(header)


def _encode_row_columns(rows: SegmentRows) -> pa.Buffer:
    columns: dict[str, pa.Array] = {"id": rows.ids}
    if rows.namespaces is not None and rows.namespaces.null_count < len(rows):
        columns["namespace"] = rows.namespaces
    if rows.metadata is not None and rows.metadata.null_count < len(rows):
        columns["metadata"] = rows.metadata
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


class Segment:
    """An open segment. Immutable and safe to share between threads; its bytes stay readable while it is held."""

    def __init__(self, data: memoryview) -> None:
        """Open a segment's bytes. Sections are verified when first used. Raises Corrupt."""
        self._box: Box = unpack(data, Kind.SEGMENT)
        meta: dict[str, Any] = self._box.meta
        self.id: str = meta["id"]
        self.rows: int = meta["rows"]
        self.dimensions: int = meta["dimensions"]
        self.metric = Metric(meta["metric"])
        self._shared: bool = meta["shared"]

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        with pa.ipc.open_stream(pa.py_buffer(self._box.section("rows"))) as stream:
            batch = stream.read_next_batch()
        return dict(zip(batch.schema.names, batch.columns, strict=True))

    @property
    def ids(self) -> pa.Array:
        """utf8, one per row."""
        return self._columns["id"]

    @property
    def namespaces(self) -> pa.Array | None:
        """utf8 with nulls, or None when no row has a namespace."""
        return self._columns.get("namespace")

    @property
    def metadata(self) -> pa.Array | None:
        """JSON as binary with nulls, or None when no row has metadata."""
        return self._columns.get("metadata")

    @cached_property
    def _faiss_bytes(self) -> memoryview:
        return self._box.section("faiss")

    @cached_property
    def vectors(self) -> Matrix:
        """float32 (rows, dimensions) as sent, mapped, read-only."""
        raw = (
            self._faiss_bytes[FLAT_PADDING + FLAT_HEADER_BYTES :]
            if self._shared
            else self._box.section("vectors")
        )
        return np.frombuffer(raw, dtype=np.float32).reshape(self.rows, self.dimensions)

    @cached_property
    def index(self) -> Any:
        """The FAISS index over ``searchable`` vectors, reading the mapped bytes in place."""
        data = np.frombuffer(self._faiss_bytes, dtype=np.uint8)[FLAT_PADDING:]
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.nbytes)
        index = faiss.read_index(reader)
        if index.ntotal != self.rows or index.d != self.dimensions:
            raise Corrupt("a segment's FAISS index does not fit its rows", segment=self.id)
        # The index points into these bytes without owning them: they live as long as this segment.
        self._index_bytes = (data, reader)
        return index

    @cached_property
    def _hashes(self) -> tuple[Hashes, npt.NDArray[np.uint32]]:
        hashes = np.frombuffer(self._box.section("hashes"), dtype=np.uint64)
        return hashes, np.frombuffer(self._box.section("order"), dtype=np.uint32)

    def find(self, keys: list[bytes], hashes: Hashes, scope: KeyScope) -> tuple[Rows, Rows]:
        """Which of ``keys`` are here: (places in ``keys``, their rows), both ascending in place. Deleted rows included."""
        asked, rows = find_hashes(*self._hashes, hashes)
        if len(asked) == 0:
            return asked, rows
        taken = pa.array(rows)
        namespaces = None if self.namespaces is None else self.namespaces.take(taken)
        found = keys_of(self.ids.take(taken), namespaces, scope)
        same = np.fromiter(
            (keys[a] == key for a, key in zip(asked.tolist(), found, strict=True)), bool, len(asked)
        )
        return asked[same], rows[same]

    def take(self, rows: Rows) -> SegmentRows:
        """Copies of the given rows."""
        everything = SegmentRows(self.ids, self.vectors, self.namespaces, self.metadata)
        return everything.take(rows)

    def in_namespace(self, namespace: str) -> npt.NDArray[np.bool_]:
        """Which rows are in ``namespace``: bool (rows,)."""
        if self.namespaces is None:
            return np.zeros(self.rows, dtype=bool)
        return np.asarray(
            pc.fill_null(pc.equal(self.namespaces, namespace), False).to_numpy(zero_copy_only=False)
        )
