"""Is this front end alive, and can it do its work? No token is asked for, and nothing of anybody's is told."""

from __future__ import annotations

from aiohttp import web

from ingest.keys import NOTICES, OPERATIONS
from upwell.errors import UpwellError


async def healthz(_request: web.Request) -> web.Response:
    """``GET /healthz``: the process answers."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """``GET /readyz``: the store can be read. Redis away is said and is no failure: writes and queries go on without."""
    operations = request.app[OPERATIONS]
    try:
        await operations.look(operations.engine.store.exists, "ready")
    except UpwellError as error:
        return web.json_response({"status": "unavailable", "store": str(error)}, status=503)
    redis = "connected" if request.app[NOTICES].connected else "away"
    return web.json_response({"status": "ready", "store": "ok", "redis": redis})
