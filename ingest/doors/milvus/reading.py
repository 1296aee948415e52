"""What all reads of rows have in common: whose rows, seen when, by which ids, left by which filter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from ingest.body.precise import describe
from ingest.doors.milvus.consistency import consistency_of, settled
from ingest.doors.milvus.context import Call, Collection, ListOf, OfCollection
from ingest.doors.milvus.errors import MilvusError, bad_ids, refused
from ingest.doors.milvus.expressions import parse_expression
from ingest.doors.milvus.shown import Style
from upwell.catalog.tokens import Access
from upwell.query.scope import Names
from upwell.schema import IdType
from upwell.shard.filter import Filter

LIMIT_DEFAULT: Final = 100
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}")
_INT64: Final = range(-(1 << 63), 1 << 63)
_DOUBLES_END: Final = 1 << 53


class OfRows(OfCollection):
    """The body of a request for rows. v1 knows no partitions, and reads what is visible."""

    partition_names: ListOf[str] = Field(default=[])
    consistency_level: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of a collection that has seen to it that it sees what it is to see."""

    collection: Collection
    #: The namespaces that its partitions are; None: it reads all.
    namespaces: Names

    @property
    def call(self) -> Call:
        """The request that it is."""
        return self.collection.call

    @property
    def style(self) -> Style:
        """How its rows are written."""
        return Style(
            self.collection.schema.ids,
            int64_as_text=self.call.ids_as_text,
            json_as_text=self.call.settings.milvus_json_as_text,
        )

    def filter(self, text: str, params: dict[str, Any] | None = None) -> Filter | None:
        """What a filter's text says; None: it leaves all. Raises MilvusError; blocks."""
        bytes_max = self.call.settings.milvus_filter_bytes_max
        return parse_expression(text, self.collection.schema, params, bytes_max=bytes_max)


async def begun(call: Call, params: OfRows) -> Reading:
    """A read that may begin: once. Raises Forbidden, MilvusError or Unavailable."""
    collection = await call.collection(params, Access.READ)
    consistency = consistency_of(collection, params.consistency_level)
    if params.partition_names and collection.schema.partition_key is not None:
        raise refused("not support manually specifying the partition names if partition key mode is used")
    partitions = list(dict.fromkeys(params.partition_names))
    await collection.demand_loaded(partitions)
    await settled(collection, consistency)
    # Only now: a partition may have come with a write that was waited for.
    names = await collection.namespaces(partitions)
    return Reading(collection, tuple(names) if names else None)


def check_window(offset: int, limit: int, most: int, says: str = "invalid max query result window, ") -> None:
    """Raise MilvusError unless so many rows may be asked for after so many others."""
    if offset < 0:
        raise refused(f"{says}offset [{offset}] is invalid, should be gte than 0")
    if limit <= 0:
        raise refused(f"{says}limit [{limit}] is invalid, should be greater than 0")
    if offset + limit > most:
        raise refused(f"{says}(offset+limit) should be in range [1, {most}], but got {offset + limit}")


def ids_of(kind: IdType, given: Any) -> list[str]:
    """Ids as they are kept: of one as a client sends it, or of several. Raises MilvusError."""
    return [_id_of(kind, one) for one in (given if isinstance(given, list) else [given])]


def _id_of(kind: IdType, given: Any) -> str:
    if kind is IdType.TEXT:
        if isinstance(given, str):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            # As a write keeps it.
            return str(given)
        raise _bad_id("a string", given)
    digits = isinstance(given, str) and _INTEGER.fullmatch(given)
    # Beyond, a double may stand for another integer than was sent.
    whole = isinstance(given, float) and given.is_integer() and abs(given) < _DOUBLES_END
    number = int(given) if digits or whole else given
    if type(number) is not int or number not in _INT64:
        raise _bad_id("an integer of 64 bits", given)
    return str(number)


def _bad_id(expected: str, given: Any) -> MilvusError:
    return bad_ids(f"id: expected {expected}, got {describe(given)}: invalid parameter")


def in_key_order(kind: IdType, ids: Sequence[str]) -> list[int]:
    """The places of ids in the order of keys: integers by their size, texts by their bytes."""
    key = int if kind is IdType.INT64 else str
    return sorted(range(len(ids)), key=lambda place: key(ids[place]))
