"""Operations of the Workers binding: those on indexes and vectors, under other names and without envelopes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ingest.doors.cloudflare.binding import ACCOUNT_HEADER, HOST, INDEX_HEADER
from ingest.doors.cloudflare.shapes import BindingFailure
from ingest.openapi.cloudflare import indexes, vectors
from ingest.openapi.cloudflare.envelope import ACCOUNT, NAME, REFUSALS
from ingest.openapi.operation import Answer, Content, Operation, Parameter

_NAMES = {
    "indexInfo": "info",
    "insertVectors": "insert",
    "upsertVectors": "upsert",
    "deleteVectors": "deleteByIds",
    "getVectors": "getByIds",
    "queryVectors": "query",
}


def _in_header(parameter: Parameter, header: str) -> Parameter:
    return replace(parameter, name=header, place="header", component=None, required=True)


def _bare(status: int, answer: Answer) -> Answer:
    """The same answer without its envelope."""
    if status != 200:
        failure = {"application/json": Content(schema=BindingFailure)}
        return replace(answer, content=failure, component=f"BindingRefused{status}")
    schema: Any = answer.content["application/json"].schema
    result = schema["properties"]["result"]
    name = answer.component and f"Binding{answer.component}"
    return replace(answer, content={"application/json": Content(schema=result)}, links={}, component=name)


def _operation(like: Operation, name: str, *, by_headers: bool) -> Operation:
    where = (
        (_in_header(ACCOUNT, ACCOUNT_HEADER), _in_header(NAME, INDEX_HEADER))
        if by_headers
        else (ACCOUNT, NAME)
    )
    answers = {status: _bare(status, answer) for status, answer in like.answers.items()}
    if by_headers and 400 not in answers:
        answers[400] = _bare(400, Answer(description=REFUSALS[400]))
    return replace(
        like,
        id=f"binding{name[0].upper()}{name[1:]}{'ByHeaders' if by_headers else ''}",
        path=f"/{name}" if by_headers else f"/bindings/vectorize/{{account}}/{{index}}/{name}",
        tag="binding",
        parameters=(*where, *(other for other in like.parameters if other not in (ACCOUNT, NAME))),
        answers=answers,
        server=f"http://{HOST}" if by_headers else None,
    )


_BY_ID = {operation.id: operation for operation in (*indexes.OPERATIONS, *vectors.OPERATIONS)}
OPERATIONS = tuple(
    _operation(_BY_ID[id], name, by_headers=by_headers)
    for by_headers in (False, True)
    for id, name in _NAMES.items()
)
