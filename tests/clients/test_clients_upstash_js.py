"""Upstash's own JavaScript SDK, unchanged. Whole answers are compared, since its suite does so: a null too many is a defect.

Scores written out in full are those that its suite expects, digit by digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.javascript import Home, Sdk, Thrown
from tests.clients.upstash import SETTLED_S, Upstash
from tests.service import TOKEN, until

#: What its suite puts into a hybrid index; into a sparse one, the same without the vectors.
THREE: list[dict[str, Any]] = [
    {"id": "id0", "vector": [0.1, 0.2], "sparseVector": {"indices": [0, 1], "values": [0.1, 0.2]}},
    {
        "id": "id1",
        "vector": [0.2, 0.3],
        "sparseVector": {"indices": [1, 2], "values": [0.2, 0.3]},
        "metadata": {"key": "value"},
    },
    {
        "id": "id2",
        "vector": [0.3, 0.4],
        "sparseVector": {"indices": [2, 3], "values": [0.3, 0.4]},
        "metadata": {"key": "value"},
        "data": "data",
    },
]
EVERYTHING = {"includeVectors": True, "includeMetadata": True, "includeData": True}


@dataclass(frozen=True, slots=True)
class Js:
    """The SDK's methods on one index."""

    sdk: Sdk
    url: str

    def __call__(self, method: str, *args: Any, **on: Any) -> Any:
        """Call a method; returns what it returned."""
        return self.sdk.call(method, *args, url=self.url, **on)

    def thrown(self, method: str, *args: Any, **on: Any) -> Thrown:
        """Call a method that must throw; returns what it threw."""
        thrown = self.sdk.ask(method, *args, url=self.url, **on)
        assert isinstance(thrown, Thrown), thrown
        return thrown

    def settle(self) -> None:
        """Wait as the SDK's own suite does."""
        for _ in until(SETTLED_S):
            if self("info")["pendingVectorCount"] == 0:
                return


@pytest.fixture
def sdk(upstash: Upstash, home: Home) -> Iterator[Sdk]:
    with home.knowing(UPSTASH_VECTOR_REST_TOKEN=TOKEN).sdk("upstash.mjs") as sdk:
        yield sdk


@pytest.fixture
def dense(upstash: Upstash, sdk: Sdk) -> Js:
    return Js(sdk, upstash.make("dense"))


def refused(text: str) -> Thrown:
    return Thrown("UpstashError", text)


def test_upserts_and_what_is_fetched(dense: Js) -> None:
    assert dense("upsert", {"id": 33, "vector": [0.1, 0.2]}) == "Success"
    full = {"id": "full", "vector": [0.5, 0.6], "metadata": {"a": {"b": [1]}}, "data": "words"}
    assert dense("upsert", [full, {"id": "bare", "vector": [0.1, 0.2]}]) == "Success"
    assert dense("fetch", [33, "nobody", "full"], EVERYTHING) == [
        {"id": "33", "vector": [0.1, 0.2]},
        None,
        full,
    ]
    assert dense("fetch", ["full", "bare"]) == [{"id": "full"}, {"id": "bare"}], "nothing was asked for"
    assert dense("fetch", {"prefix": "f"}, {"includeMetadata": True}) == [
        {"id": "full", "metadata": {"a": {"b": [1]}}}
    ]
    both = dense.thrown("fetch", {"ids": ["bare"], "prefix": "f"})
    assert both == refused("Only one of ids or prefix must be provided.")


def test_what_it_refuses(dense: Js) -> None:
    assert dense.thrown("upsert", {"id": "a", "vector": [1, 2, 3]}) == refused(
        "Invalid vector dimension: 3, expected: 2"
    )
    without_model = refused(
        "Embedding data for this index is not allowed. "
        "The index must be created with an embedding model to use it."
    )
    assert dense.thrown("upsert", {"id": "a", "data": "words"}) == without_model
    assert dense.thrown("query", {"data": "words", "topK": 1}) == without_model
    assert dense.thrown("upsert", {"id": "a"}).name == "UpstashError"
    mixed = [{"id": "a", "data": "words"}, {"id": "b", "vector": [1, 2]}]
    assert dense.thrown("upsert", mixed).name == "UpstashError"
    assert dense.thrown("query", {"vector": [0.1, 0.2], "topK": 1, "filter": "a ="}).name == "UpstashError"
    assert dense.thrown("info", token="wrong") == refused("Unauthorized: Invalid auth token")
    assert dense("fetch", ["a", "b"]) == [None, None]


