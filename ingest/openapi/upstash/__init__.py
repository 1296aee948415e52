"""The table of the Upstash door's operations: one for each command, and one more for those that can name a namespace in their path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from ingest.openapi.cloudflare.envelope import ACCOUNT, REFUSALS
from ingest.openapi.cloudflare.writes import WISHES
from ingest.openapi.operation import Answer, Body, Content, Operation, Parameter, Schema, json_body
from ingest.openapi.upstash.shapes import (
    UpstashBegun,
    UpstashDelete,
    UpstashEnd,
    UpstashFailure,
    UpstashFetch,
    UpstashInfo,
    UpstashMatch,
    UpstashNext,
    UpstashPage,
    UpstashQuery,
    UpstashRange,
    UpstashRename,
    UpstashResumableQuery,
    UpstashResumableTextQuery,
    UpstashRow,
    UpstashText,
    UpstashTextQuery,
    UpstashUpdate,
    UpstashVector,
)
from ingest.problems import RETRY_AFTER_S

TAGS = [{"name": "upstash", "description": "Upstash Vector: its commands, each by GET, POST, PUT or DELETE."}]

_BASE = "/upstash/{account}/{index}"
_NAME = Parameter(
    name="index",
    place="path",
    description="The index's name.",
    schema={"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    example="docs",
    component="UpstashIndex",
)
_NAMESPACE = Parameter(
    name="namespace",
    place="path",
    description="A namespace's name.",
    schema={"type": "string", "minLength": 1},
    example="tenant-7",
    component="UpstashNamespace",
)
_PREFER, _KEY = (one for one in WISHES if one.place == "header")
_ALL = Parameter(
    name="all",
    place="query",
    description="Remove the rows of all namespaces.",
    schema={"type": "string"},
)
_SUCCESS = {"const": "Success"}
_HEADERS = {
    "X-Mutation-Id": "The mutation that the write became; see `…/mutations/{mutation}` under `/client/v4`.",
    "X-Mutation-State": "What had become of it, if that was waited for.",
    "Idempotency-Replayed": "`true` if this request came before.",
}
_TO_READ = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503)
_TO_WRITE = (*_TO_READ, 410, 507)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """A command as it is described. ``body`` None: it has none."""

    name: str
    summary: str
    result: Schema
    body: Schema | None = None
    needs_body: bool = True
    example: Mapping[str, Any] = field(default_factory=dict)
    writes: bool = False
    in_namespace: bool = True
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[int, ...] = ()


def _some(schema: Schema) -> Schema:
    """One, or an array of them."""
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


def _many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


_MATCHES = {"anyOf": [_many(UpstashMatch), _many(_many(UpstashMatch))]}

COMMANDS = (
    _Command(
        name="upsert",
        summary="Put rows in place of those with their ids, or beside them",
        body=_some(UpstashVector),
        example={"id": "a", "vector": [0.1, 0.2, 0.3]},
        result=_SUCCESS,
        writes=True,
    ),
    _Command(
        name="upsert-data",
        summary="The same, with texts that vectors are made of",
        body=_some(UpstashText),
        example={"id": "a", "data": "a text"},
        result=_SUCCESS,
        writes=True,
    ),
    _Command(
        name="update",
        summary="Change what is given of a row, if it is there",
        body=UpstashUpdate,
        example={"id": "a", "metadata": {"seen": True}, "metadataUpdateMode": "PATCH"},
        result={"type": "object", "properties": {"updated": {"enum": [0, 1]}}, "required": ["updated"]},
        writes=True,
    ),
    _Command(
        name="delete",
        summary="Remove rows by their ids, by how those begin, or by a filter",
        # Clients of before there were other ways send nothing but the ids.
        body={"anyOf": [UpstashDelete, _many({"type": ["string", "integer"]})]},
        example={"ids": ["a"]},
        result={
            "type": "object",
            "properties": {"deleted": {"type": "integer", "minimum": 0}},
            "required": ["deleted"],
        },
        writes=True,
    ),
    _Command(
        name="reset",
        summary="Remove all rows of a namespace, or of all",
        result=_SUCCESS,
        writes=True,
        parameters=(_ALL,),
    ),
    _Command(
        name="query",
        summary="Find the closest rows; an array of questions has an array of answers",
        body=_some(UpstashQuery),
        example={"vector": [0.1, 0.2, 0.3], "topK": 3, "filter": "lang = 'en'"},
        result=_MATCHES,
    ),
    _Command(
        name="query-data",
        summary="The same, by texts",
        body=_some(UpstashTextQuery),
        example={"data": "a question", "includeData": True},
        result=_MATCHES,
    ),
    _Command(
        name="resumable-query",
        summary="Find the closest rows, and be able to go on",
        body=UpstashResumableQuery,
        example={"vector": [0.1, 0.2, 0.3], "topK": 3, "maxIdle": 60},
        result=UpstashBegun,
    ),
    _Command(
        name="resumable-query-data",
        summary="The same, by a text",
        body=UpstashResumableTextQuery,
        example={"data": "a question", "maxIdle": 60},
        result=UpstashBegun,
    ),
    _Command(
        name="resumable-query-next",
        summary="Go on with such a query",
        body=UpstashNext,
        example={"uuid": "0", "additionalK": 3},
        result=_many(UpstashMatch),
        in_namespace=False,
    ),
    _Command(
        name="resumable-query-end",
        summary="Be done with such a query",
        body=UpstashEnd,
        example={"uuid": "0"},
        result=_SUCCESS,
        in_namespace=False,
    ),
    _Command(
        name="fetch",
        summary="Get rows by their ids, null for those that are not there, or by how their ids begin",
        body=UpstashFetch,
        example={"ids": ["a", "b"], "includeMetadata": True},
        result=_many({"anyOf": [UpstashRow, {"type": "null"}]}),
    ),
    _Command(
        name="range",
        summary="Get rows page by page, in the order of writing",
        body={"anyOf": [UpstashRange, {"type": "null"}, {"type": "array", "maxItems": 0}]},
        needs_body=False,
        example={"cursor": "0", "limit": 100},
        result=UpstashPage,
    ),
    _Command(
        name="random", summary="Get any row, null if there is none", result={"anyOf": [UpstashRow, {"type": "null"}]}
    ),
    _Command(name="info", summary="Tell what an index is, and its counts", result=UpstashInfo, in_namespace=False),
    _Command(
        name="list-namespaces",
        summary="List the namespaces, the default one first",
        result=_many({"type": "string"}),
        in_namespace=False,
    ),
    _Command(
        name="delete-namespace",
        summary="Remove a namespace with all its rows; the default one stays",
        result=_SUCCESS,
        writes=True,
    ),
    _Command(
        name="rename-namespace",
        summary="Give a namespace another name",
        body=UpstashRename,
        example={"namespace": "old", "newNamespace": "new"},
        result={"type": "object", "properties": {"renamed": {"const": True}}, "required": ["renamed"]},
        writes=True,
        in_namespace=False,
        refusals=(409,),
    ),
)  # fmt: skip


def _operations() -> Iterator[Operation]:
    for command in COMMANDS:
        yield _operation(command)
        if command.in_namespace:
            yield _operation(command, in_namespace=True)


def _operation(command: _Command, *, in_namespace: bool = False) -> Operation:
    words = "".join(word.capitalize() for word in command.name.split("-"))
    wishes = (_PREFER, _KEY) if command.writes else ()
    where = (ACCOUNT, _NAME, _NAMESPACE) if in_namespace else (ACCOUNT, _NAME)
    success = Answer(
        description="It is done, or (of what is only stored) durable." if command.writes else "The answer.",
        content={
            "application/json": Content(
                schema={"type": "object", "properties": {"result": command.result}, "required": ["result"]}
            )
        },
        headers=_HEADERS if command.writes else {},
    )
    refusals = (*(_TO_WRITE if command.writes else _TO_READ), *command.refusals)
    return Operation(
        method="post",
        path=f"{_BASE}/{command.name}" + ("/{namespace}" if in_namespace else ""),
        id=f"upstash{words}{'InNamespace' if in_namespace else ''}",
        tag="upstash",
        summary=command.summary,
        parameters=(*where, *command.parameters, *wishes),
        body=_body(command),
        answers={200: success} | {status: _refusal(status) for status in refusals},
    )


def _body(command: _Command) -> Body | None:
    if command.body is None:
        return None
    body = json_body(command.body, "A null is as good as nothing.", example=command.example)
    return replace(body, required=command.needs_body)


_OWN_REFUSALS = {
    400: "The body is no JSON. Nothing was changed.",
    404: "There is no such account, index, command, namespace or resumable query.",
    409: "A namespace of the new name is there.",
    410: "The write was applied so long ago that its counts are not known any more.",
    422: "The body is not what the command expects, or does not fit the index. Nothing was changed.",
}


def _refusal(status: int) -> Answer:
    later = HTTPStatus(status) in RETRY_AFTER_S
    return Answer(
        description=_OWN_REFUSALS.get(status, REFUSALS.get(status, "")),
        content={"application/json": Content(schema=UpstashFailure)},
        headers={"Retry-After": "Seconds after which to try again."} if later else {},
        component=f"UpstashRefused{status}",
    )


OPERATIONS = tuple(_operations())
