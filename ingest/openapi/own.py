"""The table of Upwell's own operations: tokens, health, metrics, and this description."""

from __future__ import annotations

from ingest.openapi.cloudflare.envelope import TO_ANYTHING, WITH_BODY, answers, success
from ingest.openapi.operation import Answer, Content, Operation, json_body
from ingest.tokens import IssuedToken, ListedToken, NewToken, RevokedToken, RotatedToken

TAGS = [
    {"name": "tokens", "description": "Upwell's own: tokens."},
    {"name": "service", "description": "Upwell's own: the front end itself. No token is asked for."},
]


def _json(description: str, **properties: object) -> Answer:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return Answer(description=description, content={"application/json": Content(schema=schema)})


OPERATIONS = (
    Operation(
        method="post",
        path="/upwell/v1/tokens",
        id="createToken",
        tag="tokens",
        summary="Make a token",
        description="Only a token that may administer every account can. The new token is shown in this answer and never again.",
        body=json_body(NewToken, "What the token is to allow.", reader={"name": "reader", "access": "read"}),
        answers=answers(success(IssuedToken, "The token."), *TO_ANYTHING, *WITH_BODY, 507),
    ),
    Operation(
        method="get",
        path="/upwell/v1/tokens",
        id="listTokens",
        tag="tokens",
        summary="List all tokens",
        description="Only a token that may administer every account can. What each allows; nothing in it could be used as one.",
        answers=answers(success({"type": "array", "items": ListedToken}, "The oldest first."), *TO_ANYTHING),
    ),
    Operation(
        method="post",
        path="/upwell/v1/tokens/rotate",
        id="rotateToken",
        tag="tokens",
        summary="Exchange a token for a new one",
        description="Only a token that may administer every account can. The new one has the old one's identity, allows the same, and lasts "
        "no longer; the old one is useless after `overlap_s` seconds.",
        body=json_body(RotatedToken, "The token.", gently={"token": "upw_no-such-token", "overlap_s": 3600}),
        answers=answers(success(IssuedToken, "The new token."), *TO_ANYTHING, 404, *WITH_BODY, 507),
    ),
    Operation(
        method="post",
        path="/upwell/v1/tokens/revoke",
        id="revokeToken",
        tag="tokens",
        summary="Make a token useless",
        description="Only a token that may administer every account can. It holds on every front end, from the token's next request on. "
        "An `id`, as lists tell it, stands for all tokens that it has had.",
        body=json_body(
            RevokedToken,
            "The token, or its id.",
            leaked={"token": "upw_no-such-token"},
            known={"id": "no-such-id"},
        ),
        answers=answers(success({"type": "null"}, "It is revoked."), *TO_ANYTHING, 404, *WITH_BODY, 507),
    ),
    Operation(
        method="get",
        path="/healthz",
        id="healthz",
        tag="service",
        summary="Does the process answer?",
        answers={200: _json("It does.", status={"const": "ok"})},
        secured=False,
    ),
    Operation(
        method="get",
        path="/readyz",
        id="readyz",
        tag="service",
        summary="Can it do its work?",
        description="Redis away is said and is no failure: writes and queries go on without.",
        answers={
            200: _json(
                "The store can be read.",
                status={"const": "ready"},
                store={"const": "ok"},
                redis={"enum": ["connected", "away"]},
            ),
            503: _json(
                "The store cannot be read.", status={"const": "unavailable"}, store={"type": "string"}
            ),
        },
        secured=False,
    ),
    Operation(
        method="get",
        path="/metrics",
        id="metrics",
        tag="service",
        summary="Metrics for Prometheus",
        answers={
            200: Answer(
                description="In the text format.", content={"text/plain": Content(schema={"type": "string"})}
            )
        },
        secured=False,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="openapi",
        tag="service",
        summary="This description",
        answers={
            200: Answer(
                description="An OpenAPI 3.1 document.",
                content={"application/json": Content(schema={"type": "object"})},
                headers={"ETag": "Changes with the document; send it back as If-None-Match."},
            ),
            304: Answer(description="It has not changed since.", headers={"ETag": "The same."}),
        },
        secured=False,
    ),
)
