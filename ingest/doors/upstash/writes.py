"""Commands that change something: each becomes one mutation, which is durable when it is answered and named by ``X-Mutation-Id``.

upsert and upsert-data are answered at once. What Upstash answers of update, delete and rename-namespace is known only when they are
applied, so these wait for it: ``Prefer: wait=N`` seconds, or as long as the server lets anybody wait. reset and delete-namespace wait
as long as a read would, since clients expect queries to see them; they have succeeded even if they are not applied by then. Given
``Prefer: wait=N``, all wait that long, and ``X-Mutation-State`` says what they saw. See also ``ingest/wishes.py``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

from ingest.admission import check_room
from ingest.appending import Accepted, Sender
from ingest.body import Rules
from ingest.doors.upstash.answers import success
from ingest.doors.upstash.context import Asked, check_namespace
from ingest.doors.upstash.errors import DEFAULT_NAMESPACE_STAYS, UpstashError, no_namespace, no_schema
from ingest.doors.upstash.readings import Write
from ingest.doors.upstash.rows import Target
from ingest.granted import QUESTION_BYTES_MAX
from ingest.wishes import ACCEPTED, idempotency_key, naming, preferred_wait_s, waited
from upwell.changeset import Changeset, Details, KeyScope, Operation, Rename, Selection, without_rows
from upwell.errors import Invalid, Unavailable
from upwell.outcome import Outcome, State

SUCCESS = "Success"


async def upsert(asked: Asked) -> web.Response:
    """``upsert`` and ``upsert-data``: put rows in place of those with their ids, or beside them."""
    return await _acknowledged(asked, await _taken(asked, adds_rows=True))


async def update(asked: Asked) -> web.Response:
    """``update``: change what is given of a row, if it is there."""
    outcome, headers = await _applied(asked, await _taken(asked))
    return success({"updated": _counted(outcome, "updated")}, headers)


async def delete(asked: Asked) -> web.Response:
    """``delete``: remove rows by their ids, by how those begin, or by a filter."""
    outcome, headers = await _applied(asked, await _taken(asked))
    return success({"deleted": _counted(outcome, "deleted")}, headers)


async def reset(asked: Asked) -> web.Response:
    """``reset``, ``reset?all``: remove all rows of a namespace, or of all. Namespaces stay."""
    everything = "all" in asked.request.query and asked.request.query["all"].lower() not in ("false", "0")
    selection = Selection(namespace=None if everything else asked.namespace)
    return await _acknowledged(asked, await _selected(asked, Operation.RESET, selection), _as_a_read(asked))


async def delete_namespace(asked: Asked) -> web.Response:
    """``delete-namespace``: remove a namespace with all its rows."""
    name = asked.namespace
    if not name:
        raise Invalid(DEFAULT_NAMESPACE_STAYS)
    sender = _sender(asked)
    if sender.key is None:
        # Of a request that is sent again it is not asked whether there is anything left to delete.
        await asked.settled()
        if not await asked.ops.read(asked.index, lambda view: view.has_namespace(name)):
            raise no_namespace(name, asked.index.record.name)
    accepted = await _selected(asked, Operation.DELETE_NAMESPACE, Selection(namespace=name))
    return await _acknowledged(asked, accepted, _as_a_read(asked))


async def rename_namespace(asked: Asked) -> web.Response:
    """``rename-namespace``: give a namespace another name, and first remove what has that name already if that is wished."""
    fields = await asked.fields()
    old, new = fields.text("namespace"), fields.text("newNamespace")
    for field, name in (("namespace", old), ("newNamespace", new)):
        if not name:
            raise Invalid(f"{field}: expected the name of a namespace; the default one has no other")
        check_namespace(name, asked.settings.upstash_namespace_bytes_max, field)
    rename = Rename(namespace=old, new_namespace=new, delete_existing=fields.flag("deleteExisting"))
    changeset = without_rows(Operation.RENAME_NAMESPACE, _details(None, rename=rename))
    accepted = await _appended(asked, changeset)
    outcome, headers = await _waited(asked, accepted, asked.settings.wait_s_max)
    if outcome.state is State.FAILED and (outcome.error or "").endswith("does not exist"):
        raise no_namespace(old, asked.index.record.name, **{ACCEPTED: accepted.mutation_id})
    if outcome.state is State.FAILED and (outcome.error or "").endswith("exists already"):
        raise UpstashError(
            HTTPStatus.CONFLICT,
            f"{outcome.error}; it is replaced if deleteExisting is true",
            **{ACCEPTED: accepted.mutation_id},
        )
    _check(outcome)
    return success({"renamed": True}, headers)


def _details(namespace: str | None, **more: Any) -> Details:
    return Details(scope=KeyScope.NAMESPACE, namespace=namespace, **more)


def _sender(asked: Asked) -> Sender:
    return Sender(asked.grant.id, idempotency_key(asked.request))


async def _taken(asked: Asked, *, adds_rows: bool = False) -> Accepted:
    """Read the body of a write, and make it durable."""
    ops, settings, record = asked.ops, asked.settings, asked.index.record
    sender, schema = _sender(asked), record.effective_schema
    if asked.command != "delete" and not schema.is_open:
        raise UpstashError(HTTPStatus.UNPROCESSABLE_ENTITY, no_schema(record.account, record.name))
    await ops.admit(asked.index, adds_rows=adds_rows)
    rules = Rules(
        dimensions=record.dimensions,
        vectors_max=settings.upstash_vectors_max,
        bytes_max=settings.request_bytes_max,
        id_bytes_max=schema.id_bytes_at_most(settings.upstash_id_bytes_max),
        ids=schema.ids,
        metadata_bytes_max=settings.upstash_metadata_bytes_max,
        data_bytes_max=settings.upstash_data_bytes_max,
    )
    how = Write(
        command=asked.command,
        namespace=asked.namespace,
        target=Target(
            kind=record.kind,
            dimensions=record.dimensions,
            embeds=record.embeds,
            rules=rules,
            sparse_max=settings.upstash_sparse_max,
        ),
        filter_bytes_max=settings.upstash_filter_bytes_max,
        bytes_max=settings.request_bytes_max
        if adds_rows
        else min(settings.request_bytes_max, max(QUESTION_BYTES_MAX, rules.line_bytes_max)),
        content_encoding=asked.encoding,
        accepted_at=ops.engine.clock.now(),
    )
    may = (lambda: check_room(asked.index, settings.vectors_max)) if adds_rows else None
    accepted, _ = await ops.take(asked.index, asked.request, how, sender=sender, may=may)
    return accepted


async def _selected(asked: Asked, operation: Operation, selection: Selection) -> Accepted:
    details = _details(selection.namespace, selection=selection)
    return await _appended(asked, without_rows(operation, details))


async def _appended(asked: Asked, changeset: Changeset) -> Accepted:
    sender = _sender(asked)
    await asked.ops.admit(asked.index)
    return await asked.ops.append(asked.index, changeset, sender)


def _as_a_read(asked: Asked) -> float | None:
    """How long a read would wait for a write; None: not at all."""
    return asked.settings.upstash_read_wait_s if asked.settings.upstash_read_your_writes else None


async def _acknowledged(asked: Asked, accepted: Accepted, wait_s: float | None = None) -> web.Response:
    """The answer to a write that is durable, which need not be applied: after ``wait_s`` at most, or as the request prefers."""
    preferred = preferred_wait_s(asked.request, asked.settings.wait_s_max)
    wait_s = wait_s if preferred is None else preferred
    if wait_s is None:
        return success(SUCCESS, naming(accepted))
    outcome, headers = await _waited(asked, accepted, wait_s)
    if outcome.state is State.FAILED:
        _check(outcome)
    return success(SUCCESS, headers)


async def _applied(asked: Asked, accepted: Accepted) -> tuple[Outcome, dict[str, str]]:
    """The outcome of a write that is applied. Raises Unavailable for one that is not yet, UpstashError for one that failed."""
    outcome, headers = await _waited(asked, accepted, asked.settings.wait_s_max)
    _check(outcome)
    return outcome, headers


async def _waited(asked: Asked, accepted: Accepted, wait_s: float) -> tuple[Outcome, dict[str, str]]:
    """The outcome after waiting for so long, or for as long as the request prefers; and what its answer says besides."""
    return await waited(asked.ops, asked.request, accepted, wait_s)


def _check(outcome: Outcome) -> None:
    """Raise Unavailable for a mutation that is not applied yet, UpstashError for one that failed."""
    if outcome.state is State.FAILED:
        raise UpstashError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the write failed and changed nothing: {outcome.error}",
            **{ACCEPTED: outcome.mutation_id},
        )
    if outcome.state is not State.VISIBLE:
        raise Unavailable(
            "the write is accepted and will be applied, but is not yet; it need not be sent again",
            **{ACCEPTED: outcome.mutation_id},
        )


def _counted(outcome: Outcome, what: str) -> int:
    if outcome.result is None:
        raise UpstashError(
            HTTPStatus.GONE,
            f"the write was applied, but how many it {what} is not known any more",
            **{ACCEPTED: outcome.mutation_id},
        )
    return int(getattr(outcome.result, what))
