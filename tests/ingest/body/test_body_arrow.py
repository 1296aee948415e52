"""Is an Arrow stream held to the rules of NDJSON, in the same words, and is whatever is wrong with it only ever Invalid?"""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.body import Rules, parse_upload
from upwell.changeset import Changeset, Operation, decode_columns, encode_columns
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason, TooLarge

ARROW = "application/vnd.apache.arrow.stream"
FLOATS = pa.list_(pa.float32(), 3)
ROOT = Path(__file__).resolve().parents[3]


def parse(
    body: bytes | pa.Buffer, content_type: str | None = ARROW, coding: str | None = None, **rules: Any
) -> Changeset:
    held_to = Rules(**{"dimensions": 3, "vectors_max": 500, "bytes_max": 1 << 20, **rules})
    return parse_upload(
        memoryview(body),
        content_type=content_type,
        content_encoding=coding,
        operation=Operation.INSERT,
        rules=held_to,
    )


def stream(table: pa.Table, rows: int | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())


def table_of(count: int = 1, **columns: Any) -> pa.Table:
    """A table with ids and vectors that are fine, unless others are given."""
    usual = {"id": [f"v{row}" for row in range(count)], "values": pa.array([[1, 2, 3]] * count, FLOATS)}
    return pa.table({name: column for name, column in (usual | columns).items() if column is not None})


def problem_of(**columns: Any) -> LineProblem:
    with pytest.raises(InvalidLine) as caught:
        parse(stream(table_of(**columns)))
    return caught.value.problem


def facts(changeset: Changeset) -> tuple[object, ...]:
    assert changeset.vectors is not None and changeset.vectors.flags.c_contiguous
    columns = (changeset.ids, changeset.namespaces, changeset.metadata)
    return (
        *(None if column is None else (column.type, column.to_pylist()) for column in columns),
        changeset.vectors.tobytes(),
        changeset.received,
        changeset.discarded,
        changeset.discarded_count,
    )


@pytest.mark.parametrize(
    "kind", [pa.utf8(), pa.large_utf8(), pa.string_view(), pa.int8(), pa.int64(), pa.uint64()], ids=str
)
def test_ids(kind: pa.DataType) -> None:
    given = [-3, 127] if kind.equals(pa.int8()) else [0, 99] if pa.types.is_integer(kind) else ["é" * 32, "b"]
    changeset = parse(stream(table_of(2, id=pa.array(given, kind))))
    assert changeset.ids.equals(pa.array([str(id) for id in given], pa.utf8()))


@pytest.mark.parametrize("item", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("listed", [lambda t: pa.list_(t, 3), pa.list_, pa.large_list])
@pytest.mark.parametrize("rows", [1, 4, None])
def test_values(item: pa.DataType, listed: Any, rows: int | None) -> None:
    matrix = np.arange(30, dtype=np.float32).reshape(10, 3)
    values = pa.array(matrix.tolist(), pa.list_(pa.float64())).cast(listed(item))
    sent = stream(table_of(10, values=values), rows)
    vectors = parse(sent).vectors
    assert vectors is not None and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    assert np.array_equal(vectors, matrix)
    if rows is None and item == pa.float32():
        assert np.shares_memory(vectors, np.frombuffer(sent, np.uint8))


DICTIONARIES = [pa.dictionary(pa.int8(), pa.utf8()), pa.dictionary(pa.uint32(), pa.large_utf8())]


@pytest.mark.parametrize("kind", [pa.utf8(), pa.large_utf8(), pa.string_view(), *DICTIONARIES], ids=str)
def test_namespaces(kind: pa.DataType) -> None:
    given = pa.array(["n", None, "", "é" * 32]).cast(kind)
    changeset = parse(stream(table_of(4, namespace=given), 3))
    assert changeset.namespaces is not None
    assert changeset.namespaces.equals(pa.array(["n", None, None, "é" * 32], pa.utf8()))


def test_a_dictionary_may_be_replaced_and_hold_nothing() -> None:
    first = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2], pa.int8()), ["a", None, ""])
    second = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), ["z"])
    chunks = pa.chunked_array([first, second])
    namespaces = parse(stream(table_of(5, namespace=chunks))).namespaces
    assert namespaces is not None and namespaces.to_pylist() == ["a", None, None, None, "z"]


