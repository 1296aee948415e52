"""The table of the Milvus door's operations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from ingest.doors.milvus.context import Version
from ingest.doors.milvus.routes import PREFIXES
from ingest.openapi.cloudflare.writes import WISHES
from ingest.openapi.milvus.commands import Described, commands
from ingest.openapi.milvus.shapes import MilvusFailure
from ingest.openapi.operation import Answer, Content, Operation, Parameter, Schema, json_body

TAGS = [
    {"name": "milvus-v1", "description": "Milvus and Zilliz Cloud, RESTful API v1."},
    {"name": "milvus-v2", "description": "Milvus and Zilliz Cloud, RESTful API v2."},
]

_PREFER, _KEY = (one for one in WISHES if one.place == "header")
_INT64 = Parameter(
    name="Accept-Type-Allow-Int64",
    place="header",
    description="`false`: integers of 64 bits are answered as strings.",
    schema={"enum": ["true", "false"]},
    component="MilvusInt64",
)
_HEADERS = {
    "X-Mutation-Id": "The mutation that the write became; see `…/mutations/{mutation}` under `/client/v4`.",
    "X-Mutation-State": "What had become of it, if that was waited for.",
    "Idempotency-Replayed": "`true` if this request came before.",
}
_REFUSALS = {
    401: "There is no token, or one that is not known.",
    403: "The token does not allow this.",
    500: "Something here is broken; it is in the log.",
}


@cache
def _public(model: type[BaseModel]) -> type[BaseModel]:
    """A body's model under a name that says whose it is: other doors have a ``Query`` too."""
    name = model.__name__
    if name.startswith("Milvus"):
        return model
    return type(f"Milvus{name}", (model,), {"__doc__": model.__doc__, "__module__": __name__})


def _operation(command: Described) -> Operation:
    version = command.version
    words = "".join(word.capitalize() for piece in command.name.split("/") for word in piece.split("_"))
    shape: dict[str, Any] = {
        "code": {"const": version.success},
        "data": command.result,
    }
    success: Schema = {"type": "object", "properties": shape, "required": ["code", "data"]}
    done = Answer(
        description="It is done, or refused: `code` tells.",
        content={"application/json": Content(schema={"anyOf": [success, MilvusFailure]})},
        headers=_HEADERS if command.writes else {},
    )
    wishes = (_PREFER, _KEY) if command.writes else ()
    is_get = command.method == "get"
    return Operation(
        method=command.method,
        path=f"{PREFIXES[version]}/{command.name}",
        id=f"milvus{'' if version is Version.V2 else 'V1'}{words}",
        tag=f"milvus-v{version}",
        summary=command.summary,
        parameters=(*(_in_query(command) if is_get else ()), _INT64, *wishes),
        body=None
        if is_get
        else json_body(_public(command.body), "A null is as good as nothing.", example=command.example),
        answers={200: done} | {status: _refusal(status) for status in _REFUSALS},
    )


def _in_query(command: Described) -> Iterator[Parameter]:
    for name, field in command.body.model_fields.items():
        yield Parameter(
            name=field.alias or name,
            place="query",
            description="The database." if name == "db_name" else "The collection.",
            schema={"type": "string"},
            example="default" if name == "db_name" else "docs",
            required=field.is_required(),
        )


def _refusal(status: int) -> Answer:
    return Answer(
        description=_REFUSALS[status],
        content={"application/json": Content(schema=MilvusFailure)},
        component=f"MilvusRefused{status}",
    )


OPERATIONS = tuple(_operation(command) for command in commands())
