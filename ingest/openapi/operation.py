"""What the API description says of one operation. A schema is a pydantic model, or JSON Schema in which models may stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

Schema: TypeAlias = Mapping[str, Any] | type[BaseModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A piece of the path, the query string, or a header."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Schema
    example: Any = None
    #: A piece of the path always is.
    required: bool = False
    #: Its name among the document's components, if several operations have it.
    component: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One form that a body may have."""

    schema: Schema
    #: Examples by name.
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body, by content type."""

    description: str
    content: Mapping[str, Content]
    required: bool = True
    #: Its name among the document's components, if several operations have it.
    component: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response of one status."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    #: Headers by name: what each says.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What may be asked next, by name: an operation's id, and its parameters as runtime expressions.
    links: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    #: Its name among the document's components, if several operations have it.
    component: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path, as a client sees it."""

    method: Literal["get", "post", "put", "patch", "delete"]
    path: str
    id: str
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    #: By status.
    answers: Mapping[int, Answer]
    #: Is a token needed?
    secured: bool = True
    #: Where the path is, if not here.
    server: str | None = None


def json_body(schema: Schema, description: str, **examples: Any) -> Body:
    """A JSON request body, required."""
    return Body(
        description=description, content={"application/json": Content(schema=schema, examples=examples)}
    )