def test_columns_that_no_row_has_are_left_out() -> None:
    for nothing in (pa.nulls(2), pa.nulls(2, pa.utf8())):
        changeset = parse(stream(table_of(2, namespace=nothing, metadata=nothing)))
        assert changeset.namespaces is None and changeset.metadata is None
    assert parse(stream(table_of(2, namespace=["", None]))).namespaces is None


TEXT = ['{"a": [1.50], "a": "é"}', None, " null ", "{}"]


@pytest.mark.parametrize(
    "kind",
    [pa.utf8(), pa.large_utf8(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()],
    ids=str,
)
def test_metadata_as_text(kind: pa.DataType) -> None:
    changeset = parse(stream(table_of(4, metadata=pa.array(TEXT, pa.utf8()).cast(kind))))
    assert changeset.metadata is not None
    assert changeset.metadata.equals(pa.array(['{"a":"é"}'.encode(), None, None, b"{}"], pa.binary()))


STRUCT = pa.struct(
    {
        "a": pa.list_(pa.int8()),
        "b": pa.struct({"c": pa.string_view(), "d": pa.uint64()}),
        "e": pa.map_(pa.utf8(), pa.list_(pa.bool_(), 2)),
        "f": pa.float64(),
        "g": pa.null(),
        "h": pa.large_list(pa.struct({"i": pa.float16()})),
    }
)
OBJECTS: list[Any] = [
    {"a": [1, None], "b": {"c": "é", "d": 2**64 - 1}, "f": 0.1},
    None,
    {},
    {"e": {"k": [True, False], "l": None}, "h": [{"i": 1.5}, {}, None]},
    {"a": [], "b": {}, "e": {}, "h": []},
]


def test_metadata_as_a_struct() -> None:
    for rows in (None, 2):
        metadata = parse(stream(table_of(5, metadata=pa.array(OBJECTS, STRUCT)), rows)).metadata
        assert metadata is not None
        assert [one and json.loads(one) for one in metadata.to_pylist()] == OBJECTS


def test_metadata_as_a_map_keeps_the_last_of_a_key() -> None:
    given = pa.array([[("a", 1), ("b", None), ("a", 2)], None, []], pa.map_(pa.utf8(), pa.int32()))
    metadata = parse(stream(table_of(3, metadata=given))).metadata
    assert metadata is not None and metadata.to_pylist() == [b'{"a":2,"b":null}', None, b"{}"]


def test_slices_and_nulls_with_something_beneath() -> None:
    flat = pa.array(np.arange(18, dtype=np.float32))
    mask = pa.array([False, True, False, False])
    lists = pa.ListArray.from_arrays(pa.array([3, 6, 9, 12, 15], pa.int32()), flat, mask=mask)
    metadata = pa.array([[("a", 1)], [("b", 2)], None, [("c", 3), ("d", 4)]], pa.map_(pa.utf8(), pa.int8()))
    table = table_of(4, values=lists, metadata=metadata)
    changeset = parse(stream(table), discard=True)
    assert changeset.ids.to_pylist() == ["v0", "v2", "v3"] and changeset.discarded_count == 1
    assert changeset.vectors is not None and changeset.vectors.tolist() == [
        [3, 4, 5],
        [9, 10, 11],
        [12, 13, 14],
    ]
    sliced = parse(stream(table.slice(2)))
    assert sliced.vectors is not None and sliced.vectors.tolist() == [[9, 10, 11], [12, 13, 14]]
    assert sliced.metadata is not None and sliced.metadata.to_pylist() == [None, b'{"c":3,"d":4}']


@pytest.mark.parametrize(
    ("id", "reason", "says"),
    [
        (None, Reason.ID_MISSING, "expected a string, got null"),
        ("", Reason.ID_MISSING, "not empty"),
        ("x" * 65, Reason.ID_TOO_LONG, "max is 64 bytes, got 65 bytes"),
        ("é" * 33, Reason.ID_TOO_LONG, "got 66 bytes"),
    ],
)
@pytest.mark.parametrize("kind", [pa.utf8(), pa.string_view()], ids=str)
def test_wrong_ids(id: str | None, reason: Reason, says: str, kind: pa.DataType) -> None:
    problem = problem_of(count=2, id=pa.array(["good", id], kind))
    assert (problem.line, problem.reason, problem.field, problem.id) == (2, reason, "id", None)
    assert says in problem.detail


@pytest.mark.parametrize(
    ("values", "reason", "field", "says"),
    [
        (None, Reason.VALUES_INVALID, "values", "got null"),
        ([], Reason.VALUES_INVALID, "values", "got an empty array"),
        ([1, None, 3], Reason.VALUES_INVALID, "values[1]", "expected a number, got null"),
        ([1, 2, float("nan")], Reason.NOT_FINITE, "values[2]", "expected a finite number, got NaN"),
        ([float("-inf"), 2, 3], Reason.NOT_FINITE, "values[0]", "a finite number, got -Infinity"),
        ([1, 1e39, 3], Reason.NOT_FINITE, "values[1]", "got the number 1e+39, which is outside its range"),
        ([1, 2], Reason.WRONG_DIMENSIONS, "values", "expected 3 dimensions, and got 2 dimensions"),
        ([1] * 99, Reason.WRONG_DIMENSIONS, "values", "expected 3 dimensions, and got 99 dimensions"),
    ],
)
def test_wrong_values(values: Any, reason: Reason, field: str, says: str) -> None:
    rows = pa.array([[1, 2, 3], values, [1, 2, 3]], pa.list_(pa.float64()))
    problem = problem_of(count=3, values=rows)
    assert (problem.line, problem.reason, problem.field, problem.id) == (2, reason, field, "v1")
    assert says in problem.detail


def test_lists_of_another_fixed_size_and_numbers_at_the_end_of_float32() -> None:
    problem = problem_of(values=pa.array([[1, 2]], pa.list_(pa.float32(), 2)))
    assert (problem.reason, problem.field) == (Reason.WRONG_DIMENSIONS, "values")
    rows = pa.array([[3e38, -3e38, 3e38], [3.4028235677973362e38, 0, 0]], pa.list_(pa.float64(), 3))
    vectors = parse(stream(table_of(2, values=rows))).vectors
    assert vectors is not None and np.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("namespace", "reason", "says"),
    [
        ("a\0b", Reason.NAMESPACE_INVALID, "NUL"),
        ("é" * 33, Reason.NAMESPACE_TOO_LONG, "max is 64 bytes, got 66 bytes"),
    ],
)
@pytest.mark.parametrize("kind", [pa.utf8(), pa.dictionary(pa.int8(), pa.utf8())], ids=str)
def test_wrong_namespaces(namespace: str, reason: Reason, says: str, kind: pa.DataType) -> None:
    problem = problem_of(count=3, namespace=pa.array(["n", None, namespace]).cast(kind))
    assert (problem.line, problem.reason, problem.field, problem.id) == (3, reason, "namespace", "v2")
    assert says in problem.detail


