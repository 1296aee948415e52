"""A body that is an Arrow IPC stream, as a changeset: its columns are checked whole and, where they can be, taken as they are.

The vectors of a stream of one batch of float32 are a view of the body. A row that a column's check does not vouch for is read by precise.py, so that this form and JSON are held to the same rules in
the same words; a problem's line is the row, from 1. Nothing that a stream says of itself is believed: before pyarrow reads it,
the headers of its messages are looked through for what they would make it allocate or repeat; then every batch is validated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingest.body.fast import keys_fit
from ingest.body.inflate import Bytes
from ingest.body.precise import Row, decode, read_vector
from ingest.body.rules import Rules
from ingest.body.simd import simdjson
from upwell.changeset import DISCARDED_NAMED_MAX, Changeset, Matrix, Operation
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason, TooLarge

Mask = npt.NDArray[np.bool_]

COLUMNS: Final = {
    "id": "utf8 or integers",
    "values": "a list or fixed-size list of float16, float32 or float64",
    "namespace": "utf8, or a dictionary of utf8",
    "metadata": "JSON as utf8 or binary, or a struct or map of booleans, numbers, utf8, lists, structs and maps",
}
EXPECTED: Final = "expected id and values, and optionally namespace and metadata"
UTF8: Final = {pa.lib.Type_STRING, pa.lib.Type_LARGE_STRING, pa.lib.Type_STRING_VIEW}
BINARY: Final = {pa.lib.Type_BINARY, pa.lib.Type_LARGE_BINARY, pa.lib.Type_BINARY_VIEW}
VIEWS: Final = {pa.lib.Type_STRING_VIEW, pa.lib.Type_BINARY_VIEW}
LISTS: Final = {pa.lib.Type_LIST, pa.lib.Type_LARGE_LIST, pa.lib.Type_FIXED_SIZE_LIST}
OBJECTS: Final = {pa.lib.Type_STRUCT, pa.lib.Type_MAP}
MESSAGES_MAX: Final = 65_536
#: Of one message. A schema of a megabyte has more fields than anybody means.
HEADER_BYTES_MAX: Final = 1 << 20
#: A value in metadata may take few bits in Arrow, or none; as a Python object it takes at least this many bytes.
BYTES_PER_VALUE: Final = 16
METADATA_ROWS: Final = 512
#: What pyarrow and struct raise at damage. No memory is damage too: then a length is not true.
DAMAGE: Final = (pa.ArrowException, OSError, UnicodeDecodeError, struct.error)
#: By their names in Python: precise.py's marks for what JSON has no number for.
NO_NUMBERS: Final = {"nan": decode(b"NaN", 0), "inf": decode(b"Infinity", 0), "-inf": decode(b"-Infinity", 0)}


def parse_arrow(body: Bytes, operation: Operation, rules: Rules) -> Changeset:
    """Read an insert's or upsert's body, inflated. Raises InvalidLine, TooLarge or Invalid; then nothing of it counts."""
    aligned = pa.ipc.Alignment.DataTypeSpecific
    options = pa.ipc.IpcReadOptions(use_threads=False, ensure_native_endian=False, ensure_alignment=aligned)
    data, columns = pa.py_buffer(body), _Columns(rules)
    try:
        received = _survey(data, rules.bytes_max)
        if received > rules.vectors_max:
            raise TooLarge(f"too many vectors in payload; max is {rules.vectors_max}, got {received}")
        with pa.ipc.open_stream(data, options=options) as stream:
            _check_schema(stream.schema)
            if received == 0:
                raise Invalid("the request body contains no vectors")
            for batch in stream:
                if batch.num_rows:
                    columns.add(batch)
        return columns.changeset(operation)
    except DAMAGE as error:
        claim = "the request body is not a whole Arrow IPC stream, which its Content-Type says it is"
        raise Invalid(f"{claim}: {_short(error)}") from None


def _short(said: object) -> str:
    """As a message may quote it: one line, printable, not long."""
    return "".join(c if c.isprintable() else " " for c in str(said)[:160])


@dataclass(frozen=True, slots=True)
class _Table:
    """A table in a FlatBuffer that pyarrow has verified. Slots are the fields' places in Arrow's definitions."""

    data: memoryview
    at: int

    def unpack(self, form: str, at: int) -> int:
        return int(struct.unpack_from(form, self.data, at)[0])

    def field(self, slot: int) -> int | None:
        vtable, place = self.at - self.unpack("<i", self.at), 4 + 2 * slot
        offset = self.unpack("<H", vtable + place) if place < self.unpack("<H", vtable) else 0
        return self.at + offset if offset else None

    def number(self, slot: int, form: str) -> int:
        at = self.field(slot)
        return 0 if at is None else self.unpack(form, at)

    def table(self, slot: int) -> _Table | None:
        at = self.field(slot)
        return None if at is None else _Table(self.data, at + self.unpack("<I", at))


def _survey(data: pa.Buffer, bytes_max: int) -> int:
    """How many rows a stream says it has. Raises TooLarge or Invalid for what should not be read."""
    source = pa.BufferReader(data)
    rows = inflated = dictionary = end = 0
    for count, message in enumerate(pa.ipc.MessageReader.open_stream(source)):
        kind, header, end = message.type, _header(message), source.tell()
        if count == MESSAGES_MAX:
            raise TooLarge(f"the Arrow stream has more than the {MESSAGES_MAX} messages allowed")
        if kind not in ("schema", "dictionary", "record batch") or (kind == "schema") != (count == 0):
            raise pa.ArrowInvalid(f"message {count + 1} is a {kind}")
        if kind == "schema" and header.number(0, "<h"):
            raise Invalid("the Arrow stream is big-endian; expected a little-endian one")
        if kind == "dictionary":
            if header.number(2, "<B"):
                raise Invalid("the Arrow stream has a delta of a dictionary; expected whole dictionaries")
            dictionary = _inflated_size(header.table(1), message.body)
        elif kind == "record batch":
            length = header.number(0, "<q")
            if length < 0:
                raise pa.ArrowInvalid(f"message {count + 1} has {length} rows")
            rows, inflated = rows + length, inflated + _inflated_size(header, message.body)
        # With each batch too: it is validated with each.
        inflated += dictionary
        if inflated > bytes_max:
            raise TooLarge(f"the Arrow stream's buffers have more than the {bytes_max} bytes allowed")
    if source.tell() == end:
        raise pa.ArrowInvalid("it has no end-of-stream marker")
    if source.tell() < data.size:
        raise Invalid(f"the Arrow stream is followed by {data.size - source.tell()} bytes of something else")
    return rows


def _header(message: Any) -> _Table:
    """What a message is about: a schema, a batch or a dictionary."""
    if message.metadata.size > HEADER_BYTES_MAX:
        raise TooLarge(f"the Arrow stream has a header of more than the {HEADER_BYTES_MAX} bytes allowed")
    data = memoryview(message.metadata)
    root = _Table(data, struct.unpack_from("<I", data)[0])
    header, version = root.table(2), root.number(0, "<h")
    # Versions count from 0. In the fourth, custom metadata could say that buffers are compressed.
    if version < 3 or (version == 3 and root.field(4) is not None):
        raise Invalid("the Arrow stream is older than Arrow 1.0; expected metadata version 5")
    if header is None:
        raise pa.ArrowInvalid("a message has no header")
    return header


def _inflated_size(batch: _Table | None, body: pa.Buffer | None) -> int:
    """How many bytes a batch's buffers will have. A compressed one begins with its length, or with -1 if it is not."""
    vector = None if batch is None else batch.table(2)
    if batch is None or vector is None:
        return 0
    longs = struct.unpack_from(f"<{2 * vector.unpack('<I', vector.at)}q", vector.data, vector.at + 4)
    sizes = list(longs[1::2])
    if batch.field(3) is not None:
        for place, offset in enumerate(longs[::2]):
            (declared,) = struct.unpack_from("<q", body or b"", offset) if sizes[place] else (0,)
            sizes[place] = sizes[place] if declared == -1 else declared
    if min(sizes, default=0) < 0:
        raise pa.ArrowInvalid(f"a buffer has {min(sizes)} bytes")
    return sum(sizes)


