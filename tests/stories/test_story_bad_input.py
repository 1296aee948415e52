"""Every kind of bad input: the vendor's status and code, a message that names the place, and nothing enqueued."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import zstandard

from tests.service import Index, Service, running

GOOD = b'{"id":"good","values":[1,2,3]}'
LONG = "x" * 65


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=1, workers=1, UPWELL_REQUEST_BYTES_MAX="2000000") as service:
        index = service.apis[0].index("bad-input")
        index.create(3)
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    return service.apis[0].index("bad-input")


def line(**fields: object) -> bytes:
    return json.dumps({"id": "x", "values": [1, 2, 3], **fields}).encode()


LINES = [
    ("not JSON", b"nope", 40023, ["line 2", "expected JSON"]),
    ("not an object", b"[1,2,3]", 40023, ["line 2", "expected an object, got an array"]),
    ("a number", b"7", 40023, ["line 2", "got the number 7"]),
    ("cut short", b'{"id":"x","values":[1,2', 40023, ["line 2", "expected JSON"]),
    ("no id", b'{"values":[1,2,3]}', 40023, ["line 2", "id", "got nothing"]),
    ("null id", line(id=None), 40023, ["line 2", "id", "got null"]),
    ("empty id", line(id=""), 40023, ["line 2", "id", "not empty"]),
    ("a boolean id", line(id=True), 40023, ["line 2", "id", "got true"]),
    ("a long id", line(id=LONG), 40008, ["id too long; max is 64 bytes, got 65 bytes", "line 2"]),
    ("a long id in UTF-8", line(id="é" * 33), 40008, ["got 66 bytes", "line 2"]),
    ("a surrogate in the id", b'{"id":"\\ud800","values":[1,2,3]}', 40023, ["line 2", "id", "surrogate"]),
    ("no values", b'{"id":"x"}', 40023, ["line 2", "values", "got nothing"]),
    ("vector for values", b'{"id":"x","vector":[1,2,3]}', 40023, ["line 2", "did you mean values"]),
    ("values not an array", line(values="1,2,3"), 40023, ["line 2", "values", "expected an array"]),
    ("values an object", line(values={"0": 1}), 40023, ["line 2", "values", "got an object"]),
    ("empty values", line(values=[]), 40023, ["line 2", "values", "an empty array"]),
    ("nested values", line(values=[[1], [2], [3]]), 40023, ["line 2", "values[0]", "got an array"]),
    ("one nested value", line(values=[1, [2], 3]), 40023, ["line 2", "values[1]", "got an array"]),
    ("a string among values", line(values=[1, "2", 3]), 40023, ["line 2", "values[1]", 'the string "2"']),
    ("a boolean among values", line(values=[1, True, 3]), 40023, ["line 2", "values[1]", "got true"]),
    ("null among values", line(values=[None, 2, 3]), 40023, ["line 2", "values[0]", "got null"]),
    ("NaN", line(values=[1, float("nan"), 3]), 40023, ["line 2", "values[1]", "finite", "NaN"]),
    ("Infinity", line(values=[1, 2, float("-inf")]), 40023, ["line 2", "values[2]", "-Infinity"]),
    ("beyond float32", line(values=[1, 2, 1e39]), 40023, ["line 2", "values[2]", "outside its range"]),
    (
        "too few dimensions",
        line(values=[1, 2]),
        40012,
        ['id="x"', "expected 3 dimensions, and got 2", "line 2"],
    ),
    ("too many dimensions", line(values=[1] * 4), 40012, ["expected 3 dimensions, and got 4", "line 2"]),
    ("metadata not an object", line(metadata=[1]), 40023, ["line 2", "metadata", "got an array"]),
    (
        "metadata too large",
        line(metadata={"a": "y" * 10_240}),
        40016,
        ["10240 bytes, got 10248 bytes", "line 2"],
    ),
    (
        "an empty metadata key",
        line(metadata={"": 1}),
        40018,
        ["line 2", "metadata", "keys must not be empty"],
    ),
    ("a dot in a metadata key", line(metadata={"a.b": 1}), 40018, ["line 2", '"a.b"']),
    ("a quote in a metadata key", line(metadata={'a"b': 1}), 40018, ["line 2", "metadata"]),
    ("a dollar before a metadata key", line(metadata={"$a": 1}), 40018, ["line 2", '"$a"']),
    ("a bad key further in", line(metadata={"a": {"$b": 1}}), 40018, ["line 2", "metadata.a", '"$b"']),
    ("a namespace that is a number", line(namespace=3), 40023, ["line 2", "namespace", "number 3"]),
    ("a long namespace", line(namespace=LONG), 40009, ["namespace too long", "got 65 bytes", "line 2"]),
    ("bytes that are not UTF-8", b'{"id":"\xff","values":[1,2,3]}', 40023, ["line 2", "UTF-8", "0xff"]),
    (
        "deep nesting",
        b'{"id":"x","values":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        40023,
        ["line 2", "nested"],
    ),
]


@pytest.mark.parametrize(
    ("bad", "code", "names"), [case[1:] for case in LINES], ids=[case[0] for case in LINES]
)
@pytest.mark.parametrize("operation", ["insert", "upsert"])
def test_a_bad_line_refuses_the_body_and_is_named(
    index: Index, operation: str, bad: bytes, code: int, names: list[str]
) -> None:
    status, got, message = index.post(operation, GOOD + b"\n" + bad + b"\n" + GOOD).error
    assert (status, got) == (400, code), message
    for name in names:
        assert name in message


@pytest.fixture(scope="module", autouse=True)
def nothing_was_enqueued(service: Service) -> Iterator[None]:
    yield
    index = service.apis[0].index("bad-input")
    probe = index.visible(index.upsert([{"id": "probe", "values": [1, 2, 3]}]))
    assert probe["position"] == 1, "a refused body reached the log"
    assert index.get("/info").result["vectorCount"] == 1


BODIES = [
    ("empty", b"", {}, 400, "no vectors"),
    ("blank lines", b"\r\n\n  \n", {}, 400, "no vectors"),
    ("truncated gzip", gzip.compress(GOOD * 50)[:-6], {"Content-Encoding": "gzip"}, 400, "cut short"),
    ("not gzip", GOOD, {"Content-Encoding": "gzip"}, 400, "damaged"),
    ("truncated deflate", zlib.compress(GOOD * 50)[:-4], {"Content-Encoding": "deflate"}, 400, "cut short"),
    ("truncated zstd", zstandard.compress(GOOD * 50)[:-4], {"Content-Encoding": "zstd"}, 400, "cut short"),
    ("unknown coding", GOOD, {"Content-Encoding": "br"}, 400, "'br'"),
    ("gzip bomb", gzip.compress(b"0" * 50_000_000), {"Content-Encoding": "gzip"}, 413, "2000000"),
    ("zstd bomb", zstandard.compress(b"0" * 50_000_000), {"Content-Encoding": "zstd"}, 413, "2000000"),
    ("multipart without boundary", GOOD, {"Content-Type": "multipart/form-data"}, 400, "boundary"),
    ("broken multipart", GOOD, {"Content-Type": "multipart/form-data; boundary=b"}, 400, "multipart"),
    ("too many vectors", b'{"id":"x","values":[1,2,3]}\n' * 5001, {}, 413, "max is 5000, got 5001"),
    ("too many bytes", b" " * 2_000_001, {}, 413, "2000001"),
    ("vectors not an array", b'{"vectors":{}}', {}, 400, "vectors"),
    ("an array cut short", b'[{"id":"x","values":[1,2,3]}', {}, 400, "expected JSON"),
    ("a wrong element", b'[{"id":"x","values":[1,2,3]},{"id":"y"}]', {}, 400, "line 2"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES]
)
def test_a_bad_body_is_refused(
    index: Index, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    got, _, message = index.post("upsert", body, headers=headers).error
    assert got == status, message
    assert says in message


def test_a_body_without_a_length_is_counted_while_it_streams(service: Service, index: Index) -> None:
    where = urlsplit(service.apis[0].url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    chunks = (b"x" * 100_000 for _ in range(1000))
    headers = {"Authorization": "Bearer story-token-0123456789"}
    try:
        connection.request("POST", index.path("/upsert"), body=chunks, headers=headers, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["success"] is False
    except (BrokenPipeError, ConnectionResetError):
        # The server may hang up on a client that goes on sending; it must not have read it all.
        pass
    finally:
        connection.close()
    assert index.get("/info").status == 200


def test_a_body_that_ends_early_enqueues_nothing(service: Service, index: Index) -> None:
    where = urlsplit(service.apis[0].url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    connection.putrequest("POST", index.path("/upsert"))
    connection.putheader("Authorization", "Bearer story-token-0123456789")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(GOOD)
    connection.close()
    assert index.fetch("good") == {}


JSON_BODIES = [
    ("query", b"{", 400, 40026, "JSON"),
    ("query", b"[]", 400, 40026, "JSON"),
    ("query", b"{}", 400, 40026, "vector"),
    ("query", b'{"vector":[1,2]}', 400, 40006, "expected 3 dimensions, and got 2 dimensions"),
    ("query", b'{"vector":["a",2,3]}', 400, 40026, "vector.0"),
    ("query", b'{"vector":[1,2,1e39]}', 400, 50400, "vector[2]"),
    ("query", b'{"vector":[1,2,3],"topK":0}', 400, 40026, "topK"),
    ("query", b'{"vector":[1,2,3],"topK":101}', 400, 40025, "100"),
    ("query", b'{"vector":[1,2,3],"topK":51,"returnValues":true}', 400, 40025, "max top K is 50, but got 51"),
    ("query", b'{"vector":[1,2,3],"returnMetadata":"some"}', 400, 40026, "returnMetadata"),
    ("query", b'{"vectorId":"nobody"}', 400, 50404, "nobody"),
    ("query", b'{"vector":[1,2,3],"after":"nonsense"}', 404, 50404, "mutation"),
    ("query", b'{"vector":[1,2,3],"filter":{}}', 400, 50400, "filter: expected an object that is not empty"),
    ("get_by_ids", b"{}", 400, 40026, "ids"),
    ("get_by_ids", b'{"ids":[]}', 400, 40026, "at least one"),
    ("get_by_ids", b'{"ids":[1.5]}', 400, 40026, "ids[0]"),
    ("delete_by_ids", b'{"ids":"a"}', 400, 40026, "ids"),
    ("delete_by_ids", b'{"ids":["a",""]}', 400, 40026, "ids[1]"),
    ("delete_by_ids", json.dumps({"ids": [LONG]}).encode(), 400, 40008, "max is 64 bytes, got 65 bytes"),
    ("upsert?unparsable-behavior=perhaps", GOOD, 400, 50400, "perhaps"),
]


@pytest.mark.parametrize(("operation", "body", "status", "code", "says"), JSON_BODIES)
def test_a_bad_question_is_refused(
    index: Index, operation: str, body: bytes, status: int, code: int, says: str
) -> None:
    got, got_code, message = index.post(operation, body).error
    assert (got, got_code) == (status, code), message
    assert says in message


CREATES: list[tuple[object, str]] = [
    ({"name": "a", "config": {"dimensions": 3, "metric": "cosine"}}, "name"),
    ({"name": "Upper", "config": {"dimensions": 3, "metric": "cosine"}}, "name"),
    ({"name": "../../etc", "config": {"dimensions": 3, "metric": "cosine"}}, "name"),
    ({"name": "a" * 65, "config": {"dimensions": 3, "metric": "cosine"}}, "name"),
    ({"name": "fine"}, "config"),
    ({"name": "fine", "config": {"dimensions": 0, "metric": "cosine"}}, "[1, 1536], got 0"),
    ({"name": "fine", "config": {"dimensions": 1537, "metric": "cosine"}}, "1536"),
    ({"name": "fine", "config": {"dimensions": 3, "metric": "manhattan"}}, "config.metric"),
    ({"name": "fine", "config": {"dimensions": "3", "metric": "cosine"}}, "config.dimensions"),
    ({"name": "fine", "config": {"dimensions": 3, "metric": "cosine"}, "shards": 0}, "shards"),
]


@pytest.mark.parametrize(("body", "says"), CREATES)
def test_a_bad_index_is_refused(service: Service, body: object, says: str) -> None:
    path = "/client/v4/accounts/default/vectorize/v2/indexes"
    status, _, message = service.apis[0].call("POST", path, json.dumps(body)).error
    assert status == 400
    assert says in message
    assert service.apis[0].index("fine").get("").error[:2] == (404, 3000)


def test_unknown_indexes_routes_and_methods(service: Service) -> None:
    api = service.apis[0]
    unknown = api.index("never-was")
    for answer in (
        unknown.get(""),
        unknown.get("/info"),
        unknown.post("upsert", GOOD),
        unknown.post("query", b"{}"),
    ):
        assert answer.error[:2] == (404, 3000)
        assert 'vectorize.index.not_found - Index name "never-was"' in answer.error[2]
    assert api.call("GET", "/client/v4/nothing/here").error[:2] == (404, 7003)
    assert api.call("PUT", unknown.path()).error[:2] == (405, 10405)
    assert api.index("%2e%2e").get("").error[0] == 404
    assert api.index("x", account="a" * 33).get("").error[:2] == (404, 7003)


def test_who_may_do_what(service: Service) -> None:
    api = service.apis[0]
    api.index("mine", account="acme").create(3)

    def issue(**scope: str) -> str:
        return str(api.call("POST", "/upwell/v1/tokens", dict(scope)).result["token"])

    reader = issue(account="acme", access="read")
    writer = issue(account="acme", access="write")
    admin = issue(account="acme", access="admin")
    elsewhere = issue(account="other", access="admin")
    one_index = issue(account="acme", index="mine", access="write")
    create = json.dumps({"name": "second", "config": {"dimensions": 3, "metric": "cosine"}})
    base = "/client/v4/accounts/acme/vectorize/v2/indexes"
    calls: dict[str, tuple[str, str, bytes]] = {
        "list": ("GET", base, b""),
        "query": ("POST", f"{base}/mine/query", b'{"vector":[1,2,3]}'),
        "upsert": ("POST", f"{base}/mine/upsert", GOOD),
        "create": ("POST", base, create.encode()),
        "token": ("POST", "/upwell/v1/tokens", b"{}"),
    }
    allowed: dict[str | None, set[str]] = {
        None: set(),
        "upw_wrong": set(),
        reader: {"list", "query"},
        writer: {"list", "query", "upsert"},
        one_index: {"query", "upsert"},
        elsewhere: set(),
        admin: {"list", "query", "upsert", "create"},
    }
    refused = {None: (401, 9106), "upw_wrong": (401, 10000)}
    for token, may in allowed.items():
        for name, (method, path, body) in calls.items():
            answer = api.call(method, path, body or None, token=token)
            if name in may:
                assert answer.status == 200, (name, answer)
            else:
                assert answer.error[:2] == refused.get(token, (403, 7403)), (name, answer)
    key_and_mail = {"X-Auth-Email": "me@example.com", "X-Auth-Key": reader}
    assert api.call("GET", base, token=None, headers=key_and_mail).status == 200
    assert api.call("GET", base, token=None, headers={"X-Auth-Key": reader}).error[:2] == (401, 9106)
