"""Every code that the Cloudflare door answers with: a request that provokes it, the HTTP status, and the words.

Where the live service's words are on record, a message begins with them; what comes after says where and why, in words of our own. Codes
from 50000 on are ours: the HTTP status with 50000 before it, so that none can be taken for one of Cloudflare's.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.doors.cloudflare import errors
from ingest.problems import STATUSES
from tests.service import TOKEN, Answer, Index, Service, running

ACCOUNT = "/client/v4/accounts/default/vectorize/v2/indexes"
GOOD = '{"id":"x","values":[1,2,3]}'
BYTES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """A code, how it is provoked, and what is said.

    A path that does not begin with / is one of the index "codes"; what is in braces was made beforehand.
    """

    code: int
    status: int
    says: str
    path: str
    body: str | None = None
    method: str = "POST"
    token: str | None = TOKEN
    headers: dict[str, str] = field(default_factory=dict)


def line(**fields: Any) -> str:
    """A good line and, after it, one with these fields changed."""
    return f"{GOOD}\n{json.dumps({'id': 'y', 'values': [1, 2, 3]} | fields)}"


def asking(**fields: Any) -> str:
    """A query's body."""
    return json.dumps({"vector": [1, 2, 3]} | fields)


def index_of(config: object, name: str = "not-made") -> str:
    """The body of create."""
    return json.dumps({"name": name, "config": config})


FINE = {"dimensions": 3, "metric": "cosine"}
NOT_JSON = "Failed to parse the request body as JSON: "
FORMAT = r"failed to parse upsert vectors request in ndjson format: line Some\(1\) was not expected format"
CONFIG = r"vectorize\.index\.invalid_config - "
RANGE = CONFIG + r"Dimensions must be in range: \[1, 1536\]"
TOP_K = (
    r"with returnValues=true or returnMetadata=all, max top K is 50, but got 100; for a top K up to 100, "
    r"retry with returnValues=false and returnMetadata=indexed$"
)
NO_ROUTE = r"Could not route to /client/v4/\S+, perhaps your object identifier is invalid\?$"

