"""What schemathesis is told beside the API description, so that most of what it sends gets past the first check.

It runs in a process of its own (``test_story_schemathesis.py``), which imports this. The description cannot say how many dimensions
the index at hand has, and schemathesis does not know how NDJSON or an Arrow stream is written.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import schemathesis
from hypothesis import strategies as st

DIMENSIONS = 3
DIMENSIONS_MAX = 1536
MODEL, MODEL_DIMENSIONS, SPARSE_MODEL = "wordllama", 256, "BM25"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
#: Keys whose integers may not be written with a fraction. JSON Schema takes 5.0 for an integer, and JSON readers do not.
INTEGERS = ("ids", "id", "topK", "dimensions", "shards")
LINES = [
    '{"id": "s", "values": [1, 2, 3]}',
    '{"id": 1, "values": [1, 2, 3]}\n\n{"id": "t", "values": [3, 2, 1]}',
]
#: Right by the description, and rightly refused: what begins the message says why.
REFUSED_AS_THINGS_ARE = (
    "only a mutation that failed can be tried again",
    "vectorize.index.duplicate_name",
    "vectorId: there is no vector with id",
    "with returnValues=true or returnMetadata=all, max top K is 50",
    "List vectors cursor appears to be corrupted",
    "metadata index: ",
    "an index has at most 10 webhooks",
    # Of an index with sparse vectors, or of one made by a preset.
    "this is a sparse index, and",
    "this is a hybrid index, and",
    "invalid vector for id=",
    "invalid query vector, expected",
    # The description counts characters, the rules bytes.
    "id too long",
    "namespace too long",
)
#: Nobody listens there.
WEBHOOK_URLS = ["http://127.0.0.1:1/hook", "https://[::1]:1/hook?a=b"]

_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
_ROWS = st.lists(
    st.tuples(
        st.text("abc", min_size=1, max_size=8), st.lists(_FLOATS, min_size=DIMENSIONS, max_size=DIMENSIONS)
    ),
    min_size=1,
    max_size=4,
)


def _arrow_stream(rows: list[tuple[str, list[float]]]) -> bytes:
    ids, values = zip(*rows, strict=True)
    table = pa.table({"id": pa.array(ids, pa.utf8()), "values": pa.array(values, pa.list_(pa.float32()))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


schemathesis.openapi.media_type(ARROW, _ROWS.map(_arrow_stream))


@schemathesis.serializer(NDJSON)
def _ndjson(_context: object, value: object) -> bytes:
    """Lines of a list's items; what is no list, as negative data may be, as one line."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return "\n".join(map(json.dumps, value if isinstance(value, list) else [value])).encode()


@schemathesis.hook
def before_load_schema(_context: object, raw_schema: dict[str, Any]) -> None:
    """Say what is true of the index at hand, and of results that they have no keys but those described."""
    schemas = raw_schema["components"]["schemas"]
    exactly = {"minItems": DIMENSIONS, "maxItems": DIMENSIONS}
    schemas["Vector"]["properties"]["values"] |= exactly
    schemas["Query"]["properties"]["vector"]["anyOf"][0] |= exactly
    # In this order, so that what is varied one at a time is varied in true requests.
    raw_schema["components"]["parameters"]["DryRun"]["schema"] = {"enum": ["false", "true"]}
    # Of what is made anew, or the description only says in words.
    schemas["IndexConfig"]["properties"]["dimensions"]["maximum"] = DIMENSIONS_MAX
    schemas["ModelConfig"]["properties"]["dimensions"] = {"enum": [None, MODEL_DIMENSIONS]}
    embedding = schemas["CreateEmbeddingIndex"]["properties"]
    embedding["embeddingModel"], embedding["config"] = (
        {"const": MODEL},
        {"$ref": "#/components/schemas/ModelConfig"},
    )
    for kind in ("CreateIndex", "CreateEmbeddingIndex", "CreateSparseIndex"):
        schemas[kind]["properties"]["sparseEmbeddingModel"] = {"enum": [None, SPARSE_MODEL]}
    schemas["NewToken"]["properties"]["rate"] = {"enum": [None, "10/second", "1200 per 5 minutes"]}
    schemas["NewWebhook"]["properties"]["url"] = {"enum": WEBHOOK_URLS}
    schemas["NewWebhook"]["properties"]["secret"] = {"type": "null"}
    for methods in raw_schema["paths"].values():
        for says in methods.values():
            # The Host header says it instead, which needs no name server.
            says.pop("servers", None)
    sent = _reached(raw_schema, [raw_schema["components"]["requestBodies"], *_bodies(raw_schema)])
    for name, schema in schemas.items():
        if name not in sent and "properties" in schema:
            # But for those that are described as open.
            schema.setdefault("additionalProperties", False)
    _tell_forms(raw_schema["components"]["requestBodies"]["Upload"]["content"])


