"""A segment: rows of one shard, with what it takes to find and to search them. Never changed.

meta      {"id", "rows", "dimensions", "metric", "index": FAISS's name of it, "shared": is the raw matrix inside the FAISS index?,
          "trust": what the index was measured to need (ann.py); null for one that is exact}
sections  "rows"     Arrow IPC stream: id utf8, namespace utf8?, metadata binary?, data utf8?, sparse_indices and sparse_values
                     (lists of int32 and float32) in an index that has sparse vectors
          "hashes"   uint64 ascending: xxh3_64 of each row's key
          "order"    uint32: the row of each hash
          "faiss"    FLAT_PADDING zero bytes, then the serialised FAISS index. A flat index ends in its float32 matrix, and
                     the padding puts that matrix on a multiple of 64, so that it can be mapped as one.
          "vectors"  float32 (rows, dimensions) as the client sent them; absent if "shared": then it *is* the end of "faiss"
          "spread"   float32 (rows,): each row's distance from the centre of its list; absent if the index is exact
          "sums"     uint64: a checksum of each block of "vectors" (blocks.py). Format 1 has none.
          "written"  uint64 (rows,): which mutation wrote each row (rows.py). Formats 1 and 2 have none.
          "sequence" uint64 (rows,): which row of its namespace each was (rows.py). Formats 1 to 3 have none, nor
          "spaces"   the segment's namespaces (spaces.py)
          "terms", "starts", "posting_rows", "posting_values": sparse vectors turned round (postings.py), where there are any
          "property:" and a path: that property as a column (property.py), for those that had an index when the segment was written

Few rows are held flat, and compared one by one. More have codes in inverted lists, and lie in the order of those lists, so that
what a query looks at lies together. FAISS reads a flat index in place (ZeroCopyIOReader), and copies
codes: an open segment costs no anonymous memory for its vectors, and a byte for about every 32 of theirs for its codes. A segment
of a sparse index has dimensions 0, and no FAISS index at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import KeyScope, Matrix, sparse_in
from upwell.columns import decode_batch
from upwell.errors import Corrupt
from upwell.format import Box, Kind, pack, unpack
from upwell.manifest import SegmentRef
from upwell.recent import Recent
from upwell.shard.ann import Built, Lists, Trust, build, largest, wants_index
from upwell.shard.blocks import BlockChecked, block_sums, rows_per_block
from upwell.shard.flat import FLAT_HEADER_BYTES, FLAT_PADDING, flat_header
from upwell.shard.identified import IntegerIds
from upwell.shard.keys import Hashes, Rows, find_hashes, hash_keys, keys_of
from upwell.shard.metric import Metric, searchable
from upwell.shard.postings import Postings
from upwell.shard.property import (
    ElementsColumn,
    PropertyColumn,
    columns_of,
    decode_property,
    elements_of,
    encode_property,
)
from upwell.shard.rows import SegmentRows, Sequenced, Written, encode_columns
from upwell.shard.spaces import Space, decode_spaces, encode_spaces, in_space, spaces_of
from upwell.shard.vectors import CHUNK_BYTES, Vectors
from upwell.sparse import Sparse
from upwell.streamed import Part, Streamed, nbytes_of

#: How many namespaces' rows a segment remembers, one bit a row.
NAMESPACES_KEPT = 16
#: How many properties' columns a segment keeps open: 5 to 13 bytes a row for one that had to be read from metadata.
PROPERTIES_KEPT = 16
PROPERTY = "property:"

N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A segment to be written: how a manifest names it, its bytes, and the order in which it holds the rows it was made of.

    ``order`` None: as they were given; else its row i is row ``order[i]`` of them.
    """

    ref: SegmentRef
    parts: list[Part]
    order: Rows | None