def test_queries(dense: Js) -> None:
    elephant = {"animal": "elephant", "tags": ["mammal"], "diet": "herbivore"}
    tiger = {"animal": "tiger", "tags": ["mammal"], "diet": "carnivore"}
    city = {"city": "Istanbul", "population": 1_546_000, "geography": {"continent": "Asia"}}
    dense("upsert", [{"id": n, "vector": [3, 4], "metadata": m} for n, m in ((1, elephant), (2, tiger))])
    dense("upsert", {"id": 34, "vector": [0.6, 0.8], "metadata": city, "data": "Shakuhachi"})
    dense.settle()

    asked = {"vector": [3, 4], "topK": 1, "includeMetadata": True}
    assert dense("query", {**asked, "filter": "tags[0] = 'mammal' AND diet = 'carnivore'"}) == [
        {"id": "2", "score": 1, "metadata": tiger}
    ]
    where = "population > 1000000 AND geography.continent = 'Asia'"
    assert dense("query", {**asked, "includeVectors": True, "filter": where}) == [
        {"id": "34", "score": 1, "vector": [0.6, 0.8], "metadata": city}
    ]
    only_data = {"vector": [3, 4], "topK": 1, "filter": where, "includeData": True}
    assert dense("query", only_data) == [{"id": "34", "score": 1, "data": "Shakuhachi"}]
    assert dense("query", {"vector": [3, 4], "topK": 2}) == [
        {"id": "1", "score": 1},
        {"id": "2", "score": 1},
    ]

    herbivore = {**asked, "filter": "tags[0] = 'mammal' AND diet = 'herbivore'"}
    one = [{"id": "1", "score": 1, "metadata": elephant}]
    assert dense("queryMany", [herbivore]) == [one], "one query is answered as many are"
    assert dense("queryMany", [herbivore, {"vector": [3, 4], "topK": 3, "filter": "a = 1"}]) == [one, []]


def test_deletes(dense: Js) -> None:
    kinds = ("animal", "animal", "plant")
    dense(
        "upsert",
        [{"id": f"p-{n}", "vector": [1, n], "metadata": {"type": k}} for n, k in enumerate(kinds)]
        + [{"id": n, "vector": [1, n]} for n in range(4)],
    )
    assert dense("delete", "p-0") == {"deleted": 1}
    assert dense("delete", 3) == {"deleted": 1}
    assert dense("delete", [0, 1, "nobody"]) == {"deleted": 2}
    assert dense("delete", {"filter": "type = 'animal'"}) == {"deleted": 1}
    assert dense("delete", {"prefix": "p-"}) == {"deleted": 1}
    assert dense("delete", {"ids": ["2"]}) == {"deleted": 1}
    assert dense.thrown("delete", {"ids": ["1"], "prefix": "test_"}) == refused(
        "Only and only one of the ids, prefix, or filter must be provided."
    )
    assert dense("range", {"cursor": "0", "limit": 5}) == {"nextCursor": "", "vectors": []}


def test_updates(dense: Js) -> None:
    first = {"id": "a", "vector": [0.1, 0.2], "metadata": {"keep": 1, "drop": 2}, "data": "old"}
    dense("upsert", first)
    assert dense("update", {"id": "a", "metadata": {"all": "new"}}) == {"updated": 1}
    assert dense("fetch", ["a"], EVERYTHING) == [{**first, "metadata": {"all": "new"}}]
    patch = {"id": "a", "metadata": {"all": None, "more": {"x": 1}}, "metadataUpdateMode": "PATCH"}
    assert dense("update", patch) == {"updated": 1}
    assert dense("update", {"id": "a", "vector": [0.3, 0.4]}) == {"updated": 1}
    assert dense("update", {"id": "a", "data": "new"}) == {"updated": 1}
    now = {"id": "a", "vector": [0.3, 0.4], "metadata": {"more": {"x": 1}}, "data": "new"}
    assert dense("fetch", ["a"], EVERYTHING) == [now]
    assert dense("update", {"id": "nobody", "vector": [0.3, 0.4]}) == {"updated": 0}