def _bodies(raw_schema: dict[str, Any]) -> list[Any]:
    return [says.get("requestBody") for methods in raw_schema["paths"].values() for says in methods.values()]


def _reached(raw_schema: dict[str, Any], says: Any) -> set[str]:
    """The names of the schemas that ``says`` refers to, also by way of others."""
    found: set[str] = set()
    pending = [says]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/schemas/")[2]
            if name in raw_schema["components"]["schemas"] and name not in found:
                found.add(name)
                pending.append(raw_schema["components"]["schemas"][name])
            pending.extend(one.values())
    return found


def _tell_forms(content: dict[str, Any]) -> None:
    """Of an upload: the description can only say of NDJSON that it is text."""
    content[NDJSON]["schema"] = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Vector"},
        "minItems": 1,
    }
    del content[NDJSON]["examples"]
    lines = {"type": "string", "enum": LINES}
    content["multipart/form-data"]["schema"] = {
        "type": "object",
        "properties": {"vectors": lines},
        "required": ["vectors"],
    }
    forms = content["application/json"]["schema"]["anyOf"]
    (text,) = (place for place, form in enumerate(forms) if form.get("type") == "string")
    forms[text] = lines


@schemathesis.hook
def map_body(_context: object, body: Any) -> Any:
    """Write integers as such; and where an index is made, let it be one that the other requests fit."""
    body = _with_integers(body)
    config = body.get("config") if isinstance(body, dict) else None
    if isinstance(config, dict) and config.get("dimensions") in range(1, DIMENSIONS_MAX + 1):
        if config["dimensions"] == MODEL_DIMENSIONS:
            return body
        return body | {"config": config | {"dimensions": DIMENSIONS}}
    return body


def _with_integers(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _with_integers(inside, name) for name, inside in value.items()}
    if isinstance(value, list):
        return [_with_integers(inside, key) for inside in value]
    return int(value) if isinstance(value, float) and value.is_integer() and key in INTEGERS else value


@schemathesis.hook
def before_call(_context: object, case: Any, _kwargs: object) -> None:
    """Give each request a key of its own: most would be refused for having that of another."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key:
        # A long one stays as long as it is: it may be meant to be too long.
        case.headers["Idempotency-Key"] = (key if len(key) < 200 else key[: -len(case.id)]) + case.id


@schemathesis.hook
def filter_failure(_context: object, failure: Any, case: Any, response: Any) -> bool:
    """Drop the complaints that are none."""
    if failure.code == "ST205":
        # Upstash's commands take any method, and are described with one of them.
        return not case.operation.path.startswith("/upstash/")
    if failure.code == "ST201":
        # A dry run, and an upload that may leave things out, say in a success what is wrong.
        discards = (case.query or {}).get("unparsable-behavior") == "discard"
        return not discards and b'"dryRun":true,"valid":false' not in response.content
    if failure.code != "ST202" or response.status_code != 400:
        return True
    said = response.json()
    message = said["error"] if "error" in said else said["errors"][0]["message"]
    return not message.startswith(REFUSED_AS_THINGS_ARE)
