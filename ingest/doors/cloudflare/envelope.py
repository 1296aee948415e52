"""The envelope: ``{"result", "success", "errors", "messages"}``, all four always there.

Clients look either at ``success`` or at the HTTP status, so the two never disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

#: What stands before and after the result in a success. ``result_in`` relies on it.
BEFORE_RESULT = b'{"result":'
AFTER_RESULT = b',"success":true,"errors":[],"messages":'


def said(code: int, message: str) -> dict[str, Any]:
    """An item of ``errors`` or ``messages``. What it quotes may be of a header, and so may not be fit for UTF-8."""
    return {"code": code, "message": message.encode("utf-8", "replace").decode()}


def encode_result(
    result: Any, messages: Sequence[dict[str, Any]] = (), info: dict[str, Any] | None = None
) -> bytes:
    """The body of a success. float32 arrays become the shortest numbers that read back as the same float32.

    ``info`` goes into ``result_info``, which tells of pages; where it is None there is no such key.
    """
    envelope = {"result": result, "success": True, "errors": [], "messages": list(messages)}
    if info is not None:
        envelope["result_info"] = info
    return orjson.dumps(envelope, option=orjson.OPT_SERIALIZE_NUMPY)


def result_in(success: bytes) -> bytes:
    """The result in a success, as it was encoded; nothing is decoded.

    A result may hold the very text that follows it, and messages cannot, so the last place is the right one.
    """
    assert success.startswith(BEFORE_RESULT)
    return success[len(BEFORE_RESULT) : success.rindex(AFTER_RESULT)]


def said_in(failure: bytes) -> tuple[int, str]:
    """Code and message of a failure."""
    error = orjson.loads(failure)["errors"][0]
    return error["code"], error["message"]


def answer(body: bytes) -> web.Response:
    """A success, from ``encode_result``."""
    return web.Response(body=body, content_type="application/json")


def success(
    result: Any, messages: Sequence[dict[str, Any]] = (), info: dict[str, Any] | None = None
) -> web.Response:
    """A success; for results small enough to be encoded on the event loop."""
    return answer(encode_result(result, messages, info))


def failure(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal or a failure."""
    envelope = {"result": None, "success": False, "errors": [said(code, message)], "messages": []}
    body = orjson.dumps(envelope)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
