"""langchain-cloudflare, unchanged, but for the address in ``base_url``. Texts stay with the client: it would keep them in D1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import langchain_cloudflare.vectorstores
import pytest
import requests
from langchain_cloudflare import CloudflareVectorize
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from tests.service import TOKEN, Index, Service, running

ACCOUNT = "0123456789abcdef0123456789abcdef"
#: Its own is 300 s, which is longer than a test may take; and how often it looks, which is each 5 s.
WAIT_S_MAX = 60
LOOK_EVERY_S = 0.2


class Letters(Embeddings):
    """How often each of a few letters occurs: near in meaning is near in spelling."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.count(letter)) for letter in "abcdefgh"]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine may send it elsewhere, and it gives up within a test's time."""
    for name in (
        "CF_ACCOUNT_ID",
        "CF_API_TOKEN",
        "CF_VECTORIZE_API_TOKEN",
        "CF_D1_DATABASE_ID",
        "CF_D1_API_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(langchain_cloudflare.vectorstores, "DEFAULT_MAX_WAIT_SECONDS", WAIT_S_MAX)


def store_of(service: Service, name: str, token: str = TOKEN) -> CloudflareVectorize:
    return CloudflareVectorize(
        embedding=Letters(),
        account_id=ACCOUNT,
        api_token=token,
        base_url=f"{service.apis[0].url}/client/v4",
        index_name=name,
        default_wait_seconds=LOOK_EVERY_S,
    )


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_from_create_to_delete(service: Service) -> None:
    store = store_of(service, "lang")
    created = store.create_index(dimensions=8, metric="cosine", description="by langchain", wait=True)
    assert created["name"] == "lang" and created["config"]["dimensions"] == 8
    with pytest.raises(ValueError, match="already exists"):
        store.create_index(dimensions=8)
    assert "lang" in [one["name"] for one in store.list_indexes()]
    assert store.get_index()["description"] == "by langchain"
    store.create_metadata_index("kind", "string", wait=True)
    assert store.list_metadata_indexes() == [{"propertyName": "kind", "indexType": "string"}]

    documents = [
        Document("aaa", metadata={"kind": "one"}),
        Document("bbb", metadata={"kind": "one"}),
        Document("aab"),
    ]
    assert store.add_documents(documents, ids=["1", "2", "3"], wait=True) == ["1", "2", "3"]
    store.add_texts(["ccc"], ids=["4"], namespaces=["apart"], wait=True)
    store.add_texts(["bba"], metadatas=[{"kind": "two"}], ids=["2"], upsert=True, wait=True)
    info = store.get_index_info()
    assert info["vectorCount"] == 4 and info["dimensions"] == 8

    assert ids(store.similarity_search("aaa", k=3, return_metadata="none")) == ["1", "3", "2"]
    (best, score), *_ = store.similarity_search_with_score("bba", return_values=True)
    assert best.id == "2" and score == pytest.approx(1)
    assert best.metadata == {"kind": "two", "_values": Letters().embed_query("bba")}
    assert ids(store.similarity_search("aaa", md_filter={"kind": {"$eq": "two"}})) == ["2"]
    assert ids(store.similarity_search("aaa", md_filter={"kind": {"$in": ["one", "two"]}})) == ["1", "2"]
    assert ids(store.similarity_search("aaa", namespace="apart")) == ["4"]
    assert store.get_by_ids(["4", "nobody"])[0].metadata["_namespace"] == "apart"

    assert store.delete(ids=["4"], wait=True)
    assert store.get_by_ids(["4"]) == []
    undeclared = store.delete_metadata_index("kind")["mutationId"]  # it calls the property "property"
    service.apis[0].index("lang", ACCOUNT).visible(undeclared)
    assert store.list_metadata_indexes() == []
    store.delete_index()
    with pytest.raises(requests.HTTPError, match="410"):
        store.get_index()
    store.create_index(dimensions=8)


async def test_its_asynchronous_half(service: Service) -> None:
    store = store_of(service, "lang-async")
    await store.acreate_index(dimensions=8, wait=True)
    await store.aadd_texts(["abc", "fgh"], ids=["1", "2"], metadatas=[{"n": 1}, {"n": 2}], wait=True)
    found = await store.asimilarity_search("fgh", k=1, return_metadata="none")
    assert ids(found) == ["2"]
    assert await store.adelete(ids=["2"], wait=True)
    assert ids(await store.aget_by_ids(["1", "2"])) == ["1"]
    await store.adelete_index()


def test_it_sees_its_own_mutation_while_another_writes_without_pause(service: Service) -> None:
    """It waits until ``processedUpToMutation`` *is* the id it was given, which another's mutation would jump over."""
    store = store_of(service, "busy")
    store.create_index(dimensions=8)
    index = service.apis[0].index("busy", ACCOUNT)
    others = service.apis[0].call("POST", "/upwell/v1/tokens", {"name": "another", "account": ACCOUNT})
    with writing_without_pause(index, others.result["token"]) as written:
        for number in range(5):
            before = len(written)
            store.add_texts(["abc"], ids=[f"mine {number}"], upsert=True, wait=True)
            assert ids(store.get_by_ids([f"mine {number}"])) == [f"mine {number}"], (
                "what it waited for is there"
            )
            assert len(written) > before, "the other did write meanwhile"
    index.visible(written[-1])
    assert store.get_index_info()["vectorCount"] == 5 + len(written)


@contextmanager
def writing_without_pause(index: Index, token: str) -> Iterator[list[str]]:
    """Upload one vector after another from a thread; gives the mutationIds, which grow."""
    written: list[str] = []
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            body = {"vectors": [{"id": f"other {len(written)}", "values": [1] * 8}]}
            written.append(index.post("upsert", body, token=token).result["mutationId"])

    thread = threading.Thread(target=write, name="another writer")
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()
