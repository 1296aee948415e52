"""Routes of mutations: what Cloudflare lacks. Status of one, with long-poll."""

from __future__ import annotations

from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, operations, wait_seconds
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.models import mutation_status
from ingest.keys import NOTICES
from upwell.catalog.tokens import Access
from upwell.outcome import State


async def status(request: web.Request) -> web.Response:
    """``GET …/mutations/{mutation}[?wait=SECONDS]``: 404 for an id that this index never gave out."""
    index = await authorised_index(request, Access.READ)
    outcome = await operations(request).outcome(index, request.match_info["mutation"], wait_seconds(request))
    applying_through = None
    if outcome.state is State.QUEUED:
        applying_through = await request.config_dict[NOTICES].applying(index.record.id)
    return success(mutation_status(outcome, applying_through).to_json())
