"""Serving the document: encoded once, with an ETag."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from ingest.openapi.document import document


@functools.cache
def encoded() -> tuple[bytes, str]:
    """The document as it is sent, and its tag. Blocking: it reads the package's version."""
    body = orjson.dumps(document())
    return body, hashlib.sha256(body).hexdigest()[:32]


def openapi_page() -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler of ``GET /openapi.json``: no token is asked for; the description is the same for everybody."""
    body, tag = encoded()

    async def page(request: web.Request) -> web.Response:
        known = any(asked.value in (tag, "*") for asked in request.if_none_match or ())
        answer = (
            web.Response(status=304) if known else web.Response(body=body, content_type="application/json")
        )
        answer.etag = tag
        answer.headers["Cache-Control"] = "no-cache"
        return answer

    return page