ROWS = [
    # Indexes.
    Row(3000, 404, r'vectorize\.index\.not_found - Index name "never-was"$', f"{ACCOUNT}/never-was/upsert", GOOD),
    Row(3000, 404, r'vectorize\.index\.not_found - Index name "never-was"$', f"{ACCOUNT}/never-was", method="DELETE"),
    Row(3002, 400, r'vectorize\.index\.duplicate_name - Index name "codes"$', ACCOUNT, index_of(FINE, "codes")),
    Row(3005, 410, r'vectorize\.index\.deleted - Index name "gone" was deleted$', f"{ACCOUNT}/gone", method="GET"),
    Row(3005, 410, r'vectorize\.index\.deleted - Index name "gone" was deleted$', f"{ACCOUNT}/gone/query", asking()),
    Row(50400, 400, CONFIG + "Config must be provided$", ACCOUNT, '{"name":"not-made"}'),
    Row(50400, 400, RANGE + ", got 1537$", ACCOUNT, index_of(FINE | {"dimensions": 1537})),
    Row(50400, 400, RANGE + ", got 0$", ACCOUNT, index_of(FINE | {"dimensions": 0})),
    Row(40026, 400, NOT_JSON + "config: unknown preset, expected one of @cf/", ACCOUNT, index_of({"preset": "best"})),
    Row(40026, 400, NOT_JSON + r"config\.metric: ", ACCOUNT, index_of(FINE | {"metric": "manhattan"})),
    Row(40026, 400, NOT_JSON + "name: ", ACCOUNT, index_of(FINE, "Upper")),
    # Uploads: the line is counted from 0 in Cloudflare's words, and from 1 in ours.
    Row(40008, 400, r"id too long; max is 64 bytes, got 74 bytes \(line 2, id\)$", "upsert", line(id="x" * 74)),
    Row(40009, 400, "namespace too long; max is 64 bytes, got 65 bytes", "insert", line(namespace="n" * 65)),
    Row(40012, 400, 'invalid vector for id="y", expected 3 dimensions, and got 4 dimensions', "insert", line(values=[1] * 4)),
    Row(
        40016,
        400,
        'oversized metadata for vector id="y"; the compact JSON representation of the metadata must not exceed 10240 bytes, '
        "got 10248 bytes",
        "upsert",
        line(metadata={"a": "m" * 10_240}),
    ),
    Row(40018, 400, 'invalid metadata key for vector id="y"; .*"a.b"', "upsert", line(metadata={"a.b": 1})),
    Row(40023, 400, FORMAT + r"; expected JSON: .* \(line 2\)$", "upsert", GOOD + "\nnope"),
    Row(40023, 400, FORMAT + "; .*did you mean values", "insert", GOOD + '\n{"id":"y","vector":[1,2,3]}'),
    Row(40023, 400, FORMAT + "; expected an array of numbers, got an object", "upsert", line(values={"0": 1})),
    Row(50400, 400, "unparsable-behavior: expected error or discard, got 'no'$", "upsert?unparsable-behavior=no", GOOD),
    Row(50400, 400, "Content-Encoding: expected one of .*, got 'br'$", "upsert", GOOD, headers={"Content-Encoding": "br"}),
    Row(50400, 400, "the request body contains no vectors$", "upsert", "\n"),
    Row(50413, 413, "too many vectors in payload; max is 5000, got 5001$", "upsert", "{}\n" * 5_001),
    Row(50413, 413, f"the request body has {BYTES_MAX + 1} bytes; at most {BYTES_MAX} are", "upsert", "x" * (BYTES_MAX + 1)),
    # Ids.
    Row(40007, 400, "too many ids in payload; max id count is 20, got 34$", "get_by_ids", json.dumps({"ids": ["a"] * 34})),
    Row(40007, 400, "too many ids in payload; max id count is 100, got 110$", "delete_by_ids", json.dumps({"ids": ["a"] * 110})),
    Row(40008, 400, r"id too long; max is 64 bytes, got 74 bytes \(ids\[0\]\)$", "delete_by_ids", json.dumps({"ids": ["x" * 74]})),
    Row(40026, 400, r"ids\[1\]: expected a string that is not empty, got null$", "get_by_ids", '{"ids":["a",null]}'),
    Row(40026, 400, 'ids: expected .* the string "too many"$', "get_by_ids", '{"ids":"too many"}'),
    # Queries.
    Row(40006, 400, "invalid query vector, expected 3 dimensions, and got 0 dimensions$", "query", asking(vector=[])),
    Row(40008, 400, "id too long; max is 64 bytes, got 74 bytes$", "query", json.dumps({"vectorId": "x" * 74})),
    Row(40009, 400, "namespace too long; max is 64 bytes, got 65 bytes$", "query", asking(namespace="n" * 65)),
    Row(40025, 400, TOP_K, "query", asking(topK=100, returnValues=True)),
    Row(40025, 400, "max top K is 100, but got 101$", "query", asking(topK=101)),
    Row(40026, 400, NOT_JSON + "returnMetadata: ", "query", asking(returnMetadata="some")),
    Row(40026, 400, NOT_JSON + "expected exactly one of vector and vectorId$", "query", "{}"),
    Row(40026, 400, NOT_JSON, "query", "{"),
    Row(50400, 400, "filter: expected an object that is not empty$", "query", asking(filter={})),
    Row(50400, 400, r"filter\.a: unknown operator", "query", asking(filter={"a": {"$near": 1}})),
    Row(50404, 400, 'vectorId: there is no vector with id "nobody"$', "query", '{"vectorId":"nobody"}'),
    Row(50404, 404, "no such mutation here", "query?after=nonsense", asking()),
    Row(50503, 503, "the mutation is not visible yet", "query?after={queued}&wait=0", asking()),
    # Lists, metadata indexes, mutations.
    Row(40052, 400, "List vectors cursor appears to be corrupted$", "list?cursor=abc", method="GET"),
    Row(50400, 400, "count: expected a number from 1 to 1000, got '1001'$", "list?count=1001", method="GET"),
    Row(50400, 400, "limit: expected a number from 1 to 1000", "mutations?limit=000000001" + "0" * 5_000, method="GET"),
    Row(50400, 400, "wait: expected seconds, got 'nan'$", "mutations/x?wait=nan", method="GET"),
    Row(50404, 404, "no such mutation here", "mutations/00000000-0001-8000-8000-000000000000", method="GET"),
    Row(40026, 400, NOT_JSON + "indexType: ", "metadata_index/create", '{"propertyName":"a","indexType":"date"}'),
    # Writes of every kind.
    Row(50400, 400, "dry-run: expected true or false", "upsert?dry-run=perhaps", GOOD),
    Row(50422, 422, ".*key", "upsert", line(id="z"), headers={"Idempotency-Key": "used"}),
    # Who asks, and for what.
    Row(9106, 401, "Authentication failed: missing Authorization header", "info", method="GET", token=None),
    Row(10000, 401, "Authentication error: ", "info", method="GET", token="upw_unknown"),
    Row(10000, 401, "Authentication error: ", "info", method="GET", token=None, headers={"Authorization": "Basic \xe9"}),
    Row(7403, 403, "The given token is not authorized for this: ", "upsert", GOOD, token="{reader}"),
    Row(7403, 403, "The given token is not authorized for this: ", "info", method="GET", token="{elsewhere}"),
    Row(40041, 429, "Too Many Requests: this token's limit of 1/hour is reached$", "info", method="GET", token="{seldom}"),
    Row(7003, 404, NO_ROUTE, "/client/v4/nothing/here", method="GET"),
    Row(7003, 404, NO_ROUTE, "nothing/here", method="GET"),
    Row(7003, 404, NO_ROUTE, f"/client/v4/accounts/{'a' * 33}/vectorize/v2/indexes", method="GET"),
    Row(10405, 405, "Method PUT not allowed here, only DELETE, GET", "", "{}", method="PUT"),
    Row(10405, 405, "Method GET not allowed here, only POST$", "query", method="GET"),
    Row(50417, 417, "Expect: only 100-continue is known here, got 'wonders'$", "upsert", GOOD, headers={"Expect": "wonders"}),
]  # fmt: skip

