"""Bodies of every kind over HTTP: never a 500, envelopes that agree with their statuses, and what is refused leaves no trace."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.body import Rules, parse_upload
from tests import bodies
from tests.bodies import ANYTHING, Sent, an_object, array, mostly, nested, quoted
from tests.service import TOKEN, Index, Service, running
from tests.thorough import THOROUGH, examples
from upwell.changeset import Changeset, Operation
from upwell.errors import Invalid

RULES = Rules(dimensions=bodies.DIMENSIONS, vectors_max=40, bytes_max=4_000_000, metadata_bytes_max=200)
LIMITS = {
    "UPWELL_REQUEST_VECTORS_MAX": str(RULES.vectors_max),
    "UPWELL_REQUEST_BYTES_MAX": str(RULES.bytes_max),
    "UPWELL_METADATA_BYTES_MAX": str(RULES.metadata_bytes_max),
}


class Reply(NamedTuple):
    """What came back."""

    status: int
    envelope: dict[str, Any]


class Wire:
    """One connection that is kept, with bodies and headers sent as they are."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Reply:
        """Send a request. It must be answered, and not with a failure of ours."""
        self._connection.putrequest(method, path, skip_host=True)
        said = {
            "Host": "here",
            "Authorization": f"Bearer {TOKEN}",
            "Content_Length": str(len(body)),
            **headers,
        }
        for name, value in said.items():
            if value is not None:
                self._connection.putheader(name.replace("_", "-"), value.encode("utf-8", "surrogateescape"))
        self._connection.endheaders(body)
        answer = self._connection.getresponse()
        envelope = json.loads(answer.read())
        assert answer.status == 200 or 400 <= answer.status < 500, (answer.status, envelope)
        return Reply(answer.status, envelope)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Reply:
        """The same of the Cloudflare door, whose envelopes agree with their statuses."""
        answer = self.call(method, path, body, **headers)
        envelope = answer.envelope
        assert set(envelope) - {"result_info"} == {"result", "success", "errors", "messages"}
        assert envelope["success"] is (answer.status == 200), (answer.status, envelope)
        assert len(envelope["errors"]) == (answer.status != 200)
        assert all(one["code"] >= 1000 and one["message"] for one in envelope["errors"])
        return answer

    def newest(self, index: Index) -> str | None:
        """The mutation that an index acknowledged last."""
        listed = self.ask("GET", index.path("/mutations?limit=1")).envelope["result"]
        return str(listed[0]["mutationId"]) if listed else None

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=1, workers=0, **LIMITS) as service:
        yield service


@pytest.fixture
def wire(service: Service) -> Iterator[Wire]:
    wire = Wire(service.apis[0].url)
    yield wire
    wire.close()


def fuzzed(all_of_them: int) -> settings:
    """Settings of a property that is tried on so many requests."""
    fine = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(deadline=None, max_examples=examples(all_of_them), suppress_health_check=fine)


def made_of(sent: Sent, operation: Operation, *, discard: bool) -> Changeset | None:
    """What a body holds; None if it is to be refused. tests/ingest/body asks whether that is right."""
    rules = Rules(
        dimensions=RULES.dimensions,
        vectors_max=RULES.vectors_max,
        bytes_max=RULES.bytes_max,
        metadata_bytes_max=RULES.metadata_bytes_max,
        discard=discard,
    )
    try:
        return parse_upload(
            sent.body,
            content_type=sent.content_type,
            content_encoding=sent.content_encoding,
            operation=operation,
            rules=rules,
        )
    except Invalid:
        return None


def vectors_in(changeset: Changeset) -> list[tuple[str, dict[str, Any]]]:
    """Its vectors as get_by_ids shows them, by id, in order."""
    nothing = [None] * len(changeset)
    namespaces = nothing if changeset.namespaces is None else changeset.namespaces.to_pylist()
    metadata = nothing if changeset.metadata is None else changeset.metadata.to_pylist()
    assert changeset.vectors is not None
    found = []
    for id, values, name, data in zip(
        changeset.ids.to_pylist(), changeset.vectors, namespaces, metadata, strict=True
    ):
        shown: dict[str, Any] = {"id": id, "values": values.tolist()}
        shown |= {} if name is None else {"namespace": name}
        shown |= {} if data is None else {"metadata": json.loads(data)}
        found.append((id, shown))
    return found


