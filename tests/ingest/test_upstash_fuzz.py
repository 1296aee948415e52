"""Whatever comes to the Upstash door, nothing goes wrong in it: what is refused is told so, in JSON, and is never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.doors.upstash.routes import COMMANDS
from tests.upstash_door import Answer, UpstashHouse, upstash_house
from upwell.kinds import IndexKind

Call = Callable[..., Answer]
KINDS = ("dense", "sparse", "hybrid", "words")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Requests to a house that lives for the whole module."""
    with asyncio.Runner() as runner:
        # What a failure waits for is not to be waited for a minute.
        entered = upstash_house(tmp_path_factory.mktemp("fuzz"), wait_s_max=5, upstash_resumable_max=10_000)
        house: UpstashHouse = runner.run(entered.__aenter__())
        for kind in IndexKind:
            house.make(kind.value, kind)
        house.make("words", IndexKind.HYBRID, 256, embedding_model="wordllama", sparse_embedding_model="BM25")
        yield lambda *what, **how: runner.run(house.call(*what, **how))
        runner.run(entered.__aexit__(None, None, None))


#: What a field may be sent as: something that fits it, or anything else.
NUMBERS = st.floats(width=32) | st.integers() | st.sampled_from([0, 1, 2, 1e38, 1e39, 2**31, 2**63, 2**64])
WORDS = st.text(max_size=5) | st.sampled_from(
    ["a", "ns", "", "a = 1", "a GLOB 'x*'", "PATCH", "IDF", "DBSF", "SPARSE", "\0", "0", "5"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
SPARSE = st.fixed_dictionaries(
    {"indices": st.lists(st.integers(-9, 9), min_size=2, max_size=2), "values": st.just([1, 2.5])}
)
FITTING: dict[str, Any] = {
    "id": st.sampled_from(["a", "b", 7]),
    "vector": st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2),
    "sparseVector": SPARSE,
    "metadata": st.dictionaries(WORDS, ANYTHING, max_size=2),
    "data": WORDS,
    "metadataUpdateMode": st.sampled_from(["PATCH", "OVERWRITE"]),
    "ids": st.lists(WORDS | st.integers(), max_size=3),
    "prefix": WORDS,
    "filter": WORDS,
    "topK": st.integers(1, 20),
    "cursor": WORDS | st.integers(-1, 20),
    "limit": st.integers(1, 20),
    "includeVectors": st.booleans(),
    "includeMetadata": st.booleans(),
    "includeData": st.booleans(),
    "weightingStrategy": st.sampled_from(["IDF", None]),
    "fusionAlgorithm": st.sampled_from(["RRF", "DBSF"]),
    "queryMode": st.sampled_from(["HYBRID", "DENSE", "SPARSE"]),
    "maxIdle": st.integers(1, 60),
    "uuid": WORDS,
    "additionalK": st.integers(1, 20),
    "namespace": WORDS,
    "newNamespace": WORDS,
    "deleteExisting": st.booleans(),
}  # fmt: skip
INCLUDES = ("includeVectors", "includeMetadata", "includeData")
VECTORS = ("vector", "sparseVector")
QUERY = (*VECTORS, "topK", "filter", "weightingStrategy", "fusionAlgorithm", "maxIdle", *INCLUDES)
#: What each command that has a body takes: what it cannot do without, and what else.
SHAPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "upsert": (("id", *VECTORS), ("metadata", "data")),
    "upsert-data": (("id", "data"), ("metadata",)),
    "update": (("id",), (*VECTORS, "metadata", "data", "metadataUpdateMode")),
    "delete": ((), ("ids", "prefix", "filter")),
    "query": ((), QUERY),
    "query-data": (("data",), (*QUERY[2:], "queryMode")),
    "resumable-query": ((), QUERY),
    "resumable-query-data": (("data",), (*QUERY[2:], "queryMode")),
    "resumable-query-next": (("uuid", "additionalK"), ()),
    "resumable-query-end": (("uuid",), ()),
    "fetch": ((), ("ids", "prefix", *INCLUDES)),
    "range": ((), ("cursor", "limit", "prefix", *INCLUDES)),
    "rename-namespace": (("namespace", "newNamespace"), ("deleteExisting",)),
}
#: The vectors that a row of each index has.
HAS = {"dense": {"vector"}, "sparse": {"sparseVector"}, "hybrid": set(VECTORS), "words": {"sparseVector"}}


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A command, its index, and a body that mostly fits both."""
    command, kind = draw(st.sampled_from([*COMMANDS, "", "nothing"])), draw(st.sampled_from(KINDS))
    if draw(st.integers(0, 9)) == 0:
        return command, kind, draw(ANYTHING.map(json.dumps).map(str.encode) | st.binary(max_size=30))

    def one() -> dict[str, Any]:
        needed, others = SHAPES.get(command, ((), ()))
        names = [*needed, *draw(st.lists(st.sampled_from(others), unique=True) if others else st.just([]))]
        fits = [name for name in names if name not in VECTORS or name in HAS[kind]]
        sent = {name: draw(FITTING[name]) for name in fits}
        if draw(st.integers(0, 3)) == 0:
            sent[draw(st.sampled_from(list(FITTING)))] = draw(ANYTHING)
        return sent

    body: Any = one()
    if draw(st.integers(0, 4)) == 0:
        body = [body, *(one() for _ in range(draw(st.integers(0, 2))))]
    # As Python writes it: with NaN and lone surrogates.
    return command, kind, json.dumps(body).encode()


NAMESPACES = st.sampled_from(["", "", "", "/", "/ns", "/ns", "/a%20b", "/%00", "/%ff", "//", "/a/b"])


@given(requests(), NAMESPACES, st.sampled_from(["POST", "GET", "DELETE"]))
@settings(max_examples=400)
def test_nothing_goes_wrong(call: Call, asked: tuple[str, str, bytes], namespace: str, method: str) -> None:
    command, kind, body = asked
    answer = call(command + namespace, body, index=kind, method=method)
    told = json.loads(orjson.dumps(answer.json))
    if answer.status == 200:
        assert told.keys() == {"result"}, answer
        if COMMANDS[command].access == "write":
            assert answer.headers["X-Mutation-Id"]
    else:
        assert answer.status in (400, 404, 409, 422), (answer, command, body)
        assert told.keys() == {"error", "status"} and told["error"] and told["status"] == answer.status
