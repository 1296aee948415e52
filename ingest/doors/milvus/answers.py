"""Answers: ``{"code": 200 or 0, "data": …}`` and ``{"code": number, "message": text}``, always JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from aiohttp import web

from ingest.doors.milvus.context import Call, Version
from ingest.doors.milvus.errors import Code, MilvusError, describe
from ingest.keys import OPERATIONS
from ingest.large import body_of, encode
from ingest.metrics import STATUS
from ingest.problems import status_of
from ingest.unread import demand_known_expectation
from ingest.wishes import headers_of
from upwell.errors import UpwellError

log = structlog.get_logger()


def success(call: Call, data: Any, headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """A success, small enough to be encoded on the event loop. ``more`` stands beside the data."""
    return answer(call, encode(data), headers, **more)


def answer(call: Call, data: bytes, headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """A success whose data is encoded already. v2 tells what a request of entities has ``cost``; here that is nothing.

    Raises Behind for a large one if too many are being taken.
    """
    beside = {"cost": 0} if call.version is Version.V2 and call.command.startswith("entities/") else {}
    rest = encode(beside | more)[1:-1]
    pieces = [b'{"code":%d,' % call.version.success, rest + b"," if rest else b"", b'"data":', data, b"}"]
    return web.Response(body=body_of(pieces), content_type="application/json", headers=headers)


def failure(status: int, code: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A refusal or a failure. What a text quotes may not be fit for UTF-8."""
    body = orjson.dumps({"code": int(code), "message": text.encode("utf-8", "replace").decode()})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as JSON; what nobody foresaw leaves as a 500 that tells nothing, and is logged."""
    try:
        demand_known_expectation(request)
        return await handler(request)
    except UpwellError as error:
        status, code, text = describe(error)
        would_be = status if isinstance(error, MilvusError) else int(status_of(error))
        if would_be >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Nobody who looks at statuses alone would know of it.
            request[STATUS] = would_be
            request.config_dict[OPERATIONS].report(request, error, would_be)
        return failure(status, code, text, headers_of(error))
    except web.HTTPException:
        raise
    except Exception:
        log.exception("request failed unexpectedly", method=request.method, path=request.path)
        return failure(HTTPStatus.INTERNAL_SERVER_ERROR, Code.UNEXPECTED, "internal error")