#: A body without a length may be a large one, and is parsed in another process.
CHUNKED = {"Transfer_Encoding": "chunked", "Content_Length": None}


def in_chunks(body: bytes) -> bytes:
    """A body as it is sent without a length."""
    pieces = [body[:7], body[7:50_000], body[50_000:]]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def as_float32(shown: dict[str, Any]) -> dict[str, Any]:
    """A vector with its values as float32 reads them."""
    return shown | {"values": np.array(shown["values"], np.float32).tolist()}


def test_uploads_of_every_kind(service: Service, wire: Wire) -> None:
    index = service.apis[0].index("uploads")
    index.create(bodies.DIMENSIONS)
    expected: dict[str, dict[str, Any]] = {}
    last: list[str | None] = [None]
    count = 0

    @given(
        bodies.whole.map(lambda drawn: drawn[0])
        | bodies.damaged()
        | bodies.encoded().map(lambda drawn: drawn[0]),
        st.sampled_from(["upsert", "insert"]),
        st.booleans(),
        st.booleans(),
    )
    @fuzzed(200)
    def upload(sent: Sent, operation: str, discard: bool, chunked: bool) -> None:
        nonlocal count
        changeset = made_of(sent, Operation(operation), discard=discard)
        behaviour = "?unparsable-behavior=discard" if discard else ""
        reply = wire.ask(
            "POST",
            index.path(f"/{operation}{behaviour}"),
            in_chunks(sent.body) if chunked else sent.body,
            Content_Type=sent.content_type,
            Content_Encoding=sent.content_encoding,
            **(CHUNKED if chunked else {}),
        )
        assert (reply.status == 200) == (changeset is not None), reply
        if changeset is not None:
            last[0], count = reply.envelope["result"]["mutationId"], count + 1
            assert len(reply.envelope["messages"]) == changeset.discarded_count
            for id, shown in vectors_in(changeset):
                if operation == "upsert" or id not in expected:
                    expected[id] = shown
        assert wire.newest(index) == last[0]

    upload()
    assert count > (30 if THOROUGH else 10) and last[0] is not None
    service.start_worker()
    index.visible(last[0])
    assert wire.ask("GET", index.path("/mutations?state=failed")).envelope["result"] == []
    assert index.get("/info").result["vectorCount"] == len(expected)
    found = index.fetch(*expected)
    assert {id: as_float32(shown) for id, shown in found.items()} == expected


