"""Routes of indexes themselves: create, list, get, delete, info."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ingest.doors.cloudflare.context import authorised, authorised_index, grant_of, json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.errors import invalid_config
from ingest.doors.cloudflare.models import CreateIndex, index_result, timestamp
from ingest.doors.cloudflare.writes import refuse_dry_run
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.errors import Invalid


async def create(request: web.Request) -> web.Response:
    """``POST …/indexes``."""
    account = await authorised(request, Access.ADMIN)
    refuse_dry_run(request)
    asked = await json_body(request, CreateIndex)
    settings = operations(request).engine.settings
    dimensions, most = asked.config.dimensions, settings.dimensions_max
    if not 1 <= dimensions <= most:
        raise invalid_config(f"Dimensions must be in range: [1, {most}], got {dimensions}")
    await _check_room(request, account)
    record = await operations(request).create_index(
        account,
        NewIndex(
            name=asked.name,
            description=asked.description,
            dimensions=asked.config.dimensions,
            metric=asked.config.metric,
            shards=asked.shards or settings.shards,
        ),
    )
    return success(index_result(record))


async def _check_room(request: web.Request, account: str) -> None:
    """Raise Invalid if an account has as many indexes as it may."""
    ops = operations(request)
    most = ops.engine.settings.indexes_max
    if most is not None and len(await ops.list_indexes(account)) >= most:
        raise Invalid(f"too many indexes in the account; max is {most}")


async def list_all(request: web.Request) -> web.Response:
    """``GET …/indexes``."""
    account = await authorised(request, Access.READ)
    return success([index_result(record) for record in await operations(request).list_indexes(account)])


async def get(request: web.Request) -> web.Response:
    """``GET …/indexes/{index}``."""
    return success(index_result((await authorised_index(request, Access.READ)).record))


async def delete(request: web.Request) -> web.Response:
    """``DELETE …/indexes/{index}``."""
    account = await authorised(request, Access.ADMIN)
    refuse_dry_run(request)
    await operations(request).delete_index(account, request.match_info["index"])
    return success(None)


async def info(request: web.Request) -> web.Response:
    """``GET …/indexes/{index}/info``: the two ``processedUpTo…`` appear with the first processed mutation."""
    index = await authorised_index(request, Access.READ)
    load = await asyncio.to_thread(index.load)
    manifest = await asyncio.to_thread(index.head.durable)
    result: dict[str, object] = {"dimensions": index.record.dimensions, "vectorCount": manifest.vectors}
    # Beyond Cloudflare's: what waits to be applied, how far the index is merged, and what that cost.
    result["backlog"] = {"mutations": load.backlog.mutations, "bytes": load.backlog.nbytes}
    amplification = manifest.totals.write_amplification
    result["compaction"] = {
        "pending": len(await asyncio.to_thread(index.compactor.due)),
        "unindexed": manifest.unindexed,
        "segments": sum(len(shard.segments) for shard in manifest.shards),
        "writeAmplification": None if amplification is None else round(amplification, 3),
    }
    newest = index.outcomes.last_applied(manifest, grant_of(request).id)
    if newest is not None:
        result["processedUpToDatetime"] = timestamp(manifest.committed_at)
        result["processedUpToMutation"] = newest
    return success(result)
