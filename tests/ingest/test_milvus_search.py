"""The Milvus door's ``search`` and ``hybrid_search``, against brute force."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.doors.milvus.reads import Reading
from tests.milvus_house import MilvusHouse, Row, milvus_house
from tests.milvus_rows import PLAIN, ids, made, plain_distances, put
from upwell.kinds import IndexKind
from upwell.schema import FieldType, IdType, RowSchema, ScalarField
from upwell.shard.metric import Metric

V1, V2 = 1, 2
OF_C = {"collectionName": "c"}
SEARCH = {V1: "search", V2: "entities/search"}
HYBRID = "entities/hybrid_search"
METRICS = {"COSINE": Metric.COSINE, "L2": Metric.EUCLIDEAN, "IP": Metric.DOT_PRODUCT}
DIMENSIONS = 4


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as house:
        yield house


def rows_of(count: int, seed: int = 3) -> list[Row]:
    """Some rows, no two of them equally far from anything."""
    rng = np.random.default_rng(seed)
    return [
        {"id": n, "vector": rng.normal(size=DIMENSIONS).astype(np.float32).tolist(), "n": n, "g": n % 7}
        for n in range(count)
    ]


def plain_hits(metric: Metric, query: Sequence[float], rows: Sequence[Row]) -> list[tuple[int, float]]:
    """The ids of rows and their distances, nearest first."""
    distances = plain_distances(metric, query, rows)
    return sorted(distances.items(), key=lambda hit: hit[1] if metric is Metric.EUCLIDEAN else -hit[1])


def check_hits(found: Sequence[Row], expected: Sequence[tuple[int, float]]) -> None:
    """Are these the rows, in order, with distances that are float32?"""
    assert ids(found) == [id for id, _ in expected]
    for row, (_, distance) in zip(found, expected, strict=True):
        assert float(np.float32(row["distance"])) == pytest.approx(distance, rel=1e-5, abs=1e-6)
        assert len(repr(row["distance"])) < 16, "the shortest digits of a float32"


async def search(house: MilvusHouse, data: Any = None, **asked: Any) -> Row:
    """The whole answer of v2."""
    body = OF_C | ({} if data is None else {"data": data}) | asked
    answer = await house.call(V2, SEARCH[V2], body)
    assert answer["code"] == 0, answer
    return answer


@pytest.mark.parametrize("name", METRICS)
async def test_the_nearest_rows_with_their_distances(house: MilvusHouse, name: str) -> None:
    metric, rows = METRICS[name], rows_of(150)
    index = made(house, metric=metric, dimensions=DIMENSIONS)
    for start in range(0, 150, 50):
        await put(house, index, rows[start : start + 50])
    queries = [row["vector"] for row in rows_of(3, seed=5)]
    answer = await search(house, queries, limit=20, offset=5, filter="n < 100")
    assert answer["topks"] == [20, 20, 20] and answer["cost"] == 0
    for place, query in enumerate(queries):
        expected = plain_hits(metric, query, rows[:100])[5:25]
        check_hits(answer["data"][20 * place :][:20], expected)
        assert answer["data"][0].keys() == {"id", "distance"}
    expected = plain_hits(metric, queries[0], rows)[5:15]
    v1 = OF_C | {"vector": queries[0], "limit": 10, "offset": 5, "outputFields": ["n"]}
    found = await house.data(SEARCH[V1], v1, version=V1)
    check_hits(found, expected)
    assert found[0].keys() == {"id", "distance", "n"}
    assert len((await search(house, queries[:1]))["data"]) == 100, "unless asked for more"


@pytest.mark.parametrize("name", METRICS)
async def test_only_so_near_and_no_nearer(house: MilvusHouse, name: str) -> None:
    metric, rows = METRICS[name], rows_of(80)
    await put(house, made(house, metric=metric, dimensions=DIMENSIONS), rows)
    query = rows_of(1, seed=5)[0]["vector"]
    hits = plain_hits(metric, query, rows)
    found = (await search(house, [query]))["data"]
    # Bounds are what was shown: the inner one is inside, the outer one is not.
    inner, outer = found[10]["distance"], found[30]["distance"]
    bounds = {"radius": outer, "range_filter": inner}
    for params in ({"params": bounds}, bounds, {"params": bounds, "metricType": name.lower()}):
        answer = await search(house, [query], searchParams=params)
        check_hits(answer["data"], hits[10:30])
        assert answer["topks"] == [20]
    found = (await search(house, [query], searchParams={"radius": outer}, limit=3, offset=2))["data"]
    check_hits(found, hits[2:5])
    v1 = OF_C | {"vector": query, "params": bounds, "limit": 5}
    check_hits(await house.data(SEARCH[V1], v1, version=V1), hits[10:15])
    turned = {"searchParams": {"radius": inner, "range_filter": outer}}
    code, says = await house.error(SEARCH[V2], OF_C | {"data": [query]} | turned)
    assert code == 65535 and ("less than" if name == "L2" else "more than") in says


async def test_rows_are_searched_by_rows(house: MilvusHouse) -> None:
    rows = rows_of(30)
    await put(house, made(house, metric=Metric.EUCLIDEAN, dimensions=DIMENSIONS), rows)
    answer = await search(house, ids=[7, "3", 7], limit=4)
    assert answer["topks"] == [4, 4, 4]
    by_vector = (await search(house, [rows[n]["vector"] for n in (7, 3, 7)], limit=4))["data"]
    assert answer["data"] == by_vector
    assert (answer["data"][0]["id"], answer["data"][0]["distance"]) == (7, 0)
    code, says = await house.error(SEARCH[V2], OF_C | {"ids": [7, 31]})
    assert code == 1100 and "missing IDs = [31]" in says


async def test_groups_of_rows(house: MilvusHouse) -> None:
    rows = rows_of(100)
    await put(house, made(house, metric=Metric.EUCLIDEAN, dimensions=DIMENSIONS), rows)
    query = rows_of(1, seed=5)[0]["vector"]
    hits = plain_hits(Metric.EUCLIDEAN, query, rows)
    by_group: dict[int, list[tuple[int, float]]] = {}
    for hit in hits:
        by_group.setdefault(hit[0] % 7, []).append(hit)
    groups = list(by_group.values())
    asked = {"groupingField": "g", "outputFields": ["g"]}
    found = (await search(house, [query], limit=5, **asked))["data"]
    check_hits(found, [group[0] for group in groups[:5]])
    assert len({row["g"] for row in found}) == 5
    found = (await search(house, [query], limit=3, offset=1, groupSize=4, strictGroupSize=True, **asked))[
        "data"
    ]
    check_hits(found, [hit for group in groups[1:4] for hit in group[:4]])
    found = (await search(house, [query], limit=50, filter="g in [1, 2]", **asked))["data"]
    assert sorted(row["g"] for row in found) == [1, 2]
    found = (await search(house, [query], limit=3, groupingField="id"))["data"]
    check_hits(found, hits[:3])


async def test_sparse_vectors_are_searched_by_inner_product(house: MilvusHouse) -> None:
    schema = RowSchema(ids=IdType.INT64, sparse_field="s")
    rows = [{"id": n, "sparse": {1: n / 4, 2 + n: 1.0}} for n in range(8)]
    await put(house, made(house, schema, kind=IndexKind.SPARSE), rows)
    for query in ({"1": 0.5, "5": 2}, {"indices": [1, 5], "values": [0.5, 2.0]}):
        answer = await search(house, [query, {"9": 1}], annsField="s", limit=3, outputFields=["s"])
        assert [(row["id"], row["distance"]) for row in answer["data"]] == [
            (3, 2.375),
            (7, 0.875),
            (6, 0.75),
            (7, 1.0),
        ]
        assert answer["topks"] == [3, 1] and answer["data"][0]["s"] == {"1": 0.75, "5": 1.0}
    near = {"radius": 0.5, "range_filter": 0.75}
    answer = await search(house, [{"1": 0.5}], searchParams=near)
    assert ids(answer["data"]) == [6, 5]
    code, says = await house.error(SEARCH[V1], OF_C | {"vector": [1, 2]}, version=V1)
    assert code == 65535
    code, says = await house.error(SEARCH[V2], OF_C | {"data": [[0.1]]})
    assert code == 1801 and "SparseFloatVector" in says


def plain_rrf(lists: Sequence[Sequence[int]], k: float) -> list[tuple[int, float]]:
    """Reciprocal ranks, summed."""
    sums: dict[int, float] = {}
    for ranking in lists:
        for rank, id in enumerate(ranking, 1):
            sums[id] = sums.get(id, 0) + 1 / (k + rank)
    return sorted(sums.items(), key=lambda hit: -hit[1])


async def test_searches_by_ranks_are_made_one(house: MilvusHouse) -> None:
    rows = rows_of(60)
    await put(house, made(house, metric=Metric.EUCLIDEAN, dimensions=DIMENSIONS), rows)
    queries = [row["vector"] for row in rows_of(2, seed=5)]
    lists = [[id for id, _ in plain_hits(Metric.EUCLIDEAN, query, rows)][:10] for query in queries]
    odd = [id for id in (hit[0] for hit in plain_hits(Metric.EUCLIDEAN, queries[0], rows)) if id % 2][:7]
    searched = [{"data": [query], "annsField": "vector", "limit": 10} for query in queries]
    searched.append({"data": [queries[0]], "filter": "n % 2 == 1", "limit": 7})
    asked = {"search": searched, "rerank": {"strategy": "rrf", "params": {"k": 10}}, "limit": 6, "offset": 2}
    for command in (HYBRID, "entities/advanced_search"):
        answer = await house.call(V2, command, OF_C | asked | {"outputFields": ["n"]})
        # Several may be equally good.
        expected = plain_rrf([*lists, odd], 10)
        assert answer["topks"] == [6] and answer["cost"] == 0
        found = answer["data"]
        assert [row["distance"] for row in found] == pytest.approx([one for _, one in expected[2:8]])
        assert all(row["distance"] == pytest.approx(dict(expected)[row["id"]]) for row in found)
        assert len({row["id"] for row in found}) == 6
        assert found[0].keys() == {"id", "distance", "n"} and found[0]["n"] == found[0]["id"]
    asked = {"search": searched[:2], "limit": 2, "rerank": None, "groupingField": "g"}
    assert len({id % 7 for id in ids(await house.data(HYBRID, OF_C | asked))}) == 2


@pytest.mark.parametrize(
    ("name", "norm"), [("COSINE", None), ("COSINE", False), ("IP", True), ("L2", True), ("L2", False)]
)
async def test_searches_by_scores_are_made_one(house: MilvusHouse, name: str, norm: bool | None) -> None:
    metric, rows = METRICS[name], rows_of(12)
    await put(house, made(house, metric=metric, dimensions=DIMENSIONS), rows)
    queries = [row["vector"] for row in rows_of(2, seed=5)]

    def normalised(distance: float) -> float:
        if norm is False:
            return distance
        return {
            "COSINE": (1 + distance) / 2,
            "IP": 0.5 + math.atan(distance) / math.pi,
            "L2": 1 - 2 * math.atan(distance) / math.pi,
        }[name]

    sums = dict.fromkeys(range(12), 0.0)
    for weight, query in zip((0.25, 0.75), queries, strict=True):
        for id, distance in plain_distances(metric, query, rows).items():
            sums[id] += weight * normalised(distance)
    rising = name == "L2" and norm is False
    expected = sorted(sums.items(), key=lambda hit: hit[1] if rising else -hit[1])[:5]
    params: Row = {"weights": [0.25, 0.75]} | ({} if norm is None else {"norm_score": norm})
    asked = {
        "search": [{"data": [query], "limit": 12, "metricType": name} for query in queries],
        "rerank": {"strategy": "weighted", "params": params},
        "limit": 5,
    }
    check_hits(await house.data(HYBRID, OF_C | asked), expected)


async def test_dense_and_sparse_are_made_one(house: MilvusHouse) -> None:
    schema = RowSchema(ids=IdType.INT64, vector_field="d", sparse_field="s")
    rows = [{"id": n, "vector": [1.0, n], "sparse": {1: 10.0 - n}} for n in range(6)]
    await put(house, made(house, schema, kind=IndexKind.HYBRID, metric=Metric.EUCLIDEAN), rows)
    asked = {
        "search": [
            {"data": [[1, 5], [1, 0]], "annsField": "d", "limit": 3},
            {"data": [{"1": 1}, {"1": 1}], "annsField": "s", "limit": 3, "params": None},
        ],
        "rerank": {"strategy": "rrf", "params": {"k": 60}},
        "limit": 10,
        "outputFields": ["*"],
    }
    answer = await house.call(V2, HYBRID, OF_C | asked)
    assert answer["topks"] == [6, 3]
    assert ids(answer["data"][6:]) == [0, 1, 2] and sorted(ids(answer["data"][:6])) == list(range(6))
    assert answer["data"][6].keys() == {"id", "distance", "d", "s"}
    code, says = await house.error(SEARCH[V2], OF_C | {"data": [[1, 5]]})
    assert code == 1801 and "multiple vector fields: [d, s,,,]" in says
    found = await house.data(SEARCH[V1], OF_C | {"vector": [1, 5], "limit": 1}, version=V1)
    assert found == [{"id": 5, "distance": 0}]


async def test_partitions_are_searched_apart(house: MilvusHouse) -> None:
    index = made(house)
    for partition, n in (("", 1), ("north", 2), ("south", 3)):
        await put(house, index, [{"id": n, "vector": [1, n]}], partition)
    for partitions, there in ((["north"], [2]), (["_default", "south"], [1, 3]), ([], [1, 2, 3])):
        assert ids((await search(house, [[1, 0]], partitionNames=partitions))["data"]) == there
        asked = {"search": [{"data": [[1, 0]]}], "partitionNames": partitions}
        assert ids(await house.data(HYBRID, OF_C | asked)) == there


VECTOR = {"data": [[0.5, 0.5]]}
REFUSED: list[tuple[Row, int, str]] = [
    ({}, 1802, "either 'ids' (for primary key search) or 'data' (for vector search) must be provided"),
    (VECTOR | {"ids": [1]}, 1100, "mutually exclusive"),
    (VECTOR | {"limit": 0}, 65535, "topk [0] is invalid, it should be in range [1, 16384], but got 0"),
    (VECTOR | {"limit": 16_385}, 65535, "topk [16385] is invalid"),
    (VECTOR | {"offset": -1}, 65535, "offset [-1] is invalid"),
    (VECTOR | {"offset": 16_300}, 65535, "offset+topk [16400] is invalid"),
    ({"data": [[1, 2]] * 5}, 65535, "nq [5] is invalid"),
    ({"data": [[1]]}, 1801, "dimension: 2, but length of []float: 1"),
    ({"data": [1, 2]}, 1801, "data[0]: expected an array of numbers, got the number 1"),
    ({"data": [[1, None]]}, 1801, "data[0][1]: expected a number, got null"),
    ({"data": [[1, 1e39]]}, 1801, "outside its range"),
    ({"data": ["text"]}, 1801, "FloatVector"),
    ({"data": {"1": 1}}, 1801, "data"),
    (VECTOR | {"annsField": "other"}, 1801, "cannot find a vector field named: other"),
    (
        VECTOR | {"searchParams": {"metricType": "L2"}},
        1100,
        "metric type not match: invalid parameter[expected=COSINE][actual=L2]",
    ),
    (VECTOR | {"searchParams": {"range_filter": 1}}, 1801, "invalid search params"),
    (VECTOR | {"searchParams": {"params": {"radius": "far"}}}, 1100, "radius must be a number"),
    (VECTOR | {"searchParams": {"params": 3}}, 1100, "searchParams.params must be a dict"),
    (VECTOR | {"searchParams": {"radius": 1, "params": {"radius": 2}}}, 1100, "ambiguous parameter: radius"),
    (VECTOR | {"groupingField": "g", "groupSize": 11}, 1100, "exceeds configured max group size:10"),
    (VECTOR | {"groupingField": "f"}, 1100, "unsupported data type Float for group by operator"),
    (VECTOR | {"groupingField": "vector"}, 1700, "groupBy field not found in schema"),
    (VECTOR | {"groupingField": "f", "searchParams": {"radius": 0}}, 1100, "Not allowed to do range-search"),
    (VECTOR | {"outputFields": ["n[0]"]}, 65535, "parse output field name failed"),
    (VECTOR | {"functionScore": {"functions": [{"name": "x"}]}}, 1100, "functionScore is not supported"),
    (VECTOR | {"consistencyLevel": "Weak"}, 1100, "consistencyLevel can only be"),
    ({"ids": ["x"]}, 1806, "please check the primary key"),
]
MANY = {"search": [{"data": [[1, 2]]}, {"data": [[2, 1]]}]}
HYBRID_REFUSED: list[tuple[Row, int, str]] = [
    ({}, 65535, "number of ann search requests [0]"),
    ({"search": [{}]}, 1802, "data"),
    ({"search": [{"data": [[1, 2]]}, {"data": [[1, 2]] * 2}]}, 1100, "different numbers of vectors"),
    (MANY | {"limit": 0}, 65535, "limit [0] is invalid, should be greater than 0"),
    (MANY | {"offset": 16_384}, 65535, "(offset+limit) should be in range [1, 16384], but got 16484"),
    (MANY | {"rerank": {"strategy": "best"}}, 65535, "unsupported rank type best"),
    (MANY | {"rerank": {"strategy": "rrf"}}, 65535, "k not found in rank_params"),
    (MANY | {"rerank": {"strategy": "rrf", "params": {"k": 0}}}, 65535, "should be in range (0, 16384)"),
    (MANY | {"rerank": {"strategy": "rrf", "params": {"k": "1"}}}, 65535, "should be float"),
    (MANY | {"rerank": {"strategy": "weighted"}}, 65535, "weights not found in rank_params"),
    (MANY | {"rerank": {"strategy": "weighted", "params": {"weights": [1]}}}, 1100, "[expected=2][actual=1]"),
    (MANY | {"rerank": {"strategy": "weighted", "params": {"weights": [1, 2]}}}, 65535, "range [0, 1]"),
    ({"search": [{"data": [[1, 2]], "metricType": "IP"}]}, 1100, "metric type not match"),
    ({"search": [{"data": [[1, 2]], "limit": 20_000}]}, 65535, "topk [20000] is invalid"),
]


async def test_what_a_search_cannot_ask(tmp_path: Path) -> None:
    schema = PLAIN.model_copy(update={"fields": (ScalarField(name="f", type=FieldType.FLOAT),)})
    async with milvus_house(tmp_path, milvus_nq_max=4) as house:
        made(house, schema)
        for command, refused in ((SEARCH[V2], REFUSED), (HYBRID, HYBRID_REFUSED)):
            for asked, code, says in refused:
                got, told = await house.error(command, OF_C | asked)
                assert got == code and says in told, (asked, got, told)
        for vector, code, says in (
            ([1, 2, 3], 65535, "vector dimension mismatch, expected vector size(byte) 8, actual 12."),
            (["1", 2], 1801, "vector[0]: expected a number"),
            (None, 1802, "vector"),
        ):
            got, told = await house.error(SEARCH[V1], OF_C | {"vector": vector}, version=V1)
            assert got == code and says in told
        code, says = await house.error(
            SEARCH[V1], OF_C | {"vector": [1, 2], "params": {"range_filter": 1}}, version=V1
        )
        assert (code, says) == (1801, "can only accept json format request, error: invalid search params")
        assert (await search(house, [[1, 2]] * 4))["data"] == []


async def test_one_filter_of_many_searches_is_read_once(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(house, made(house, dimensions=DIMENSIONS), rows_of(40))
    read: list[str] = []
    parse = Reading.filter

    def counted(reading: Any, text: str, *more: Any) -> Any:
        read.append(text)
        return parse(reading, text, *more)

    monkeypatch.setattr(Reading, "filter", counted)
    queries = [row["vector"] for row in rows_of(30, seed=5)]
    answer = await search(house, queries, filter="n >= 20", limit=20)
    assert answer["topks"] == [20] * 30 and {row["id"] >= 20 for row in answer["data"]} == {True}
    asked = {"search": [{"data": queries, "filter": "n < 5"}] * 3, "limit": 7}
    answer = await house.call(V2, HYBRID, OF_C | asked)
    assert answer["topks"] == [5] * 30
    assert read == ["n >= 20", "n < 5"]