def encode_segment(
    segment_id: str,
    rows: SegmentRows,
    metric: Metric,
    scope: KeyScope,
    *,
    lists: int = 1,
    properties: Sequence[str] = (),
    alive: Callable[[], None] = lambda: None,
) -> Encoded:
    """A segment's bytes. Builds its FAISS index: seconds per million rows, and more of them the more lists it is to have.

    ``properties`` are the paths that get columns. ``alive`` is called now and then, and may raise to end it.
    """
    built = None
    indexed = wants_index(len(rows), rows.vectors.dimensions, lists)
    if indexed:
        built = build(rows.vectors, metric, lists, alive)
    if built is not None:
        rows = rows.take(built.order)
    hashes = hash_keys(keys_of(rows.ids, rows.namespaces, scope))
    order = np.argsort(hashes, kind="stable").astype(np.uint32)
    sections: list[tuple[str, list[Part]]] = [
        ("rows", [encode_columns(rows)]),
        ("hashes", [hashes[order].data]),
        ("order", [order.data]),
        ("written", [rows.written.data]),
        ("sequence", [rows.sequence.data]),
        ("spaces", [encode_spaces(spaces_of(rows.namespaces, rows.sequence))]),
    ]
    if rows.sparse is not None:
        sections += [(name, list[Part](parts)) for name, parts in Postings.build(rows.sparse).sections()]
    for path, column in zip(properties, columns_of(rows.metadata, len(rows), properties), strict=True):
        sections.append((PROPERTY + path, [encode_property(column)]))
    searched, shared = (
        _flat_sections(rows.vectors, metric) if built is None else _coded_sections(built, rows.vectors)
    )
    meta = {
        "id": segment_id,
        "rows": len(rows),
        "dimensions": rows.vectors.dimensions,
        "metric": metric,
        "index": "Flat" if built is None else built.kind,
        "shared": shared,
        "trust": None if built is None else built.trust.to_json(),
    }
    parts = pack(Kind.SEGMENT, meta, sections + searched)
    ref = SegmentRef(id=segment_id, rows=len(rows), nbytes=nbytes_of(parts), lists=lists if indexed else 0)
    return Encoded(ref, parts, None if built is None else built.order)


def _flat_sections(held: Vectors, metric: Metric) -> tuple[list[tuple[str, list[Part]]], bool]:
    if held.dimensions == 0:
        return [], False
    vectors = np.ascontiguousarray(held.read())
    searched = searchable(metric, vectors)
    faiss_parts: list[Part] = [bytes(FLAT_PADDING), flat_header(searched, metric), searched.data]
    if searched is vectors:
        return [("faiss", faiss_parts)], True
    sums = block_sums(iter([vectors]), held.dimensions)
    return [("faiss", faiss_parts), ("vectors", [vectors.data]), ("sums", [sums.blocks.data])], False


