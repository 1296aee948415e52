"""Routes of webhooks, which Cloudflare lacks: who is told when mutations of an index become visible or fail.

Only registering is done here; workers deliver. A URL is refused at once if it leads to where webhooks may not lead, as far as that can
be told now; workers look again at every address that they connect to.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Annotated, Any
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from ingest.doors.cloudflare.context import authorised_index, grant_of, json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.models import Result, timestamp
from ingest.doors.cloudflare.writes import refuse_dry_run
from upwell.catalog.tokens import Access
from upwell.errors import Invalid, NotFound
from upwell.webhook import Event, Progress, Webhook
from upwell.webhook.addresses import Destination, destination, why_refused

#: A name that takes longer to resolve is taken for one that does not.
RESOLVE_S = 5.0
_ID = re.compile(r"[0-9a-f]{32}")


class NewWebhook(BaseModel):
    """Body of create. Ours alone, so that a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(min_length=1)]
    events: Annotated[tuple[Event, ...], Field(min_length=1, fail_fast=True)] = tuple(Event)
    secret: str | None = None


class CreatedWebhook(Result):
    """Result of create: the only answer that tells the secret."""

    id: str
    url: str
    events: list[Event]
    secret: str
    created_at: str


class LastError(Result):
    """Why the newest try of those that failed did; ``mutation_id`` is null if it was to tell of a gap."""

    at: str
    mutation_id: str | None
    message: str


class ListedWebhook(Result):
    """A webhook, and how far it has come: all up to ``through_position`` was delivered, given up, or not asked for."""

    id: str
    url: str
    events: list[Event]
    created_at: str
    state: Annotated[str, Field(pattern="^(active|retrying|disabled)$")]
    through_position: int
    delivered_through: str | None
    delivered_at: str | None
    tries: int
    next_attempt_at: str | None
    last_error: LastError | None
    given_up: int
    disabled_at: str | None


async def create(request: web.Request) -> web.Response:
    """``POST …/webhooks``: told of every mutation that becomes visible or fails from now on."""
    index = await authorised_index(request, Access.WRITE)
    refuse_dry_run(request)
    asked = await json_body(request, NewWebhook)
    where = destination(asked.url)
    if not operations(request).engine.settings.webhook_private_addresses:
        await _check_public(where)
    made = await operations(request).look(index.webhooks.create, asked.url, asked.events, asked.secret)
    # An index that another took the place of tells nobody anything.
    await operations(request).look(index.hold)
    created = CreatedWebhook(
        id=made.id,
        url=made.url,
        events=list(made.events),
        secret=made.secret,
        created_at=timestamp(made.created_at),
    )
    return success(created.to_json())


async def list_all(request: web.Request) -> web.Response:
    """``GET …/webhooks``: the oldest first, without their secrets. A URL may be one as well: who only reads is told its host."""
    index = await authorised_index(request, Access.READ)
    found = await operations(request).look(index.webhooks.everything)
    whole = grant_of(request).access.includes(Access.WRITE)
    return success([_listed(webhook, progress, whole=whole) for webhook, progress in found])


async def delete(request: web.Request) -> web.Response:
    """``DELETE …/webhooks/{webhook}``: what is not on its way by now is never sent."""
    index = await authorised_index(request, Access.WRITE)
    refuse_dry_run(request)
    webhook_id = request.match_info["webhook"]
    if not _ID.fullmatch(webhook_id):
        raise NotFound("there is no such webhook", id=webhook_id[:64])
    await operations(request).look(index.webhooks.delete, webhook_id)
    return success(None)


async def _check_public(where: Destination) -> None:
    """Raise Invalid if ``where`` is, or resolves to, an address that is not public."""
    addresses = [str(where.address)] if where.address is not None else await _resolve(where)
    for address in addresses:
        why = why_refused(address)
        if why is not None:
            # Not the address itself: what names of our network resolve to is not for every client to know.
            raise Invalid(f"url: {where.host} leads to an address that webhooks may not have: {why}")


async def _resolve(where: Destination) -> list[str]:
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                where.host, where.port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError):
        raise Invalid(f"url: {where.host} cannot be resolved") from None
    return [str(address[0]) for *_, address in found]


def _host_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


def _listed(webhook: Webhook, progress: Progress, *, whole: bool) -> dict[str, Any]:
    problem = progress.last_problem
    state = "disabled" if progress.disabled_at else "retrying" if progress.pending else "active"
    listed = ListedWebhook(
        id=webhook.id,
        url=webhook.url if whole else _host_of(webhook.url),
        events=list(webhook.events),
        created_at=timestamp(webhook.created_at),
        state=state,
        through_position=progress.position,
        delivered_through=progress.delivered,
        delivered_at=timestamp(progress.delivered_at) if progress.delivered_at else None,
        tries=progress.tries,
        next_attempt_at=timestamp(progress.retry_at) if progress.retry_at else None,
        last_error=LastError(
            at=timestamp(problem.at), mutation_id=problem.mutation_id, message=problem.reason
        )
        if problem
        else None,
        given_up=progress.given_up,
        disabled_at=timestamp(progress.disabled_at) if progress.disabled_at else None,
    )
    return listed.to_json()
