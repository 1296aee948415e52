"""A segment: rows of one shard, with what it takes to find and to search them. Never changed.

meta      {"id", "rows", "dimensions", "metric", "index": FAISS's name of it, "shared": is the raw matrix inside the FAISS index?,
          "trust": what the index was measured to need (ann.py); null for one that is exact}
sections  "rows"     Arrow IPC stream: id utf8, namespace utf8?, metadata binary?
          "hashes"   uint64 ascending: xxh3_64 of each row's key
          "order"    uint32: the row of each hash
          "faiss"    FLAT_PADDING zero bytes, then the serialised FAISS index. A flat index ends in its float32 matrix, and
                     the padding puts that matrix on a multiple of 64, so that it can be mapped as one.
          "vectors"  float32 (rows, dimensions) as the client sent them; absent if "shared": then it *is* the end of "faiss"
          "spread"   float32 (rows,): each row's distance from the centre of its list; absent if the index is exact
          "sums"     uint64: a checksum of each block of "vectors" (blocks.py). Format 1 has none.
          "written"  uint64 (rows,): which mutation wrote each row (rows.py). Formats 1 and 2 have none.
          "property:" and a path: that property as a column (property.py), for those that had an index when the segment was written

Few rows are held flat, and compared one by one. More have codes in inverted lists, and lie in the order of those lists, so that
what a query looks at lies together. FAISS reads a flat index in place (ZeroCopyIOReader), and copies
codes: an open segment costs no anonymous memory for its vectors, and a byte for about every 32 of theirs for its codes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Matrix
from upwell.columns import decode_batch
from upwell.errors import Corrupt
from upwell.format import Box, Kind, pack, unpack
from upwell.manifest import SegmentRef
from upwell.shard.ann import Built, Lists, Trust, build, largest, wants_index
from upwell.shard.blocks import BlockChecked, block_sums, rows_per_block
from upwell.shard.keys import Hashes, KeyScope, Rows, find_hashes, hash_keys, keys_of
from upwell.shard.metric import Metric, searchable
from upwell.shard.property import PropertyColumn, columns_of, decode_property, encode_property
from upwell.shard.rows import SegmentRows, Written, encode_columns
from upwell.shard.vectors import CHUNK_BYTES, Vectors
from upwell.streamed import Part, Streamed, nbytes_of

#: A serialised IndexFlat is this many bytes and then its matrix (checked at every build).
FLAT_HEADER_BYTES = 45
FLAT_PADDING = -FLAT_HEADER_BYTES % 64
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
    ]
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
    vectors = np.ascontiguousarray(held.read())
    searched = searchable(metric, vectors)
    faiss_parts: list[Part] = [bytes(FLAT_PADDING), _flat_header(searched, metric), searched.data]
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


class Segment:
    """An open segment. Immutable and safe to share between threads; its bytes stay readable while it is held."""

    def __init__(self, data: memoryview, key: str = "") -> None:
        """Open a segment's bytes, which the store calls ``key``. Sections are verified when first used. Raises Corrupt."""
        self._box: Box = unpack(data, Kind.SEGMENT, key)
        with self._box.understood():
            self._read_meta(self._box.meta)
        self._in_namespace: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()
        self._properties: OrderedDict[str, PropertyColumn] = OrderedDict()

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

    @property
    def namespaces(self) -> pa.Array | None:
        """utf8 with nulls, or None when no row has a namespace."""
        return self._columns.get("namespace")

    @property
    def metadata(self) -> pa.Array | None:
        """JSON as binary with nulls, or None when no row has metadata."""
        return self._columns.get("metadata")

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
        kept = self._properties.get(path)
        if kept is None:
            with self._box.understood():
                if self.has_column(path):
                    kept = decode_property(self._box.section(PROPERTY + path))
                else:
                    (kept,) = columns_of(self.metadata, self.rows, [path])
                if len(kept) != self.rows:
                    raise Corrupt("a property has other rows than its segment", property=path)
            self._properties[path] = kept
            while len(self._properties) > PROPERTIES_KEPT:
                self._properties.popitem(last=False)
        return kept

    @cached_property
    def _faiss_bytes(self) -> memoryview:
        return self._box.section("faiss")

    @cached_property
    def _raw(self) -> Matrix | BlockChecked:
        """float32 (rows, dimensions) as sent, mapped, read-only: a matrix that is verified already, or one that is when used."""
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
        everything = SegmentRows(
            self.ids, Vectors.of(self.vectors), self.namespaces, self.metadata, self.written
        )
        return everything if rows is None else everything.take(rows)

    def in_namespace(self, namespace: str) -> npt.NDArray[np.bool_]:
        """Which rows are in ``namespace``: bool (rows,)."""
        if self.namespaces is None:
            return np.zeros(self.rows, dtype=bool)
        kept = self._in_namespace.get(namespace)
        if kept is None:
            found = pc.fill_null(pc.equal(self.namespaces, namespace), False).to_numpy(zero_copy_only=False)
            kept = self._in_namespace[namespace] = np.packbits(found)
            while len(self._in_namespace) > NAMESPACES_KEPT:
                self._in_namespace.popitem(last=False)
        return np.unpackbits(kept, count=self.rows).view(np.bool_)