#: Codes in an answer's ``messages``: nothing went wrong.
REMARKS: dict[int, tuple[Row, str]] = {
    errors.UNINDEXED_FILTER: (
        Row(0, 200, "", "query", asking(filter={"a": 1})),
        'there is no metadata index on "a"',
    ),
}
#: Statuses that no request can provoke while all is well (507: test_story_disk_faults.py), or (408) none that is sent in one piece: see
#: test_story_security_wire.py.
NOT_PROVOKED = {408, 500, 507}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    # Without a worker, so that nothing becomes visible.
    limits = {"UPWELL_GET_IDS_MAX": "20", "UPWELL_DELETE_IDS_MAX": "100"}
    with running(apis=1, workers=0, UPWELL_REQUEST_BYTES_MAX=str(BYTES_MAX), **limits) as service:
        yield service


@pytest.fixture(scope="module")
def made(service: Service) -> dict[str, str]:
    """What rows name in braces."""
    api = service.apis[0]
    for name in ("codes", "gone"):
        assert api.index(name).create(3).status == 200
    assert api.call("DELETE", api.index("gone").path()).status == 200
    used = api.index("codes").post("upsert", GOOD, headers={"Idempotency-Key": "used"})

    def issue(**scope: str) -> str:
        return str(api.call("POST", "/upwell/v1/tokens", dict(scope)).result["token"])

    tokens = {
        "{reader}": issue(access="read"),
        "{elsewhere}": issue(account="other"),
        "{seldom}": issue(rate="1/hour"),
    }
    assert api.index("codes").get("/info", token=tokens["{seldom}"]).status == 200
    return tokens | {"{queued}": used.result["mutationId"]}


def send(service: Service, row: Row, made: dict[str, str]) -> Answer:
    """Send a row's request."""
    path = row.path if row.path.startswith("/") else f"{ACCOUNT}/codes/{row.path}".rstrip("/")
    for name, value in made.items():
        path = path.replace(name, value)
    token = made.get(row.token or "", row.token)
    return service.apis[0].call(row.method, path, row.body, token=token, headers=dict(row.headers))


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.code}-{row.path[:24]}" for row in ROWS])
def test_a_code_comes_with_its_status_and_words(service: Service, made: dict[str, str], row: Row) -> None:
    answer = send(service, row, made)
    status, code, message = answer.error
    assert (status, code) == (row.status, row.code), message
    assert re.match(row.says, message), message
    assert set(answer.json) == {"result", "success", "errors", "messages"}
    assert answer.headers["Content-Type"].startswith("application/json")
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


@pytest.mark.parametrize("code", REMARKS)
def test_a_remark_comes_with_a_success(service: Service, made: dict[str, str], code: int) -> None:
    row, says = REMARKS[code]
    answer = send(service, row, made)
    assert answer.status == 200 and answer.json["success"] is True and answer.json["errors"] == []
    (message,) = answer.json["messages"]
    assert message["code"] == code and message["message"].startswith(says)


def test_every_code_has_a_row() -> None:
    named = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    answered = (named | set(errors.LINE_CODES.values())) - {errors.OWN_CODES}
    assert answered <= {row.code for row in ROWS} | set(REMARKS), "a code has no row yet"
    assert {int(status) for _, status in STATUSES} - NOT_PROVOKED <= {row.status for row in ROWS}
    own = {errors.OWN_CODES + int(status) for _, status in STATUSES} | {50417}
    assert {row.code for row in ROWS} <= answered | own


def test_nothing_that_was_refused_left_a_trace(service: Service, made: dict[str, str]) -> None:
    index = service.apis[0].index("codes")
    for row in ROWS:
        if row.token == TOKEN and row.method == "POST":
            send(service, row, made)
    listed = index.get("/mutations").result
    assert [one["mutationId"] for one in listed] == [made["{queued}"]]
    names = [one["name"] for one in index.api.call("GET", ACCOUNT).result]
    assert names == ["codes"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8;", "text/plain", ""])
def test_no_content_type_is_unknown(service: Service, made: dict[str, str], kind: str) -> None:
    """Cloudflare answers 1005 to uploads that say they are JSON, as those of its own Python SDK do. We read the body."""
    answer = service.apis[0].index("codes").post("upsert?dry-run=true", GOOD, headers={"Content-Type": kind})
    assert answer.result["valid"] is True


@pytest.mark.parametrize(
    ("declared", "sent"), [(len(GOOD) + 100, GOOD), (len(GOOD) - 3, GOOD), (10**12, GOOD)]
)
def test_a_length_that_is_a_lie(service: Service, made: dict[str, str], declared: int, sent: str) -> None:
    index: Index = service.apis[0].index("codes")
    where = urlsplit(service.apis[0].url)
    before = index.get("/mutations").result
    head = f"POST {index.path('/upsert')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {declared}\r\n\r\n{sent}".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        # Who hangs up too early, or says more than was announced, may get no answer.
        with contextlib.suppress(ConnectionResetError):
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert not answer or re.match(rb"HTTP/1\.[01] (400|413) ", answer), answer
    assert index.get("/mutations").result == before
