"""Does parse_json() read what clients send, refuse what would go unnoticed, and name the first mistake without listing them all?"""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ingest.doors.cloudflare.context import parse_json
from ingest.doors.cloudflare.errors import BODY_UNPARSABLE, CloudflareError
from ingest.doors.cloudflare.models import CreateIndex, CreateMetadataIndex, DeleteMetadataIndex, Query
from ingest.doors.cloudflare.webhooks import NewWebhook
from ingest.tokens import NewToken

MODELS: list[type[BaseModel]] = [
    CreateIndex,
    CreateMetadataIndex,
    DeleteMetadataIndex,
    Query,
    NewWebhook,
    NewToken,
]


def query(**fields: Any) -> Query:
    return parse_json(json.dumps({"vector": [1, 2.5]} | fields).encode(), Query)


def test_a_query_is_read_with_its_defaults() -> None:
    asked = parse_json(b'\xef\xbb\xbf {"vector":[1,2.5,18446744073709551616],"unknown":1}', Query)
    assert asked.vector == [1.0, 2.5, 2.0**64]
    assert (asked.top_k, asked.return_values, asked.return_metadata) == (5, False, "none")
    assert query(returnMetadata=True).return_metadata == "all"
    assert query(returnMetadata=None, namespace=None, filter=None).return_metadata == "none"
    assert parse_json(memoryview(b'{"vectorId":"a","vector":null}'), Query).vector_id == "a"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"vector": ["1", 2]}, "vector.0: "),
        ({"vector": [1, True]}, "vector.1: "),
        ({"vector": [1, None]}, "vector.1: "),
        ({"vector": [[1]]}, "vector.0: "),
        ({"vector": "12"}, "vector: "),
        ({"vector": {"0": 1}}, "vector: "),
        ({"vector": None}, "expected exactly one of vector and vectorId"),
        ({"vectorId": "a"}, "expected exactly one of vector and vectorId"),
        ({"topK": 0}, "topK: "),
        ({"topK": -1}, "topK: "),
        ({"topK": 1.5}, "topK: "),
        ({"topK": 5.0}, "topK: "),
        ({"topK": "5"}, "topK: "),
        ({"topK": True}, "topK: "),
        ({"topK": None}, "topK: "),
        ({"topK": 10**30}, "topK: "),
        ({"returnValues": "yes"}, "returnValues: "),
        ({"returnValues": 1}, "returnValues: "),
        ({"returnMetadata": "ALL"}, "returnMetadata: "),
        ({"returnMetadata": ["all"]}, "returnMetadata: "),
        ({"namespace": 7}, "namespace: "),
        ({"filter": []}, "filter: "),
    ],
)
def test_what_would_go_unnoticed_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(CloudflareError) as caught:
        query(**fields)
    assert (caught.value.status, caught.value.code) == (400, BODY_UNPARSABLE)
    assert caught.value.message.startswith(f"Failed to parse the request body as JSON: {says}")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"{",
        b"7",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"vector":[1,NaN]}',
        b'{"vector":[1,1e400]}',
        b'{"vector":' + b"[" * 100_000,
        b'{"filter":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    ],
)
def test_what_is_no_such_json_is_refused(model: type[BaseModel], body: bytes) -> None:
    with pytest.raises(CloudflareError) as caught:
        parse_json(body, model)
    assert caught.value.status == 400
    assert caught.value.message.encode()


def many_of(annotation: Any) -> bool:
    """May this hold any number of things, each of which may be wrong?"""
    inner = typing.get_args(annotation)
    return typing.get_origin(annotation) in (list, tuple, set) or any(map(many_of, inner))


def test_mistakes_are_not_collected() -> None:
    """A body of 100 MB holds thirty million of them, and a description of each takes a hundred times as much."""
    tried = 0
    for model in MODELS:
        for name, info in model.model_fields.items():
            if many_of(info.annotation):
                tried += 1
                with pytest.raises(ValidationError) as caught:
                    model.model_validate({info.alias or name: [{}] * 1_000, "url": "x"})
                assert caught.value.error_count() < 5, (model, name)
    assert tried == 2, "vector and events"
