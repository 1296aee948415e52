"""LangChain's Upstash store and LlamaIndex's, unchanged, on an index that is given vectors, and LangChain's on one with a model.

LlamaIndex's cannot be installed beside today's upstash-vector, so it runs in an environment of its own (``llamaindex/``).
"""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from tests.clients.javascript import require
from tests.clients.upstash import Upstash, settle, settled
from tests.service import ROOT, TOKEN

with warnings.catch_warnings():
    # It says that it is no longer looked after, but nothing has taken the place of its Upstash store yet.
    warnings.filterwarnings("ignore", "`langchain-community` is being sunset", DeprecationWarning)
    from langchain_community.vectorstores.upstash import UpstashVectorStore

LLAMAINDEX = Path(__file__).parent / "llamaindex"
LLAMAINDEX_VENV = ROOT / ".venv-llamaindex"
RUN_S = 60.0


class Letters(Embeddings):
    """How often each of two letters occurs: near in meaning is near in spelling."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.count(letter)) for letter in "ab"]


LETTERS = Letters()


@contextmanager
def store(
    url: str,
    embedding: Embeddings | bool = LETTERS,
    **how: Any,
) -> Iterator[UpstashVectorStore]:
    """LangChain's store; its clients have no way of their own to hang up."""
    store = UpstashVectorStore(index_url=url, index_token=TOKEN, embedding=embedding, **how)
    with store._index._client:
        yield store


@asynccontextmanager
async def astore(url: str, embedding: Embeddings | bool) -> AsyncIterator[UpstashVectorStore]:
    """The same for its asynchronous half."""
    store = UpstashVectorStore(index_url=url, index_token=TOKEN, embedding=embedding)
    async with store._async_index._client:
        yield store


