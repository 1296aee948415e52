"""Bulk users send Arrow instead of text: uploaded, followed, found, and refused in the words that NDJSON is refused in."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.service import Answer, Index, Service, running

ARROW = "application/vnd.apache.arrow.stream"
DIMENSIONS = 8


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(UPWELL_REQUEST_BYTES_MAX="2000000") as service:
        service.apis[0].index("arrow").create(DIMENSIONS)
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    return service.apis[0].index("arrow")


def stream(rows: int | None = None, compression: str | None = None, **columns: Any) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())


def values_of(matrix: Any) -> pa.Array:
    flat = pa.array(np.asarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, np.shape(matrix)[1])


def send(index: Index, body: bytes, how: str = "upsert", **headers: str) -> Answer:
    return index.post(how, body, headers={"Content-Type": ARROW, **headers})


def test_an_arrow_stream_is_acknowledged_then_visible_then_found(index: Index) -> None:
    matrix = np.random.default_rng(7).standard_normal((1000, DIMENSIONS), np.float32)
    body = stream(
        rows=300,
        compression="zstd",
        id=[f"v{row}" for row in range(1000)],
        values=values_of(matrix),
        namespace=pa.array([None, "even"] * 500).dictionary_encode(),
        metadata=pa.array([{"row": row, "tags": ["a"] if row % 3 else None} for row in range(1000)]),
    )
    answer = send(index, gzip.compress(body), **{"Content-Encoding": "gzip"})
    status = index.visible(answer.result["mutationId"])
    assert (status["counts"]["received"], status["counts"]["inserted"]) == (1000, 1000)
    (hit,) = index.query(
        matrix[421].tolist(), topK=1, namespace="even", returnValues=True, returnMetadata="all"
    )
    assert hit["id"] == "v421" and hit["metadata"] == {"row": 421, "tags": ["a"]}
    assert np.array_equal(np.array(hit["values"], np.float32), matrix[421])
    fetched = index.fetch("v0", "v999")
    assert fetched["v0"]["metadata"] == {"row": 0} and "namespace" not in fetched["v0"]
    assert fetched["v999"]["namespace"] == "even"


def test_insert_keeps_what_exists(index: Index) -> None:
    two = [[1.0] * DIMENSIONS, [2.0] * DIMENSIONS]
    index.visible(send(index, stream(id=[1, 2], values=values_of(two))).result["mutationId"])
    answer = send(index, stream(id=["2", "3"], values=values_of(two)), "insert")
    counts = index.visible(answer.result["mutationId"])["counts"]
    assert (counts["inserted"], counts["skipped"]) == (1, 1)
    assert index.fetch("2")["2"]["values"] == two[1] and index.fetch("3")["3"]["values"] == two[1]


FINE = values_of([[1.0] * DIMENSIONS] * 2)
NAN = values_of([[1.0] * DIMENSIONS, [float("nan")] * DIMENSIONS])
GOOD = stream(id=["a", "b"], values=FINE)


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (stream(id=["a", "x" * 65], values=FINE), 400, 40008, ["got 65 bytes", "line 2"]),
        (stream(id=["a", None], values=FINE), 400, 40023, ["line Some(1)", "line 2, id", "got null"]),
        (stream(id=["a", "b"], values=NAN), 400, 40023, ["line 2, values[0]", "got NaN"]),
        (stream(id=["a"], values=values_of([[1.0]])), 400, 40012, ['id="a"', "expected 8 dimensions, and got 1"]),
        (stream(id=["a", "b"], values=FINE, namespace=["n", "n" * 65]), 400, 40009, ["line 2, namespace"]),
        (stream(id=["a", "b"], values=FINE, metadata=["{}", '{"$a":1}']), 400, 40018, ["line 2", '"$a"']),
        (stream(id=["a", "b"], values=FINE, metadata=["{}", "[1]"]), 400, 40023, ["line 2", "got an array"]),
        (stream(id=["a", "b"], vector=FINE), 400, 50400, ['unknown column "vector"', "expected id and values"]),
        (GOOD[:-60], 400, 50400, ["not a whole Arrow IPC stream"]),
        (b'{"id":"a","values":[1]}', 400, 50400, ["not a whole Arrow IPC stream"]),
        (b"", 400, 50400, ["not a whole Arrow IPC stream"]),
        (GOOD + GOOD, 400, 50400, ["is followed by"]),
        (stream(compression="lz4", id=range(5001), values=values_of(np.zeros((5001, 8)))), 413, 50413, ["got 5001"]),
        (stream(compression="zstd", id=range(4000), values=values_of(np.zeros((4000, 200)))), 413, 50413, ["2000000"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_enqueued(
    index: Index, body: bytes, status: int, code: int, says: list[str]
) -> None:
    before = index.get("/info").result
    got, found, message = send(index, body).error
    assert (got, found) == (status, code), message
    for one in says:
        assert one in message
    assert index.get("/info").result["vectorCount"] == before["vectorCount"]


def test_discarded_rows_are_named(index: Index) -> None:
    body = stream(id=["d1", "d2"], values=NAN)
    answer = send(index, body, "upsert?unparsable-behavior=discard")
    assert [message["code"] for message in answer.json["messages"]] == [40023]
    status = index.visible(answer.result["mutationId"])
    assert status["counts"]["discarded"] == 1 and status["discarded"][0]["line"] == 2
    assert index.fetch("d1", "d2").keys() == {"d1"}
