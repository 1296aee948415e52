"""Operations on metadata indexes."""

from __future__ import annotations

from typing import Literal

from ingest.doors.cloudflare.models import CreateMetadataIndex, DeleteMetadataIndex
from ingest.doors.cloudflare.shapes import MetadataIndexesResult
from ingest.openapi.cloudflare.envelope import ACCOUNT, INDEX, NAME, TO_INDEX, TO_WRITE, answers, success
from ingest.openapi.cloudflare.writes import ACKNOWLEDGED, WISHES
from ingest.openapi.operation import Body, Operation, json_body


def _write(name: Literal["create", "delete"], summary: str, description: str, body: Body) -> Operation:
    return Operation(
        method="post",
        path=f"{INDEX}/metadata_index/{name}",
        id=f"{name}MetadataIndex",
        tag="metadata indexes",
        summary=summary,
        description=description,
        parameters=(ACCOUNT, NAME, *WISHES),
        body=body,
        answers=answers(ACKNOWLEDGED, *TO_WRITE),
    )


OPERATIONS = (
    _write(
        "create",
        "Index a property of the metadata",
        "A mutation like any other. The same again changes nothing; another type for the same property is refused.",
        json_body(
            CreateMetadataIndex,
            "A property, with dots into objects, and the type of its values.",
            lang={"propertyName": "lang", "indexType": "string"},
        ),
    ),
    Operation(
        method="get",
        path=INDEX + "/metadata_index/list",
        id="listMetadataIndexes",
        tag="metadata indexes",
        summary="List metadata indexes",
        parameters=(ACCOUNT, NAME),
        answers=answers(success(MetadataIndexesResult, "Those that are visible."), *TO_INDEX),
    ),
    _write(
        "delete",
        "Drop a metadata index",
        "A mutation like any other. A property without an index is no error.",
        json_body(DeleteMetadataIndex, "A property.", lang={"propertyName": "lang"}),
    ),
)
