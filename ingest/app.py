"""The front end on one screen: its parts, their lives, and where each door is mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from ingest.doors.cloudflare import cloudflare_door
from ingest.doors.cloudflare.binding import HOST, binding_door, binding_door_by_headers
from ingest.doors.milvus.context import Version
from ingest.doors.milvus.routes import PREFIXES, milvus_door
from ingest.doors.upstash.routes import upstash_door
from ingest.health import healthz, readyz
from ingest.keys import NOTICES, OPERATIONS
from ingest.metrics import METRICS, Metrics, measured, metrics_page
from ingest.openapi import openapi_page
from ingest.operations import Operations
from ingest.requests import BODY_IDLE_S
from ingest.tokens import upwell_door
from ingest.unread import leave_unread
from ingest.waiting import Visibility
from upwell.doorbell.bell import Bell
from upwell.doorbell.ending import end
from upwell.doorbell.notices import Notices
from upwell.engine import Engine


@dataclass(frozen=True, slots=True)
class Parts:
    """What a front end is made of."""

    engine: Engine
    bell: Bell
    visibility: Visibility
    notices: Notices


def assemble(engine: Engine, redis_url: str) -> Parts:
    """The parts of a front end on ``engine``. Redis may be away: nothing here connects yet."""
    visibility = Visibility(engine.clock)
    notices = Notices(
        redis_url,
        on_notice=lambda notice: visibility.notice(notice.index_id),
        on_reconnect=visibility.notice_all,
    )
    visibility.told = lambda: notices.connected
    return Parts(engine, Bell(redis_url), visibility, notices)


async def say_little(_request: web.Request, response: web.StreamResponse) -> None:
    """No versions of what we are made of; and no browser is to take an answer for anything but what it says it is."""
    response.headers["Server"] = "upwell"
    response.headers["X-Content-Type-Options"] = "nosniff"


def create_app(parts: Parts) -> web.Application:
    """The application. It starts and stops its parts itself."""
    app = web.Application(middlewares=[leave_unread, measured])
    app[METRICS] = Metrics(parts.bell, parts.engine.clock)
    app[NOTICES] = parts.notices
    app[BODY_IDLE_S] = parts.engine.settings.body_idle_s
    app[OPERATIONS] = Operations(parts.engine, parts.bell, parts.visibility, app[METRICS])

    async def lifetimes(app: web.Application) -> AsyncIterator[None]:
        parts.notices.start()
        app[OPERATIONS].start()
        housekeeping = asyncio.create_task(app[OPERATIONS].keep_house(), name="housekeeping")
        yield
        await end(housekeeping)
        # What was accepted is finished first; the bell goes last, so that it is still rung for.
        await app[OPERATIONS].close()
        await parts.notices.close()
        await parts.bell.close()

    async def let_waiting_requests_go(_app: web.Application) -> None:
        parts.visibility.close()

    app.on_response_prepare.append(say_little)
    app.on_shutdown.append(let_waiting_requests_go)
    app.cleanup_ctx.append(lifetimes)
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics_page),
            web.get("/openapi.json", openapi_page()),
        ]
    )
    app.add_subapp("/client/v4", cloudflare_door())
    app.add_subapp("/bindings/vectorize", binding_door())
    app.add_domain(HOST, binding_door_by_headers())
    app.add_subapp("/upstash", upstash_door(app[OPERATIONS]))
    for version in Version:
        app.add_subapp(PREFIXES[version], milvus_door(version))
    app.add_subapp("/upwell/v1", upwell_door())
    return app
