"""Cloudflare's own TypeScript SDK, unchanged, but for the address that it is given."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clients.javascript import Home, Sdk, Thrown
from tests.service import TOKEN, Index, Service, running

ACCOUNT = "0123456789abcdef0123456789abcdef"
HERE = {"account_id": ACCOUNT}
INDEXES = "vectorize.indexes"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def sdk(service: Service, home: Home) -> Iterator[Sdk]:
    url = f"{service.apis[0].url}/client/v4"
    with home.knowing(CLOUDFLARE_BASE_URL=url, CLOUDFLARE_API_TOKEN=TOKEN).sdk() as sdk:
        yield sdk


@pytest.fixture
def index(service: Service) -> Index:
    return service.apis[0].index("sdk-ts", ACCOUNT)


def ndjson(*vectors: dict[str, object]) -> str:
    return "\n".join(json.dumps(vector) for vector in vectors)


def test_from_create_to_delete(sdk: Sdk, index: Index) -> None:
    config = {"dimensions": 3, "metric": "cosine"}
    created = sdk.call(f"{INDEXES}.create", {**HERE, "name": index.name, "config": config})
    assert created["name"] == index.name and created["config"] == config
    assert created in sdk.call(f"{INDEXES}.list", HERE)
    assert sdk.call(f"{INDEXES}.get", index.name, HERE) == created
    declared = sdk.call(
        f"{INDEXES}.metadataIndex.create", index.name, {**HERE, "propertyName": "n", "indexType": "number"}
    )
    index.visible(declared["mutationId"])
    listed = sdk.call(f"{INDEXES}.metadataIndex.list", index.name, HERE)
    assert listed == {"metadataIndexes": [{"propertyName": "n", "indexType": "number"}]}

    text = ndjson(
        {"id": "a", "values": [1, 0, 0], "metadata": {"n": 1}},
        {"id": "b", "values": [0, 1, 0], "metadata": {"n": 2}, "namespace": "apart"},
    )
    inserted = sdk.call(f"{INDEXES}.insert", index.name, HERE, body=("string", text))
    assert index.visible(inserted["mutationId"])["counts"]["inserted"] == 2
    more = ndjson({"id": "a", "values": [0, 0, 2], "metadata": {"n": 3}}, {"id": "c", "values": [1, 1, 1]})
    upserted = sdk.call(f"{INDEXES}.upsert", index.name, HERE, body=("buffer", more))
    assert index.visible(upserted["mutationId"])["counts"]["replaced"] == 1
    info = sdk.call(f"{INDEXES}.info", index.name, HERE)
    assert info["vectorCount"] == 3 and info["dimensions"] == 3
    assert info["processedUpToMutation"] == upserted["mutationId"]

    asked = {**HERE, "vector": [0, 0, 1], "topK": 5, "returnValues": True, "returnMetadata": "all"}
    found = sdk.call(f"{INDEXES}.query", index.name, {**asked, "filter": {"n": {"$gte": 3}}})
    (match,) = found["matches"]
    assert found["count"] == 1 and match["score"] == pytest.approx(1)
    assert (match["id"], match["values"], match["metadata"]) == ("a", [0, 0, 2], {"n": 3})
    between = sdk.call(f"{INDEXES}.query", index.name, {**asked, "filter": {"n": {"$gt": 1, "$lt": 3}}})
    assert [(one["id"], one["namespace"]) for one in between["matches"]] == [("b", "apart")]

    first = sdk.call(f"{INDEXES}.listVectors", index.name, {**HERE, "count": 2})
    assert (first["count"], first["totalCount"], first["isTruncated"]) == (2, 3, True)
    rest = sdk.call(f"{INDEXES}.listVectors", index.name, {**HERE, "count": 2, "cursor": first["nextCursor"]})
    assert (rest["count"], rest["isTruncated"], rest["nextCursor"]) == (1, False, None)
    assert sorted(one["id"] for one in first["vectors"] + rest["vectors"]) == ["a", "b", "c"]

    got = sdk.call(f"{INDEXES}.getByIDs", index.name, {**HERE, "ids": ["c", "nobody"]})
    assert got == [{"id": "c", "values": [1, 1, 1]}]
    deleted = sdk.call(f"{INDEXES}.deleteByIDs", index.name, {**HERE, "ids": ["c"]})
    index.visible(deleted["mutationId"])
    assert sdk.call(f"{INDEXES}.getByIDs", index.name, {**HERE, "ids": ["c"]}) == []
    undeclared = sdk.call(f"{INDEXES}.metadataIndex.delete", index.name, {**HERE, "propertyName": "n"})
    index.visible(undeclared["mutationId"])
    assert sdk.call(f"{INDEXES}.metadataIndex.list", index.name, HERE) == {"metadataIndexes": []}
    assert sdk.call(f"{INDEXES}.delete", index.name, HERE) is None


def test_every_kind_of_body(service: Service, sdk: Sdk) -> None:
    index = service.apis[0].index("bodies-ts", ACCOUNT)
    index.create(2)
    for number, form in enumerate(("string", "buffer", "stream", "file", "blob", "array")):
        text = ndjson({"id": f"{form} 1", "values": [number, 1]}, {"id": f"{form} 2", "values": [number, 2]})
        answer = sdk.call(f"{INDEXES}.upsert", index.name, HERE, body=(form, text))
        assert index.visible(answer["mutationId"])["counts"]["inserted"] == 2, form
        assert index.fetch(f"{form} 2")[f"{form} 2"]["values"] == [number, 2]


def test_errors_are_the_sdks_own(service: Service, sdk: Sdk) -> None:
    missing = sdk.ask(f"{INDEXES}.get", "never-was", HERE)
    assert isinstance(missing, Thrown) and (missing.name, missing.status) == ("NotFoundError", 404)
    assert missing.errors is not None and missing.errors[0]["code"] == 3000
    index = service.apis[0].index("errors-ts", ACCOUNT)
    index.create(2)
    narrow = sdk.ask(
        f"{INDEXES}.upsert", index.name, HERE, body=("string", ndjson({"id": "a", "values": [1]}))
    )
    assert isinstance(narrow, Thrown) and (narrow.name, narrow.status) == ("BadRequestError", 400)
    assert narrow.errors is not None and narrow.errors[0]["code"] == 40012


def test_who_one_is(sdk: Sdk) -> None:
    assert sdk.call("user.tokens.verify")["status"] == "active"
    assert {"id": "default", "name": "default", "type": "standard"} in sdk.call("accounts.list", {})


def test_no_client_reaches_another_machine(home: Home) -> None:
    """The guard that every test here relies on, on a connection that it must refuse."""
    script = home.folder / "call.mjs"
    script.write_text('await fetch("https://example.invalid/");\n', "utf-8")
    assert home.node(script).code != 0
    assert home.refused.read_text("utf-8") == "example.invalid\n"
    home.refused.unlink()