@pytest.mark.parametrize(
    ("metadata", "reason", "field", "says"),
    [
        ("", Reason.METADATA_INVALID, "metadata", "expected JSON"),
        ("nope", Reason.METADATA_INVALID, "metadata", "expected JSON"),
        (b"\xff", Reason.METADATA_INVALID, "metadata", "expected UTF-8, got byte 0xff"),
        ("[1]", Reason.METADATA_INVALID, "metadata", "expected an object or null, got an array"),
        ('{"a":{"b":[1,NaN]}}', Reason.METADATA_INVALID, "metadata.a.b[1]", "a finite number, got NaN"),
        ('{"a":1e999}', Reason.METADATA_INVALID, "metadata.a", "outside the range of doubles"),
        ('{"a":[18446744073709551616]}', Reason.METADATA_INVALID, "metadata.a[0]", "at most 64 bits"),
        ('{"a":"\\ud800"}', Reason.METADATA_INVALID, "metadata.a", "lone surrogate"),
        ('{"a":[{"$b":1}]}', Reason.METADATA_KEY, "metadata.a[0]", 'got the string "$b"'),
        ('{"a":"' + "y" * 10_233 + '"}', Reason.METADATA_TOO_LARGE, "metadata", "got 10241 bytes"),
        ("[" * 5000, Reason.METADATA_INVALID, "metadata", "nested so deeply"),
        ({"a": {"x.y": 1}}, Reason.METADATA_KEY, "metadata.a", 'got the string "x.y"'),
        ({"a": [1.0, float("inf")]}, Reason.METADATA_INVALID, "metadata.a[1]", "got Infinity"),
        ({"a": "y" * 10_233}, Reason.METADATA_TOO_LARGE, "metadata", "10240 bytes, got 10241 bytes"),
    ],
)
def test_wrong_metadata(metadata: Any, reason: Reason, field: str, says: str) -> None:
    problem = problem_of(count=2, metadata=pa.array([None, metadata]))
    assert (problem.line, problem.reason, problem.field, problem.id) == (2, reason, field, "v1")
    assert says in problem.detail