def _check_schema(schema: pa.Schema) -> None:
    """Raises Invalid for a column that is unknown, missing, there twice, or of a type that is not taken."""
    names = schema.names
    for name in names:
        if name not in COLUMNS:
            raise Invalid(f'the Arrow stream has an unknown column "{_short(name)}"; {EXPECTED}')
    for name, expected in COLUMNS.items():
        count = names.count(name)
        if count > 1 or (count == 0 and name in ("id", "values")):
            raise Invalid(f'the Arrow stream has {count or "no"} columns "{name}"; {EXPECTED}')
        if count and not _fits(name, schema.field(name).type):
            raise Invalid(f"{name}: expected {expected}; got {_short(schema.field(name).type)}")


def _fits(name: str, kind: pa.DataType) -> bool:
    """May the column of this name have this type? One that may be left out may also be nothing but nulls."""
    if name == "id":
        return kind.id in UTF8 or bool(pa.types.is_integer(kind))
    if name == "values":
        return kind.id in LISTS and bool(pa.types.is_floating(kind.value_type))
    if name == "namespace" and pa.types.is_dictionary(kind):
        return kind.value_type.id in UTF8
    if kind.id in UTF8 or pa.types.is_null(kind):
        return True
    return name == "metadata" and (kind.id in BINARY or (kind.id in OBJECTS and _is_json(kind)))


