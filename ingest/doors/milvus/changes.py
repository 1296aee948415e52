"""Commands that become a mutation without rows, and wait until it is applied."""

from __future__ import annotations

from ingest.doors.milvus.answers import MUTATION_ID
from ingest.doors.milvus.context import Collection
from ingest.doors.milvus.errors import Code, MilvusError
from ingest.operations import Sender
from ingest.wishes import idempotency_key, preferred_wait_s
from upwell.changeset import Details, KeyScope, Operation, Selection, without_rows
from upwell.outcome import State


async def apply(collection: Collection, operation: Operation, selection: Selection) -> dict[str, str]:
    """Make it durable, and wait until queries see it, though no longer than a read would wait for it, or as long as the request prefers.

    Returns the headers that name it. Raises MilvusError if it failed, or what keeps it from being accepted.
    """
    call, index = collection.call, collection.index
    ops, settings = call.ops, call.settings
    await ops.admit(index)
    details = Details(scope=KeyScope.INDEX, namespace=selection.namespace, selection=selection)
    sender = Sender(call.grant.id, idempotency_key(call.request))
    accepted = await ops.append(index, without_rows(operation, details), sender)
    preferred = preferred_wait_s(call.request, settings.wait_s_max)
    wait_s = call.bounded(settings.milvus_read_wait_s) if preferred is None else preferred
    outcome = await ops.outcome(index, accepted.mutation_id, wait_s)
    if outcome.state is State.FAILED:
        raise MilvusError(
            Code.UNEXPECTED,
            f"the write failed and changed nothing: {outcome.error}",
            mutation=accepted.mutation_id,
        )
    headers = {MUTATION_ID: accepted.mutation_id, "X-Mutation-State": str(outcome.state)}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred:g}"
    return headers
