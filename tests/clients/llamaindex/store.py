"""LlamaIndex's Upstash store at work on an index of two dimensions: ``store.py URL TOKEN`` prints what it found, as JSON.

It runs in an environment of its own (``requirements.in``) and imports nothing of this repository.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.vector_stores.upstash import UpstashVectorStore

SETTLED_S = 60.0


def nodes() -> list[TextNode]:
    """Six nodes, the first nearest to [1, 0] and the others in their order."""
    more: dict[int, dict[str, Any]] = {0: {"name": "it's"}, 2: {"name": "two"}, 4: {"tags": ["x", "y"]}}
    return [
        TextNode(
            id_=f"n{n}",
            text=f"text {n}",
            embedding=[1.0, float(n)],
            metadata={"n": n, "even": n % 2 == 0, **more.get(n, {})},
        )
        for n in range(6)
    ]


def settle(store: UpstashVectorStore) -> None:
    """Wait until queries see what was written."""
    deadline = time.monotonic() + SETTLED_S
    while store.client.info().pending_vector_count:
        if time.monotonic() > deadline:
            sys.exit(f"still pending after {SETTLED_S} s")
        time.sleep(0.02)


def matching(
    store: UpstashVectorStore, *wanted: tuple[str, FilterOperator, Any], any_of: bool = False
) -> list[str]:
    """The ids of the nodes that fit, nearest first."""
    filters = MetadataFilters(
        filters=[MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in wanted],
        condition=FilterCondition.OR if any_of else FilterCondition.AND,
    )
    return list(store.query(asking(filters)).ids or [])


def asking(filters: MetadataFilters) -> VectorStoreQuery:
    """A query for all that fits, nearest to [1, 0] first."""
    return VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=10, filters=filters)


def main(url: str, token: str) -> None:
    """Fill the index, ask it, and print what it answered."""
    store = UpstashVectorStore(url=url, token=token, batch_size=2)
    store.add(nodes())
    other = UpstashVectorStore(url=url, token=token, namespace="other")
    other.add([TextNode(id_="n0", text="other text", embedding=[0.0, 1.0])])
    settle(store)

    near = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=2))
    first, second = near.nodes or []
    (apart,) = other.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9)).nodes or []
    index = VectorStoreIndex.from_vector_store(
        store, MockEmbedding(embed_dim=2), storage_context=StorageContext.from_defaults(vector_store=store)
    )
    is_ = FilterOperator.EQ
    built = MetadataFilter.model_construct(key="even", operator=is_, value=True)
    answers = {
        "nearest": [
            [first.node_id, (near.similarities or [])[0], first.get_content(), first.metadata],
            [second.node_id, second.get_content()],
        ],
        "even": matching(store, ("even", is_, 1)),
        "odd and above one": matching(store, ("even", is_, 0), ("n", FilterOperator.GT, 1)),
        "true": list(store.query(asking(MetadataFilters(filters=[built]))).ids or []),
        "any": matching(store, ("n", is_, 0), ("n", FilterOperator.GTE, 5), any_of=True),
        "in": matching(store, ("n", FilterOperator.IN, [1, 2])),
        "not in": matching(store, ("n", FilterOperator.NIN, [1, 2, 3, 4])),
        "named": matching(store, ("name", FilterOperator.IN, ["two", "three"])),
        "tagged": matching(store, ("tags", FilterOperator.CONTAINS, "x")),
        "elsewhere": [[apart.node_id, apart.get_content()]],
        "retrieved": [found.get_content() for found in index.as_retriever(similarity_top_k=2).retrieve("?")],
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
