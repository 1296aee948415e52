"""upstash-vector's asynchronous half, unchanged: every method once, on indexes of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from upstash_vector import AsyncIndex, Vector
from upstash_vector.errors import UpstashError
from upstash_vector.types import (
    Data,
    FusionAlgorithm,
    MetadataUpdateMode,
    QueryMode,
    QueryResult,
    SparseVector,
    WeightingStrategy,
)

from tests.clients.upstash import Upstash, settled
from tests.service import TOKEN

FIVE = [(f"id{n}", [n / 10, (n + 1) / 10], {"n": n}, f"words {n}") for n in (1, 3, 5, 7, 9)]


@pytest.fixture
def kind() -> str:
    """The kind of index; tests of another say so."""
    return "dense"


@pytest.fixture
def url(upstash: Upstash, kind: str) -> str:
    return upstash.make(kind)


@pytest.fixture
async def index(url: str) -> AsyncIterator[AsyncIndex]:
    index = AsyncIndex(url, TOKEN, retries=0)
    async with index._client:
        yield index


@pytest.fixture(params=["", "ns"])
def ns(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ids(found: Any) -> list[str]:
    return [one.id for one in found]


async def test_from_upsert_to_delete(index: AsyncIndex, ns: str) -> None:
    assert await index.upsert(FIVE, namespace=ns) == "Success"
    one, nobody = await index.fetch(
        ["id1", "nobody"], include_vectors=True, include_metadata=True, include_data=True, namespace=ns
    )
    assert nobody is None
    assert one is not None and (one.vector, one.metadata, one.data) == ([0.1, 0.2], {"n": 1}, "words 1")
    assert sorted(ids(await index.fetch(prefix="id", namespace=ns))) == [name for name, *_ in FIVE]

    assert await index.update("id1", metadata={"n": 1.5}, namespace=ns) is True
    patched = await index.update(
        "id1",
        metadata={"n": None, "m": 2},
        metadata_update_mode=MetadataUpdateMode.PATCH,
        namespace=ns,
    )
    assert patched is True
    (one,) = await index.fetch("id1", include_metadata=True, namespace=ns)
    assert one is not None and one.metadata == {"m": 2}
    assert await index.update("id-999", vector=[0.4, 0.5], namespace=ns) is False

    await settled(index)
    found = await index.query([0.1, 0.2], top_k=2, include_metadata=True, include_data=True, namespace=ns)
    assert found[0] == QueryResult("id1", 1, metadata={"m": 2}, data="words 1") and found[1].id == "id3"
    assert ids(await index.query([0.1, 0.2], filter="n > 5", namespace=ns)) == ["id7", "id9"]
    first, second = await index.query_many(
        queries=[{"vector": [0.1, 0.2], "top_k": 1}, {"vector": [0.1, 0.2], "filter": "n = 3"}], namespace=ns
    )
    assert (ids(first), ids(second)) == (["id1"], ["id3"])

    page = await index.range(limit=3, namespace=ns)
    rest = await index.range(page.next_cursor, 2, namespace=ns)
    assert sorted(ids(page.vectors + rest.vectors)) == [name for name, *_ in FIVE] and rest.next_cursor == ""

    assert (await index.delete(["id1", "nobody"], namespace=ns)).deleted == 1
    assert (await index.delete(filter="n = 3", namespace=ns)).deleted == 1
    assert (await index.delete(prefix="id", namespace=ns)).deleted == 3
    assert (await index.delete("id1", namespace=ns)).deleted == 0


async def test_namespaces_info_and_resets(index: AsyncIndex) -> None:
    for name in ("", "ns"):
        await index.upsert(FIVE, namespace=name)
    assert await index.list_namespaces() == ["", "ns"]
    await settled(index)
    info = await index.info()
    assert (info.vector_count, info.dimension, info.similarity_function) == (10, 2, "COSINE")
    assert info.namespaces["ns"].vector_count == 5
    assert await index.reset(namespace="ns") == "Success"
    assert (await index.fetch("id1", namespace="ns"), len(await index.fetch("id1"))) == ([None], 1)
    assert await index.reset(all=True) == "Success"
    assert await index.fetch("id1") == [None]
    await index.delete_namespace("ns")
    assert await index.list_namespaces() == [""]
    with pytest.raises(UpstashError, match=r"^Namespace ns for the index .* does not exist$"):
        await index.delete_namespace("ns")


async def test_a_query_that_goes_on(index: AsyncIndex, ns: str) -> None:
    await index.upsert(FIVE, namespace=ns)
    await settled(index)
    found, handle = await index.resumable_query([0.1, 0.2], top_k=2, include_vectors=True, namespace=ns)
    async with handle:
        assert ids(found) == ["id1", "id3"] and found[0].vector == [0.1, 0.2]
        assert ids(await handle.fetch_next(2)) == ["id5", "id7"]
        assert ids(await handle.fetch_next(2)) == ["id9"]
        assert await handle.fetch_next(2) == []
    with pytest.raises(UpstashError):
        await handle.fetch_next(1)
    with pytest.raises(UpstashError):
        await handle.stop()


async def test_errors(index: AsyncIndex, url: str) -> None:
    with pytest.raises(UpstashError, match=r"^Invalid vector dimension: 1, expected: 2( \(item .*\))?$"):
        await index.upsert([("a", [0.1])])
    stranger = AsyncIndex(url, "not-the-token", retries=0)
    async with stranger._client:
        with pytest.raises(UpstashError, match=r"^Unauthorized: Invalid auth token$"):
            await stranger.info()


async def test_many_at_once(index: AsyncIndex) -> None:
    """Each caller sees its own write at once, whatever the others do."""

    async def one(n: int) -> None:
        await index.upsert([(f"v{n}", [1, n])])
        (got,) = await index.fetch(f"v{n}", include_vectors=True)
        assert got is not None and got.vector == [1, n]
        assert await index.update(f"v{n}", metadata={"n": n}) is True
        if n % 2:
            assert (await index.delete(f"v{n}")).deleted == 1

    await asyncio.gather(*(one(n) for n in range(20)))
    left = await index.range(limit=100, include_metadata=True)
    assert {one.id: one.metadata for one in left.vectors} == {f"v{n}": {"n": n} for n in range(0, 20, 2)}


@pytest.mark.parametrize("kind", ["sparse"])
async def test_a_sparse_index(index: AsyncIndex) -> None:
    await index.upsert([("a", ([0, 1], [0.5, 0.25])), Vector("b", sparse_vector=SparseVector([1], [1.0]))])
    await settled(index)
    found = await index.query(sparse_vector=([1], [2.0]), include_vectors=True)
    assert found == [
        QueryResult("b", 2, sparse_vector=SparseVector([1], [1.0])),
        QueryResult("a", 0.5, sparse_vector=SparseVector([0, 1], [0.5, 0.25])),
    ]


@pytest.mark.parametrize("kind", ["hybrid"])
async def test_a_hybrid_index(index: AsyncIndex) -> None:
    await index.upsert([("a", [1, 0], ([0], [1.0]), {"k": 1}, "d"), ("b", [0, 1], ([1], [1.0]))])
    await settled(index)
    ranks = await index.query([1, 0], sparse_vector=([0], [1.0]), top_k=1)
    assert ranks == [QueryResult("a", 0.033333335)]
    weighed = await index.query(
        [1, 0],
        sparse_vector=([0], [1.0]),
        fusion_algorithm=FusionAlgorithm.DBSF,
        weighting_strategy=WeightingStrategy.IDF,
        include_metadata=True,
    )
    assert ids(weighed) == ["a", "b"] and weighed[0].metadata == {"k": 1}


@pytest.mark.parametrize("kind", ["hybrid-embedding"])
async def test_words(index: AsyncIndex) -> None:
    await index.upsert([Data("hello", "Hello world"), Data("cook", "Boil the potatoes", {"k": 1})])
    assert await index.update("cook", data="Fry the potatoes") is True
    (got,) = await index.fetch("cook", include_data=True, include_metadata=True)
    assert got is not None and (got.data, got.metadata) == ("Fry the potatoes", {"k": 1})
    await settled(index)
    assert ids(await index.query(data="fried", top_k=1)) == ["cook"]
    assert ids(await index.query(data="hello", query_mode=QueryMode.SPARSE)) == ["hello"]
    assert ids(await index.query(data="hello", query_mode=QueryMode.DENSE)) == ["hello", "cook"]
    found, handle = await index.resumable_query(data="hello", top_k=1)
    async with handle:
        assert ids(found) == ["hello"]