def _is_json(kind: pa.DataType) -> bool:
    """Is there JSON for values of this type?"""
    if kind.id in OBJECTS | LISTS:
        has_keys = kind.id != pa.lib.Type_MAP or kind.key_type.id in UTF8
        return has_keys and all(_is_json(kind.field(place).type) for place in range(kind.num_fields))
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return bool(number or pa.types.is_boolean(kind) or pa.types.is_null(kind)) or kind.id in UTF8


def _measure(array: pa.Array) -> tuple[int, int]:
    """How many values an array has at all levels, and how many bytes its views show."""
    kind, children, shown = array.type, [], 0
    if kind.id in VIEWS and len(array):
        views = np.frombuffer(array.buffers()[1], np.int32, 4 * (array.offset + len(array)))
        sizes = views[4 * array.offset :: 4][_valid(array)]
        shown = int(sizes[sizes > 0].sum(dtype=np.int64))
    elif pa.types.is_struct(kind):
        children = [array.field(place) for place in range(kind.num_fields)]
    elif kind.id in OBJECTS | LISTS:
        children = [array.values]
    elif pa.types.is_dictionary(kind):
        children = [array.dictionary]
    measured = [_measure(child) for child in children]
    return len(array) + sum(count for count, _ in measured), shown + sum(size for _, size in measured)


def _valid(array: pa.Array) -> Mask:
    return np.asarray(array.is_valid())


