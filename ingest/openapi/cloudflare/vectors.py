"""Operations on vectors."""

from __future__ import annotations

from typing import Literal

from ingest.body.upload import ARROW_STREAM
from ingest.doors.cloudflare.models import Query
from ingest.doors.cloudflare.shapes import Ids, ListResult, QueryResult, Vector, VectorResult, Vectors
from ingest.doors.cloudflare.vectors import LIST_DEFAULT
from ingest.openapi.cloudflare.envelope import (
    ACCOUNT,
    INDEX,
    NAME,
    TO_INDEX,
    TO_WRITE,
    WITH_BODY,
    answers,
    success,
)
from ingest.openapi.cloudflare.mutations import AFTER, WAIT
from ingest.openapi.cloudflare.writes import ACKNOWLEDGED, WISHES
from ingest.openapi.operation import Body, Content, Operation, Parameter, json_body

_LINES = '{"id": "a", "values": [0.1, 0.2, 0.3], "metadata": {"lang": "en"}}\n{"id": "b", "values": [0.3, 0.2, 0.1]}'
_NDJSON = {
    "type": "string",
    "description": "Lines of JSON, a vector each; blank ones are skipped.",
    "contentMediaType": "application/x-ndjson",
    "contentSchema": Vector,
}
UPLOAD = Body(
    component="Upload",
    description=(
        "Vectors: at most 5,000 and 100 MB unless the operator chose otherwise. The bytes decide which form a body has, not the "
        "content type, so any other is accepted as well; only an Arrow stream must be declared. `Content-Encoding` may be `gzip`, "
        "`deflate`, `zstd`, or several of them."
    ),
    content={
        "application/x-ndjson": Content(schema=_NDJSON, examples={"two vectors": _LINES}),
        "application/json": Content(
            schema={
                "anyOf": [
                    Vectors,
                    {"type": "array", "items": Vector, "minItems": 1},
                    Vector,
                    {"type": "string", "description": "NDJSON as one JSON string."},
                ]
            },
            examples={
                "two vectors": {
                    "vectors": [{"id": "a", "values": [1, 0, 0]}, {"id": "b", "values": [0, 1, 0]}]
                }
            },
        ),
        "multipart/form-data": Content(
            schema={
                "type": "object",
                "description": "The part `vectors` counts, else the first file, else the first part.",
                "properties": {"vectors": _NDJSON},
            },
            examples={"two vectors": {"vectors": _LINES}},
        ),
        ARROW_STREAM: Content(
            schema={
                "type": "string",
                "format": "binary",
                "description": "An Arrow IPC stream with the columns id, values, and optionally namespace and metadata.",
            }
        ),
    },
)
_UNPARSABLE = Parameter(
    name="unparsable-behavior",
    place="query",
    description="`discard` leaves out what cannot be accepted and names it in `messages`; `error` refuses the request.",
    schema={"type": "string", "enum": ["error", "discard"], "default": "error"},
)
_COUNT = Parameter(
    name="count",
    place="query",
    description="How many at most.",
    schema={"type": "integer", "minimum": 1, "maximum": 1_000, "default": LIST_DEFAULT},
)
_CURSOR = Parameter(
    name="cursor",
    place="query",
    description="From the page before: where to go on.",
    schema={"type": "string"},
)


def _upload(name: Literal["insert", "upsert"], summary: str, description: str) -> Operation:
    return Operation(
        method="post",
        path=f"{INDEX}/{name}",
        id=f"{name}Vectors",
        tag="vectors",
        summary=summary,
        description=description,
        parameters=(ACCOUNT, NAME, _UNPARSABLE, *WISHES),
        body=UPLOAD,
        answers=answers(ACKNOWLEDGED, *TO_WRITE),
    )


OPERATIONS = (
    _upload(
        "insert",
        "Insert vectors: keep what exists",
        "Of the same id twice in one body the first counts.",
    ),
    _upload(
        "upsert",
        "Upsert vectors: replace whole",
        "Of the same id twice in one body the last counts. A vector moves if its namespace is another.",
    ),
    Operation(
        method="post",
        path=INDEX + "/delete_by_ids",
        id="deleteVectors",
        tag="vectors",
        summary="Delete vectors",
        description="Unknown ids are no error.",
        parameters=(ACCOUNT, NAME, *WISHES),
        body=json_body(
            Ids, "Ids, any number of them unless the operator chose otherwise.", two={"ids": ["a", "b"]}
        ),
        answers=answers(ACKNOWLEDGED, *TO_WRITE),
    ),
    Operation(
        method="post",
        path=INDEX + "/get_by_ids",
        id="getVectors",
        tag="vectors",
        summary="Get vectors",
        parameters=(ACCOUNT, NAME),
        body=json_body(
            Ids, "Ids, any number of them unless the operator chose otherwise.", two={"ids": ["a", "b"]}
        ),
        answers=answers(
            success({"type": "array", "items": VectorResult}, "Those that exist, in the order asked."),
            *TO_INDEX,
            *WITH_BODY,
        ),
    ),
    Operation(
        method="get",
        path=INDEX + "/list",
        id="listVectors",
        tag="vectors",
        summary="List vectors' ids",
        description="Page by page, as of the moment of the first page. A cursor that is not of this index, or too old, is a 400 with code 40052.",
        parameters=(ACCOUNT, NAME, _COUNT, _CURSOR),
        answers=answers(success(ListResult, "A page of ids."), *TO_INDEX, 400),
    ),
    Operation(
        method="post",
        path=INDEX + "/query",
        id="queryVectors",
        tag="vectors",
        summary="Find the closest vectors",
        description=(
            "With `after`, in the body or here, the answer reflects that mutation, or is 503 if it takes too long. A filter may name any "
            "property; for one without a metadata index `messages` says that every vector's metadata was read."
        ),
        parameters=(ACCOUNT, NAME, AFTER, WAIT),
        body=json_body(
            Query,
            "Exactly one of `vector` and `vectorId`.",
            vector={"vector": [0.1, 0.2, 0.3], "topK": 3, "returnMetadata": "all"},
            vectorId={"vectorId": "a", "returnValues": True},
        ),
        answers=answers(success(QueryResult, "Matches, best first."), *TO_INDEX, *WITH_BODY),
    ),
)
