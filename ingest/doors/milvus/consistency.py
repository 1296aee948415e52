"""What a read sees: how consistent it is to be, and the wait for that.

Strong and Session see all that was acknowledged before they came, by whichever front end; the others what is visible by now. Any read
may name a write that it is to see (``?after=``, ``X-After-Mutation``: Upwell's own).
"""

from __future__ import annotations

from typing import Final

from ingest.doors.milvus.context import Collection, Version
from ingest.doors.milvus.errors import Code, MilvusError
from upwell.errors import NotFound, Unavailable
from upwell.schema import Consistency

_WRONG: Final = (
    "consistencyLevel can only be [Strong, Session, Bounded, Eventually, Customized], default: Bounded, err:"
)


def consistency_of(collection: Collection, asked: str | None) -> Consistency:
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


async def settled(collection: Collection, consistency: Consistency) -> None:
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