def test_metadata_of_the_size_allowed() -> None:
    for sent in ({"a": "y" * 10_232}, json.dumps({"a": "y" * 10_232}, indent=9)):
        metadata = parse(stream(table_of(metadata=pa.array([sent])))).metadata
        assert metadata is not None and len(metadata[0].as_py()) == 10_240


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"vector": [1]}, 'an unknown column "vector"; expected id and values, and optionally namespace'),
        ({"é\n": [1]}, 'an unknown column "é "'),
        ({"values": None}, 'no columns "values"'),
        ({"id": None}, 'no columns "id"'),
        ({"id": [1.5]}, "id: expected utf8 or integers; got double"),
        ({"id": pa.array(["a"]).dictionary_encode()}, "id: expected utf8 or integers; got dictionary"),
        ({"id": pa.array([b"a"])}, "id: expected utf8 or integers; got binary"),
        ({"values": ["1,2,3"]}, "values: expected a list or fixed-size list of float16"),
        ({"values": pa.array([[1, 2, 3]])}, "values: expected a list .* got list<item: int64>"),
        ({"values": pa.array([[1, 2, 3]], pa.list_view(pa.float32()))}, "values: .* got list_view"),
        ({"namespace": [7]}, "namespace: expected utf8, or a dictionary of utf8; got int64"),
        ({"namespace": pa.array([7]).dictionary_encode()}, "namespace: .*; got dictionary<"),
        ({"metadata": pa.array([[1]])}, "metadata: expected JSON as utf8 or binary, or a struct"),
        ({"metadata": pa.array([{"a": b""}])}, "metadata: .*; got struct<a: binary>"),
        ({"metadata": pa.array([{"a": 1}], pa.map_(pa.utf8(), pa.date32()))}, "metadata: .*; got map<"),
        ({"metadata": pa.array([[(1, 1)]], pa.map_(pa.int8(), pa.int8()))}, "metadata: .*; got map<int8"),
        ({"metadata": pa.array(["{}"], pa.json_())}, "metadata: .*; got extension<arrow.json>"),
        ({"metadata": pa.array(["{}"]).dictionary_encode()}, "metadata: .*; got dictionary"),
    ],
)
def test_columns_that_are_not_taken(columns: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        parse(stream(table_of(**columns)), discard=True)
    assert type(caught.value) is Invalid


def test_discard_leaves_out_names_and_counts() -> None:
    values = pa.array([[1, 2, 3], [1], [4, 5, 6], [1, 2, None], None, [7, 8, 9]], pa.list_(pa.float32()))
    metadata = ["{}", "{}", None, None, None, "7"]
    sent = stream(table_of(6, values=values, namespace=list("abcdef"), metadata=metadata), 4)
    changeset = parse(sent, discard=True)
    assert changeset.ids.to_pylist() == ["v0", "v2"] and changeset.received == 6
    assert changeset.namespaces is not None and changeset.namespaces.to_pylist() == ["a", "c"]
    assert changeset.metadata is not None and changeset.metadata.to_pylist() == [b"{}", None]
    assert [(p.line, p.id) for p in changeset.discarded] == [(2, "v1"), (4, "v3"), (5, "v4"), (6, "v5")]
    nothing = parse(stream(table_of(300, id=[""] * 300)), discard=True)
    assert len(nothing) == 0 and (nothing.discarded_count, len(nothing.discarded)) == (300, 100)
    assert nothing.vectors is not None and nothing.vectors.shape == (0, 3)


def test_how_many_and_how_much() -> None:
    with pytest.raises(TooLarge, match=r"^too many vectors in payload; max is 500, got 501$"):
        parse(stream(table_of(501), 100))
    with pytest.raises(Invalid, match="contains no vectors"):
        parse(stream(table_of().slice(1)))
    sent = stream(table_of(500))
    assert len(parse(gzip.compress(sent), coding="gzip", bytes_max=len(sent))) == 500
    with pytest.raises(TooLarge):
        parse(gzip.compress(sent), coding="gzip", bytes_max=len(sent) - 1)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_bounded_before_they_are_read(codec: str) -> None:
    table = table_of(500, values=pa.array([[0, 0, 0]] * 500, FLOATS))
    sent = stream(table, compression=codec)
    assert len(sent) < 5000 and len(parse(sent)) == 500
    with pytest.raises(TooLarge, match="buffers have more than the 6000 bytes allowed"):
        parse(sent, bytes_max=6000)
    held = pa.default_memory_pool().max_memory()
    for lie in (1 << 40, (1 << 63) - 1, -5):
        with pytest.raises(Invalid):
            parse(sent.replace(struct.pack("<q", 6000), struct.pack("<q", lie)))
    assert pa.default_memory_pool().max_memory() <= held + (1 << 20)


def test_small_streams_that_would_be_large() -> None:
    deep = pa.StructArray.from_arrays([pa.FixedSizeListArray.from_arrays(pa.nulls(1 << 24), 1 << 24)], ["a"])
    with pytest.raises(TooLarge, match="metadata: the column has more than the 65536 values allowed"):
        parse(stream(table_of(metadata=deep)))
    view = struct.pack("<i4sii", 1 << 19, b"yyyy", 0, 0)
    buffers = [None, pa.py_buffer(view * 3), pa.py_buffer(b"y" * (1 << 19))]
    views = pa.Array.from_buffers(pa.string_view(), 3, buffers)
    for column in ("id", "namespace", "metadata"):
        with pytest.raises(TooLarge, match=f"{column}: the column has more than the 1048576 bytes allowed"):
            parse(stream(table_of(3, **{column: views})))
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int8()), ["n", "y" * (1 << 16)])
    with pytest.raises(TooLarge, match="buffers"):
        parse(stream(table_of(40, namespace=names), 1))
    with pytest.raises(TooLarge, match="a header of more than"):
        parse(stream(table_of().replace_schema_metadata({"a": "b" * (1 << 20)})), bytes_max=1 << 22)