def _coded_sections(built: Built, vectors: Vectors) -> tuple[list[tuple[str, list[Part]]], bool]:
    block = rows_per_block(vectors.dimensions)
    step = block * max(1, CHUNK_BYTES // (block * vectors.row_bytes))
    sums = block_sums(vectors.chunks(step), vectors.dimensions)
    raw = Streamed(vectors.nbytes, sums.whole, lambda: (chunk.data for chunk in vectors.chunks(step)))
    faiss_parts: list[Part] = [bytes(FLAT_PADDING), built.serialised().data]
    return [
        ("faiss", faiss_parts),
        ("spread", [built.spread.data]),
        ("vectors", [raw]),
        ("sums", [sums.blocks.data]),
    ], False


class Segment:
    """An open segment. Immutable and safe to share between threads; its bytes stay readable while it is held."""

    def __init__(self, data: memoryview, key: str = "") -> None:
        """Open a segment's bytes, which the store calls ``key``. Sections are verified when first used. Raises Corrupt."""
        self._box: Box = unpack(data, Kind.SEGMENT, key)
        with self._box.understood():
            self._read_meta(self._box.meta)
        self._in_namespace = Recent[str, npt.NDArray[np.uint8]](NAMESPACES_KEPT)
        self._properties = Recent[str, PropertyColumn](PROPERTIES_KEPT)
        self._elements = Recent[str, ElementsColumn](PROPERTIES_KEPT)

    def _read_meta(self, meta: dict[str, Any]) -> None:
        self.id: str = meta["id"]
        self.rows: int = meta["rows"]
        self.dimensions: int = meta["dimensions"]
        self.metric = Metric(meta["metric"])
        self._shared: bool = meta["shared"]
        trust = meta.get("trust")
        #: What its index needs for which recall; None: the index is exact.
        self.trust: Trust | None = None if trust is None else Trust.from_json(trust)

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        with self._box.understood():
            columns = decode_batch(self._box.section("rows"), "a segment")
            if len(columns["id"]) != self.rows:
                raise Corrupt("a segment has other rows than it says", got=len(columns["id"]))
        return columns

    @property
    def ids(self) -> pa.Array:
        """utf8, one per row."""
        return self._columns["id"]

    @cached_property
    def integer_ids(self) -> IntegerIds:
        """The integers that ids are written as."""
        return IntegerIds.of(self.ids)

    @property
    def namespaces(self) -> pa.Array | None:
        """utf8 with nulls, or None when no row has a namespace."""
        return self._columns.get("namespace")

    @property
    def metadata(self) -> pa.Array | None:
        """JSON as binary with nulls, or None when no row has metadata."""
        return self._columns.get("metadata")

    @property
    def data(self) -> pa.Array | None:
        """utf8 with nulls, or None when no row has data."""
        return self._columns.get("data")

    @cached_property
    def sparse(self) -> Sparse | None:
        """Sparse vectors as sent, one per row; None if the index has none."""
        return sparse_in(self._columns, "a segment")

    @cached_property
    def postings(self) -> Postings:
        """The sparse vectors turned round; of an index that has them."""
        names = ("terms", "starts", "posting_rows", "posting_values")
        with self._box.understood():
            return Postings.from_sections(*(self._box.section(name) for name in names))

    @cached_property
    def lengths(self) -> npt.NDArray[np.float64]:
        """How many terms each row has, where sparse vectors are counts of them; read from the postings, once."""
        return self.postings.lengths(self.rows)

    @cached_property
    def sequence(self) -> Sequenced:
        """Which row of its namespace each was: uint64 (rows,)."""
        if "sequence" not in self._box.sections:
            return np.zeros(self.rows, np.uint64)
        return self._numbers("sequence", np.uint64)

    @cached_property
    def spaces(self) -> dict[str, Space]:
        """Its namespaces, "" for none; deleted rows included."""
        if "spaces" not in self._box.sections:
            return spaces_of(self.namespaces, self.sequence)
        with self._box.understood():
            return decode_spaces(self._box.section("spaces"))

    @cached_property
    def written(self) -> Written:
        """Which mutation wrote each row: uint64 (rows,)."""
        if "written" not in self._box.sections:
            return np.zeros(self.rows, np.uint64)
        return self._numbers("written", np.uint64)

    def has_column(self, path: str) -> bool:
        """Was the property at ``path`` written as a column?"""
        return PROPERTY + path in self._box.sections

    def column_paths(self) -> list[str]:
        """The properties that were written as columns."""
        return [name.removeprefix(PROPERTY) for name in self._box.sections if name.startswith(PROPERTY)]

    def property_column(self, path: str) -> PropertyColumn:
        """The property at ``path``: its column, or (about a microsecond a row, once) what the rows' metadata says."""
        return self._properties.of(path, lambda: self._property_column(path))

    def _property_column(self, path: str) -> PropertyColumn:
        kept = None
        with self._box.understood():
            if self.has_column(path):
                kept = decode_property(self._box.section(PROPERTY + path))
            if kept is None or kept.rounded:
                (kept,) = columns_of(self.metadata, self.rows, [path])
            if len(kept) != self.rows:
                raise Corrupt("a property has other rows than its segment", property=path)
        return kept

    def elements_column(self, path: str) -> ElementsColumn:
        """What is in the arrays at ``path``: read from the rows' metadata, once."""
        with self._box.understood():
            return self._elements.of(path, lambda: elements_of(self.metadata, self.rows, path))

    @cached_property
    def _faiss_bytes(self) -> memoryview:
        return self._box.section("faiss")

    @cached_property
    def _raw(self) -> Matrix | BlockChecked:
        """float32 (rows, dimensions) as sent, mapped, read-only: a matrix that is verified already, or one that is when used."""
        if self.dimensions == 0:
            return np.empty((self.rows, 0), np.float32)
        if self._shared:
            return self._matrix(self._faiss_bytes[FLAT_PADDING + FLAT_HEADER_BYTES :])
        if "sums" not in self._box.sections:
            return self._matrix(self._box.section("vectors"))
        sums = self._numbers("sums", np.uint64, -(-self.rows // rows_per_block(self.dimensions)))
        return BlockChecked(self._matrix(self._box.section("vectors", verify=False)), sums, self._box.key)

    def _matrix(self, raw: memoryview) -> Matrix:
        with self._box.understood():
            return np.frombuffer(raw, dtype=np.float32).reshape(self.rows, self.dimensions)

    def _numbers(self, section: str, kind: type[N], count: int | None = None) -> npt.NDArray[N]:
        """A section of numbers: one for each row, unless another ``count`` is given."""
        with self._box.understood():
            return np.frombuffer(self._box.section(section), kind).reshape(
                self.rows if count is None else count
            )

    @property
    def vectors(self) -> Matrix:
        """float32 (rows, dimensions) as sent, mapped, read-only. Reads and verifies all of them once."""
        return self._raw.all() if isinstance(self._raw, BlockChecked) else self._raw

    @cached_property
    def largest(self) -> float:
        """The largest component of any vector, without its sign. Reads all of them once: for small segments."""
        return largest(self.vectors)

    def take_vectors(self, rows: Rows) -> Matrix:
        """The given rows' vectors as sent, copied; of a large segment only their surroundings are read."""
        return self._raw.take(rows) if isinstance(self._raw, BlockChecked) else self._raw[rows]

    @cached_property
    def index(self) -> Any:
        """The FAISS index: a flat one reads the mapped bytes in place, codes are copied out of them."""
        data = np.frombuffer(self._faiss_bytes, dtype=np.uint8)[FLAT_PADDING:]
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.nbytes)
        with self._box.understood():
            index = faiss.read_index(reader)
            if index.ntotal != self.rows or index.d != self.dimensions:
                raise Corrupt("a segment's FAISS index does not fit its rows")
        # The index points into these bytes without owning them: they live as long as this segment.
        self._index_bytes = (data, reader)
        return index

    @cached_property
    def lists(self) -> Lists:
        """The lists of an index that is not exact."""
        return Lists(self.index)

    @cached_property
    def spread(self) -> npt.NDArray[np.float32]:
        """Each row's distance from the centre of its list; of an index that is not exact."""
        return self._numbers("spread", np.float32)

    @cached_property
    def hashes(self) -> tuple[Hashes, npt.NDArray[np.uint32]]:
        """The hashes of all keys, ascending, and the row of each."""
        return self._numbers("hashes", np.uint64), self._numbers("order", np.uint32)

    def find(self, keys: pa.Array, hashes: Hashes, scope: KeyScope) -> tuple[Rows, Rows]:
        """Which of ``keys`` are here: (places in ``keys``, their rows), both ascending in place. Deleted rows included."""
        asked, rows = find_hashes(*self.hashes, hashes)
        if len(asked) == 0:
            return asked, rows
        taken = pa.array(rows)
        namespaces = None if self.namespaces is None else self.namespaces.take(taken)
        found = keys_of(self.ids.take(taken), namespaces, scope)
        same = pc.equal(found, keys.take(pa.array(asked))).to_numpy(zero_copy_only=False)
        return asked[same], rows[same]

    def take(self, rows: Rows | None = None) -> SegmentRows:
        """The given rows, or all of them. Their vectors stay mapped until they are read."""
        everything = self._with_vectors(self.vectors)
        return everything if rows is None else everything.take(rows)

    def copy(self, rows: Rows) -> SegmentRows:
        """The given rows, read now: of a large segment only their surroundings."""
        rest = self._with_vectors(np.empty((self.rows, 0), np.float32)).take(rows)
        return replace(rest, vectors=Vectors.of(self.take_vectors(rows)))

    def _with_vectors(self, vectors: Matrix) -> SegmentRows:
        rest = (self.namespaces, self.metadata, self.written, self.sequence, self.data, self.sparse)
        return SegmentRows(self.ids, Vectors.of(vectors), *rest)

    def in_namespace(self, namespace: str) -> npt.NDArray[np.bool_]:
        """Which rows are in ``namespace``, or ("") in none: bool (rows,)."""
        if self.namespaces is None:
            return np.full(self.rows, not namespace)
        kept = self._in_namespace.of(
            namespace, lambda: np.packbits(in_space(self.namespaces, self.rows, namespace))
        )
        return np.unpackbits(kept, count=self.rows).view(np.bool_)
