"""What the Upstash door refuses, in which words; and that nothing of it comes into an index, nor out as anything but its JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest.operations import Operations
from tests.upstash_door import UpstashHouse, upstash_house
from upwell.catalog.tokens import Access
from upwell.errors import Corrupt, StoreFull, UpwellError
from upwell.kinds import IndexKind

GOOD: dict[str, Any] = {"id": "a", "vector": [1, 2]}
DEEP = b'{"id":"a","vector":[1,2],"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001
NO_MODEL = "Embedding data for this index is not allowed. The index must be created with an embedding model to use it."
DENSE, SPARSE = "This index requires dense vectors", "This index requires sparse vectors"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[UpstashHouse]:
    async with upstash_house(tmp_path, upstash_vectors_max=3, upstash_resumable_max=2) as house:
        house.make()
        house.make("sparse", IndexKind.SPARSE)
        house.make("hybrid", IndexKind.HYBRID)
        house.make("words", IndexKind.HYBRID, 256, embedding_model="wordllama", sparse_embedding_model="BM25")
        yield house


async def check_refused(
    house: UpstashHouse, command: str, body: Any, index: str, status: int, says: str
) -> None:
    got, text = await house.error(command, body, index=index)
    assert (got, text[: len(says)]) == (status, says), str(body)[:200]
    tail = house.engine.find("default", index).log.tail(0)
    assert tail == 0, "nothing came into the log"


WHAT_A_VECTOR_MUST_BE: list[Any] = [
    (b"", 422, "expected an object, got null"),
    (b"null", 422, "expected an object, got null"),
    (b"[]", 422, "expected at least one vector, got an empty array"),
    (b"7", 422, "expected an object, got the number 7"),
    (b"[[1]]", 422, "expected an object, got an array"),
    (b"{", 400, "Failed to parse the request body as JSON: "),
    (b"[" * 200_000, 400, "Failed to parse the request body as JSON: "),
    (DEEP, 400, "Failed to parse the request body as JSON: "),
    (b'{"id":"a"}{"id":"b"}', 400, "Failed to parse the request body as JSON: "),
    (b'[{"id":"a","vector":[1,2]}', 400, "Failed to parse the request body as JSON: "),
    (b'[{"id":"a","vector":[1,2]},]', 400, "Failed to parse the request body as JSON: "),
    (b'[{"id":"a","vector":[1,2]},\n{"id":"b" "vector":[1,2]}]', 400, "Failed to parse the request body as JSON: "),
    (b'{"id":"\xff","vector":[1,2]}', 400, "Failed to parse the request body as JSON: "),
    (b'{"id":"\\ud800","vector":[1,2]}', 422, "id: expected text that is valid UTF-8, got a lone surrogate"),
    (b'{"id":"a","vector":[1,NaN]}', 422, "vector[1]: expected a finite number, got NaN"),
    (b'{"id":"a","vector":[1,2],"metadata":{"k":[-Infinity]}}', 422, "metadata.k[0]: expected a finite number"),
    (b'[{"id":"b","vector":[1,2]},{"id":"a","vector":[NaN,2]}]', 422, "vector[0]: expected a finite number, got NaN (item 2)"),
    ({"vector": [1, 2]}, 422, "id: expected a string or an integer, got nothing"),
    (GOOD | {"id": None}, 422, "id: expected a string or an integer, got nothing"),
    (GOOD | {"id": ""}, 422, "id: expected a string that is not empty"),
    (GOOD | {"id": True}, 422, "id: expected a string or an integer, got true"),
    (GOOD | {"id": 1.5}, 422, "id: expected a string or an integer, got the number 1.5"),
    (GOOD | {"id": ["a"]}, 422, "id: expected a string or an integer, got an array"),
    (GOOD | {"id": "a\0"}, 422, "id: expected no NUL character"),
    (GOOD | {"id": "é" * 513}, 422, "id: expected at most 1024 bytes, got 1026"),
    ({"id": "a"}, 422, DENSE),
    ({"id": "a", "data": "text"}, 422, DENSE),
    ({"id": "a", "sparseVector": {"indices": [1], "values": [1]}}, 422, DENSE),
    (GOOD | {"sparseVector": {"indices": [1], "values": [1]}}, 422, f"{DENSE}; sparseVector must not be set"),
    (GOOD | {"vector": [1]}, 422, "Invalid vector dimension: 1, expected: 2"),
    (GOOD | {"vector": []}, 422, "Invalid vector dimension: 0, expected: 2"),
    (GOOD | {"vector": {"0": 1}}, 422, "vector: expected an array of numbers, got an object"),
    (GOOD | {"vector": [1, False]}, 422, "vector[1]: expected a number, got false"),
    (GOOD | {"vector": [1, -1e39]}, 422, "vector[1]: expected a float32, got the number -1e+39"),
    (GOOD | {"metadata": []}, 422, "metadata: expected an object, got an array"),
    (GOOD | {"metadata": "{}"}, 422, 'metadata: expected an object, got the string "{}"'),
    (GOOD | {"metadata": {"k": "x" * 49_145}}, 422, "metadata: expected at most 49152 bytes as compact JSON, got 49153"),
    (GOOD | {"data": 7}, 422, "data: expected a string, got the number 7"),
    (GOOD | {"data": "x" * ((1 << 20) + 1)}, 422, "data: expected at most 1048576 bytes, got 1048577"),
    ([GOOD, GOOD | {"id": 7, "vector": [1]}], 422, 'Invalid vector dimension: 1, expected: 2 (item 2, id "7")'),
    ([GOOD] * 4, 422, "expected at most 3 items, got 4"),
    ([GOOD] * 40, 422, "too many vectors in payload; max is 3, got more than 30"),
]  # fmt: skip


async def test_what_a_vector_must_be(house: UpstashHouse) -> None:
    for wrong, status, says in WHAT_A_VECTOR_MUST_BE:
        await check_refused(house, "upsert", wrong, "index", status, says)


def entries(indices: Any, values: Any) -> dict[str, Any]:
    return {"id": "a", "sparseVector": {"indices": indices, "values": values}}


WHAT_A_SPARSE_VECTOR_MUST_BE: list[Any] = [
    (GOOD, SPARSE),
    (GOOD | entries([1], [1]), f"{SPARSE}; vector must not be set"),
    ({"id": "a", "sparseVector": [[1], [1]]}, "sparseVector: expected an object with indices and values, got an array"),
    ({"id": "a", "sparseVector": {"indices": [1]}}, "sparseVector.values: expected an array of numbers, got nothing"),
    (entries("1", [1]), 'sparseVector.indices: expected an array of numbers, got the string "1"'),
    (entries([1, 2], [1]), "sparseVector: expected as many values as indices, got 2 indices and 1 values"),
    (entries([2**31], [1]), "sparseVector.indices[0]: expected an integer of 32 bits, got the number 2147483648"),
    (entries([1, 1.0], [1, 1]), "sparseVector.indices[1]: expected an integer of 32 bits, got the number 1.0"),
    (entries([True], [1]), "sparseVector.indices[0]: expected an integer of 32 bits, got true"),
    (entries([1], ["1"]), 'sparseVector.values[0]: expected a number, got the string "1"'),
    (entries([1], [1e39]), "sparseVector.values[0]: expected a float32, "),
    (entries(list(range(1001)), [1] * 1001), "sparseVector: expected at most 1000 values that are not zero, got 1001"),
]  # fmt: skip


async def test_what_a_sparse_vector_must_be(house: UpstashHouse) -> None:
    for wrong, says in WHAT_A_SPARSE_VECTOR_MUST_BE:
        await check_refused(house, "upsert", wrong, "sparse", 422, says)


async def test_a_sparse_vector_comes_back_as_it_was_sent(house: UpstashHouse) -> None:
    sent = [entries([9, -5, 9, 0, 2**31 - 1], [0.1, -2, 3.5, 0, 1e-40]), entries([], []) | {"id": "b"}]
    await house.result("upsert", sent, index="sparse")
    assert await house.result("fetch", {"ids": ["a", "b"], "includeVectors": True}, index="sparse") == sent


WHAT_A_WRITE_MUST_BE: list[Any] = [
    ("upsert", "hybrid", GOOD, SPARSE),
    ("upsert", "hybrid", entries([1], [1]), DENSE),
    ("upsert", "words", {"id": "a", "data": "text"}, DENSE),
    ("upsert-data", "index", {"id": "a", "data": "text"}, NO_MODEL),
    ("upsert-data", "index", GOOD, NO_MODEL),
    ("upsert-data", "words", {"id": "a"}, "data: expected a string, got nothing"),
    ("upsert-data", "words", {"id": "a", "data": ["text"]}, "data: expected a string, got an array"),
    ("upsert-data", "words", GOOD | {"data": "text"}, "upsert-data makes the vectors from data; "),
    ("update", "index", [GOOD], "expected an object, got an array"),
    ("update", "index", {"id": "a"}, "expected at least one of vector, sparseVector, metadata and data, got none"),
    ("update", "index", {"vector": [1, 2]}, "id: expected a string or an integer, got nothing"),
    ("update", "index", GOOD | {"metadataUpdateMode": "patch"}, "metadataUpdateMode: expected OVERWRITE or PATCH"),
    ("update", "index", entries([1], [1]), f"{DENSE}; sparseVector must not be set"),
    ("update", "hybrid", GOOD, f"{SPARSE}: either none or both of vector and sparseVector must be present"),
    ("update", "hybrid", entries([1], [1]), f"{DENSE}: either none or both of vector and sparseVector must be present"),
    ("delete", "index", {}, "Only and only one of the ids, prefix, or filter must be provided."),
    ("delete", "index", None, "Only and only one of the ids, prefix, or filter must be provided."),
    ("delete", "index", {"ids": ["a"], "filter": "a = 1"}, "Only and only one of the ids, prefix, or filter must be provided."),
    ("delete", "index", {"prefix": "", "filter": ""}, "Only and only one of the ids, prefix, or filter must be provided."),
    ("delete", "index", {"filter": " "}, "Only and only one of the ids, prefix, or filter must be provided."),
    ("delete", "index", {"filter": "a >"}, "Invalid filter: "),
    ("delete", "index", {"ids": True}, "ids: expected an array of ids, got true"),
    ("delete", "index", {"ids": ["a", ""]}, "ids[1]: expected a string that is not empty"),
    ("delete", "index", {"ids": {"a": 1}}, "ids: expected an array of ids, got an object"),
    ("delete", "index", ["a", None], "ids[1]: expected a string or an integer, got nothing"),
    ("delete", "index", b'"a"', 'expected an object, got the string "a"'),
    ("delete", "index", {"prefix": 7}, "prefix: expected a string, got the number 7"),
    ("rename-namespace", "index", {"namespace": "", "newNamespace": "b"}, "namespace: expected the name of a namespace"),
    ("rename-namespace", "index", {"namespace": "a"}, "newNamespace: expected the name of a namespace"),
    ("rename-namespace", "index", {"namespace": "a", "newNamespace": "b\0"}, "newNamespace: expected no NUL character"),
    ("rename-namespace", "index", {"namespace": "a", "newNamespace": "b" * 257}, "newNamespace: expected at most 256 bytes, got 257"),
    ("upsert/a%00b", "index", GOOD, "namespace: expected no NUL character"),
    ("upsert/a%FFb", "index", GOOD, "namespace: expected UTF-8 in the path"),
    ("upsert/" + "n" * 257, "index", GOOD, "namespace: expected at most 256 bytes, got 257"),
]  # fmt: skip


async def test_what_a_write_must_be(house: UpstashHouse) -> None:
    for command, index, wrong, says in WHAT_A_WRITE_MUST_BE:
        await check_refused(house, command, wrong, index, 422, says)


async def test_bodies_that_are_too_large(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, request_bytes_max=2_000) as house:
        house.make()
        for command in ("upsert", "query", "fetch", "delete", "rename-namespace", "resumable-query"):
            assert (await house.error(command, b" " * 2_001))[0] == 413, command
        many = [GOOD | {"data": "x" * 1_990}]
        assert (await house.error("upsert", many))[0] == 413


async def test_paths(house: UpstashHouse) -> None:
    await house.result("/upsert//", GOOD)
    assert await house.result("fetch/%2F", {"ids": ["a"]}) == [{"id": "a"}], "the namespace /"
    await house.result("///upsert/", GOOD | {"id": "b"})
    assert await house.result("fetch", {"ids": ["b"]}) == [{"id": "b"}]
    await house.result("upsert/a/b%20%25c", GOOD)
    assert await house.result("list-namespaces") == ["", "/", "a/b %c"]
    for nothing in ("", "/", "//", "upser", "upsertX", "Upsert", "info/ns", "list-namespaces/ns"):
        assert (await house.error(nothing, GOOD))[0] == 404, nothing
    for path in ("/upstash", "/upstash/", "/upstash/default"):
        async with house.session.post(path) as reply:
            assert reply.status == 404 and (path == "/upstash" or (await reply.json())["status"] == 404)


async def test_methods(house: UpstashHouse) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert await house.result("list-namespaces", method=method) == [""]
    async with house.session.head("/upstash/default/index/info") as reply:
        assert reply.status == 401 and not await reply.read()
    for method in ("PATCH", "OPTIONS", "TRACE"):
        assert await house.error("info", method=method) == (
            405,
            "Only HEAD, GET, POST, PUT, and DELETE methods are allowed",
        )


async def test_who_may_not(house: UpstashHouse) -> None:
    def token(**what: Any) -> str:
        default = {
            "name": "",
            "account": "*",
            "index": "*",
            "door": "*",
            "access": Access.ADMIN,
            "lasts": None,
        }
        return house.engine.tokens.issue(**(default | what))[0]

    invalid = (401, "Unauthorized: Invalid auth token")
    assert await house.error("info", token=None) == invalid
    assert await house.error("info", token="nobody-knows-this-one") == invalid
    assert await house.error("info", index="never", token=None) == invalid
    for strange in (
        token(door="cloudflare"),
        token(account="somebody-else"),
        token(index="other"),
    ):
        for command in ("info", "upsert"):
            status, says = await house.error(command, GOOD, token=strange)
            assert status == 403 and says.startswith("Forbidden: "), says
    reader = token(access=Access.READ, door="upstash", index="index", account="default")
    for command in (
        "upsert",
        "upsert-data",
        "update",
        "delete",
        "reset",
        "delete-namespace/ns",
        "rename-namespace",
    ):
        status, says = await house.error(command, GOOD, token=reader)
        assert status == 403 and says.startswith(f"Forbidden: /{command.partition('/')[0]} is not allowed"), (
            says
        )
    assert await house.result("fetch", {"ids": ["a"]}, token=reader) == [None]
    writer = token(access=Access.WRITE, index="index")
    assert await house.result("upsert", GOOD, token=writer) == "Success"
    house.engine.catalog.delete("default", "index")
    assert await house.error("info") == (404, "Index index does not exist, it was deleted")
    assert await house.error("info", index="never") == (404, "Index never does not exist")
    often = token(rate="1/1minute")
    await house.result("info", index="sparse", token=often)
    answer = await house.call("info", index="sparse", token=often)
    assert answer.error[0] == 429 and int(answer.headers["Retry-After"]) >= 1


async def test_what_goes_wrong_in_here(house: UpstashHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    raises: list[Exception] = []

    async def fails(*_: object, **__: object) -> None:
        raise raises[0]

    monkeypatch.setattr(Operations, "take", fails)
    for error, status, wait in (
        (StoreFull("no room"), 507, "30"),
        (Corrupt("damaged", key="k"), 500, None),
        (UpwellError("what was that"), 500, None),
        (RuntimeError("secret"), 500, None),
    ):
        raises[:] = [error]
        answer = await house.call("upsert", GOOD)
        assert answer.error[0] == status and answer.headers.get("Retry-After") == wait
        assert "secret" not in answer.error[1]


async def test_who_lags_behind_is_not_given_more(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, backlog_mutations_max=1) as house:
        house.make()
        house.drains.clear()
        await house.result("upsert", GOOD)
        answer = await house.call("upsert", GOOD)
        assert answer.error[0] == 429 and answer.headers["Retry-After"]


async def test_resumable_queries(house: UpstashHouse) -> None:
    await house.call(
        "upsert/ns", [{"id": n, "vector": [1, n]} for n in range(3)], headers={"Prefer": "wait=30"}
    )
    asked = {"vector": [1, 0], "topK": 1, "includeVectors": True}
    begun = await house.result("resumable-query/ns", asked)
    assert begun["scores"] == [{"id": "0", "score": 1, "vector": [1, 0]}]
    await house.result("upsert/ns", {"id": "new", "vector": [1, 0]})
    more = {"uuid": begun["uuid"], "additionalK": 5}
    assert [one["id"] for one in await house.result("resumable-query-next", more)] == ["1", "2"]
    assert await house.result("resumable-query-next", more) == []
    assert (await house.error("resumable-query-next", more, index="sparse"))[0] == 404, (
        "it is another index's"
    )
    assert await house.result("resumable-query/never", asked) == {"uuid": "", "scores": []}
    second = await house.result("resumable-query/ns", asked)
    status, says = await house.error("resumable-query/ns", asked)
    assert status == 429 and says.startswith("there are 2 active resumable queries")
    for uuid in (begun["uuid"], second["uuid"]):
        assert await house.result("resumable-query-end", {"uuid": uuid}) == "Success"
        for command in ("resumable-query-end", "resumable-query-next"):
            status, says = await house.error(command, {"uuid": uuid, "additionalK": 1})
            assert status == 404 and says.startswith(f"Resumable query {uuid} does not exist"), says
    for wrong, says in (
        (asked | {"maxIdle": 0}, "maxIdle: expected an integer from 1 to 3600, got the number 0"),
        (asked | {"maxIdle": 3601}, "maxIdle: expected an integer from 1 to 3600, got the number 3601"),
        ([asked, asked], "expected an object, got an array"),
        ({}, DENSE),
    ):
        assert await house.error("resumable-query/ns", wrong) == (422, says)
    assert await house.error("resumable-query-next", {"uuid": "x"}) == (
        422,
        "additionalK: expected an integer, got nothing",
    )
