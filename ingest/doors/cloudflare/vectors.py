"""Routes of vectors: insert, upsert, delete_by_ids, get_by_ids, query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from aiohttp import web

from ingest.body import Rules, inflate, parse_ids
from ingest.doors.cloudflare.context import (
    authorised,
    authorised_index,
    operations,
    parse_json,
    wait_seconds,
)
from ingest.doors.cloudflare.envelope import answer, encode_result, said, success
from ingest.doors.cloudflare.errors import (
    BODY_UNPARSABLE,
    IDS,
    OWN_CODES,
    QUERY_DIMENSIONS,
    TOP_K,
    CloudflareError,
    line_error,
)
from ingest.doors.cloudflare.models import NAMESPACE_BYTES_MAX, TOP_K_MAX, TOP_K_MAX_FULL, Query
from ingest.requests import read_body
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, Operation
from upwell.engine import Index
from upwell.errors import Invalid
from upwell.log.entry import Mutation
from upwell.query.lookup import Found, lookup
from upwell.query.search import Match, search
from upwell.shard.metric import Metric
from upwell.shard.view import View

#: How long a query with ``after`` waits for its mutation unless it says otherwise.
AFTER_WAIT_S = 10.0


async def insert(request: web.Request) -> web.Response:
    """``POST …/insert``: keep what exists."""
    return await _upload(request, Operation.INSERT)


async def upsert(request: web.Request) -> web.Response:
    """``POST …/upsert``: replace whole."""
    return await _upload(request, Operation.UPSERT)


async def _upload(request: web.Request, operation: Operation) -> web.Response:
    index = await authorised_index(request, Access.WRITE)
    ops = operations(request)
    await ops.admit(index)
    settings = ops.engine.settings
    rules = Rules(
        dimensions=index.record.dimensions,
        vectors_max=settings.request_vectors_max,
        bytes_max=settings.request_bytes_max,
        discard=_unparsable_behavior(request) == "discard",
    )
    accepted, mutation = await ops.upload(index, request, operation, rules)
    return success({"mutationId": accepted.mutation_id}, _discarded(mutation))


def _unparsable_behavior(request: web.Request) -> Literal["error", "discard"]:
    match request.query.get("unparsable-behavior", "error"):
        case "error":
            return "error"
        case "discard":
            return "discard"
        case other:
            raise Invalid(f"unparsable-behavior: expected error or discard, got {other[:64]!r}")


def _discarded(mutation: Mutation) -> list[dict[str, Any]]:
    messages = [said(*line_error(problem)) for problem in mutation.discarded]
    unnamed = mutation.discarded_count - len(mutation.discarded)
    if unnamed:
        messages.append(said(OWN_CODES, f"{unnamed} more lines were discarded"))
    return messages


async def delete_by_ids(request: web.Request) -> web.Response:
    """``POST …/delete_by_ids``; unknown ids are no error."""
    index = await authorised_index(request, Access.WRITE)
    ids = await _ids(request)
    changeset = Changeset(operation=Operation.DELETE, ids=pa.array(ids, pa.utf8()), received=len(ids))
    accepted = await operations(request).append(index, changeset)
    return success({"mutationId": accepted.mutation_id})


async def get_by_ids(request: web.Request) -> web.Response:
    """``POST …/get_by_ids``: an array of those that exist, in the order asked."""
    index = await authorised_index(request, Access.READ)
    ids = await _ids(request)
    return answer(await operations(request).read(index, lambda view: _encode_found(lookup(view, ids))))


async def _ids(request: web.Request) -> list[str]:
    ops = operations(request)
    bytes_max = ops.engine.settings.request_bytes_max
    body = await read_body(request, bytes_max)
    encoding = request.headers.get("Content-Encoding")
    try:
        return await ops.parse(lambda: parse_ids(inflate(body, encoding, bytes_max)))
    except Invalid as error:
        raise CloudflareError(
            400, IDS if "too many" in error.detail else BODY_UNPARSABLE, error.detail
        ) from None


async def query(request: web.Request) -> web.Response:
    """``POST …/query``: the closest vectors, best first."""
    ops = operations(request)
    account = await authorised(request, Access.READ)
    name, after = request.match_info["index"], request.query.get("after")
    bytes_max, recall = ops.engine.settings.request_bytes_max, ops.engine.settings.recall
    body = await read_body(request, bytes_max)
    encoding = request.headers.get("Content-Encoding")

    def prepare() -> _Prepared:
        index = ops.engine.find(account, name)
        asked = parse_json(inflate(body, encoding, bytes_max), Query)
        return _Prepared(index, asked, _checked(asked, index), after or asked.after)

    def at_once() -> bytes | _Prepared:
        # All in one go: changing threads four times takes longer than a search.
        ready = prepare()
        return ready if ready.after is not None else ready.run(recall)

    result = await ops.ask(at_once)
    if isinstance(result, bytes):
        return answer(result)
    assert result.after is not None
    await ops.seen(result.index, result.after, wait_seconds(request, AFTER_WAIT_S))
    return answer(await ops.ask(lambda: result.run(recall)))


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A query that may be run. ``vector`` None: that of ``asked.vector_id``; ``after``: a mutation that it must reflect."""

    index: Index
    asked: Query
    vector: np.ndarray[tuple[int], np.dtype[np.float32]] | None
    after: str | None

    def run(self, recall: float) -> bytes:
        """The encoded answer, from a view that was the newest at some moment after this call began."""
        return _run_query(self.index.newest.get(), self.asked, self.vector, recall)