LONG_VECTOR = array([b"1"] * 200_000)
WRONG_VECTOR = array([b'"1"'] * 200_000)
NAMES = [
    b'"a"',
    b'""',
    b"null",
    b"7",
    b"1e400",
    quoted("x" * 65),
    quoted("x" * 100_000),
    b'"\\u0000"',
    b'"\\ud800"',
    b"[]",
    b"{}",
]
DEEP = [nested(b'{"a":', b"1", b"}", levels) for levels in (3, 250, 260, 1_000, 30_000)] + [
    nested(b"[", b"", b"]", 1_000)
]
VECTORS = [
    b"[1,2,3]",
    b"[1,2]",
    b"[]",
    b"null",
    b'["1",2,3]',
    b"[true,2,3]",
    b"[[1],2,3]",
    b"[1,2,NaN]",
    b"[1,2,1e39]",
    b"[1,2,1e400]",
]
VECTORS += [
    b"[0,0,0]",
    b"[1e-320,-0.0,0]",
    b"[3e38,3e38,-3e38]",
    b"[1,2,18446744073709551616]",
    b'{"0":1}',
    b'"123"',
    LONG_VECTOR,
    WRONG_VECTOR,
]
COUNTS = [
    b"1",
    b"5",
    b"50",
    b"100",
    b"0",
    b"-1",
    b"1e9",
    b"1.5",
    b'"5"',
    b"true",
    b"null",
    b"[5]",
    b"18446744073709551615",
    b"9" * 400,
]
FLAGS = [
    b"true",
    b"false",
    b"null",
    b'"yes"',
    b"1",
    b'"all"',
    b'"none"',
    b'"indexed"',
    b'"ALL"',
    b"{}",
    b"[]",
]
CONDITIONS = [
    b'{"$eq":1}',
    b'{"$in":[1,"a",null,true]}',
    b'{"$gte":1,"$lt":2}',
    b'{"$gt":"a"}',
    b'{"$lt":true}',
    b'{"$in":1}',
    b'{"$ne":[1]}',
]
CONDITIONS += [
    b'{"$gt":1,"$gte":1}',
    b'{"$gte":1,"$lt":"a"}',
    b'{"$near":1}',
    b"{}",
    b"[]",
    b'"a"',
    b"1e308",
    b"18446744073709551615",
    b"null",
]
FILTERS = [
    an_object([(key, condition)])
    for key in (b'"a"', b'"a.b"', b'"$a"', b'""', b'"a..b"', b'"a|b"')
    for condition in CONDITIONS
]
FILTERS += [b"{}", b"[]", b"null", b"7", b'"a"', an_object([(b'"a"', quoted("y" * 3_000))]), *DEEP]
IDS = [array([name]) for name in NAMES] + [
    b"[]",
    b'"too many"',
    b"7",
    b'["a","b"]',
    array([b'"a"'] * 30_000),
    array([b"[]"] * 30_000),
    *DEEP,
]
CONFIGS = [
    b'{"dimensions":3,"metric":"cosine"}',
    b'{"dimensions":0,"metric":"cosine"}',
    b'{"dimensions":1e9,"metric":"cosine"}',
]
CONFIGS += [
    b'{"dimensions":"3","metric":"cosine"}',
    b'{"dimensions":3,"metric":["cosine"]}',
    b'{"preset":[]}',
    b'{"preset":"x"}',
    b"[]",
    b"7",
]

