"""What every write of this door has in common: who sends its mutation, what its answer says of that, and how long it waits for it.

Also the commands that become a mutation without rows, and are answered once it is applied.
"""

from __future__ import annotations

from http import HTTPStatus

from ingest.appending import Accepted, Sender
from ingest.doors.milvus.context import Call, Collection
from ingest.doors.milvus.errors import Code, MilvusError
from ingest.wishes import ACCEPTED, idempotency_key, naming, preferred_wait_s, waited
from upwell.changeset import Details, KeyScope, Operation, Selection, without_rows
from upwell.outcome import Outcome, State


def sender_of(call: Call) -> Sender:
    """Who sends the mutation. Raises Invalid for a key that can be none."""
    return Sender(call.grant.id, idempotency_key(call.request))


async def apply(collection: Collection, operation: Operation, selection: Selection) -> dict[str, str]:
    """Make a mutation without rows durable, and wait until queries see it: as long as a read would wait for it, or as the request prefers.

    Returns the headers that name it. Raises MilvusError if it failed, or what keeps it from being accepted.
    """
    call, index = collection.call, collection.index
    await call.ops.admit(index)
    details = Details(scope=KeyScope.INDEX, namespace=selection.namespace, selection=selection)
    accepted = await call.ops.append(index, without_rows(operation, details), sender_of(call))
    _, headers = await outcome_of(collection, accepted, call.bounded(call.settings.milvus_read_wait_s))
    return headers


async def acknowledged(collection: Collection, accepted: Accepted) -> dict[str, str]:
    """The headers of an answer that need not wait, after as long as the request prefers to. Raises MilvusError if the write failed by then."""
    call = collection.call
    if preferred_wait_s(call.request, call.settings.wait_s_max) is None:
        return naming(accepted)
    _, headers = await outcome_of(collection, accepted, 0)
    return headers


async def outcome_of(
    collection: Collection, accepted: Accepted, wait_s: float
) -> tuple[Outcome, dict[str, str]]:
    """What became of a write after ``wait_s``, or after as long as the request prefers; and the headers that say so.

    Raises MilvusError if it failed, which names the mutation, too.
    """
    call = collection.call
    outcome, headers = await waited(call.ops, call.request, accepted, wait_s)
    if outcome.state is State.FAILED:
        raise MilvusError(
            Code.UNEXPECTED,
            f"the write failed and changed nothing: {outcome.error}",
            HTTPStatus.OK,
            **{ACCEPTED: accepted.mutation_id},
        )
    return outcome, headers
