"""The body of delete_by_ids and get_by_ids: ``{"ids": […]}``."""

from __future__ import annotations

from typing import Any

import orjson

from ingest.body.inflate import Bytes
from ingest.body.precise import BYTE_ORDER_MARK, describe
from ingest.body.simd import simdjson
from upwell.errors import Invalid, Reason, TooLarge

ID_BYTES_MAX = 64
#: Of a body that is not JSON, as far as it is looked at again for a better explanation.
EXPLAINED_BYTES_MAX = 1 << 16


def parse_ids(body: Bytes, *, id_bytes_max: int = ID_BYTES_MAX, ids_max: int | None = None) -> list[str]:
    """The ids, in order. Raises Invalid, which names the place of a wrong one and may have a ``reason``, or TooLarge."""
    document = _decoded(bytes(body).removeprefix(BYTE_ORDER_MARK))
    ids: Any = document["ids"] if _is_object(document) and "ids" in document else None
    if not _is_array(ids):
        raise Invalid(f'ids: expected a body of the form {{"ids": [...]}}, got {_found(document)}')
    if not len(ids):
        raise Invalid("ids: expected at least one id")
    if ids_max is not None and len(ids) > ids_max:
        raise TooLarge(f"too many ids in payload; max id count is {ids_max}, got {len(ids)}")
    return [_id(given, place, id_bytes_max) for place, given in enumerate(ids)]


def _decoded(text: bytes) -> Any:
    """The document. What is inside an array or object of simdjson's becomes a Python object when it is asked for, and not before.

    So a hundred megabytes of brackets, which gzip makes small, do not become gigabytes.
    """
    try:
        return orjson.loads(text) if simdjson is None else simdjson.Parser().parse(text)
    except (ValueError, RuntimeError) as error:
        raise Invalid(f"Failed to parse the request body as JSON: {_explained(text, error)}") from None


def _explained(text: bytes, error: Exception) -> str:
    """The better of two explanations: orjson tells the place."""
    if len(text) <= EXPLAINED_BYTES_MAX:
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError as better:
            return str(better)
    return str(error)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) or (simdjson is not None and isinstance(value, simdjson.Object))


def _is_array(value: Any) -> bool:
    return isinstance(value, list) or (simdjson is not None and isinstance(value, simdjson.Array))


def _described(value: Any) -> str:
    return "an array" if _is_array(value) else "an object" if _is_object(value) else describe(value)


def _id(given: Any, place: int, id_bytes_max: int) -> str:
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        raise Invalid(f"ids[{place}]: expected a string that is not empty, got {_described(given)}")
    size = len(given.encode())
    if size > id_bytes_max:
        says = f"id too long; max is {id_bytes_max} bytes, got {size} bytes (ids[{place}])"
        raise Invalid(says, reason=Reason.ID_TOO_LONG)
    return given


def _found(document: Any) -> str:
    if not _is_object(document):
        return _described(document)
    return f"ids: {_described(document['ids'])}" if "ids" in document else "an object without ids"
