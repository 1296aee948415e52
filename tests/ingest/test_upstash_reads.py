"""Reads of the Upstash door: fetch, range, random, query, info; what they show, what they see, and what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.upstash_door import UpstashHouse, upstash_house
from upwell.kinds import IndexKind
from upwell.shard.metric import Metric


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[UpstashHouse]:
    async with upstash_house(tmp_path, upstash_read_wait_s=20) as house:
        house.make()
        yield house


async def fill(house: UpstashHouse, count: int, namespace: str = "", index: str = "index") -> None:
    """Rows called 0, 1, …, ever further from (1, 0)."""
    many = [{"id": n, "vector": [1, n], "metadata": {"n": n}} for n in range(count)]
    command = f"upsert/{namespace}" if namespace else "upsert"
    await house.call(command, many, index=index, headers={"Prefer": "wait=30"})


async def test_fetch_is_in_the_order_of_the_ids(house: UpstashHouse) -> None:
    await fill(house, 12)
    assert await house.result("fetch", {"ids": ["7", "x", 3, "7"]}) == [
        {"id": "7"},
        None,
        {"id": "3"},
        {"id": "7"},
    ]
    assert await house.result("fetch", {"ids": []}) == []
    assert await house.result("fetch", {"prefix": "1", "includeMetadata": True}) == [
        {"id": "1", "metadata": {"n": 1}},
        {"id": "10", "metadata": {"n": 10}},
        {"id": "11", "metadata": {"n": 11}},
    ]
    assert await house.result("fetch/never", {"ids": ["1"]}) == [None]
    assert await house.result("fetch/never", {"prefix": "1"}) == []
    assert await house.result("list-namespaces") == [""]
    wrong: Any
    for wrong in ({}, {"ids": ["a"], "prefix": "a"}, {"ids": None, "prefix": ""}, None, []):
        assert await house.error("fetch", wrong) == (422, "Only one of ids or prefix must be provided.")


async def test_a_range_is_paged_in_the_order_of_writing(house: UpstashHouse) -> None:
    await fill(house, 25)
    assert len((await house.result("range"))["vectors"]) == 10, "as many as one is not asked for"
    seen, cursor = [], ""
    while True:
        page = await house.result("range", {"cursor": cursor, "limit": 5})
        seen += [one["id"] for one in page["vectors"]]
        if not (cursor := page["nextCursor"]):
            break
    assert seen == [str(n) for n in range(25)]
    assert (await house.result("range", {"cursor": 0, "limit": 25}))["nextCursor"] == ""
    assert await house.result("range", {"cursor": "0", "limit": 2, "prefix": "2"}) == {
        "nextCursor": "21",
        "vectors": [{"id": "2"}, {"id": "20"}],
    }
    assert await house.result("range/never") == {"nextCursor": "", "vectors": []}
    for wrong in ("x", "-1", 1.5, True, "9" * 30, ["0"]):
        status, says = await house.error("range", {"cursor": wrong})
        assert status == 422 and says.startswith("cursor: "), wrong
    for wrong in (0, -1, 1_001, "5", 2.5, True):
        status, says = await house.error("range", {"limit": wrong})
        assert status == 422 and says.startswith("limit: expected an integer from 1 to 1000, got "), wrong


async def test_a_random_row_has_everything(house: UpstashHouse) -> None:
    assert await house.result("random") is None
    whole = {"id": "a", "vector": [1, 2], "metadata": {"k": 1}, "data": "text"}
    await house.result("upsert/ns", whole)
    assert await house.result("random/ns", method="GET") == whole
    assert await house.result("random") is None


async def test_reads_see_what_was_acknowledged_before_and_say_so_if_that_takes_too_long(
    tmp_path: Path,
) -> None:
    async with upstash_house(tmp_path, upstash_read_wait_s=0.05) as house:
        house.make()
        house.drains.clear()
        await house.result("upsert/ns", {"id": "a", "vector": [1, 2]})
        for command, body in (
            ("fetch/ns", {"ids": ["a"]}),
            ("range/ns", {}),
            ("random/ns", None),
            ("list-namespaces", None),
            ("delete-namespace/ns", None),
        ):
            answer = await house.call(command, body)
            assert answer.error[0] == 503 and "not visible yet" in answer.error[1], command
            assert answer.headers["Retry-After"] == "1"
        info = await house.result("info")
        assert (info["vectorCount"], info["pendingVectorCount"]) == (0, 1)
        assert info["namespaces"]["ns"] == {"vectorCount": 0, "pendingVectorCount": 1}
        assert await house.result("query/ns", {"vector": [1, 2]}) == [], "a query does not wait"
        house.drains.set()
        await house.call("update/ns", {"id": "a", "data": "x"}, headers={"Prefer": "wait=30"})
        assert await house.result("query/ns", {"vector": [1, 2]}) == [{"id": "a", "score": 1}]


async def test_an_operator_may_do_without(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, upstash_read_your_writes=False) as house:
        house.make()
        house.drains.clear()
        await house.result("upsert", {"id": "a", "vector": [1, 2]})
        await house.result("reset")
        assert await house.result("fetch", {"ids": ["a"]}) == [None]
        assert (await house.result("info"))["pendingVectorCount"] == 1


async def test_info_knows_of_removals_and_of_what_is_on_its_way(house: UpstashHouse) -> None:
    await fill(house, 3, "ns")
    house.drains.clear()
    await house.result("reset/ns", headers={"Prefer": "wait=0"})
    asked = asyncio.create_task(house.result("info"))
    await asyncio.sleep(0.05)
    assert not asked.done()
    house.drains.set()
    assert (await asked)["namespaces"] == {
        "": {"vectorCount": 0, "pendingVectorCount": 0},
        "ns": {"vectorCount": 0, "pendingVectorCount": 0},
    }


@pytest.mark.parametrize(
    ("kind", "models", "says"),
    [
        (
            IndexKind.DENSE,
            ("BAAI/bge-m3", None),
            {
                "dimension": 2,
                "similarityFunction": "COSINE",
                "indexType": "DENSE",
                "denseIndex": {"dimension": 2, "similarityFunction": "COSINE", "embeddingModel": "BGE_M3"},
            },
        ),
        (
            IndexKind.SPARSE,
            (None, "bm25"),
            {
                "dimension": 0,
                "similarityFunction": "",
                "indexType": "SPARSE",
                "sparseIndex": {"embeddingModel": "BM25"},
            },
        ),
        (
            IndexKind.HYBRID,
            (None, None),
            {
                "dimension": 2,
                "similarityFunction": "COSINE",
                "indexType": "HYBRID",
                "denseIndex": {"dimension": 2, "similarityFunction": "COSINE", "embeddingModel": ""},
                "sparseIndex": {"embeddingModel": ""},
            },
        ),
    ],
)
async def test_info_says_what_an_index_is(
    house: UpstashHouse, kind: IndexKind, models: tuple[str | None, str | None], says: dict[str, Any]
) -> None:
    house.make("other", kind, embedding_model=models[0], sparse_embedding_model=models[1])
    counts = {"vectorCount": 0, "pendingVectorCount": 0}
    assert await house.result("info", index="other", method="GET") == {
        **counts,
        "indexSize": 0,
        **says,
        "namespaces": {"": counts},
    }


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        (Metric.COSINE, [1, 0.8535534]),
        (Metric.EUCLIDEAN, [1, 0.5]),
        (Metric.DOT_PRODUCT, [1, 1]),
    ],
)
async def test_scores_are_upstashs(house: UpstashHouse, metric: Metric, scores: list[float]) -> None:
    house.make("other", metric=metric)
    await fill(house, 2, index="other")
    found = await house.result("query", {"vector": [1, 0], "topK": 2}, index="other")
    assert found == [{"id": "0", "score": scores[0]}, {"id": "1", "score": scores[1]}]


async def test_queries_alone_and_together(house: UpstashHouse) -> None:
    await fill(house, 20)
    await fill(house, 2, "ns")
    asked = {
        "vector": [1, 0],
        "topK": 1,
        "includeVectors": True,
        "includeMetadata": True,
        "includeData": True,
    }
    best = {"id": "0", "score": 1, "vector": [1, 0], "metadata": {"n": 0}}
    assert await house.result("query", asked) == await house.result("query", [asked]) == [best]
    filtered = {"vector": [1, 0], "filter": "n >= 18"}
    both = await house.result("query", [asked, filtered])
    assert both[0] == [best] and [one["id"] for one in both[1]] == ["18", "19"]
    assert len(await house.result("query", {"vector": [1, 0]})) == 10
    assert len(await house.result("query/ns", {"vector": [1, 0]})) == 2
    assert await house.result("query/never", {"vector": [1, 0]}) == []
    assert await house.result("list-namespaces") == ["", "ns"]


async def test_a_query_can_wait_for_a_write(house: UpstashHouse) -> None:
    house.drains.clear()
    written = await house.call("upsert", {"id": "a", "vector": [1, 2]})
    name = written.headers["X-Mutation-Id"]
    ways = [
        asyncio.create_task(house.call(f"query?after={name}", {"vector": [1, 2]})),
        asyncio.create_task(house.call("query", {"vector": [1, 2]}, headers={"X-After-Mutation": name})),
    ]
    await asyncio.sleep(0.05)
    assert not any(way.done() for way in ways)
    house.drains.set()
    for way in ways:
        assert (await way).result == [{"id": "a", "score": 1}]
    assert (await house.error("query?after=nonsense", {"vector": [1, 2]}))[0] == 404


async def test_hybrid_queries(house: UpstashHouse) -> None:
    house.make("both", IndexKind.HYBRID)
    many = [
        {"id": name, "vector": [1, n], "sparseVector": {"indices": [n, 9, 9], "values": [2, 0.5, 0.5]}}
        for n, name in enumerate("abc")
    ]
    await house.call("upsert", many, index="both", headers={"Prefer": "wait=30"})
    sparse = {"indices": [0], "values": [1]}
    found = await house.result("query", {"vector": [1, 0], "sparseVector": sparse, "topK": 1}, index="both")
    assert found == [{"id": "a", "score": 0.033333335}]
    assert await house.result("query", {"sparseVector": sparse}, index="both") == [{"id": "a", "score": 2}]
    asked = {
        "sparseVector": sparse,
        "weightingStrategy": "IDF",
        "includeVectors": True,
        "fusionAlgorithm": "DBSF",
    }
    (found,) = await house.result("query", asked, index="both")
    assert found["score"] == pytest.approx(2 * 0.9808293) and found["sparseVector"] == many[0]["sparseVector"]
    (found,) = await house.result("query", {"vector": [1, 0], "topK": 1}, index="both")
    assert found == {"id": "a", "score": 1}


async def test_text_is_embedded(house: UpstashHouse) -> None:
    house.make(
        "words",
        IndexKind.HYBRID,
        256,
        embedding_model="wordllama",
        sparse_embedding_model="BM25",
    )
    status, says = await house.error("query-data", {"data": "cats"})
    assert status == 422 and says.startswith("Embedding data for this index is not allowed.")
    for mode in ("HYBRID", "DENSE", "SPARSE", None):
        asked = {"data": "cats", "queryMode": mode}
        assert await house.result("query-data", [asked, asked], index="words") == [[], []]
    assert (await house.error("query-data", {"data": "cats", "queryMode": "BOTH"}, index="words"))[0] == 422
    assert (await house.error("query-data", {"vector": [1] * 256}, index="words"))[0] == 422
    begun = await house.result("resumable-query-data", {"data": "cats"}, index="words")
    assert begun["scores"] == [] and begun["uuid"]


WHAT_A_QUERY_MUST_BE: list[Any] = [
    ({}, "This index requires dense vectors"),
    (None, "expected an object, got null"),
    ([], "expected at least one query, got an empty array"),
    (7, "expected an object, got the number 7"),
    ({"vector": [1]}, "Invalid vector dimension: 1, expected: 2"),
    ({"vector": "12"}, 'vector: expected an array of numbers, got the string "12"'),
    ({"vector": [1, "2"]}, 'vector[1]: expected a number, got the string "2"'),
    ({"vector": [1, True]}, "vector[1]: expected a number, got true"),
    (
        {"vector": [1, 1e39]},
        "vector[1]: expected a float32, got the number 1e+39, which is outside its range",
    ),
    (b'{"vector": [1, NaN]}', "vector[1]: expected a finite number, got NaN"),
    (
        b'{"vector": [1, 1e999]}',
        "vector[1]: expected a finite number, got one outside the range of doubles",
    ),
    (
        {"vector": [1, 2], "sparseVector": {"indices": [], "values": []}},
        "This index requires dense vectors; ",
    ),
    ({"vector": [1, 2], "topK": 0}, "topK: expected an integer from 1 to 1000, got the number 0"),
    ({"vector": [1, 2], "topK": 1001}, "topK: expected an integer from 1 to 1000, got the number 1001"),
    ({"vector": [1, 2], "topK": True}, "topK: expected an integer from 1 to 1000, got true"),
    (
        {"vector": [1, 2], "includeData": "yes"},
        'includeData: expected true or false, got the string "yes"',
    ),
    ({"vector": [1, 2], "filter": 7}, "filter: expected a string, got the number 7"),
    ({"vector": [1, 2], "filter": "a ="}, "Invalid filter: "),
    ({"vector": [1, 2], "filter": f"a = '{'x' * 20_000}'"}, ""),
    (
        {"vector": [1, 2], "weightingStrategy": "idf"},
        'weightingStrategy: expected IDF, got the string "idf"',
    ),
    (
        {"vector": [1, 2], "fusionAlgorithm": ["RRF"]},
        "fusionAlgorithm: expected RRF or DBSF, got an array",
    ),
    ([{"vector": [1, 2]}, {"vector": [1]}], "Invalid vector dimension: 1, expected: 2 (item 2)"),
    (
        [{"vector": [1, 2], "topK": 1000}] * 11,
        "topK: expected at most 10000 in all queries together, got 11000",
    ),
    ([{"vector": [1, 2]}] * 1001, "expected at most 1000 items, got 1001"),
]  # fmt: skip


async def test_what_a_query_must_be(house: UpstashHouse) -> None:
    for wrong, says in WHAT_A_QUERY_MUST_BE:
        body = b"null" if wrong is None else wrong
        status, text = await house.error("query", body)
        assert (status, text[: len(says)]) == (422, says), str(wrong)[:200]


async def test_a_query_whose_model_is_away_is_to_be_asked_again(tmp_path: Path) -> None:
    model = {"url": "http://127.0.0.1:1", "model": "m", "dimensions": 2}
    async with upstash_house(tmp_path, embedding_models={"away": model}) as house:
        house.make(embedding_model="away")
        answer = await house.call("query-data", [{"data": "a"}, {"data": "b"}])
        assert answer.error[0] == 503 and "AWAY" in answer.error[1]
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await house.result("info"))["denseIndex"]["embeddingModel"] == "AWAY"
