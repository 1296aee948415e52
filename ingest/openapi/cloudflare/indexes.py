"""Operations on indexes themselves."""

from __future__ import annotations

from ingest.doors.cloudflare.models import CreateEmbeddingIndex, CreateIndex, CreateSparseIndex
from ingest.doors.cloudflare.shapes import IndexResult, InfoResult
from ingest.openapi.cloudflare.envelope import (
    ACCOUNT,
    INDEX,
    INDEXES,
    NAME,
    TO_ACCOUNT,
    TO_INDEX,
    WITH_BODY,
    answers,
    success,
)
from ingest.openapi.operation import Operation, json_body

_CREATED = {"account": "$request.path.account", "index": "$response.body#/result/name"}

OPERATIONS = (
    Operation(
        method="post",
        path=INDEXES,
        id="createIndex",
        tag="indexes",
        summary="Create an index",
        description=(
            "A name that is taken is refused with 400 and code 3002. A deleted index's name may be used again. Beyond Vectorize an index may "
            "have sparse vectors, or both kinds (write and query them at Upstash's door), and models that make vectors of text."
        ),
        parameters=(ACCOUNT,),
        body=json_body(
            {"anyOf": [CreateIndex, CreateEmbeddingIndex, CreateSparseIndex]},
            "Name, dimensions and metric.",
            cosine={"name": "docs", "config": {"dimensions": 3, "metric": "cosine"}},
            text={"name": "texts", "config": {"metric": "cosine"}, "embeddingModel": "wordllama"},
            hybrid={"name": "both", "config": {"dimensions": 3, "metric": "cosine"}, "kind": "hybrid"},
            sparse={"name": "words", "kind": "sparse", "sparseEmbeddingModel": "BM25"},
        ),
        answers=answers(
            success(
                IndexResult,
                "The new index.",
                links={
                    "get": ("getIndex", _CREATED),
                    "info": ("indexInfo", _CREATED),
                    "upsert": ("upsertVectors", _CREATED),
                    "delete": ("deleteIndex", _CREATED),
                },
            ),
            *TO_ACCOUNT,
            507,
            *WITH_BODY,
        ),
    ),
    Operation(
        method="get",
        path=INDEXES,
        id="listIndexes",
        tag="indexes",
        summary="List indexes",
        parameters=(ACCOUNT,),
        answers=answers(
            success({"type": "array", "items": IndexResult}, "The account's indexes, by name."), *TO_ACCOUNT
        ),
    ),
    Operation(
        method="get",
        path=INDEX,
        id="getIndex",
        tag="indexes",
        summary="Get an index",
        parameters=(ACCOUNT, NAME),
        answers=answers(success(IndexResult, "The index."), *TO_INDEX),
    ),
    Operation(
        method="delete",
        path=INDEX,
        id="deleteIndex",
        tag="indexes",
        summary="Delete an index",
        parameters=(ACCOUNT, NAME),
        answers=answers(success({"type": "null"}, "It is deleted."), *TO_INDEX, 507),
    ),
    Operation(
        method="get",
        path=INDEX + "/info",
        id="indexInfo",
        tag="indexes",
        summary="Tell an index's counts, and how far mutations are visible",
        parameters=(ACCOUNT, NAME),
        answers=answers(success(InfoResult, "As of now."), *TO_INDEX),
    ),
)
