"""Exports: every bit comes back, one version is shown whatever goes on, and damage is told and never hidden."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import orjson
import pytest
import zstandard

from tests.service import TOKEN, Api, Index, Service, running, until
from upwell.format import Kind, unpack

DIMENSIONS = 768
MANY = 3_000
#: After which what an export reads is deleted, while it reads.
GRACE_S = 1.0


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def hasty() -> Iterator[Service]:
    """One that deletes what nobody needs any more, at once."""
    with running(
        UPWELL_GRACE_S=str(GRACE_S), UPWELL_RESULTS_S=str(GRACE_S), UPWELL_COMPACTION_SETTLE_S="0"
    ) as service:
        yield service


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.apis[0]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    for export in Export.opened:
        export.answer.close()
        export.connection.close()
    Export.opened.clear()


class Export:
    """An export that is read as its test likes."""

    opened: ClassVar[list[Export]] = []

    def __init__(self, index: Index, rest: str = "", *, method: str = "GET", **headers: str) -> None:
        at = urlsplit(index.api.url)
        assert at.hostname is not None
        self.connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
        sent = {"Authorization": f"Bearer {TOKEN}"} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        self.connection.request(method, index.path(f"/export{rest}"), headers=sent)
        self.answer = self.connection.getresponse()
        self.opened.append(self)

    def header(self, name: str) -> str | None:
        return self.answer.getheader(name)

    def read(self) -> bytes:
        return self.answer.read()


def exported(index: Index, rest: str = "") -> list[dict[str, object]]:
    """The vectors of an export, in order of ids; as many as its headers promise."""
    export = Export(index, rest)
    assert export.answer.status == 200 and export.header("Content-Type") == "application/x-ndjson"
    found = [orjson.loads(line) for line in export.read().splitlines()]
    assert len(found) == int(export.header("X-Upwell-Vectors") or -1)
    assert int(export.header("X-Upwell-Version") or 0) >= 1
    return sorted(found, key=lambda one: str(one["id"]))


def upload(index: Index, body: bytes) -> None:
    """Upload vectors, and wait until they are visible. A machine that is busy for half a grace period cannot say whether they were kept."""
    for _ in until(60, every_s=0.1):
        answer = index.post("upsert", body.decode(), headers={"Content-Type": "application/x-ndjson"})
        if answer.status != 503:
            index.visible(answer.result["mutationId"])
            return


def numbers(count: int, dimensions: int, value: float | None = None) -> bytes:
    """Vectors v0 …, each with ``value`` all over, or random."""
    values = np.random.default_rng(count).standard_normal((count, dimensions)).astype(np.float32)
    if value is not None:
        values[:] = value
    how = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps({"id": f"v{n}", "values": row}, option=how) for n, row in enumerate(values))


def test_what_is_exported_and_uploaded_again_is_the_same_to_the_bit(api: Api) -> None:
    first, second = api.index("bits"), api.index("bits-again")
    for index in (first, second):
        index.create(8, "euclidean").result  # noqa: B018
    bits = np.random.default_rng(1).integers(0, 1 << 32, (500, 8), dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values[~np.isfinite(values)] = -0.0
    values[0] = [0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.1754944e-38, 0.1]
    vectors = [
        {"id": f"é{n} \"'\\", "values": row.tolist()}
        | ({"namespace": f"ns {n % 3} ☃"} if n % 2 else {})
        | ({"metadata": {"n": n, "text": 'a"\n\u2028', "deep": {"a": [1, None, 2.5]}}} if n % 3 else {})
        for n, row in enumerate(values)
    ]
    upload(first, "\n".join(map(json.dumps, vectors)).encode())
    upload(second, Export(first).read())
    one, two = exported(first), exported(second)
    assert one == two and len(one) == 500
    back = np.array([row["values"] for row in one], np.float64).astype(np.float32)
    order = np.argsort([str(vector["id"]) for vector in vectors])
    assert np.array_equal(back.view(np.uint32), values[order].view(np.uint32))
    assert one == sorted(
        (
            {**vector, "values": row["values"]}
            for vector, row in zip((vectors[n] for n in order), one, strict=True)
        ),
        key=lambda each: str(each["id"]),
    )


def test_a_namespace_an_empty_index_a_head_and_those_who_may_not(api: Api) -> None:
    index = api.index("few")
    index.create(2).result  # noqa: B018
    assert exported(index) == []
    index.visible(
        index.upsert([{"id": "a", "values": [1, 2], "namespace": "x y&z"}, {"id": "b", "values": [1, 2]}])
    )
    assert [one["id"] for one in exported(index, "?namespace=x%20y%26z")] == ["a"]
    assert exported(index, "?namespace=none") == []
    assert index.get("/export?namespace=").error[:2] == (400, 50400)
    head = Export(index, method="HEAD")
    assert head.answer.status == 200 and head.header("X-Upwell-Vectors") == "2" and head.read() == b""
    assert index.get("/export", token=None).error[0] == 401
    assert api.index("nobody").get("/export").error[:2] == (404, 3000)
    made = api.call("POST", "/upwell/v1/tokens", {"access": "read", "account": "default", "index": "few"})
    reading = made.result["token"]
    assert Export(index, Authorization=f"Bearer {reading}").answer.status == 200
    assert api.index("bits-again").get("/export", token=reading).error[0] == 403


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("zstd, gzip", "zstd"),
        ("gzip;q=0", None), ("gzip; q=0.000, *", None), ("identity", None), ("br", None),
    ],
)  # fmt: skip
def test_it_is_compressed_for_those_who_like(api: Api, accepted: str, coding: str | None) -> None:
    index = api.index("few")
    export = Export(index, Accept_Encoding=accepted)
    assert export.header("Content-Encoding") == coding
    body = export.read()
    match coding:
        case "gzip":
            body = gzip.decompress(body)
        case "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    assert {orjson.loads(line)["id"] for line in body.splitlines()} == {"a", "b"}


def test_a_reader_slower_than_the_grace_period_gets_the_version_it_began_with(
    hasty: Service,
) -> None:
    """What it reads is replaced, merged away and deleted while it sleeps, and is read all the same."""
    index = hasty.apis[0].index("slow")
    index.create(DIMENSIONS, "euclidean", shards=1).result  # noqa: B018
    upload(index, numbers(MANY, DIMENSIONS, 1.0))
    folder = folder_of(hasty, "slow")
    before = set((folder / "segment").iterdir())
    export = Export(index)
    first = export.answer.read(1_000)
    upload(index, numbers(MANY, DIMENSIONS, 2.0))
    for _ in until(60, every_s=0.1):
        if not before & set((folder / "segment").iterdir()):
            break
    lines = (first + export.read()).splitlines()
    assert len(lines) == MANY == int(export.header("X-Upwell-Vectors") or 0)
    assert {orjson.loads(line)["values"][0] for line in lines} == {1.0}
    assert exported(index)[0]["values"] == [2.0] * DIMENSIONS


def folder_of(service: Service, name: str) -> Path:
    """Where an index of the default account lies."""
    event = max((service.data / "store" / "catalog" / "default" / name).iterdir())
    meta = unpack(memoryview(event.read_bytes()), Kind.CATALOG_EVENT).meta
    return service.data / "store" / "index" / str(meta["index"])


def corrupt_reads(api: Api) -> float:
    with urlopen(f"{api.url}/metrics", timeout=30) as page:
        text = page.read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("upwell_corrupt_reads_total ")]
    return float(line.split()[1])


def test_damage_breaks_an_export_off_is_a_500_to_a_query_and_harms_no_other_index(
    service: Service, api: Api
) -> None:
    index, other = api.index("damaged"), api.index("whole")
    index.create(DIMENSIONS, "euclidean", shards=1).result  # noqa: B018
    other.create(2).result  # noqa: B018
    other.visible(other.upsert([{"id": "a", "values": [1, 2]}]))
    upload(index, numbers(MANY, DIMENSIONS))
    (segment,) = (folder_of(service, "damaged") / "segment").iterdir()
    key = segment.relative_to(service.data / "store")
    data = bytearray(segment.read_bytes())
    vectors = unpack(memoryview(data), Kind.SEGMENT).sections["vectors"]
    place = vectors.offset + vectors.length - 100
    with segment.open("r+b") as file:
        file.seek(place)
        file.write(bytes([data[place] ^ 1]))
    # Its own front end: the first one may have verified those bytes while they were whole.
    fresh = service.start_api()
    index, other = fresh.index("damaged"), fresh.index("whole")
    export = Export(index)
    assert export.answer.status == 200
    # It takes what is whole, and then hears no proper end.
    taken = export.answer.read(1_000_000)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        export.read()
    assert taken.count(b"\n") > 50
    assert corrupt_reads(fresh) == 1
    everything = {"ids": [f"v{n}" for n in range(MANY)]}
    for tries in (1, 2):
        status, code, message = index.post("get_by_ids", everything).error
        assert (status, code) == (500, 50500)
        assert str(key) in message and "checksum" in message
        assert corrupt_reads(fresh) == 1 + tries
    assert [one["id"] for one in exported(other)] == ["a"]
    assert other.query([1, 2])[0]["id"] == "a"
    index.visible(index.upsert([{"id": "new", "values": [0.0] * DIMENSIONS}]))


def test_others_are_served_while_much_is_exported(api: Api) -> None:
    """Ten exports that nobody reads yet, each larger than what lies in sockets: none of them is over when the query is answered."""
    index, other = api.index("much"), api.index("few")
    index.create(DIMENSIONS, "euclidean", shards=1).result  # noqa: B018
    upload(index, numbers(MANY, DIMENSIONS, 1.0))
    exports = [Export(index) for _ in range(10)]
    assert other.query([1, 2])
    assert sum(export.read().count(b"\n") for export in exports) == 10 * MANY
