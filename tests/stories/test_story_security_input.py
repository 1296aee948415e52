"""Attacks by what a request says: names that are paths, bodies that are bombs. Nothing changes, nothing is found, nothing breaks."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import zstandard

from ingest.openapi.document import OPERATIONS
from ingest.openapi.operation import Operation
from tests.service import TOKEN, Api
from tests.wire import Overheard, Wire, request

BYTES_MAX = 1_000_000
BOMB_BYTES = 48 << 20
MEMORY_GROWTH_MAX = 48 << 20

#: Pieces of a path, as they are sent.
NASTY = (
    "..",
    ".",
    "%2e%2e",
    "%2E%2e",
    "%252e%252e",
    "..%2f..%2f..%2fadmin-token",
    "%2e%2e%2fadmin-token",
    "..%5cadmin-token",
    "..;",
    "%2fetc%2fpasswd",
    "docs%2f",
    "docs%2finfo",
    "docs%2f..%2fdocs",
    "docs%00",
    "docs%00.json",
    "docs%0a",
    "docs%0d%0aX:y",
    "docs%20",
    "docs%09",
    "docs.",
    "docs;a=b",
    "docs%3fa=b",
    "docs%23",
    "DOCS",
    "doc%c5%bf",  # a long s, which some take for an s
    "%ef%bd%84ocs",  # a wide d, likewise
    "d%c3%b3cs",
    "do%cc%81cs",
    "docs%e2%80%ae",
    "docs%e2%80%8b",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%",
    "%zz",
    "%u002e",
    "*",
    "~",
    "-",
    "a" * 300,
    "a" * 7_000,
    "%61" * 2_000,
)
INDEXES = "/client/v4/accounts/{}/vectorize/v2/indexes"
TARGETS = {
    "account": INDEXES.format("NASTY") + "/docs",
    "account's indexes": INDEXES.format("NASTY"),
    "index": INDEXES.format("default") + "/NASTY",
    "index's info": INDEXES.format("default") + "/NASTY/info",
    "mutation": INDEXES.format("default") + "/docs/mutations/NASTY",
    "webhook": INDEXES.format("default") + "/docs/webhooks/NASTY",
    "binding's account": "/bindings/vectorize/NASTY/docs/info",
    "binding's index": "/bindings/vectorize/default/NASTY/info",
    "nothing": "/NASTY",
    "door": "/client/NASTY/accounts",
    "after a door": "/client/v4/NASTY",
}


@pytest.fixture(scope="module")
def service() -> Iterator[Overheard]:
    settings = {"UPWELL_REQUEST_BYTES_MAX": str(BYTES_MAX), "UPWELL_LOG_LEVEL": "debug"}
    with Overheard(settings) as service:
        index = service.start_api().index("docs")
        assert index.create().status == 200
        index.upsert([{"id": "a", "values": [1, 2, 3]}])
        yield service
        said = service.said.read_text()
    assert "Traceback" not in said and "unexpectedly" not in said, said


@pytest.fixture
def api(service: Overheard) -> Api:
    return service.apis[0]


@pytest.fixture(autouse=True)
def _nothing_is_changed(service: Overheard) -> Iterator[None]:
    def everything() -> dict[str, bytes | None]:
        found = {}
        for path in service.folder.rglob("*"):
            if path != service.said and not path.is_socket():
                found[str(path)] = path.read_bytes() if path.is_file() else None
        return found

    before = everything()
    yield
    after = everything()
    assert after.keys() == before.keys() and after == before


def ask(api: Api, method: str, target: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
    with Wire(api) as wire:
        wire.send(request(method, target, *headers, body=body))
        answer = wire.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1."), (target, answer)
    return int(head.split()[1]), body


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_name_that_is_none_is_found_nowhere(api: Api, target: str, method: str) -> None:
    for nasty in NASTY:
        if nasty == "DOCS" and "/NASTY/vectorize" in target:
            continue  # an account may be called that
        status, body = ask(api, method, target.replace("NASTY", nasty))
        assert status in (400, 404, 405), (nasty, status, body)
        if target.startswith(("/client/v4", "/bindings")) and body[:1] == b"{":
            says = json.loads(body)
            assert ("code" in says and "error" in says) or (says["success"] is False and says["errors"]), (
                nasty
            )
        assert b"root:" not in body and b"upw_" not in body and TOKEN.encode() not in body


@pytest.mark.parametrize(
    "target",
    [
        "//client/v4/accounts",
        "/client//v4/accounts",
        "/client/v4//accounts",
        "/client/v4/accounts/",
        "/client/v4/accounts/default/vectorize/v2/indexes/",
        "/client/v4/accounts/default/vectorize/v2/indexes/docs/",
        "/client/v4/../v4/accounts",
        "/client/v4/./accounts",
        "/client/v4/x/../accounts",
        "/CLIENT/V4/accounts",
        "/client/v4/accounts;x",
        "/client/v4%2faccounts",
        "/./healthz",
        "/healthz/",
        "/etc/passwd",
        "/data/admin-token",
        "/static/",
        "/.git/config",
        "/docs",
        "http://vector-search/query",
        "http://evil.example/",
        "*",
    ],
)
def test_a_path_is_taken_as_it_stands(api: Api, target: str) -> None:
    status, _ = ask(api, "GET", target)
    assert status in (400, 404), target


@pytest.mark.parametrize(
    "name", ["../x", "..", "a/b", "a\0b", "a\nb", "é", "e\u0301", "\uff41", "a" * 65, "", " ", "a ", "*"]
)
def test_no_index_is_made_of_such_a_name(api: Api, name: str) -> None:
    answer = api.call(
        "POST", INDEXES.format("default"), {"name": name, "config": {"dimensions": 3, "metric": "cosine"}}
    )
    assert answer.error[0] == 400, name


@pytest.mark.parametrize("field", ["account", "index"])
@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a\0b", "a\n", "é", "a" * 256, "", "**", "a*"])
def test_no_token_is_made_for_such_a_name(api: Api, field: str, name: str) -> None:
    assert api.call("POST", "/upwell/v1/tokens", {field: name}).error[0] == 400


@pytest.mark.parametrize(
    "nasty", ["../../x", "a\0b", "\n", "é" * 2_000, "A" * 7_000, "-1", "0", "'", "{}", "9" * 400]
)
def test_what_stands_behind_a_question_mark_is_only_read(api: Api, nasty: str) -> None:
    index = INDEXES.format("default") + "/docs"
    for target in (
        "list?cursor=",
        "mutations?cursor=",
        "mutations?state=",
        "mutations?limit=",
        "list?count=",
    ):
        assert ask(api, "GET", f"{index}/{target}{quote(nasty)}"[:8_000])[0] in (400, 404), target
    id = nasty.encode().decode("latin-1").replace("\0", "").strip() or "x"
    assert ask(api, "GET", f"{index}/mutations/events", b"", f"Last-Event-ID: {id}")[0] == 404


# Bombs.


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 9)


def _raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def _zstd_of_unknown_size(data: bytes) -> bytes:
    encoder = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    return encoder.compress(data) + encoder.flush()


SPACES = b" " * BOMB_BYTES
PIECE = b" " * (64 << 10)
#: By name: the coding as it is said, and the body.
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: _gzip(SPACES)),
    "deflate": ("deflate", lambda: zlib.compress(SPACES, 9)),
    "raw deflate": ("deflate", lambda: _raw_deflate(SPACES)),
    "zstd": ("zstd", lambda: zstandard.compress(SPACES)),
    "zstd that does not say": ("zstd", lambda: _zstd_of_unknown_size(SPACES)),
    "gzip in gzip": ("gzip, gzip", lambda: _gzip(_gzip(SPACES))),
    "zstd in deflate in gzip": (
        "zstd, deflate, gzip",
        lambda: _gzip(zlib.compress(zstandard.compress(SPACES))),
    ),
    "many members": ("gzip", lambda: _gzip(PIECE) * (BOMB_BYTES // len(PIECE))),
    "many frames": ("zstd", lambda: zstandard.compress(PIECE) * (BOMB_BYTES // len(PIECE))),
}


@pytest.fixture(scope="module")
def bombs() -> dict[str, tuple[str, bytes]]:
    return {name: (coding, make()) for name, (coding, make) in BOMBS.items()}


def post(api: Api, operation: Operation, coding: str, body: bytes) -> tuple[int, Any]:
    path = operation.path.format(account="default", index="docs", mutation="0", webhook="0")
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Encoding": coding,
        "Content-Type": "application/json",
    }
    if operation.server is not None:
        headers |= {
            "Host": urlsplit(operation.server).netloc,
            "Upwell-Account": "default",
            "Upwell-Index": "docs",
        }
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def peak_memory_of(api: Api) -> int:
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    (kib,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    return kib << 10


#: Of the Milvus door: it has two ways of reading a body, and one handler for all that it refuses to do.
OF_MILVUS = ("milvusEntitiesUpsert", "milvusV1Insert", "milvusEntitiesSearch", "milvusCollectionsCreate")


def with_bodies() -> Iterator[Operation]:
    """Operations that read a body, each handler once: with a namespace in the path it is the same ones."""
    for one in OPERATIONS:
        if one.id.startswith("milvus"):
            if one.id in OF_MILVUS:
                yield one
        elif one.body is not None and not one.id.endswith("InNamespace"):
            yield one


def is_too_large(operation: Operation, status: int, says: Any) -> bool:
    """Was a body refused for its size? At the Milvus door the status tells nothing."""
    if operation.id.startswith("milvus"):
        return (status, says["code"]) == (200, 1100) and "bytes" in says["message"]
    return status == 413


@pytest.mark.parametrize("operation", list(with_bodies()), ids=lambda operation: operation.id)
def test_no_bomb_goes_off(api: Api, bombs: dict[str, tuple[str, bytes]], operation: Operation) -> None:
    before = peak_memory_of(api)
    for name, (coding, body) in bombs.items():
        assert len(body) < BYTES_MAX, name
        status, says = post(api, operation, coding, body)
        assert is_too_large(operation, status, says), (operation.id, name, says)
    assert peak_memory_of(api) - before < MEMORY_GROWTH_MAX


@pytest.mark.parametrize(
    "coding", ["br", "compress", "gzip, br", "gzip, gzip, gzip, gzip", "chunked", "x" * 200]
)
def test_codings_that_are_not_known_are_refused(api: Api, coding: str) -> None:
    (operation,) = [one for one in OPERATIONS if one.id == "upsertVectors"]
    assert post(api, operation, coding, b"{}")[0] == 400
