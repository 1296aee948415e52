"""Answers: ``{"result": value}`` and ``{"error": text, "status": number}``, always JSON: clients read it whatever the status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from aiohttp import web

from ingest.doors.upstash.errors import describe
from ingest.keys import OPERATIONS
from ingest.large import body_of, encode
from ingest.unread import demand_known_expectation
from ingest.wishes import headers_of
from upwell.errors import UpwellError

log = structlog.get_logger()

#: The methods of which any will do for any command.
ALLOWED = "HEAD, GET, POST, PUT, DELETE"


def answer(encoded: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """A success, its result encoded already. Raises Behind for a large one if too many are being taken."""
    body = body_of((b'{"result":', encoded, b"}"))
    return web.Response(body=body, content_type="application/json", headers=headers)


def success(result: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """A success; for results small enough to be encoded on the event loop."""
    return answer(encode(result), headers)


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal or a failure. What a text quotes may not be fit for UTF-8."""
    body = orjson.dumps({"error": text.encode("utf-8", "replace").decode(), "status": int(status)})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as JSON, which clients read whatever the status; what nobody foresaw leaves as a 500 that tells nothing, and
    is logged."""
    try:
        demand_known_expectation(request)
        return await handler(request)
    except UpwellError as error:
        status, text = describe(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            request.config_dict[OPERATIONS].report(request, error, status)
        headers = headers_of(error)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ALLOWED}
        return failure(status, text, headers)
    except web.HTTPExpectationFailed as error:
        return failure(error.status, str(error.text))
    except web.HTTPNotFound:
        return failure(404, f"There is nothing at {request.path}; expected /upstash/ACCOUNT/INDEX/COMMAND")
    except web.HTTPException:
        raise
    except Exception:
        log.exception("request failed unexpectedly", method=request.method, path=request.path)
        return failure(500, "internal error")
