"""What all reads of rows have in common: whose rows, seen when, by which ids, left by which filter.

A read at Strong or Session sees all that was acknowledged before it came, by whichever front end; at another level what is visible by now.
Any read may name a write that it is to see (``?after=``, ``X-After-Mutation``: Upwell's own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from ingest.body.precise import describe
from ingest.doors.milvus.context import Call, Collection, ListOf, OfCollection, Version, namespace_of
from ingest.doors.milvus.errors import Code, MilvusError, bad_ids, refused
from ingest.doors.milvus.expressions import parse_expression
from ingest.doors.milvus.shown_rows import Style
from ingest.doors.milvus.values import INT64, INTEGER
from upwell.catalog.tokens import Access
from upwell.errors import NotFound, Unavailable
from upwell.query.patience import Patience
from upwell.query.scope import AllBut, Names
from upwell.schema import Consistency, IdType
from upwell.shard.filter import Filter

LIMIT_DEFAULT: Final = 100
#: What is said of a request whose searches take too long.
TOO_LONG: Final = "search: it takes more than {} s here; expected fewer vectors at once, or lower limits"
_DOUBLES_END: Final = 1 << 53
_WRONG: Final = (
    "consistencyLevel can only be [Strong, Session, Bounded, Eventually, Customized], default: Bounded, err:"
)


class OfRows(OfCollection):
    """The body of a request for rows. v1 knows no partitions, and reads what is visible."""

    partition_names: ListOf[str] = Field(default=[])
    consistency_level: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of a collection that has seen to it that it sees what it is to see."""

    collection: Collection
    #: The namespaces that its partitions are; None: it reads all. Who names no partition reads those that are not released.
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

    def patience(self) -> Patience:
        """How long the searches of the request may take, from now on; what they make of texts counts as well."""
        return self.call.patience_of(self.call.settings.milvus_search_s_max, TOO_LONG)

    def filter(self, text: str, params: dict[str, Any] | None = None) -> Filter | None:
        """What a filter's text says; None: it leaves all. Raises MilvusError; blocks."""
        bytes_max = self.call.settings.milvus_filter_bytes_max
        return parse_expression(text, self.collection.schema, params, bytes_max=bytes_max)


async def begun(call: Call, params: OfRows) -> Reading:
    """A read that may begin: once. Raises Forbidden, MilvusError or Unavailable."""
    collection = await call.collection(params, Access.READ)
    consistency = _consistency_of(collection, params.consistency_level)
    if params.partition_names and collection.schema.partition_key is not None:
        raise refused("not support manually specifying the partition names if partition key mode is used")
    partitions = list(dict.fromkeys(params.partition_names))
    collection.demand_loaded(partitions)
    await _settle(collection, consistency)
    # Only now: a partition may have come with a write that was waited for.
    names = await collection.namespaces(partitions)
    released = collection.facts.released
    loaded = AllBut(tuple(map(namespace_of, released))) if released else None
    return Reading(collection, tuple(names) if names else loaded)


def _consistency_of(collection: Collection, asked: str | None) -> Consistency:
    """How consistent a read is to be; ``asked``: what it says itself. Raises MilvusError."""
    if collection.call.version is Version.V1:
        return Consistency.BOUNDED
    if not asked:
        return collection.schema.consistency
    try:
        return Consistency(asked)
    except ValueError:
        raise MilvusError(
            Code.INVALID_PARAMETER,
            f"{_WRONG}parameter:'{asked[:64]}' is incorrect, please check it: invalid parameter",
        ) from None


async def _settle(collection: Collection, consistency: Consistency) -> None:
    """Return once a read that begins now sees what it is to see. Raises Unavailable, or MilvusError for a write that there is not."""
    call, index = collection.call, collection.index
    wait_s = call.bounded(call.settings.milvus_read_wait_s)
    after = call.request.query.get("after") or call.request.headers.get("X-After-Mutation")
    if after:
        try:
            await call.ops.seen(index, after, wait_s)
        except NotFound as error:
            raise MilvusError(Code.INVALID_PARAMETER, f"{error.detail}: invalid parameter") from None
    if consistency.waits:
        try:
            await call.ops.caught_up(index, wait_s)
        except Unavailable:
            raise Unavailable(
                "writes that were acknowledged before this read are not visible yet; try again later, or with "
                f"consistencyLevel {Consistency.BOUNDED}"
            ) from None


def check_window(offset: int, limit: int, most: int) -> None:
    """Raise MilvusError unless so many rows may be asked for after so many others."""
    says = "invalid max query result window, "
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
    digits = isinstance(given, str) and INTEGER.fullmatch(given)
    # Beyond, a double may stand for another integer than was sent.
    whole = isinstance(given, float) and given.is_integer() and abs(given) < _DOUBLES_END
    number = int(given) if digits or whole else given
    if type(number) is not int or number not in INT64:
        raise _bad_id("an integer of 64 bits", given)
    return str(number)


def _bad_id(expected: str, given: Any) -> MilvusError:
    return bad_ids(f"id: expected {expected}, got {describe(given)}: invalid parameter")


def in_key_order(kind: IdType, ids: Sequence[str]) -> list[int]:
    """The places of ids in the order of keys: integers by their size, texts by their bytes."""
    key = int if kind is IdType.INT64 else str
    return sorted(range(len(ids)), key=lambda place: key(ids[place]))
