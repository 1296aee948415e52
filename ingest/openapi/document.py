"""All operations as one OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from ingest.openapi import cloudflare, milvus, own, upstash
from ingest.openapi.operation import Answer, Body, Content, Operation, Parameter

OPERATIONS = (*cloudflare.OPERATIONS, *upstash.OPERATIONS, *milvus.OPERATIONS, *own.OPERATIONS)

DESCRIPTION = """\
Upwell takes vectors, acknowledges them once they are durable, and makes them visible a moment later, in order and all at once.

A path under `/client/v4` is Cloudflare Vectorize's, or goes beyond it where Vectorize has nothing (`…/mutations`); Cloudflare's
clients work unchanged. Every answer there and under `/upwell/v1` is an envelope, whose `success` agrees with the HTTP status. Unknown keys
of a request are ignored, unless its schema says otherwise.

What is under `/upstash/{account}/{index}` is Upstash Vector's: that is the URL which Upstash's clients are given, with a token of Upwell's.

What is under `/v1/vector` and `/v2/vectordb` is Milvus's and Zilliz Cloud's: their clients are given the address before it.
"""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The token as password; any name."},
    "authKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Auth-Key",
        "description": "The token, as Cloudflare's clients send an API key; together with X-Auth-Email.",
    },
    "authEmail": {"type": "apiKey", "in": "header", "name": "X-Auth-Email", "description": "Anything."},
}
#: One of these, each of which may be several headers.
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"basic": []}, {"authKey": [], "authEmail": []}]


def document() -> dict[str, Any]:
    """The document, as JSON-able Python."""
    components: dict[str, dict[str, Any]] = {"parameters": {}, "requestBodies": {}, "responses": {}}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        methods = paths.setdefault(operation.path, {})
        assert operation.method not in methods, f"{operation.path} has two of {operation.method}"
        methods[operation.method] = _operation(operation, components)
    says = {"paths": paths, "components": components}
    # Sorted by name, so that the document only changes when its meaning does.
    models = sorted(set(_models(says)), key=lambda model: (model[0].__name__, model[1]))
    references, definitions = models_json_schema(
        models, ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    for schema in definitions["$defs"].values():
        if "description" in schema:  # a docstring, with code as docstrings have it
            schema["description"] = schema["description"].replace("``", "`")
    resolved = _resolved(says, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Upwell",
            "version": version("upwell"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [*cloudflare.TAGS, *upstash.TAGS, *milvus.TAGS, *own.TAGS],
        "security": SECURITY,
        "paths": resolved["paths"],
        "components": {
            "schemas": definitions["$defs"],
            **resolved["components"],
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


class _Schemas(GenerateJsonSchema):
    """Pydantic's own, but plainer and, for maps whose keys have a pattern, stricter."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  pydantic's signature
        """A title would only repeat the field's name."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """That a field is null if left out goes without saying."""
        return {
            key: value
            for key, value in super().default_schema(schema).items()
            if key != "default" or value is not None
        }

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Pydantic says ``patternProperties``, which allows any other key."""
        says = super().dict_schema(schema)
        for pattern, values in says.pop("patternProperties", {}).items():
            says |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        return says


class _Sent(dict[str, Any]):
    """A schema of what is sent to us; any other is of what we answer. Models differ in what is required."""


def _operation(operation: Operation, components: dict[str, dict[str, Any]]) -> dict[str, Any]:
    says: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        says["description"] = operation.description
    if operation.parameters:
        says["parameters"] = [
            _shared(components, "parameters", parameter.component, _parameter(parameter))
            for parameter in operation.parameters
        ]
    if (body := operation.body) is not None:
        says["requestBody"] = _shared(components, "requestBodies", body.component, _body(body))
    says["responses"] = {
        str(status): _shared(components, "responses", answer.component, _answer(answer))
        for status, answer in sorted(operation.answers.items())
    }
    if not operation.secured:
        says["security"] = []
    if operation.server is not None:
        says["servers"] = [{"url": operation.server}]
    return says


def _shared(
    components: dict[str, dict[str, Any]], kind: str, name: str | None, says: dict[str, Any]
) -> dict[str, Any]:
    """What stands in an operation's place for a component: a reference."""
    if name is None:
        return says
    assert components[kind].setdefault(name, says) == says, f"two {kind} are called {name}"
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    says = _Sent(
        {
            "name": parameter.name,
            "in": parameter.place,
            "description": parameter.description,
            "required": parameter.required or parameter.place == "path",
            "schema": parameter.schema,
        }
    )
    if parameter.example is not None:
        says["example"] = parameter.example
    return says


def _body(body: Body) -> dict[str, Any]:
    return _Sent(description=body.description, required=body.required, content=_content(body.content))


def _content(content: Mapping[str, Content]) -> dict[str, Any]:
    says: dict[str, Any] = {}
    for media_type, form in content.items():
        says[media_type] = {"schema": form.schema}
        if form.examples:
            says[media_type]["examples"] = {name: {"value": value} for name, value in form.examples.items()}
    return says


def _answer(answer: Answer) -> dict[str, Any]:
    says: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        says["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    if answer.content:
        says["content"] = _content(answer.content)
    if answer.links:
        says["links"] = {
            name: {"operationId": operation_id, "parameters": dict(parameters)}
            for name, (operation_id, parameters) in answer.links.items()
        }
    return says


_Model = tuple[type[BaseModel], JsonSchemaMode]


def _models(says: Any, mode: JsonSchemaMode = "serialization") -> Iterator[_Model]:
    """Every model that stands in ``says``, and whether what it describes is sent to us."""
    if isinstance(says, type):
        yield says, mode
    elif isinstance(says, Mapping):
        inside: JsonSchemaMode = "validation" if isinstance(says, _Sent) else mode
        for value in says.values():
            yield from _models(value, inside)
    elif isinstance(says, list | tuple):
        for value in says:
            yield from _models(value, mode)


def _resolved(
    says: Any, references: Mapping[Any, Mapping[str, Any]], mode: JsonSchemaMode = "serialization"
) -> Any:
    """``says`` with a reference in the place of every model."""
    if isinstance(says, type):
        return dict(references[says, mode])
    if isinstance(says, Mapping):
        inside: JsonSchemaMode = "validation" if isinstance(says, _Sent) else mode
        return {key: _resolved(value, references, inside) for key, value in says.items()}
    if isinstance(says, list | tuple):
        return [_resolved(value, references, mode) for value in says]
    return says
