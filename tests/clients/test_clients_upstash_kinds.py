"""upstash-vector, unchanged, on indexes of every kind: the scores of each metric, sparse, hybrid, and made from text.

Scores written out in full are those that Upstash's JavaScript suite expects of Upstash, digit by digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from upstash_vector import Index, Vector
from upstash_vector.errors import ClientError, UpstashError
from upstash_vector.types import (
    Data,
    FusionAlgorithm,
    QueryMode,
    QueryResult,
    SparseVector,
    WeightingStrategy,
)

from tests.clients.upstash import Upstash, client, settle

#: What the JavaScript suite puts into its hybrid index; its sparse index holds the same without the vectors.
THREE: list[dict[str, Any]] = [
    {"id": "id0", "vector": [0.1, 0.2], "sparse_vector": ([0, 1], [0.1, 0.2])},
    {"id": "id1", "vector": [0.2, 0.3], "sparse_vector": ([1, 2], [0.2, 0.3]), "metadata": {"key": "value"}},
    {
        "id": "id2",
        "vector": [0.3, 0.4],
        "sparse_vector": ([2, 3], [0.3, 0.4]),
        "metadata": {"key": "value"},
        "data": "data",
    },
]


#: A score of theirs whose last digits tell how they round: in exact arithmetic it is 0.61785113, in float32 up to 0.6178543.
NEARLY: Any = pytest.approx(0.617851, abs=5e-6)


def made(upstash: Upstash, kind: str) -> Iterator[Index]:
    with client(upstash.make(kind)) as index:
        yield index


@pytest.fixture
def sparse(upstash: Upstash) -> Iterator[Index]:
    yield from made(upstash, "sparse")


@pytest.fixture
def hybrid(upstash: Upstash) -> Iterator[Index]:
    yield from made(upstash, "hybrid")


@pytest.fixture
def embedding(upstash: Upstash) -> Iterator[Index]:
    yield from made(upstash, "embedding")


@pytest.fixture
def hybrid_embedding(upstash: Upstash) -> Iterator[Index]:
    yield from made(upstash, "hybrid-embedding")


def refused(text: str) -> Any:
    """What a client raises when the service answers with this error; which item of several it was may be said besides."""
    return pytest.raises(UpstashError, match=rf"^{re.escape(text)}( \(item .*\))?$")


def ids(found: Any) -> list[str]:
    return [one.id for one in found]


def shortest(score: float) -> bool:
    """Whether a number is a float32 in its shortest decimal form."""
    return float(str(np.float32(score))) == score


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", {"a": 1.0, "b": (1 + 0.96) / 2, "c": 0.1}),
        ("euclidean", {"a": 1.0, "b": 1 / (1 + 0.08), "c": 1 / (1 + 3.6)}),
        ("dot-product", {"a": 1.0, "b": (1 + 0.96) / 2, "c": 0.1}),
    ],
)
def test_scores_of_a_metric(upstash: Upstash, metric: str, expected: dict[str, float]) -> None:
    options = ("--kind", "dense", "--dimensions", "2", "--metric", metric)
    with client(upstash.make(f"dense-{metric}", options)) as index:
        index.upsert([("c", [0, -1]), ("b", [0.8, 0.6]), ("a", [0.6, 0.8])])
        settle(index)
        found = index.query([0.6, 0.8])
        assert ids(found) == ["a", "b", "c"] and found[0].score == 1
        for one in found:
            assert one.score == pytest.approx(expected[one.id], abs=1e-6) and shortest(one.score)
        assert index.info().similarity_function == metric.upper().replace("-", "_")


def test_one_is_like_itself_whatever_its_direction(upstash: Upstash) -> None:
    """A cosine reckoned in float32 alone is not 1 for one vector in seven."""
    options = ("--kind", "dense", "--dimensions", "384", "--metric", "cosine")
    drawn = np.random.default_rng(7).standard_normal((50, 384)).astype(np.float32)
    with client(upstash.make("dense-wide", options)) as index:
        index.upsert([(str(n), vector) for n, vector in enumerate(drawn)])
        settle(index)
        answers = index.query_many(queries=[{"vector": vector, "top_k": 1} for vector in drawn])
    assert [(one.id, one.score) for (one,) in answers] == [(str(n), 1) for n in range(50)]


def test_a_sparse_index_takes_vectors_in_every_form(sparse: Index) -> None:
    assert (
        sparse.upsert(
            [
                ("tuple", ([0, 1], [0.1, 0.2]), {"k": "v"}, "words"),
                ("object", SparseVector([7], [1.5])),
                {"id": "dict", "sparse_vector": (np.array([3, 4]), np.array([0.5, 0.25]))},
                Vector("unsorted", sparse_vector=SparseVector([9, -5, 2**31 - 1], [0.5, 0.25, 1.0])),
                ("twice", ([5, 5], [0.5, 0.25])),
            ]
        )
        == "Success"
    )
    found = sparse.fetch(
        ["tuple", "object", "dict", "unsorted", "twice"],
        include_vectors=True,
        include_metadata=True,
        include_data=True,
    )
    tuple_, object_, dict_, unsorted, twice = found
    assert tuple_ is not None and object_ is not None and dict_ is not None
    assert (tuple_.vector, tuple_.metadata, tuple_.data) == (None, {"k": "v"}, "words")
    assert tuple_.sparse_vector == SparseVector([0, 1], [0.1, 0.2])
    assert object_.sparse_vector == SparseVector([7], [1.5])
    assert dict_.sparse_vector == SparseVector([3, 4], [0.5, 0.25])
    assert unsorted is not None and unsorted.sparse_vector is not None
    pairs = zip(unsorted.sparse_vector.indices, unsorted.sparse_vector.values, strict=True)  # type: ignore[arg-type]
    assert dict(pairs) == {9: 0.5, -5: 0.25, 2**31 - 1: 1.0}
    assert twice is not None and twice.sparse_vector is not None
    info = sparse.info()
    assert info.dense_index is None
    assert info.sparse_index is not None and info.sparse_index.embedding_model == ""


def test_a_sparse_score_is_the_inner_product_of_what_matches(sparse: Index) -> None:
    sparse.upsert(THREE_SPARSE)
    settle(sparse)
    found = sparse.query(sparse_vector=([1, 2], [0.5, 0.1]), include_vectors=True, include_metadata=True)
    assert ids(found) == ["id1", "id0", "id2"]
    assert [one.score for one in found] == pytest.approx([0.13, 0.1, 0.03]) and all(
        shortest(one.score) for one in found
    )
    assert found[0].sparse_vector == SparseVector([1, 2], [0.2, 0.3]) and found[0].vector is None
    assert found[1].metadata is None and found[2].metadata == {"key": "value"}
    assert ids(sparse.query(sparse_vector=([0], [1.0]))) == ["id0"], "only what has a dimension in common"
    assert sparse.query(sparse_vector=([77], [1.0])) == []
    assert ids(sparse.query(sparse_vector=([1], [1.0]), filter="key = 'value'")) == ["id1"]
    assert sparse.update("id0", sparse_vector=([77], [2.0])) is True
    settle(sparse)
    assert sparse.query(sparse_vector=([77], [1.0])) == [QueryResult("id0", 2)]


THREE_SPARSE = [{name: value for name, value in one.items() if name != "vector"} for one in THREE]


def test_a_sparse_query_weighed_by_how_rare_a_dimension_is(sparse: Index) -> None:
    sparse.upsert(THREE_SPARSE)
    settle(sparse)
    found, handle = sparse.resumable_query(
        sparse_vector=([0, 1], [0.1, 0.2]),
        top_k=1,
        include_metadata=True,
        weighting_strategy=WeightingStrategy.IDF,
        fusion_algorithm=FusionAlgorithm.DBSF,
    )
    assert found == [QueryResult("id0", 0.028608438)]
    assert handle.fetch_next(1) == [QueryResult("id1", 0.018800145, metadata={"key": "value"})]
    assert handle.fetch_next(1) == []
    handle.stop()


def test_what_a_sparse_index_refuses(sparse: Index) -> None:
    with refused("This index requires sparse vectors"):
        sparse.upsert([("a", [0.1, 0.2])])
    for wrong in (
        SparseVector([1, 2], [0.5]),
        SparseVector([2**31], [0.5]),
        SparseVector(list(range(1001)), [0.5] * 1001),
    ):
        with pytest.raises(UpstashError):
            sparse.upsert([Vector("a", sparse_vector=wrong)])
    with pytest.raises(UpstashError):
        sparse.query(vector=[0.1, 0.2])
    assert sparse.fetch("a") == [None]


def test_a_hybrid_index(hybrid: Index) -> None:
    assert hybrid.upsert(THREE) == "Success"
    (got,) = hybrid.fetch("id2", include_vectors=True, include_metadata=True, include_data=True)
    assert got is not None and got.vector == [0.3, 0.4] and got.metadata == {"key": "value"}
    assert got.sparse_vector == SparseVector([2, 3], [0.3, 0.4]) and got.data == "data"
    for wrong, text in (
        (Vector("a", [0.1, 0.2]), "This index requires sparse vectors"),
        (Vector("a", sparse_vector=([1], [0.5])), "This index requires dense vectors"),
    ):
        with refused(text):
            hybrid.upsert([wrong])
    with pytest.raises(UpstashError):
        hybrid.update("id0", vector=[0.5, 0.5])
    assert hybrid.update("id0", vector=[0.5, 0.6], sparse_vector=([8], [1.0])) is True
    assert hybrid.update("id0", metadata={"new": 1}) is True
    (got,) = hybrid.fetch("id0", include_vectors=True, include_metadata=True)
    assert got is not None and (got.vector, got.metadata) == ([0.5, 0.6], {"new": 1})
    assert got.sparse_vector == SparseVector([8], [1.0])
    info = hybrid.info()
    assert info.dense_index is not None and info.sparse_index is not None
    assert (info.dense_index.dimension, info.dense_index.similarity_function) == (2, "COSINE")
    assert (info.dense_index.embedding_model, info.sparse_index.embedding_model) == ("", "")


def test_ranks_are_fused(hybrid: Index) -> None:
    hybrid.upsert(THREE, namespace="query-hybrid")
    settle(hybrid)
    both, first_and_third, weighed = hybrid.query_many(
        queries=[
            {
                "vector": [0.1, 0.1],
                "sparse_vector": ([3, 4], [0.1, 0.2]),
                "top_k": 1,
                "fusion_algorithm": FusionAlgorithm.RRF,
            },
            {
                "vector": [0.5, 0.1],
                "sparse_vector": ([0, 1], [0.5, 0.1]),
                "top_k": 1,
                "include_vectors": True,
            },
            {
                "sparse_vector": ([2, 3], [0.5, 0.5]),
                "top_k": 1,
                "weighting_strategy": WeightingStrategy.IDF,
                "fusion_algorithm": FusionAlgorithm.DBSF,
                "include_metadata": True,
            },
        ],
        namespace="query-hybrid",
    )
    assert both == [QueryResult("id2", 0.033333335)]
    (found,) = first_and_third
    assert found == QueryResult(
        "id0", 0.032795697, [0.1, 0.2], sparse_vector=SparseVector([0, 1], [0.1, 0.2])
    )
    assert weighed == [QueryResult("id2", 0.26666638, metadata={"key": "value"})], "nothing is fused"


def test_one_half_of_a_hybrid_index(hybrid: Index) -> None:
    hybrid.upsert(THREE)
    settle(hybrid)
    assert hybrid.query(vector=[0.1, 0.2], top_k=1) == [QueryResult("id0", 1)]
    (found,) = hybrid.query(sparse_vector=([0], [10.0]))
    assert found.id == "id0" and found.score == pytest.approx(1)
    fused = hybrid.query(vector=[0.1, 0.2], sparse_vector=([0], [10.0]), filter="key = 'value'")
    assert sorted(ids(fused)) == ["id1", "id2"], "a filter is for both halves"


def test_distributions_are_fused(hybrid: Index) -> None:
    """What each half gives is put on one scale by its mean and deviation; what one half lacks adds nothing."""
    hybrid.upsert(THREE)
    settle(hybrid)
    vector, other = [0.1, 0.1], ([1, 2], [0.5, 0.1])
    dense = {one.id: one.score for one in hybrid.query(vector)}
    sparse = {one.id: one.score for one in hybrid.query(sparse_vector=other)}
    assert len(dense) == len(sparse) == 3
    expected = {name: normed(dense)[name] + normed(sparse)[name] for name in dense}
    found = hybrid.query(vector, sparse_vector=other, fusion_algorithm=FusionAlgorithm.DBSF)
    assert {one.id: one.score for one in found} == pytest.approx(expected, abs=1e-5)
    assert ids(found) == sorted(expected, key=lambda name: -expected[name])


def normed(scores: dict[str, float]) -> dict[str, float]:
    middle, deviation = mean(scores.values()), stdev(scores.values())
    return {name: (score - (middle - 3 * deviation)) / (6 * deviation) for name, score in scores.items()}


def test_a_fused_query_that_goes_on(hybrid: Index) -> None:
    hybrid.upsert(THREE)
    settle(hybrid)
    found, handle = hybrid.resumable_query(
        vector=[0.1, 0.1],
        sparse_vector=([0], [0.1]),
        top_k=2,
        include_vectors=True,
        include_metadata=True,
        include_data=True,
        weighting_strategy=WeightingStrategy.IDF,
        fusion_algorithm=FusionAlgorithm.DBSF,
    )
    with handle:
        assert found == [
            QueryResult(
                "id2", NEARLY, [0.3, 0.4], {"key": "value"}, "data", SparseVector([2, 3], [0.3, 0.4])
            ),
            QueryResult("id0", 0.5, [0.1, 0.2], sparse_vector=SparseVector([0, 1], [0.1, 0.2])),
        ]
        sparse_vector = SparseVector([1, 2], [0.2, 0.3])
        assert handle.fetch_next(1) == [
            QueryResult("id1", 0.5, [0.2, 0.3], {"key": "value"}, sparse_vector=sparse_vector)
        ]
        assert handle.fetch_next(1) == []


WORDS: list[tuple[str, str, dict[str, int]]] = [
    ("hello", "Hello world, this is a greeting", {"n": 1}),
    ("store", "A vector database stores embeddings", {"n": 2}),
    ("cook", "Boil the potatoes with salt and butter", {"n": 3}),
]


def test_words_become_vectors(embedding: Index) -> None:
    assert embedding.upsert(WORDS) == "Success"
    *_, got = embedding.fetch(
        ["hello", "cook"], include_vectors=True, include_metadata=True, include_data=True
    )
    info = embedding.info()
    assert info.dense_index is not None and "wordllama" in info.dense_index.embedding_model.lower()
    assert got is not None and got.vector is not None and len(got.vector) == info.dimension > 2
    assert (got.data, got.metadata) == ("Boil the potatoes with salt and butter", {"n": 3})
    settle(embedding)
    found = embedding.query(data="Hello", include_data=True, include_metadata=True, top_k=1)
    assert [(one.id, one.data, one.metadata) for one in found] == [("hello", WORDS[0][1], {"n": 1})]
    assert 0.5 < found[0].score <= 1
    itself, other = embedding.query_many(
        queries=[
            {"data": WORDS[2][1], "top_k": 1},
            {"data": "databases of vectors", "top_k": 1, "filter": "n > 1"},
        ]
    )
    assert itself == [QueryResult("cook", 1)] and ids(other) == ["store"]
    assert embedding.query(got.vector, top_k=1) == [QueryResult("cook", 1)], "the same by its vector"
    scores, handle = embedding.resumable_query(data="Hello", top_k=1)
    assert ids(scores) == ["hello"] and len(handle.fetch_next(5)) == 2
    handle.stop()


def test_words_that_change_change_the_vector(embedding: Index) -> None:
    embedding.upsert([Data("a", "hello", {"k": 1})], namespace="ns")
    (before,) = embedding.fetch("a", include_vectors=True, include_data=True, namespace="ns")
    assert embedding.update("a", data="boiled potatoes", namespace="ns") is True
    (after,) = embedding.fetch(
        "a", include_vectors=True, include_data=True, include_metadata=True, namespace="ns"
    )
    assert before is not None and after is not None
    assert after.vector != before.vector and (after.data, after.metadata) == ("boiled potatoes", {"k": 1})
    assert embedding.update("nobody", data="words") is False
    settle(embedding)
    assert embedding.query(data="boiled potatoes", namespace="ns") == [QueryResult("a", 1)]


def test_an_index_with_a_model_takes_vectors_too(embedding: Index) -> None:
    dimension = embedding.info().dimension
    vector = [1.0] + [0.0] * (dimension - 1)
    embedding.upsert([Vector("own", vector, {"k": 1}, "words that are only kept")])
    (got,) = embedding.fetch("own", include_vectors=True, include_data=True)
    assert got is not None and (got.vector, got.data) == (vector, "words that are only kept")
    with refused(f"Invalid vector dimension: 2, expected: {dimension}"):
        embedding.upsert([("b", [0.1, 0.2])])
    with pytest.raises(ClientError):
        embedding.upsert([("b", vector), Data("c", "words")])


def test_many_words_at_once(embedding: Index) -> None:
    nouns = "apple bread castle desk engine flower garden hammer island jacket kettle ladder mirror needle ocean pencil"
    pairs = [" and ".join(pair) for pair in combinations(nouns.split(), 2)]
    embedding.upsert([Data(pair, pair) for pair in pairs])
    embedding.delete(["apple and bread"])
    settle(embedding)
    assert embedding.info().vector_count == len(pairs) - 1
    assert embedding.query(data="garden and ocean", top_k=1) == [QueryResult("garden and ocean", 1)]


def test_words_become_both_kinds_of_vectors(hybrid_embedding: Index) -> None:
    hybrid_embedding.upsert(WORDS)
    (got,) = hybrid_embedding.fetch("cook", include_vectors=True, include_data=True)
    assert got is not None and got.vector is not None and got.sparse_vector is not None
    # "the", "with" and "and" are no words that tell anything.
    assert len(list(got.sparse_vector.indices)) == 4  # type: ignore[arg-type]  # it is a list
    info = hybrid_embedding.info()
    assert info.dense_index is not None and info.sparse_index is not None
    assert "wordllama" in info.dense_index.embedding_model.lower()
    assert info.sparse_index.embedding_model.lower() == "bm25"
    settle(hybrid_embedding)
    (found,) = hybrid_embedding.query(data="potato", query_mode=QueryMode.SPARSE, include_data=True)
    assert (found.id, found.data) == ("cook", WORDS[2][1]), "a word's stem is what counts"
    dense = hybrid_embedding.query(data="potato", query_mode=QueryMode.DENSE)
    assert ids(dense)[0] == "cook" and len(dense) == 3
    fused = hybrid_embedding.query(data="potato", query_mode=QueryMode.HYBRID)
    assert fused[0] == QueryResult("cook", 0.033333335), "first in both"
    assert hybrid_embedding.query(data="potato") == fused
    (weighed,) = hybrid_embedding.query(
        data="potato", query_mode=QueryMode.SPARSE, weighting_strategy=WeightingStrategy.IDF
    )
    assert weighed.score == pytest.approx(found.score * math.log((3 - 1 + 0.5) / 1.5 + 1), rel=1e-5)