def test_messages_are_counted() -> None:
    sink = pa.BufferOutputStream()
    nothing = table_of().to_batches()[0].slice(1)
    with pa.ipc.new_stream(sink, nothing.schema) as writer:
        for _ in range(65_600):
            writer.write_batch(nothing)
    with pytest.raises(TooLarge, match="more than the 65536 messages allowed"):
        parse(sink.getvalue(), bytes_max=1 << 30)


def test_streams_that_are_refused_whole() -> None:
    with pytest.raises(Invalid, match='2 columns "id"'):
        parse(stream(table_of().append_column("id", [["a"]])))
    sink = pa.BufferOutputStream()
    growing = [pa.DictionaryArray.from_arrays([0], ["a"]), pa.DictionaryArray.from_arrays([1], ["a", "b"])]
    table = table_of(2, namespace=pa.chunked_array(growing))
    with pytest.raises(Invalid, match="delta"):
        parse(stream(table, emit_dictionary_deltas=True))
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table[:1])
    sent = stream(table_of())
    for body in (bytes(sink.getvalue()), b"", b'{"id":"a","values":[1,2,3]}', b"\0" * 64, sent[1:]):
        with pytest.raises(Invalid, match="Arrow"):
            parse(body)
    with pytest.raises(Invalid, match=f"is followed by {len(sent)} bytes of something else"):
        parse(sent + sent)


def test_the_content_type_decides() -> None:
    sent = stream(table_of())
    for content_type in (ARROW, ARROW.upper(), f" {ARROW} ; charset=x"):
        assert len(parse(sent, content_type)) == 1
    for other in (None, "application/json", "application/vnd.apache.arrow.file"):
        with pytest.raises(InvalidLine):
            parse(sent, other)


def test_a_stream_cut_short_is_damaged_wherever_it_is_cut() -> None:
    sent = stream(table_of(3, metadata=pa.array([{"a": 1}] * 3)), 2)
    assert len(parse(sent)) == 3
    for cut in range(len(sent)):
        with pytest.raises(Invalid, match="not a whole Arrow IPC stream"):
            parse(sent[:cut])


