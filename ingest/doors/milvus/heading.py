"""What a write says of itself beside its rows, found without decoding these: the collection is named in the body, before or after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingest.body import Rules, inflate
from ingest.body.documents import Members, Span, cut_members
from ingest.body.inflate import Bytes
from ingest.body.precise import BYTE_ORDER_MARK, describe
from ingest.doors.milvus.errors import MilvusError, not_json
from upwell.errors import InvalidLine

DATA: Final = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a write says beside its rows, and where these are in its text. None: it does not say."""

    database: str | None
    collection: str | None
    partition: str | None
    partial: bool
    #: By their names, the fields that are to be changed otherwise than by putting a new value in their place.
    operations: tuple[tuple[str, str], ...]
    rows: tuple[Span, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """How to find the heading of a body. Goes to other processes, so it is made of plain values."""

    content_encoding: str | None
    #: ``bytes_max`` and the like count; what an index takes is not known yet.
    rules: Rules

    def __call__(self, body: Bytes) -> Heading:
        """The heading. Raises MilvusError, Invalid or TooLarge; blocks."""
        return read_heading(text_of(body, self.content_encoding, self.rules.bytes_max), self.rules)


def text_of(body: Bytes, content_encoding: str | None, bytes_max: int) -> bytes:
    """The text of a body as it was sent. Raises Invalid or TooLarge."""
    return bytes(inflate(body, content_encoding, bytes_max)).removeprefix(BYTE_ORDER_MARK)


def read_heading(text: bytes, rules: Rules) -> Heading:
    """The heading of a write. Raises MilvusError or TooLarge."""
    if not text.strip():
        raise not_json("the request body should not be empty, however {} is valid")
    if text.strip() == b"null":
        # As anywhere at this door.
        text = b"{}"
    try:
        members = cut_members(text, DATA, rules)
    except InvalidLine as error:
        raise not_json(str(error.problem)) from None
    values = _Values(text, members)
    if members.items is None and values.of(DATA) is not None:
        raise not_json(f"{DATA}: expected an object or an array of objects, got {describe(values.of(DATA))}")
    return Heading(
        database=values.text("dbName"),
        collection=values.text("collectionName"),
        partition=values.text("partitionName"),
        partial=values.flag("partialUpdate"),
        operations=values.operations("fieldOps"),
        rows=None if members.items is None else tuple(members.items),
    )


class _Values:
    """The values of members, each decoded when it is asked for."""

    def __init__(self, text: bytes, members: Members) -> None:
        self._text = text
        self._spans = members.spans
        for name in members.spans.keys() - {DATA}:
            # What nobody asks for must be JSON all the same.
            self.of(name)

    def of(self, name: str) -> Any:
        """The value; None if there is none."""
        span = self._spans.get(name)
        if span is None:
            return None
        try:
            return orjson.loads(self._text[slice(*span)])
        except orjson.JSONDecodeError as error:
            raise not_json(f"{name}: {error}") from None

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.of(name)
        if value is not None and not isinstance(value, str):
            raise self._refused(name, "a string", value)
        return value or None

    def flag(self, name: str) -> bool:
        """True or false; false if there is none."""
        value = self.of(name)
        if value is not None and not isinstance(value, bool):
            raise self._refused(name, "true or false", value)
        return bool(value)

    def operations(self, name: str) -> tuple[tuple[str, str], ...]:
        """``[{"fieldName", "op"}]``, as pairs."""
        value = self.of(name)
        given = [] if value is None else value
        fits = isinstance(given, list) and all(
            isinstance(one, dict)
            and isinstance(one.get("fieldName"), str)
            and isinstance(one.get("op", ""), str)
            for one in given
        )
        if not fits:
            raise self._refused(name, "an array of {fieldName, op}", value)
        return tuple((one["fieldName"], one.get("op", "") or "REPLACE") for one in given)

    def _refused(self, name: str, expected: str, value: Any) -> MilvusError:
        return not_json(f"{name}: expected {expected}, got {describe(value)}")
