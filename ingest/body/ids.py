"""The body of delete_by_ids and get_by_ids: ``{"ids": […]}``."""

from __future__ import annotations

from typing import Any

import orjson

from ingest.body.forms import BYTE_ORDER_MARK
from ingest.body.inflate import Bytes
from ingest.body.precise import describe
from upwell.errors import Invalid, TooLarge

ID_BYTES_MAX = 64


def parse_ids(body: Bytes, *, id_bytes_max: int = ID_BYTES_MAX, ids_max: int | None = None) -> list[str]:
    """The ids, in order. Raises Invalid, which names the place of a wrong one, or TooLarge."""
    try:
        document = orjson.loads(bytes(body).removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError as error:
        raise Invalid(f"Failed to parse the request body as JSON: {error}") from None
    ids = document.get("ids") if isinstance(document, dict) else None
    if not isinstance(ids, list):
        raise Invalid(f'ids: expected a body of the form {{"ids": [...]}}, got {_found(document)}')
    if not ids:
        raise Invalid("ids: expected at least one id")
    if ids_max is not None and len(ids) > ids_max:
        raise TooLarge(f"too many ids in payload; max id count is {ids_max}, got {len(ids)}")
    return [_id(given, place, id_bytes_max) for place, given in enumerate(ids)]


def _id(given: Any, place: int, id_bytes_max: int) -> str:
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        raise Invalid(f"ids[{place}]: expected a string that is not empty, got {describe(given)}")
    size = len(given.encode())
    if size > id_bytes_max:
        raise Invalid(f"id too long; max is {id_bytes_max} bytes, got {size} bytes (ids[{place}])")
    return given


def _found(document: Any) -> str:
    if not isinstance(document, dict):
        return describe(document)
    return f"ids: {describe(document['ids'])}" if "ids" in document else "an object without ids"