keys = st.text("ab[é]$.\\", max_size=4)
numbers = st.sampled_from([0.0, -1.5, 1e39, 3e38, 0.1, float("nan"), float("inf")]) | st.floats(width=32)
rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.text(max_size=16) | st.just("x" * 65),
        "values": st.none()
        | st.lists(st.floats(-3e38, 3e38), min_size=3, max_size=3)
        | st.lists(st.none() | numbers, max_size=4),
        "namespace": st.none() | st.text(max_size=12) | st.just("n" * 65),
        "metadata": st.none()
        | st.dictionaries(
            keys,
            st.recursive(
                st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
                max_leaves=4,
            ),
            max_size=3,
        ),
    }
)


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 6), st.booleans())
@settings(deadline=None, max_examples=300)
def test_the_same_rows_as_ndjson_are_the_same(sent: list[dict[str, Any]], chunk: int, fixed: bool) -> None:
    if fixed:
        sent = [row | {"values": ((row["values"] or []) + [1.0, 2.0, 3.0])[:3]} for row in sent]
    columns: dict[str, Any] = {name: [row[name] for row in sent] for name in sent[0]}
    columns["metadata"] = [None if one is None else json.dumps(one) for one in columns["metadata"]]
    listed = pa.list_(pa.float64(), 3) if fixed else pa.list_(pa.float64())
    kinds = [("id", pa.utf8()), ("values", listed), ("namespace", pa.utf8()), ("metadata", pa.utf8())]
    table = pa.table(columns, schema=pa.schema(kinds))
    lines = "\n".join(json.dumps(row) for row in sent).encode()
    changeset = parse(stream(table, chunk), discard=True)
    assert facts(changeset) == facts(parse(lines, None, discard=True))
    kept = decode_columns(encode_columns(changeset), Operation.INSERT, received=0)
    assert facts(kept)[:4] == facts(changeset)[:4]
    if changeset.discarded:
        with pytest.raises(InvalidLine) as caught:
            parse(stream(table, chunk))
        assert caught.value.problem == changeset.discarded[0]


def test_damaged_streams_are_invalid_and_nothing_else() -> None:
    """In a process of its own, which a crash of pyarrow would end."""
    child, env = [sys.executable, "-X", "faulthandler", __file__], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(child, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


EXTREMES = [b"\xff" * 8, b"\0" * 8, b"\xff" * 4, b"\0" * 4, b"\x80", b"\x7f"]
EXTREMES += [struct.pack("<q", one) for one in (1 << 62, 1 << 40, 1 << 31, -(1 << 63))]
EXTREMES += [struct.pack("<i", one) for one in (1 << 30, -(1 << 31), 100, 7, -8)]


def damaged(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes overwritten, left out or put in."""
    broken = bytearray(body)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
        at, piece = chance.randrange(len(broken) + 1), chance.choice([*EXTREMES, chance.randbytes(1)])
        at -= at % len(piece)
        kept = chance.choice([len(piece)] * 8 + [0, 2 * len(piece), len(broken)])
        broken[at : at + kept] = piece
    return bytes(broken)


def damage(rounds: int) -> None:
    """Parse damaged streams of every kind of column; anything but a changeset or Invalid is raised."""
    table = table_of(5, id=pa.array(["a", "b" * 20, "c", "d", "e"], pa.string_view()))
    names, texts = pa.array(["n", None, "m", "", "n"]), pa.array(["{}", None, '{"a":1}', "{}", "{}"])
    tables = [
        table_of(5, namespace=names.dictionary_encode(), metadata=texts),
        table.append_column("metadata", pa.array(OBJECTS, STRUCT)),
        table_of(5, id=range(5), values=pa.array([[1, 2, 3]] * 5, pa.large_list(pa.float64()))),
    ]
    options: list[dict[str, Any]] = [{}, {"rows": 2}, {"compression": "lz4"}, {"compression": "zstd"}]
    seeds = [stream(one, **option) for one in tables for option in options]
    for number in range(rounds):
        chance = random.Random(number)
        body = damaged(chance.choice(seeds), chance)
        with suppress(Invalid):
            changeset = parse(body, discard=chance.random() < 0.5)
            assert changeset.vectors is not None and np.isfinite(changeset.vectors).all()
            encode_columns(changeset).to_pybytes()
    assert pa.default_memory_pool().max_memory() < 1 << 24


if __name__ == "__main__":
    damage(3000)
