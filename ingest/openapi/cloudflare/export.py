"""The operation that gives out all vectors of an index."""

from __future__ import annotations

from ingest.doors.cloudflare.shapes import VectorResult
from ingest.openapi.cloudflare.envelope import ACCOUNT, INDEX, NAME, TO_INDEX, answers
from ingest.openapi.operation import Answer, Content, Operation, Parameter

_NAMESPACE = Parameter(
    name="namespace",
    place="query",
    description="Only vectors of this namespace.",
    schema={"type": "string", "minLength": 1, "pattern": "^[^\\x00]+$"},
)
_LINES = {
    "type": "string",
    "description": "Lines of JSON, a vector each, as insert and upsert take them; nothing for an empty index.",
    "contentMediaType": "application/x-ndjson",
    "contentSchema": VectorResult,
}

OPERATIONS = (
    Operation(
        method="get",
        path=INDEX + "/export",
        id="exportVectors",
        tag="export",
        summary="Export all vectors",
        description=(
            "All vectors of one version, whatever is written meanwhile, in no order of meaning. The body is `zstd` or `gzip` for those who "
            "accept it. A stream that cannot be finished, for damage found on the way, is broken off without its last chunk: count the "
            "lines."
        ),
        parameters=(ACCOUNT, NAME, _NAMESPACE),
        answers=answers(
            Answer(
                description="The stream.",
                content={"application/x-ndjson": Content(schema=_LINES)},
                headers={
                    "X-Upwell-Version": "The version of the index that this shows.",
                    "X-Upwell-Vectors": "How many lines there are.",
                },
            ),
            *TO_INDEX,
            400,
        ),
    ),
)