def _offsets(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Where each list begins among the values, and where the last one ends."""
    if pa.types.is_fixed_size_list(lists.type):
        return np.asarray((np.arange(len(lists) + 1) + lists.offset) * lists.type.list_size)
    return np.asarray(lists.offsets)


class _Columns:
    """The columns, as batches are added."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._seen, self._values, self._shown = rules, 0, 0, 0
        self._pieces: list[tuple[pa.Array, Matrix, pa.Array, pa.Array]] = []
        self._discarded: list[LineProblem] = []
        self._discarded_count = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch that may be accepted. Raises InvalidLine for one that may not, or notes it."""
        self._validate(batch)
        rules, given = self._rules, {name: pa.nulls(len(batch)) for name in COLUMNS}
        given.update(zip(batch.schema.names, batch.columns, strict=True))
        ids = given["id"].cast(pa.utf8())
        good = (_sizes(ids) > 0) & (_sizes(ids) <= rules.id_bytes_max)
        good &= rules.ids_fit(ids)
        vectors, vectors_fit = _vectors(given["values"], rules.dimensions)
        namespaces, namespaces_fit = _namespaces(given["namespace"], rules)
        if given["metadata"].type.id not in OBJECTS:
            given["metadata"] = given["metadata"].cast(pa.binary())
        metadata, metadata_fit = _metadata(given["metadata"], rules)
        good &= vectors_fit & namespaces_fit & metadata_fit
        for row in map(int, np.flatnonzero(~good)):
            try:
                metadata[row] = _read_row(given, row, self._seen + row + 1, rules).metadata
                good[row] = True
            except InvalidLine as error:
                if not rules.discard:
                    raise
                self._discarded_count += 1
                if len(self._discarded) < DISCARDED_NAMED_MAX:
                    self._discarded.append(error.problem)
        self._seen += len(batch)
        compact, mask = pa.array(metadata, pa.binary()), pa.array(good)
        if not good.all():
            ids, namespaces, compact = (one.filter(mask) for one in (ids, namespaces, compact))
            vectors = vectors[good]
        self._pieces.append((ids, vectors, namespaces, compact))

    def _validate(self, batch: pa.RecordBatch) -> None:
        """Check every offset, length and text; but first, that there is not much to check. Views may show bytes often."""
        batch.validate()
        bytes_max, values_max = self._rules.bytes_max, self._rules.bytes_max // BYTES_PER_VALUE
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            values, shown = _measure(column)
            self._shown += shown
            self._values += values - len(column) if name == "metadata" else 0
            if self._shown > bytes_max or self._values > values_max:
                most = f"{bytes_max} bytes" if self._shown > bytes_max else f"{values_max} values"
                raise TooLarge(f"{name}: the column has more than the {most} allowed")
        batch.validate(full=True)

    def changeset(self, operation: Operation) -> Changeset:
        """What was added."""
        ids, vectors, namespaces, metadata = zip(*self._pieces, strict=True)
        ids, namespaces, metadata = map(pa.concat_arrays, (ids, namespaces, metadata))
        return Changeset(
            operation=operation,
            ids=ids,
            vectors=vectors[0] if len(vectors) == 1 else np.concatenate(vectors),
            namespaces=namespaces if namespaces.null_count < len(ids) else None,
            metadata=metadata if metadata.null_count < len(ids) else None,
            received=self._seen,
            discarded=tuple(self._discarded),
            discarded_count=self._discarded_count,
        )


def _sizes(texts: pa.Array) -> npt.NDArray[np.int32]:
    """The bytes of each text, 0 for nulls."""
    return np.asarray(pc.binary_length(texts).fill_null(0))


def _namespaces(column: pa.Array, rules: Rules) -> tuple[pa.Array, Mask]:
    """Namespaces, null for none; those that do not fit are null too."""
    if pa.types.is_dictionary(column.type):
        names, fits = _namespaces(column.dictionary, rules)
        fits = np.asarray(pa.array(fits).take(column.indices).fill_null(True))
        return names.take(column.indices), fits
    names = column.cast(pa.utf8())
    sizes = _sizes(names)
    has_nul = np.asarray(pc.match_substring(names, "\0").fill_null(False))
    fits = ~has_nul & (sizes <= rules.namespace_bytes_max)
    return pc.if_else(pa.array(fits & (sizes > 0)), names, pa.scalar(None, pa.utf8())), fits


def _vectors(column: pa.Array, dimensions: int) -> tuple[Matrix, Mask]:
    """All rows as float32, not copied if they are that; and which of them have as many finite numbers as they must."""
    rows, child, offsets = len(column), column.values, _offsets(column)
    fits = _valid(column) & (np.diff(offsets) == dimensions)
    # Nulls become NaN, and what float32 does not reach infinite; neither is finite.
    with np.errstate(over="ignore", invalid="ignore"):
        if fits.all():
            flat = child.slice(int(offsets[0]), rows * dimensions).to_numpy(zero_copy_only=False)
            vectors = flat.reshape(rows, dimensions).astype(np.float32, copy=False)
        else:
            vectors = np.zeros((rows, dimensions), np.float32)
            for row in np.flatnonzero(fits):
                vectors[row] = child.slice(int(offsets[row]), dimensions).to_numpy(zero_copy_only=False)
        # The squared length is finite only if each number is, and cheap; those that overflow are looked at closely.
        doubtful = np.flatnonzero(~np.isfinite(np.vecdot(vectors, vectors)))
    fits[doubtful] &= np.isfinite(vectors[doubtful]).all(axis=1)
    return vectors, fits


def _metadata(column: pa.Array, rules: Rules) -> tuple[list[bytes | None], Mask]:
    """Compact JSON, None for none; and which rows are what they must be."""
    metadata: list[bytes | None] = [None] * len(column)
    fits = ~_valid(column)
    parser = None if simdjson is None else simdjson.Parser()
    for start in range(0, 0 if fits.all() else len(column), METADATA_ROWS):
        for row, value in enumerate(_to_python(column.slice(start, METADATA_ROWS)), start):
            if value is not None:
                metadata[row] = _compact(value, parser, rules)
                fits[row] = metadata[row] is not None
    return metadata, fits


def _compact(value: Any, parser: Any, rules: Rules) -> bytes | None:
    """Metadata as it is stored; None for what must be read precisely."""
    try:
        if isinstance(value, bytes):
            # orjson turns integers beyond 64 bits into floats without a word; simdjson refuses them.
            parser.parse(value)
            value = orjson.loads(value)
        # precise.py's marks are a kind of str: passed through, they are refused.
        compact = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except (ValueError, RuntimeError, TypeError, AttributeError):
        return None
    fits = isinstance(value, dict) and len(compact) <= rules.metadata_bytes_max and keys_fit(value)
    return compact if fits else None


def _to_python(array: pa.Array) -> list[Any]:
    """Values as a JSON reader would have made them; a struct's fields that are null are left out."""
    kind, values = array.type, list[Any]()
    if pa.types.is_floating(kind):
        return [n if n is None or isfinite(n) else NO_NUMBERS[str(n)] for n in array.to_pylist()]
    if kind.id not in OBJECTS | LISTS:
        return list(array.to_pylist())
    if pa.types.is_struct(kind):
        values = [{} for _ in range(len(array))]
        for place, field in enumerate(kind):
            for value, inner in zip(values, _to_python(array.field(place)), strict=True):
                if inner is not None:
                    value[field.name] = inner
    else:
        offsets, is_map = _offsets(array), pa.types.is_map(kind)
        child = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        items = list(zip(*map(_to_python, child.flatten()), strict=True)) if is_map else _to_python(child)
        values = [items[a:b] for a, b in pairwise((offsets - offsets[0]).tolist())]
        values = [dict(pairs) for pairs in values] if is_map else values
    return [value if valid else None for value, valid in zip(values, _valid(array), strict=True)]


def _read_row(given: dict[str, pa.Array], row: int, line: int, rules: Rules) -> Row:
    """Read a row precisely. Raises InvalidLine."""
    one = {name: column.slice(row, 1) for name, column in given.items()}
    fields = {name: _to_python(one[name])[0] for name in ("id", "values", "namespace")}
    id, metadata = read_vector(fields, line, rules).id, _to_python(one["metadata"])[0]
    try:
        fields["metadata"] = decode(metadata, line) if isinstance(metadata, bytes) else metadata
    except InvalidLine as error:
        problem = replace(error.problem, line=line, reason=Reason.METADATA_INVALID, field="metadata", id=id)
        raise InvalidLine(problem) from None
    return read_vector(fields, line, rules)
