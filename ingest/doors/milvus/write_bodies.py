"""The body of an insert or upsert, read in whichever process: first its heading, then its rows.

The heading is what it says beside its rows, found without decoding these: the collection is named in the body, before or after them, and
only with its fields can rows be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import pyarrow as pa

from ingest.body import Rules, inflate
from ingest.body.decoder import FastDecoder
from ingest.body.documents import Members, Span, cut_members
from ingest.body.inflate import Bytes
from ingest.body.precise import BYTE_ORDER_MARK, describe
from ingest.doors.milvus.auto_ids import RANDOM, AutoIds, KeyedIds
from ingest.doors.milvus.errors import MISSING_REQUIRED, MilvusError, bad_data, not_json
from ingest.doors.milvus.rows import Rows, Target
from upwell.changeset import Changeset, Details, KeyScope, Operation
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
        return read_heading(inflated(body, self.content_encoding, self.rules.bytes_max), self.rules)


def inflated(body: Bytes, content_encoding: str | None, bytes_max: int) -> bytes:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """How to read the body of a write, of which the heading is known. Implements ``ingest.parsing.Reading``."""

    target: Target
    #: Where the rows are in the body, once inflated.
    rows: tuple[Span, ...]
    #: "" for none.
    namespace: str
    #: Was it named? A partial update then means rows that lie there, and no others.
    inside: bool
    #: Who sends the request, and its key, if it may be sent again.
    sender: tuple[str, str] | None
    bytes_max: int
    content_encoding: str | None
    accepted_at: datetime

    def changeset(self, body: Bytes) -> Changeset:
        """What the body comes to. Raises MilvusError, TooLarge or Invalid."""
        if not self.rows:
            raise bad_data(MISSING_REQUIRED)
        text, target = inflated(body, self.content_encoding, self.bytes_max), self.target
        rows = Rows(target, len(self.rows), self._auto_ids(text))
        decode = FastDecoder(target.schema.vector_field).decode if target.kind.has_dense else orjson.loads
        for place, (start, end) in enumerate(self.rows):
            try:
                rows.add(decode(item := text[start:end]), item)
            except orjson.JSONDecodeError as error:
                raise not_json(f"data[{place}]: {error}") from None
            except MilvusError as error:
                raise self._blamed(error, place) from None
        rows.finish()
        return Changeset(
            operation=Operation.UPDATE if target.partial else Operation.UPSERT,
            ids=pa.array(rows.ids, pa.utf8()),
            vectors=rows.vectors,
            sparse=rows.sparse,
            namespaces=None if not self.namespace else pa.array([self.namespace] * len(rows.ids), pa.utf8()),
            metadata=rows.metadata,
            received=len(rows.ids),
            details=Details(
                scope=KeyScope.INDEX,
                namespace=self.namespace,
                patch=target.partial,
                shallow=target.partial,
                adds=target.partial and rows.are_whole,
                inside=target.partial and self.inside,
            ),
        )

    def _auto_ids(self, text: bytes) -> AutoIds:
        """Where rows without ids get theirs from."""
        if self.sender is None or not self.target.schema.auto_id:
            return RANDOM
        return KeyedIds(*self.sender, text)

    def _blamed(self, error: MilvusError, place: int) -> MilvusError:
        """An error of one row, from 0; of several it says which, where Milvus's words do not."""
        if len(self.rows) == 1 or f"row {place} " in error.detail or "row number: " in error.detail:
            return error
        return MilvusError(error.code, f"{error.detail} (row {place})", error.status)