def texts(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


def test_documents_with_vectors_of_ones_own(upstash: Upstash) -> None:
    with store(upstash.make("dense")) as here:
        added = here.add_documents(
            [
                Document("aaa", metadata={"kind": "one", "n": 1}),
                Document("bbb", metadata={"kind": "one", "n": 2}),
                Document("aab", metadata={"kind": "two", "deep": {"er": True}}),
            ],
            ids=["1", "2", "3"],
        )
        assert added == ["1", "2", "3"]
        (drawn,) = here.add_texts(["abb"])
        settle(here._index)
        assert texts(here.similarity_search("aaa", k=4)) == ["aaa", "aab", "abb", "bbb"]
        (best, score), *_ = here.similarity_search_with_score("ab", k=1, filter="kind = 'two'")
        assert best.page_content == "aab" and best.metadata == {"kind": "two", "deep": {"er": True}}
        assert score == pytest.approx((1 + 3 / 10**0.5) / 2, abs=1e-6)
        assert here.similarity_search_with_relevance_scores("bbb", k=1)[0][1] == 1
        assert texts(here.similarity_search_by_vector([0, 1], k=1)) == ["bbb"]
        assert texts(here.similarity_search("a", filter="n IN (1, 2) AND kind GLOB 'o*'")) == ["aaa", "bbb"]
        spread = here.max_marginal_relevance_search("aaa", k=2, fetch_k=4, lambda_mult=0.1)
        assert texts(spread) == ["aaa", "bbb"], "the nearest, and the one least like it"
        here.delete(ids=["1", drawn])
        settle(here._index)
        assert texts(here.similarity_search("aaa")) == ["aab", "bbb"]
        assert here.info().vector_count == 2
        here.delete(delete_all=True)
        settle(here._index)
        assert here.similarity_search("aaa") == []


def test_many_documents_go_in_batches(upstash: Upstash) -> None:
    many = ["a" * (n % 7 + 1) + "b" * (n % 5) for n in range(100)]
    with store(upstash.make("dense"), namespace="many") as here:
        ids = here.add_texts(many, [{"n": n} for n in range(100)], batch_size=32)
        settle(here._index)
        assert here.info().namespaces["many"].vector_count == 100
        (found,) = here.similarity_search("ab", filter="n = 99")
        assert found.page_content == many[99]
        here.delete(ids=ids, batch_size=40)
        settle(here._index)
        assert here.info().vector_count == 0


def test_namespaces(upstash: Upstash) -> None:
    url = upstash.make("dense")
    with store(url) as here, store(url, namespace="ns") as there:
        here.add_texts(["aaa"], ids=["same"])
        there.add_texts(["bbb"], ids=["same"])
        here.add_texts(["aab"], ids=["third"], namespace="third")
        settle(here._index)
        assert texts(here.similarity_search("a")) == ["aaa"] and texts(there.similarity_search("a")) == [
            "bbb"
        ]
        assert texts(there.similarity_search("a", namespace="third")) == ["aab"]
        there.delete(ids=["same"])
        settle(here._index)
        assert texts(here.similarity_search("a")) == ["aaa"] and there.similarity_search("a") == []


def test_words_that_the_service_embeds(upstash: Upstash) -> None:
    with store(upstash.make("embedding"), embedding=True) as here:
        said = ["Hello world, this is a greeting", "A vector database stores embeddings", "Boil the potatoes"]
        here.add_texts(said, [{"n": n} for n in range(3)], ids=["hello", "store", "cook"])
        settle(here._index)
        (found,) = here.similarity_search("how to cook a potato", k=1)
        assert (found.page_content, found.metadata) == (said[2], {"n": 2})
        ((found, score),) = here.similarity_search_with_score(said[1], k=1)
        assert (found.page_content, score) == (said[1], 1)
        assert texts(here.similarity_search("potatoes", filter="n < 1")) == [said[0]]
        here.delete(ids=["cook"])
        settle(here._index)
        assert said[2] not in texts(here.similarity_search("how to cook a potato"))


@pytest.mark.parametrize(("kind", "embedding"), [("dense", LETTERS), ("embedding", True)])
async def test_the_asynchronous_half(url: str, embedding: Embeddings | bool) -> None:
    async with astore(url, embedding) as here:
        await here.aadd_texts(["aaa", "bbb"], [{"n": 1}, {"n": 2}], ids=["1", "2"])
        await here.aadd_documents([Document("aab", metadata={"n": 3})], ids=["3"])
        await settled(here._async_index)
        ((best, score), *rest) = await here.asimilarity_search_with_score("bbb", k=3)
        assert (best.page_content, best.metadata, score, len(rest)) == ("bbb", {"n": 2}, 1, 2)
        assert texts(await here.asimilarity_search("bbb", filter="n = 3")) == ["aab"]
        await here.adelete(ids=["2", "3"])
        await settled(here._async_index)
        assert texts(await here.asimilarity_search("bbb")) == ["aaa"]
        assert (await here.ainfo()).vector_count == 1


@pytest.fixture
def url(upstash: Upstash, kind: str) -> str:
    return upstash.make(kind)


def test_llamaindex(upstash: Upstash, tmp_path: Path) -> None:
    """It sends earlier nodes again with later ones, writes ``True`` into filters, and has no way to delete so far."""
    stamp = LLAMAINDEX_VENV / ".upwell"
    newest = stamp.exists() and stamp.stat().st_mtime >= (LLAMAINDEX / "requirements.lock").stat().st_mtime
    require(newest, "NOT TESTED: LlamaIndex is not installed; `make install-dev` does it")
    ran = subprocess.run(
        [LLAMAINDEX_VENV / "bin" / "python", LLAMAINDEX / "store.py", upstash.make("dense"), TOKEN],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "nearest": [["n0", 1, "text 0", {"n": 0, "even": True, "name": "it's"}], ["n1", "text 1"]],
        "even": ["n0", "n2", "n4"],
        "true": ["n0", "n2", "n4"],
        "odd and above one": ["n3", "n5"],
        "any": ["n0", "n5"],
        "in": ["n1", "n2"],
        "not in": ["n0", "n5"],
        "named": ["n2"],
        "tagged": ["n4"],
        "elsewhere": [["n0", "other text"]],
        "retrieved": ["text 1", "text 2"],
    }
