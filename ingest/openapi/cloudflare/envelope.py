"""What all operations in the envelope have in common: its shape, its refusals, and the pieces of their paths."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ingest.doors.cloudflare.context import ACCOUNT as ACCOUNT_NAME
from ingest.doors.cloudflare.models import INDEX_NAME_BYTES_MAX, INDEX_NAME_PATTERN
from ingest.doors.cloudflare.shapes import Failure, Said
from ingest.openapi.operation import Answer, Content, Parameter, Schema
from ingest.problems import RETRY_AFTER_S

INDEXES = "/client/v4/accounts/{account}/vectorize/v2/indexes"
INDEX = INDEXES + "/{index}"

ACCOUNT = Parameter(
    name="account",
    place="path",
    description="A name that owns indexes; it need not be made first.",
    schema={"type": "string", "pattern": f"^{ACCOUNT_NAME.pattern}$"},
    example="default",
    component="Account",
)
NAME = Parameter(
    name="index",
    place="path",
    description="The index's name.",
    schema={"type": "string", "pattern": INDEX_NAME_PATTERN, "maxLength": INDEX_NAME_BYTES_MAX},
    example="docs",
    component="Index",
)

#: What can go wrong with any request that needs a token.
REFUSALS: dict[int, str] = {
    400: "The request is wrong; the message names the field and what was expected. Nothing was changed.",
    401: "No token, or one that is not known here.",
    403: "The token does not allow this.",
    404: "There is no such account, index, mutation or webhook.",
    408: "The body stopped coming. Nothing was changed; send it again.",
    410: "There was such an index, and it was deleted.",
    413: "The body is larger than this server allows.",
    422: "The Idempotency-Key was used for another request.",
    429: "Asked too often, or for more than the server keeps up with; try again.",
    500: "A fault of the server.",
    503: "A part that is needed is away; try again.",
    507: "There is no room left in the store; its operator must make some.",
}
#: Of every request with a token, below an account, and below an index.
TO_ANYTHING = (401, 403, 429, 500, 503)
TO_ACCOUNT = (*TO_ANYTHING, 404)
TO_INDEX = (*TO_ACCOUNT, 410)
WITH_BODY = (400, 408, 413)
#: A write, beside those of its body.
TO_WRITE = (*TO_INDEX, *WITH_BODY, 422, 507)


def envelope(result: Schema, info: Schema | None = None) -> dict[str, Any]:
    """The schema of a success; ``info`` is of its ``result_info``, where there is one."""
    more = {} if info is None else {"result_info": info}
    properties = {
        "result": result,
        **more,
        "success": {"const": True},
        "errors": {"type": "array", "maxItems": 0},
        "messages": {"type": "array", "items": Said},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def success(
    result: Schema,
    description: str,
    *,
    info: Schema | None = None,
    headers: Mapping[str, str] | None = None,
    links: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
    component: str | None = None,
) -> Answer:
    """A success with this result."""
    return Answer(
        description=description,
        content={"application/json": Content(schema=envelope(result, info))},
        headers=headers or {},
        links=links or {},
        component=component,
    )


def answers(ok: Answer, *refusals: int) -> dict[int, Answer]:
    """A success, and the refusals that can occur."""
    return {200: ok} | {status: _refusal(status) for status in refusals}


def _refusal(status: int) -> Answer:
    later = HTTPStatus(status) in RETRY_AFTER_S
    return Answer(
        description=REFUSALS[status],
        content={"application/json": Content(schema=Failure)},
        headers={"Retry-After": "Seconds after which to try again."} if later else {},
        component=f"Refused{status}",
    )