def test_ranges(dense: Js) -> None:
    dense("upsert", [{"id": f"v{n}", "vector": [1, n], "metadata": {"n": n}} for n in range(20)])
    first = dense("range", {"cursor": 0, "limit": 5, "includeVectors": True})
    assert first == {"nextCursor": "5", "vectors": [{"id": f"v{n}", "vector": [1, n]} for n in range(5)]}
    rest = dense("range", {"cursor": first["nextCursor"], "limit": 15, "includeMetadata": True})
    assert rest["nextCursor"] == ""
    assert rest["vectors"] == [{"id": f"v{n}", "metadata": {"n": n}} for n in range(5, 20)]
    tens = dense("range", {"cursor": 0, "limit": 20, "prefix": "v1"})
    assert [one["id"] for one in tens["vectors"]] == ["v1", *(f"v{n}" for n in range(10, 20))]


def test_namespaces_info_and_resets(dense: Js) -> None:
    dense("upsert", {"id": 1, "vector": [1, 0], "metadata": {"in": "one"}}, namespace="one")
    dense("upsert", {"id": 1, "vector": [1, 0], "metadata": {"in": "two"}}, namespace="two")
    dense("upsert", {"id": 2, "vector": [0, 1]}, {"namespace": "two"})
    assert sorted(dense("listNamespaces")) == ["", "one", "two"]
    dense.settle()
    assert dense("query", {"vector": [1, 0], "topK": 3, "includeMetadata": True}, namespace="one") == [
        {"id": "1", "score": 1, "metadata": {"in": "one"}}
    ]
    info = dense("info")
    assert info.pop("indexSize") > 0
    assert info == {
        "vectorCount": 3,
        "pendingVectorCount": 0,
        "dimension": 2,
        "similarityFunction": "COSINE",
        "indexType": "DENSE",
        "denseIndex": {"dimension": 2, "similarityFunction": "COSINE", "embeddingModel": ""},
        "namespaces": {
            "": {"vectorCount": 0, "pendingVectorCount": 0},
            "one": {"vectorCount": 1, "pendingVectorCount": 0},
            "two": {"vectorCount": 2, "pendingVectorCount": 0},
        },
    }
    assert dense("update", {"id": 2, "metadata": {"k": 1}}, namespace="two") == {"updated": 1}
    assert dense("fetch", [2], {"includeMetadata": True}, namespace="two") == [
        {"id": "2", "metadata": {"k": 1}}
    ]
    assert dense("delete", 2, namespace="two") == {"deleted": 1}
    assert dense("reset", namespace="one") == "Success"
    assert dense("fetch", [1], namespace="one") == [None] != dense("fetch", [1], namespace="two")
    assert dense("deleteNamespace", "one") == "Success"
    assert dense.thrown("deleteNamespace", "one").name == "UpstashError"
    assert dense("reset", {"all": True}) == "Success"
    assert dense("fetch", [1], namespace="two") == [None]
    assert dense("listNamespaces") == ["", "two"]


def test_a_query_that_goes_on(dense: Js) -> None:
    dense("upsert", [{"id": n, "vector": [1, 1]} for n in range(4)])
    dense.settle()
    asked = {"vector": [1, 1], "topK": 2, "maxIdle": 3600, "includeVectors": True}
    found = dense("resumableQuery", asked)
    assert found == [{"id": str(n), "score": 1, "vector": [1, 1]} for n in (0, 1)]
    assert dense("fetchNext", 1) == [{"id": "2", "score": 1, "vector": [1, 1]}]
    assert dense("fetchNext", 5) == [{"id": "3", "score": 1, "vector": [1, 1]}]
    assert dense("stop") == "Success"


