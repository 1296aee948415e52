"""Routes of indexes themselves: create, list, get, delete, info."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from ingest.doors.cloudflare.context import authorised, authorised_index, grant_of, json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.errors import invalid_config
from ingest.doors.cloudflare.models import (
    CreateIndexBody,
    create_index_body,
    index_result,
    own_result,
    timestamp,
)
from ingest.doors.cloudflare.writes import refuse_dry_run
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.changeset import KeyScope
from upwell.embed.configuration import BUILTIN_SPARSE_NAME, plain_name
from upwell.engine import Engine
from upwell.errors import Invalid
from upwell.schema import INT64_SCHEMA, IdType


async def create(request: web.Request) -> web.Response:
    """``POST …/indexes``."""
    account = await authorised(request, Access.ADMIN)
    refuse_dry_run(request)
    asked = await json_body(request, CreateIndexBody, create_index_body)
    new = await operations(request).look(_new_index, asked, operations(request).engine)
    await _check_room(request, account)
    return success(index_result(await operations(request).create_index(account, new)))


def _new_index(asked: CreateIndexBody, engine: Engine) -> NewIndex:
    """The index that is asked for. Raises a 400 if there can be none such. Blocks."""
    dense, sparse = asked.embedding_model, asked.sparse_embedding_model
    dimensions, of_model = asked.dimensions, 0
    if dense is not None:
        with _blaming("embeddingModel"):
            of_model = engine.models.dense_dimensions(dense)
        if dimensions not in (None, of_model):
            raise invalid_config(
                f"embeddingModel: {plain_name(dense)} has {of_model} dimensions, got {dimensions}"
            )
    dimensions = of_model if dimensions is None else dimensions
    most = engine.settings.dimensions_max
    if asked.kind.has_dense and not 1 <= dimensions <= most:
        raise invalid_config(f"Dimensions must be in range: [1, {most}], got {dimensions}")
    if sparse is None and dense is not None and asked.kind.has_sparse:
        # Text needs both, and vectors that are sent need neither.
        sparse = BUILTIN_SPARSE_NAME
    if sparse is not None:
        if not asked.kind.has_sparse:
            raise invalid_config(f"sparseEmbeddingModel: a {asked.kind} index has no sparse vectors")
        with _blaming("sparseEmbeddingModel"):
            engine.models.sparse(sparse)
    # Those that know of sparse vectors have ids that are unique in a namespace.
    undecided = KeyScope.NAMESPACE if asked.kind.has_sparse else KeyScope.OPEN
    return NewIndex(
        name=asked.name,
        description=asked.description,
        dimensions=dimensions,
        metric=asked.metric,
        shards=asked.shards or engine.settings.shards,
        kind=asked.kind,
        key_scope=undecided if asked.ids_unique_in is None else KeyScope(asked.ids_unique_in),
        embedding_model=None if dense is None else plain_name(dense),
        sparse_embedding_model=None if sparse is None else plain_name(sparse),
        row_schema=INT64_SCHEMA if asked.ids is IdType.INT64 else None,
    )


@contextmanager
def _blaming(field: str) -> Iterator[None]:
    try:
        yield
    except Invalid as error:
        raise invalid_config(f"{field}: {error.detail}") from None


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
        # Sparse vectors are never compared one by one: every segment has their postings.
        "unindexed": manifest.unindexed if index.record.kind.has_dense else 0,
        "segments": sum(len(shard.segments) for shard in manifest.shards),
        "writeAmplification": None if amplification is None else round(amplification, 3),
    }
    newest = index.outcomes.last_applied(manifest, grant_of(request).id)
    if newest is not None:
        result["processedUpToDatetime"] = timestamp(manifest.committed_at)
        result["processedUpToMutation"] = newest
    scope = manifest.key_scope or index.record.key_scope
    return success(result | own_result(index.record, scope))
