"""Every form in which clients are known to send vectors, through HTTP, under every content type and coding."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from tests.service import Index, Service, running

VECTORS: list[dict[str, object]] = [
    {"id": "a", "values": [1, 0.5, -0.25], "metadata": {"k": "v", "list": [1, "[", {"deep": None}]}},
    {"id": 7, "values": [0, 1, 0], "namespace": None, "metadata": {}},
    {"id": "é", "values": [1e-3, 2, 3], "namespace": "n", "metadata": None, "unknown": True},
]
EXPECTED = {
    "a": {"id": "a", "values": [1, 0.5, -0.25], "metadata": {"k": "v", "list": [1, "[", {"deep": None}]}},
    "7": {"id": "7", "values": [0, 1, 0], "metadata": {}},
    "é": {"id": "é", "values": [0.001, 2, 3], "namespace": "n"},
}
NDJSON = "\n".join(json.dumps(vector) for vector in VECTORS).encode()
NAMES = itertools.count()


def multipart(content: bytes, name: str, *, filename: bool = True) -> bytes:
    disposition = f'form-data; name="{name}"' + ('; filename="v.ndjson"' if filename else "")
    extra = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    part = f"--b\r\nContent-Disposition: {disposition}\r\nContent-Type: application/x-ndjson\r\n\r\n".encode()
    return (extra if filename else b"") + part + content + b"\r\n--b--\r\n"


FORMS: dict[str, tuple[bytes, str | None]] = {
    "ndjson": (NDJSON, "application/x-ndjson"),
    "ndjson as json": (NDJSON, "application/json"),
    "ndjson as json, semicolon": (NDJSON, "application/json; charset=utf-8;"),
    "ndjson as octets": (NDJSON, "application/octet-stream"),
    "ndjson as a form, as curl --data-binary sends it": (NDJSON, "application/x-www-form-urlencoded"),
    "ndjson with blank lines and CRLF": (
        b"\r\n\n" + NDJSON.replace(b"\n", b"\r\n\r\n  \r\n") + b"\n\n",
        None,
    ),
    "ndjson with a byte order mark": (b"\xef\xbb\xbf" + NDJSON, None),
    "a JSON string": (json.dumps(NDJSON.decode()).encode(), "application/json"),
    "an object of vectors": (json.dumps({"vectors": VECTORS}).encode(), "application/json"),
    "an object of vectors over lines": (
        json.dumps({"vectors": VECTORS}, indent=2).encode(),
        "application/json",
    ),
    "an array": (json.dumps(VECTORS).encode(), "application/json"),
    "an array over lines": (json.dumps(VECTORS, indent=1).encode(), "application/x-ndjson"),
    "multipart, vectors": (multipart(NDJSON, "vectors"), "multipart/form-data; boundary=b"),
    "multipart, body": (multipart(NDJSON, "body"), 'multipart/form-data; boundary="b"'),
    "multipart, no file": (multipart(NDJSON, "anything", filename=False), "multipart/form-data; boundary=b"),
    "multipart, an array": (multipart(json.dumps(VECTORS).encode(), "x"), "multipart/form-data; boundary=b"),
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
    "gzip, zstd": lambda body: zstandard.compress(gzip.compress(body)),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    index = service.apis[0].index(f"forms-{next(NAMES)}")
    assert index.create(3).status == 200
    return index


@pytest.mark.parametrize("form", FORMS)
def test_a_form(index: Index, form: str) -> None:
    body, content_type = FORMS[form]
    headers = {"Content-Type": content_type} if content_type else {}
    mutation = index.post("upsert", body, headers=headers).result["mutationId"]
    assert index.visible(mutation)["counts"]["inserted"] == 3
    assert index.fetch("a", "7", "é") == EXPECTED


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("form", ["ndjson", "multipart, vectors"])
def test_a_coding(index: Index, form: str, coding: str) -> None:
    body, content_type = FORMS[form]
    headers = {"Content-Type": content_type or "", "Content-Encoding": coding}
    mutation = index.post("insert", CODINGS[coding](body), headers=headers).result["mutationId"]
    index.visible(mutation)
    assert index.fetch("a", "7", "é") == EXPECTED


def test_json_endpoints_take_codings_and_careless_clients_too(index: Index) -> None:
    index.visible(index.upsert(VECTORS))
    body = gzip.compress(b'{"ids":["a",7]}')
    found = index.post(
        "get_by_ids", body, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    ).result
    assert [one["id"] for one in found] == ["a", "7"]
    for value, has in ((True, True), (False, False), ("all", True), ("none", False), (None, False)):
        question = {"vector": [1, 0.5, -0.25], "topK": 1, "returnMetadata": value, "namespace": None}
        (match,) = index.post("query", question).result["matches"]
        assert ("metadata" in match) is has


def test_values_come_back_as_the_float32_that_was_sent(index: Index) -> None:
    sent = [0.1, 58.8, 3.4028234e38]
    index.visible(index.upsert([{"id": "x", "values": sent}]))
    assert index.fetch("x")["x"]["values"] == pytest.approx(sent, rel=1e-7)
