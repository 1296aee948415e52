"""What a client may wish beside a write, at any door that offers it, and the headers that say what came of that.

``Prefer: wait=N``    answer once the mutation is visible or failed, after N seconds at the latest (RFC 7240)
``Idempotency-Key``   the same key and body again is the same mutation; another body under a known key is refused
"""

from __future__ import annotations

from aiohttp import web

from ingest.appending import Accepted
from ingest.operations import Operations
from ingest.problems import retry_after
from upwell.errors import Invalid, UpwellError
from upwell.outcome import Outcome

KEY_CHARACTERS_MAX = 255
MUTATION_ID = "X-Mutation-Id"
#: The fact of an error that is met after a write was accepted: its mutation, which the answer names. It need not be sent again.
ACCEPTED = "mutation"


def idempotency_key(request: web.Request) -> str | None:
    """The key that the request may be sent again with. Raises Invalid."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise Invalid(f"Idempotency-Key: expected 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key


def preferred_wait_s(request: web.Request, wait_s_max: float) -> float | None:
    """The seconds of ``wait``, as whole and not negative as the RFC has them. Preferences that are not understood are ignored."""
    for header in request.headers.getall("Prefer", []):
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            text = value.strip().strip('"')
            if name.strip().lower() == "wait" and text.isascii() and text.isdigit():
                return min(float(text[:9]), wait_s_max)
    return None


def naming(accepted: Accepted) -> dict[str, str]:
    """The headers that say which mutation a write became."""
    headers = {MUTATION_ID: accepted.mutation_id}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


async def waited(
    ops: Operations, request: web.Request, accepted: Accepted, wait_s: float
) -> tuple[Outcome, dict[str, str]]:
    """The outcome of a write after ``wait_s``, or after as long as the request prefers to wait; and the headers that say so.

    An error that keeps it from being known names the mutation: that is accepted all the same.
    """
    preferred = preferred_wait_s(request, ops.engine.settings.wait_s_max)
    try:
        outcome = await ops.outcome(
            accepted.index, accepted.mutation_id, wait_s if preferred is None else preferred
        )
    except UpwellError as error:
        error.facts[ACCEPTED] = accepted.mutation_id
        raise
    headers = naming(accepted) | {"X-Mutation-State": str(outcome.state)}
    if preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred:g}"
    return outcome, headers


def headers_of(error: UpwellError) -> dict[str, str]:
    """The headers of a refusal: when to try again, or which mutation was accepted all the same."""
    accepted = error.facts.get(ACCEPTED)
    return retry_after(error) if accepted is None else {MUTATION_ID: str(accepted)}
