"""Routes of metadata indexes: create and delete, each a mutation like any other, and the list of those that are visible."""

from __future__ import annotations

from aiohttp import web

from ingest.doors.cloudflare.context import authorised_index, json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.models import CreateMetadataIndex, DeleteMetadataIndex
from ingest.doors.cloudflare.writes import Wishes, acknowledge, report, wishes_of
from upwell.catalog.tokens import Access
from upwell.changeset import Operation, about_property
from upwell.engine import Index
from upwell.errors import Invalid
from upwell.properties import MetadataIndex, PropertyType
from upwell.shard.declare import refusal


async def create(request: web.Request) -> web.Response:
    """``POST …/metadata_index/create``: the same again is accepted and changes nothing."""
    index, wishes = await _admitted(request)
    asked = await json_body(request, CreateMetadataIndex)
    wanted = MetadataIndex(property=asked.property_name, type=asked.index_type)
    most = operations(request).engine.settings.metadata_indexes_max

    def may() -> None:
        # Early, where it can be told; what is still in the log may make it fail later, and its status says so.
        reason = refusal([one.index for one in index.head.refresh().metadata_indexes], wanted, most)
        if reason is not None:
            raise Invalid(f"metadata index: {reason}")

    changeset = about_property(Operation.CREATE_METADATA_INDEX, wanted)
    if wishes.dry_run:
        await operations(request).look(may)
        return report(0)
    accepted = await operations(request).append(index, changeset, wishes.sender, may)
    return await acknowledge(request, accepted, wishes)


async def delete(request: web.Request) -> web.Response:
    """``POST …/metadata_index/delete``: a property without an index is no error."""
    index, wishes = await _admitted(request)
    asked = await json_body(request, DeleteMetadataIndex)
    # Its type does not matter.
    wanted = MetadataIndex(property=asked.property_name, type=PropertyType.STRING)
    changeset = about_property(Operation.DELETE_METADATA_INDEX, wanted)
    if wishes.dry_run:
        return report(0)
    accepted = await operations(request).append(index, changeset, wishes.sender)
    return await acknowledge(request, accepted, wishes)


async def _admitted(request: web.Request) -> tuple[Index, Wishes]:
    """The index that may be written to, and what is wished beside the write."""
    index, wishes = await authorised_index(request, Access.WRITE), wishes_of(request)
    if not wishes.dry_run:
        await operations(request).admit(index)
    return index, wishes


async def list_all(request: web.Request) -> web.Response:
    """``GET …/metadata_index/list``."""
    index = await authorised_index(request, Access.READ)
    manifest = await operations(request).look(index.head.refresh)
    indexes = [
        {"propertyName": one.index.property, "indexType": one.index.type} for one in manifest.metadata_indexes
    ]
    return success({"metadataIndexes": indexes})
