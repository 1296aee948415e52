"""The envelope: ``{"result", "success", "errors", "messages"}``, all four always there.

Clients look either at ``success`` or at the HTTP status, so the two never disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web


def said(code: int, message: str) -> dict[str, Any]:
    """An item of ``errors`` or ``messages``."""
    return {"code": code, "message": message}


def encode_result(result: Any, messages: Sequence[dict[str, Any]] = ()) -> bytes:
    """The body of a success. float32 arrays become the shortest numbers that read back as the same float32."""
    envelope = {"result": result, "success": True, "errors": [], "messages": list(messages)}
    return orjson.dumps(envelope, option=orjson.OPT_SERIALIZE_NUMPY)


def answer(body: bytes) -> web.Response:
    """A success, from ``encode_result``."""
    return web.Response(body=body, content_type="application/json")


def success(result: Any, messages: Sequence[dict[str, Any]] = ()) -> web.Response:
    """A success; for results small enough to be encoded on the event loop."""
    return answer(encode_result(result, messages))


def failure(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal or a failure."""
    envelope = {"result": None, "success": False, "errors": [said(code, message)], "messages": []}
    body = orjson.dumps(envelope)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
