"""What all writes have in common: what may be wished beside them, and how they are acknowledged."""

from __future__ import annotations

from ingest.doors.cloudflare.shapes import AcceptedResult, DryRunResult
from ingest.openapi.cloudflare.envelope import success
from ingest.openapi.operation import Parameter
from ingest.wishes import KEY_CHARACTERS_MAX

PREFER = Parameter(
    name="Prefer",
    place="header",
    description="`wait=N`: answer once the mutation is visible or failed, after N seconds at the latest (RFC 7240).",
    schema={"type": "string"},
    example="wait=10",
    component="Prefer",
)

WISHES = (
    Parameter(
        name="dry-run",
        place="query",
        description="Check everything, change nothing, and report.",
        schema={"type": "boolean", "default": False},
        component="DryRun",
    ),
    PREFER,
    Parameter(
        name="Idempotency-Key",
        place="header",
        description="The same key and request again is the same mutation; of another request, it is refused.",
        # HTTP takes spaces off the ends.
        schema={"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": KEY_CHARACTERS_MAX},
        component="IdempotencyKey",
    ),
)

ACKNOWLEDGED = success(
    {"anyOf": [AcceptedResult, DryRunResult]},
    "The mutation is durable; or, of a dry run, what would be accepted. `messages` names the lines that were left out.",
    component="Acknowledged",
    headers={
        "Idempotency-Replayed": "`true` if this request came before; the answer is that of the first.",
        "Preference-Applied": "How long the answer would have waited.",
    },
    links={
        "status": (
            "mutationStatus",
            {
                "account": "$request.path.account",
                "index": "$request.path.index",
                "mutation": "$response.body#/result/mutationId",
            },
        )
    },
)
