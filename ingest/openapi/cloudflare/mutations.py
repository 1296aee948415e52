"""Operations on mutations, which Vectorize lacks; and what others say of them."""

from __future__ import annotations

from ingest.doors.cloudflare.models import MutationStatus
from ingest.doors.cloudflare.mutations import LISTED_DEFAULT, LISTED_MAX
from ingest.doors.cloudflare.shapes import CursorInfo
from ingest.openapi.cloudflare.envelope import ACCOUNT, INDEX, NAME, TO_INDEX, TO_WRITE, answers, success
from ingest.openapi.cloudflare.writes import ACKNOWLEDGED, PREFER
from ingest.openapi.operation import Answer, Content, Operation, Parameter
from upwell.outcome import State

_ID = {"type": "string", "format": "uuid"}
_MUTATION = Parameter(
    name="mutation", place="path", description="A mutationId that this index gave out.", schema=_ID
)
WAIT = Parameter(
    name="wait",
    place="query",
    description="Seconds to wait at most for the mutation to be visible or failed.",
    schema={"type": "number", "minimum": 0},
)
AFTER = Parameter(name="after", place="query", description="A mutationId to reflect.", schema=_ID)
_LIMIT = Parameter(
    name="limit",
    place="query",
    description="How many at most.",
    schema={"type": "integer", "minimum": 1, "maximum": LISTED_MAX, "default": LISTED_DEFAULT},
)
_STATE = Parameter(
    name="state",
    place="query",
    description="Only those of this state; `queued` and `applying` mean both.",
    schema={"type": "string", "enum": list(State)},
)
_CURSOR = Parameter(
    name="cursor",
    place="query",
    description="From the page before: where to go on; empty: from the newest.",
    schema={"type": "string"},
)
_LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    place="header",
    description="The mutationId after which to go on; none: from now on.",
    schema=_ID,
)

#: Of each event of the stream.
_EVENT = {
    "type": "object",
    "properties": {
        "id": _ID,
        "event": {"enum": [State.VISIBLE, State.FAILED, "gap"]},
        "data": {
            "type": "string",
            "description": "The mutation's status; of a gap, how far all is visible.",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    MutationStatus,
                    {"type": "object", "properties": {"visibleThrough": {"type": "integer"}}},
                ]
            },
        },
    },
    "required": ["event", "data"],
}

OPERATIONS = (
    Operation(
        method="get",
        path=INDEX + "/mutations",
        id="recentMutations",
        tag="mutations",
        summary="List recent mutations",
        parameters=(ACCOUNT, NAME, _STATE, _LIMIT, _CURSOR),
        answers=answers(
            success(
                {"type": "array", "items": MutationStatus},
                "The newest first, as far back as their outcomes are kept.",
                info=CursorInfo,
            ),
            *TO_INDEX,
            400,
        ),
    ),
    Operation(
        method="get",
        path=INDEX + "/mutations/events",
        id="mutationEvents",
        tag="mutations",
        summary="Watch mutations",
        description=(
            "Server-sent events, one for each mutation that becomes visible or fails, in order; `data` is its status, the event's id its "
            "mutationId. `event: gap` says that some in between are not known any more. The stream has no end."
        ),
        parameters=(ACCOUNT, NAME, _LAST_EVENT_ID),
        answers=answers(
            Answer(
                description="The stream.",
                content={"text/event-stream": Content(schema=_EVENT)},
            ),
            *TO_INDEX,
        ),
    ),
    Operation(
        method="get",
        path=INDEX + "/mutations/{mutation}",
        id="mutationStatus",
        tag="mutations",
        summary="Tell what became of a mutation",
        parameters=(ACCOUNT, NAME, _MUTATION, WAIT),
        answers=answers(success(MutationStatus, "As of now, or of the end of the wait."), *TO_INDEX, 400),
    ),
    Operation(
        method="get",
        path=INDEX + "/mutations/{mutation}/changeset",
        id="mutationChangeset",
        tag="mutations",
        summary="Tell what a mutation was sent to do",
        description=(
            "What it is told first, if it is told anything (`propertyName`; `namespace`, `prefix` and `filter` of what is deleted; "
            "`newNamespace`; `metadataUpdateMode`), then its rows, as a client could send them. Of a failed mutation they are kept for a "
            "month, of others until they are visible, and a while longer."
        ),
        parameters=(ACCOUNT, NAME, _MUTATION),
        answers=answers(
            Answer(
                description=(
                    "A line for what it is told, and one for each row. `X-Upwell-Operation` tells the operation, `X-Upwell-Rows` how many "
                    "rows there are."
                ),
                content={"application/x-ndjson": Content(schema={"type": "string"})},
            ),
            *TO_INDEX,
        ),
    ),
    Operation(
        method="post",
        path=INDEX + "/mutations/{mutation}/retry",
        id="retryMutation",
        tag="mutations",
        summary="Try a failed mutation again",
        description=(
            "It becomes a new mutation, behind all others. Asking again answers with the same one, unless that has failed as well."
        ),
        parameters=(ACCOUNT, NAME, _MUTATION, PREFER),
        answers=answers(ACKNOWLEDGED, *TO_WRITE),
    ),
)