def test_a_sparse_index(upstash: Upstash, sdk: Sdk) -> None:
    sparse = Js(sdk, upstash.make("sparse"))
    three = [{name: value for name, value in one.items() if name != "vector"} for one in THREE]
    assert sparse("upsert", three, namespace="ns") == "Success"
    assert sparse("fetch", ["id0", "id2"], EVERYTHING, namespace="ns") == [three[0], three[2]]
    assert sparse.thrown("upsert", {"id": "a", "vector": [1, 2]}) == refused(
        "This index requires sparse vectors"
    )
    sparse.settle()
    asked = {
        "sparseVector": {"indices": [0, 1], "values": [0.1, 0.2]},
        "topK": 1,
        "weightingStrategy": "IDF",
        "fusionAlgorithm": "DBSF",
        "maxIdle": 3600,
        **EVERYTHING,
    }
    assert sparse("resumableQuery", asked, namespace="ns") == [{**three[0], "score": 0.028608438}]
    assert sparse("fetchNext", 1) == [{**three[1], "score": 0.018800145}]
    assert sparse("stop") == "Success"
    info = sparse("info")
    assert info["sparseIndex"] == {"embeddingModel": ""} and info["indexType"] == "SPARSE"
    assert "denseIndex" not in info


def test_a_hybrid_index(upstash: Upstash, sdk: Sdk) -> None:
    hybrid = Js(sdk, upstash.make("hybrid"))
    assert hybrid("upsert", THREE) == "Success"
    assert hybrid("fetch", ["id2"], EVERYTHING) == [THREE[2]]
    hybrid.settle()
    found = hybrid(
        "queryMany",
        [
            {
                "topK": 1,
                "vector": [0.1, 0.1],
                "sparseVector": {"indices": [3, 4], "values": [0.1, 0.2]},
                "fusionAlgorithm": "RRF",
            },
            {
                "topK": 1,
                "vector": [0.5, 0.1],
                "sparseVector": {"indices": [0, 1], "values": [0.5, 0.1]},
                "includeVectors": True,
            },
            {
                "topK": 1,
                "sparseVector": {"indices": [2, 3], "values": [0.5, 0.5]},
                "weightingStrategy": "IDF",
                "fusionAlgorithm": "DBSF",
                "includeMetadata": True,
            },
        ],
    )
    assert found == [
        [{"id": "id2", "score": 0.033333335}],
        [{**THREE[0], "score": 0.032795697}],
        [{"id": "id2", "score": 0.26666638, "metadata": {"key": "value"}}],
    ]
    asked = {
        "vector": [0.1, 0.1],
        "sparseVector": {"indices": [0], "values": [0.1]},
        "topK": 2,
        "weightingStrategy": "IDF",
        "fusionAlgorithm": "DBSF",
        "maxIdle": 3600,
        **EVERYTHING,
    }
    # In exact arithmetic it is 0.61785113; their last digits tell how they round.
    nearly = pytest.approx(0.617851, abs=5e-6)
    assert hybrid("resumableQuery", asked) == [{**THREE[2], "score": nearly}, {**THREE[0], "score": 0.5}]
    assert hybrid("fetchNext", 1) == [{**THREE[1], "score": 0.5}]
    assert hybrid("stop") == "Success"


def test_words(upstash: Upstash, sdk: Sdk) -> None:
    words = Js(sdk, upstash.make("hybrid-embedding"))
    hello = {"id": "hello", "data": "Hello world", "metadata": {"upstash": "test"}}
    assert words("upsert", [hello, {"id": "cook", "data": "Boil the potatoes"}]) == "Success"
    assert words("fetch", ["hello"], {"includeMetadata": True, "includeData": True}) == [hello]
    assert words("update", {"id": "cook", "data": "Fry the potatoes"}) == {"updated": 1}
    words.settle()
    asked = {"data": "Hello", "topK": 1, "includeMetadata": True, "includeData": True}
    assert words("query", asked) == [{**hello, "score": 0.033333335}]
    (found,) = words("query", {"data": "potatoes", "topK": 5, "queryMode": "SPARSE", "includeData": True})
    assert (found["id"], found["data"]) == ("cook", "Fry the potatoes")
    first, second = words("queryMany", [{"data": "hello", "topK": 1}, {"data": "potatoes", "topK": 1}])
    assert (first[0]["id"], second[0]["id"]) == ("hello", "cook")
    assert words("resumableQuery", {**asked, "maxIdle": 60}) == [{**hello, "score": 0.033333335}]
    assert [one["id"] for one in words("fetchNext", 3)] == ["cook"]
    assert words("stop") == "Success"
    assert words("info")["sparseIndex"]["embeddingModel"].lower() == "bm25"