def _checked(asked: Query, index: Index) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    """The query vector, if it was given as such. Raises the error that Cloudflare gives for each mistake."""
    full = asked.return_values or asked.return_metadata == "all"
    if asked.top_k > (TOP_K_MAX_FULL if full else TOP_K_MAX):
        says = (
            f"with returnValues=true or returnMetadata=all, max top K is {TOP_K_MAX_FULL}, but got {asked.top_k}; "
            f"for a top K up to {TOP_K_MAX}, retry with returnValues=false and returnMetadata=indexed"
            if full
            else f"max top K is {TOP_K_MAX}, but got {asked.top_k}"
        )
        raise CloudflareError(400, TOP_K, says)
    if asked.filter:
        raise Invalid("filter: this version cannot filter by metadata yet; leave it out, or use a namespace")
    if asked.namespace is not None and len(asked.namespace.encode()) > NAMESPACE_BYTES_MAX:
        raise Invalid(f"namespace: expected at most {NAMESPACE_BYTES_MAX} bytes")
    if asked.vector is None:
        return None
    if len(asked.vector) != index.record.dimensions:
        expected, got = index.record.dimensions, len(asked.vector)
        says = f"invalid query vector, expected {expected} dimensions, and got {got} dimensions"
        raise CloudflareError(400, QUERY_DIMENSIONS, says)
    with np.errstate(over="ignore"):
        vector = np.asarray(asked.vector, dtype=np.float32)
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise Invalid(f"vector[{place}]: expected a finite float32")
    return vector


def _run_query(
    view: View, asked: Query, vector: np.ndarray[tuple[int], np.dtype[np.float32]] | None, recall: float
) -> bytes:
    if vector is None:
        assert asked.vector_id is not None
        found = lookup(view, [asked.vector_id])
        if not found:
            raise CloudflareError(
                400, OWN_CODES + 404, f'vectorId: there is no vector with id "{asked.vector_id}"'
            )
        vector = found[0].values
    matches = search(view, vector, asked.top_k, asked.namespace or None, recall=recall)
    hits = [_hit(match, view.record.metric, asked) for match in matches]
    return encode_result({"count": len(hits), "matches": hits})


def _hit(match: Match, metric: Metric, asked: Query) -> dict[str, Any]:
    found = match.found
    hit: dict[str, Any] = {"id": found.id, "score": score(metric, match.closeness)}
    if found.namespace is not None:
        hit["namespace"] = found.namespace
    if asked.return_values:
        hit["values"] = found.values
    # "indexed" returns the properties that have a metadata index, and there are none yet.
    if asked.return_metadata == "all" and found.metadata is not None:
        hit["metadata"] = orjson.Fragment(found.metadata)
    return hit


def score(metric: Metric, closeness: float) -> float:
    """Cloudflare's score: cosine as it is; the Euclidean distance, not squared; the *negative* dot product."""
    match metric:
        case Metric.COSINE:
            return closeness
        case Metric.EUCLIDEAN:
            return float(np.sqrt(-closeness))
        case Metric.DOT_PRODUCT:
            return -closeness


def _encode_found(found: list[Found]) -> bytes:
    return encode_result([_vector(one) for one in found])


def _vector(found: Found) -> dict[str, Any]:
    vector: dict[str, Any] = {"id": found.id, "values": found.values}
    if found.namespace is not None:
        vector["namespace"] = found.namespace
    if found.metadata is not None:
        vector["metadata"] = orjson.Fragment(found.metadata)
    return vector
