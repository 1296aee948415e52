"""Routes of mutations: what Cloudflare lacks. The status of one, with long-poll; the recent ones; and a stream of events."""

from __future__ import annotations

import contextlib

import orjson
from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, number_in, operations, wait_seconds
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.models import mutation_status
from ingest.keys import NOTICES
from ingest.requests import bearer_token
from upwell.catalog.tokens import Access
from upwell.engine import Index
from upwell.errors import Gone, Invalid, NotFound, Unauthenticated
from upwell.log.receipt import Receipt, parse
from upwell.outcome import Outcome, State

LISTED_DEFAULT = 50
LISTED_MAX = 1_000
#: Events handed out at once, and how often a silent stream shows that it lives.
EVENTS_AT_ONCE = 500
KEEPALIVE_S = 15.0


async def status(request: web.Request) -> web.Response:
    """``GET …/mutations/{mutation}[?wait=SECONDS]``: 404 for an id that this index never gave out."""
    index = await authorised_index(request, Access.READ)
    outcome = await operations(request).outcome(index, request.match_info["mutation"], wait_seconds(request))
    applying_through = None
    if outcome.state is State.QUEUED:
        applying_through = await request.config_dict[NOTICES].applying(index.record.id)
    return success(mutation_status(outcome, applying_through).to_json())


async def recent(request: web.Request) -> web.Response:
    """``GET …/mutations[?state=][&limit=N][&cursor=]``: the newest first, as far back as their outcomes are kept.

    A page's cursor is the id of its last mutation; there is none after the last page. ``queued`` includes those being applied.
    """
    index = await authorised_index(request, Access.READ)
    limit = number_in(request, "limit", LISTED_DEFAULT, LISTED_MAX)
    state, cursor = _state(request), request.query.get("cursor")
    before = _receipt(index, "cursor", cursor) if cursor else None
    applying_through = await request.config_dict[NOTICES].applying(index.record.id)
    if state is State.APPLYING:
        end = Receipt((applying_through or 0) + 1, 0)
        state, before = State.QUEUED, end if before is None else min(end, before)
    outcomes = await operations(request).look(index.outcomes.recent, limit + 1, before, state)
    more, outcomes = len(outcomes) > limit, outcomes[:limit]
    page = [mutation_status(outcome, applying_through).to_json() for outcome in outcomes]
    return success(page, info={"count": len(page), "cursor": outcomes[-1].mutation_id if more else None})


def _state(request: web.Request) -> State | None:
    text = request.query.get("state")
    if text is None:
        return None
    try:
        state = State(text)
    except ValueError:
        raise Invalid(f"state: expected one of {', '.join(State)}, got {text[:64]!r}") from None
    return state


def _receipt(index: Index, field: str, mutation_id: str) -> Receipt:
    """Where a mutation that a request names lies. Raises NotFound, which names the field."""
    try:
        return parse(index.record.receipt_key, mutation_id)
    except NotFound:
        raise NotFound(
            f"{field}: expected the id of a mutation of this index, got {mutation_id[:64]!r}"
        ) from None


async def events(request: web.Request) -> web.StreamResponse:
    """``GET …/mutations/events``: server-sent events, one for each mutation that becomes visible or fails, in order.

    An event's id is the mutationId; with it as ``Last-Event-ID`` a stream goes on where another broke off. ``event: gap`` says that
    some in between are not known any more.
    """
    index = await authorised_index(request, Access.READ)
    last = request.headers.get("Last-Event-ID")
    if not last:
        at = await operations(request).look(index.outcomes.newest)
    else:
        at = _receipt(index, "Last-Event-ID", last)
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await stream.prepare(request)
    # A client may go away at any time, and so may the index, and the token.
    with contextlib.suppress(ConnectionResetError, Gone, Unauthenticated):
        await _stream_from(request, stream, index, at)
    return stream


async def _stream_from(request: web.Request, stream: web.StreamResponse, index: Index, at: Receipt) -> None:
    """Until the front end stops. A stream lasts as long as what it is of, and the right to it: raises Gone or Unauthenticated."""
    ops, clock = operations(request), operations(request).engine.clock
    checked_at = clock.monotonic()
    while not ops.visibility.closed:
        if clock.monotonic() - checked_at >= KEEPALIVE_S:
            await ops.look(index.check_live)
            await ops.check_still_valid(bearer_token(request))
            checked_at = clock.monotonic()
        applied = await ops.look(index.outcomes.applied_after, at, EVENTS_AT_ONCE)
        if applied is None:
            at = await ops.look(index.outcomes.newest)
            gap = orjson.dumps({"visibleThrough": at.position})
            await stream.write(b"event: gap\ndata: " + gap + b"\n\n")
            continue
        at = applied.through
        if applied.outcomes:
            await stream.write(b"".join(map(_event, applied.outcomes)))
        elif not await ops.visibility.reached(index, at.position + 1, KEEPALIVE_S):
            await stream.write(b": keepalive\n\n")


def _event(outcome: Outcome) -> bytes:
    data = orjson.dumps(mutation_status(outcome).to_json())
    return f"id: {outcome.mutation_id}\nevent: {outcome.state}\ndata: ".encode() + data + b"\n\n"