#: Where a JSON body goes, and what may stand under each of its keys.
QUESTIONS: dict[str, dict[bytes, Sequence[bytes]]] = {
    "/query": {
        b'"vector"': VECTORS,
        b'"vectorId"': NAMES,
        b'"topK"': COUNTS,
        b'"returnValues"': FLAGS,
        b'"returnMetadata"': FLAGS,
        b'"namespace"': NAMES,
        b'"filter"': FILTERS,
        b'"after"': NAMES,
    },
    "/get_by_ids": {b'"ids"': IDS},
    "/delete_by_ids": {b'"ids"': IDS},
    "/metadata_index/create": {b'"propertyName"': NAMES, b'"indexType"': [b'"string"', b'"number"', b'"boolean"', *FLAGS]},
    "/metadata_index/delete": {b'"propertyName"': NAMES, b'"property"': NAMES},
    "/webhooks": {b'"url"': [b'"http://127.0.0.1/"', *NAMES], b'"events"': [array([b'""'] * 100_000), *FLAGS], b'"secret"': NAMES},
    "": {b'"name"': NAMES, b'"config"': CONFIGS, b'"description"': NAMES, b'"shards"': COUNTS},
}  # fmt: skip
ESSENTIAL = {b'"vector"', b'"ids"', b'"propertyName"', b'"url"', b'"name"'}


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a JSON body for it: the keys it may have, seldom others, each with something under it; seldom cut or spoilt."""
    path = draw(st.sampled_from(["/query"] * 4 + list(QUESTIONS)))
    keys = QUESTIONS[path]
    chosen = draw(st.lists(st.sampled_from(list(keys)), max_size=4, unique=True))
    chosen += [key for key in keys if key in ESSENTIAL and key not in chosen and draw(st.integers(0, 9))]
    pairs = [(key, draw(mostly(st.sampled_from(keys[key]), ANYTHING))) for key in chosen]
    body = draw(mostly(st.just(an_object(pairs)), ANYTHING, 30))
    if draw(st.integers(0, 19)) == 0:
        start = draw(st.integers(0, len(body)))
        body = body[:start] + draw(st.sampled_from(bodies.NASTY)) + body[start + draw(st.integers(0, 3)) :]
    return path, draw(st.sampled_from([b"", b"", bodies.BOM])) + body


def test_questions_of_every_kind(service: Service, wire: Wire) -> None:
    index = service.apis[0].index("questions")
    index.create(bodies.DIMENSIONS)
    first = index.upsert([{"id": "a", "values": [1, 2, 3], "metadata": {"a": 1}}])
    service.start_worker()
    index.visible(first)
    last = [first]
    statuses = set()

    @given(questions())
    @fuzzed(400)
    def ask(question: tuple[str, bytes]) -> None:
        path, body = question
        where = index.path(path) if path else index.path().rsplit("/", 1)[0]
        reply = wire.ask("POST", where, body)
        statuses.add((path, reply.status))
        if reply.status == 200 and isinstance(reply.envelope["result"], dict):
            last[0] = reply.envelope["result"].get("mutationId", last[0])
        if path:
            assert wire.newest(index) == last[0]
        elif reply.status == 200:
            wire.ask("DELETE", f"{where}/{reply.envelope['result']['name']}")

    ask()
    # Fewer questions do not surely meet each case.
    assert {200, 400} <= {status for _, status in statuses}
    if THOROUGH:
        assert {(path, 400) for path in QUESTIONS} <= statuses
        assert {("/query", 200), ("/get_by_ids", 200), ("/delete_by_ids", 200)} <= statuses
    index.visible(index.upsert([{"id": "z", "values": [1, 2, 3]}]))


def test_a_question_is_never_large_and_a_list_of_ids_may_be(service: Service, wire: Wire) -> None:
    index = service.apis[0].index("addresses")
    index.create(bodies.DIMENSIONS)
    padded = b'{"vector":[1,2,3]}' + b" " * (1 << 20)
    assert wire.ask("POST", index.path("/query"), padded[: 1 << 20]).status == 200
    assert wire.ask("POST", index.path("/query"), padded).status == 413
    zipped = gzip.compress(b'{"vector":[' + b"[]," * 1_000_000 + b"1]}")
    assert wire.ask("POST", index.path("/query"), zipped, Content_Encoding="gzip").status == 413
    assert (
        wire.ask("POST", index.path("/metadata_index/create"), zipped, Content_Encoding="gzip").status == 413
    )
    ids = array([b'"%064d"' % number for number in range(40_000)])
    assert wire.ask("POST", index.path("/get_by_ids"), b'{"ids":%b}' % ids).envelope["result"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/mutations?limit=%00",
        "/mutations?limit=" + "9" * 5_000,
        "/mutations?limit=-0",
        "/mutations?limit=%D9%A1",
        "/mutations?cursor=%ff",
        "/mutations?state=%ed%a0%80",
        "/mutations/%00?wait=1e999",
        "/mutations/x?wait=" + "1" * 5_000,
        "/list?count=" + "0" * 5_000 + "1",
        "/list?cursor=%ff",
        "/list?cursor=" + "A" * 5_000,
        "/%ed%a0%80",
        "/a%2Fb%00",
    ],
)
def test_odd_addresses(service: Service, wire: Wire, path: str) -> None:
    index = service.apis[0].index("addresses")
    index.create(bodies.DIMENSIONS)
    assert wire.ask("GET", index.path(path)).status in (400, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic é"},
        {"Authorization": "Basic \udcff"},
        {"Authorization": "Bearer \udcff"},
        {"Authorization": None, "X_Auth_Key": "\udcff", "X_Auth_Email": "é"},
        {"Content_Encoding": "\udcff"},
        {"Content_Encoding": "gzip," * 100},
        {"Content_Type": "multipart/form-data; boundary=\udcff"},
        {"Idempotency_Key": "\udcff"},
        {"Expect": "\udcff"},
        {"Host": "vector-search", "Upwell_Account": "\udcff", "Upwell_Index": "\udcff"},
        {"Host": "vector-search", "Upwell_Account": "default", "Upwell_Index": "\udcff"},
    ],
)
def test_odd_headers(service: Service, wire: Wire, headers: dict[str, str | None]) -> None:
    index = service.apis[0].index("addresses")
    index.create(bodies.DIMENSIONS)
    if "Upwell_Index" in headers:
        assert wire.call("POST", "/upsert", b"{}", **headers).status in (400, 404)
    else:
        assert 400 <= wire.ask("POST", index.path("/upsert"), b"{}", **headers).status < 500
