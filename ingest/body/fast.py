"""One vector, read fast: simdjson parses the line once, and its numbers go to the matrix without becoming Python objects.

Vouches only for the usual: an object with distinct keys, a flat array of numbers, plain metadata. For anything else it says so,
and precise.py decides. simdjson flattens nested arrays without a word; so the line's opening brackets are counted, and those
that the other fields account for are taken away.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson

from ingest.body.precise import is_metadata_key
from ingest.body.rules import Rules
from ingest.body.simd import simdjson
from upwell.changeset import Matrix
from upwell.schema import IdType

#: An opening bracket may hide behind this escape; such lines are read precisely.
ESCAPED_BRACKET: Final = b"\\u005"


class FastReader:
    """Reads lines into rows of a matrix. Keeps one parser; for one thread."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._ids = rules.ids
        self._parser = None if simdjson is None else simdjson.Parser()

    def read(self, text: bytes, into: Matrix, row: int) -> tuple[str, str | None, bytes | None] | None:
        """Read ``text``'s values into ``into[row]`` and return (id, namespace, metadata); None: not for the fast path.

        Values are not checked for being finite: that is done once for all rows.
        """
        if self._parser is None:
            return None
        try:
            document = self._parser.parse(text)
            return self._read(text, document, into, row)
        except (ValueError, RuntimeError, TypeError, KeyError, UnicodeDecodeError):
            return None
        finally:
            # The parser cannot be used again while anything of its last document lives.
            document = None

    def _read(
        self, text: bytes, document: Any, into: Matrix, row: int
    ) -> tuple[str, str | None, bytes | None] | None:
        if type(document) is not simdjson.Object:
            return None
        keys = list(document.keys())
        if len(set(keys)) != len(keys):
            return None
        values = document["values"]
        if type(values) is not simdjson.Array or len(values) != self._rules.dimensions:
            return None
        if not _is_flat(text, document, keys):
            return None
        id = document["id"]
        if type(id) is int:
            id = str(id)
        if type(id) is not str or not 0 < len(id.encode()) <= self._rules.id_bytes_max:
            return None
        if self._ids is not IdType.TEXT and not self._ids.takes(id):
            return None
        namespace = document["namespace"] if "namespace" in keys else None
        if namespace is not None and not self._fits_namespace(namespace):
            return None
        metadata = document["metadata"] if "metadata" in keys else None
        compact = None
        if metadata is not None:
            compact = self._metadata(metadata)
            if compact is None:
                return None
        into[row] = np.frombuffer(values.as_buffer(of_type="d"))
        return id, namespace or None, compact

    def _fits_namespace(self, namespace: Any) -> bool:
        return (
            type(namespace) is str
            and len(namespace.encode()) <= self._rules.namespace_bytes_max
            and "\0" not in namespace
        )

    def _metadata(self, metadata: Any) -> bytes | None:
        """The metadata as compact JSON; None if anything about it is unusual."""
        if type(metadata) is not simdjson.Object:
            return None
        text = metadata.mini
        if len(text) > self._rules.metadata_bytes_max:
            return None
        # Written anew: a key given twice is stored once, and both paths store the same bytes.
        decoded = orjson.loads(text)
        compact = orjson.dumps(decoded)
        return compact if len(compact) <= self._rules.metadata_bytes_max and keys_fit(decoded) else None


def _is_flat(text: bytes, document: Any, keys: list[str]) -> bool:
    """Does the array of ``values`` hold no array? Says no in doubt."""
    if text.find(b"[", text.find(b"[") + 1) < 0:
        return True
    if ESCAPED_BRACKET in text:
        return False
    others = 0
    for key in keys:
        value: Any = document[key] if key != "values" else None
        others += key.count("[")
        if type(value) is str:
            others += value.count("[")
        elif type(value) in (simdjson.Object, simdjson.Array):
            others += value.mini.count(b"[")
    return text.count(b"[") == 1 + others


def keys_fit(metadata: dict[str, Any]) -> bool:
    """Are the keys at every level what they may be?"""
    pending: list[Any] = [metadata]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if not all(map(is_metadata_key, value)):
                return False
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return True
