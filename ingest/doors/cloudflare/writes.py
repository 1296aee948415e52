"""What all writes of this door have in common: what a client may wish beside the write, and how it is acknowledged.

``dry-run=true``      check everything, change nothing, and report
``Prefer: wait=N`` and ``Idempotency-Key`` as at every door (``ingest/wishes.py``)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ingest.appending import Accepted, Sender
from ingest.doors.cloudflare.context import grant_of, operations
from ingest.doors.cloudflare.envelope import said, success
from ingest.doors.cloudflare.errors import line_error
from ingest.wishes import idempotency_key, preferred_wait_s
from upwell.errors import Invalid
from upwell.log.entry import Mutation
from upwell.outcome import State


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wishes beside a write."""

    sender: Sender
    dry_run: bool
    wait_s: float | None


def wishes_of(request: web.Request) -> Wishes:
    """The wishes of an authorised request. Raises Invalid."""
    sender = Sender(grant_of(request).id, idempotency_key(request))
    wait_s_max = operations(request).engine.settings.wait_s_max
    return Wishes(sender, _dry_run(request), preferred_wait_s(request, wait_s_max))


def refuse_dry_run(request: web.Request) -> None:
    """For what cannot be tried: raise Invalid if it was to be. To do it all the same would be the worst answer."""
    if _dry_run(request):
        raise Invalid("dry-run: only writes of vectors and of metadata indexes can be tried")


async def acknowledge(
    request: web.Request, accepted: Accepted, wishes: Wishes, mutation: Mutation | None = None
) -> web.Response:
    """The answer to a write that is durable; ``mutation`` has the lines that were left out."""
    result: dict[str, Any] = {"mutationId": accepted.mutation_id}
    headers = {}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if wishes.wait_s is not None:
        outcome = await operations(request).outcome(accepted.index, accepted.mutation_id, wishes.wait_s)
        result["state"] = outcome.state
        if outcome.state is State.FAILED:
            result["error"] = outcome.error
        headers["Preference-Applied"] = f"wait={wishes.wait_s:g}"
    response = success(result, _left_out(mutation) if mutation else ())
    response.headers.update(headers)
    return response


def report(received: int, mutation: Mutation | None = None) -> web.Response:
    """The answer to a dry run: what would be accepted, and what is wrong with the rest."""
    problems = []
    for problem in mutation.discarded if mutation else ():
        code, message = line_error(problem)
        problems.append(
            {"line": problem.line, "field": problem.field, "id": problem.id, "code": code, "message": message}
        )
    count = mutation.discarded_count if mutation else 0
    result = {
        "dryRun": True,
        "valid": count == 0,
        "received": received,
        "accepted": received - count,
        "problemCount": count,
        "problems": problems,
    }
    return success(result)


def _left_out(mutation: Mutation) -> list[dict[str, Any]]:
    """A message for each of the first lines that were left out, and one for all the others."""
    messages = [said(*line_error(problem)) for problem in mutation.discarded]
    more = mutation.discarded_count - len(mutation.discarded)
    if more > 0:
        code = line_error(mutation.discarded[-1])[0]
        messages.append(said(code, f"{more} more lines were discarded"))
    return messages


def _dry_run(request: web.Request) -> bool:
    match request.query.get("dry-run", "false"):
        case "true":
            return True
        case "false":
            return False
        case other:
            raise Invalid(f"dry-run: expected true or false, got {other[:64]!r}")
