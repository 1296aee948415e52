"""The API description: it says what is routed, no more and no less, and its pieces fit together."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.web_urldispatcher import MatchedSubAppResource

from ingest.app import assemble, create_app
from ingest.doors.milvus.commands import COMMANDS as MILVUS_COMMANDS
from ingest.doors.milvus.routes import PREFIXES
from ingest.doors.upstash.routes import COMMANDS
from ingest.openapi import document
from upwell.engine import open_engine
from upwell.settings import Settings

TOKEN = "openapi-token-0123456789"
UPSTASH = "/upstash/{account}/{index}"
NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def app(tmp_path: Path) -> web.Application:
    engine = open_engine(Settings.model_validate({"data": tmp_path / "data", "token": TOKEN}))
    return create_app(assemble(engine, NO_REDIS))


@pytest.fixture
async def client(app: web.Application) -> AsyncIterator[ClientSession]:
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


def upstash_commands() -> Iterator[tuple[str, str, str]]:
    """The Upstash door has one route for all of its commands, and takes any method."""
    for name, command in COMMANDS.items():
        yield "post", "", f"{UPSTASH}/{name}"
        if command.has_namespace:
            yield "post", "", f"{UPSTASH}/{name}/{{namespace}}"


def milvus_commands(prefix: str) -> Iterator[tuple[str, str, str]]:
    """So has the Milvus door one for each version of it."""
    (version,) = (version for version, known in PREFIXES.items() if known == prefix)
    for name, command in MILVUS_COMMANDS[version].items():
        yield command.method.lower(), "", f"{prefix}/{name}"


def routed(app: web.Application) -> Iterator[tuple[str, str, str]]:
    """(method, host or nothing, path) of every route, but for the HEAD that comes with a GET."""
    for resource in app.router.resources():
        host = f"http://{resource.canonical}" if isinstance(resource, MatchedSubAppResource) else ""
        for route in resource:
            assert route.resource is not None
            if route.resource.canonical == UPSTASH + "{command}":
                yield from upstash_commands()
            elif route.resource.canonical.endswith("/{command}"):
                yield from milvus_commands(route.resource.canonical.removesuffix("/{command}"))
            elif route.method != "HEAD":
                yield route.method.lower(), host, route.resource.canonical


def described() -> Iterator[tuple[str, str, str]]:
    for path, methods in document()["paths"].items():
        for method, says in methods.items():
            host = says["servers"][0]["url"] if "servers" in says else ""
            yield method, host, path


def test_every_route_is_described_and_everything_described_is_routed(app: web.Application) -> None:
    assert sorted(described()) == sorted(routed(app))


def test_the_pieces_of_a_path_are_its_parameters() -> None:
    whole = document()
    for path, methods in whole["paths"].items():
        for says in methods.values():
            parameters = [resolved(whole, parameter) for parameter in says.get("parameters", ())]
            in_path = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
            assert in_path == re.findall(r"\{(\w+)\}", path), path
            assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")


def resolved(whole: dict[str, Any], says: dict[str, Any]) -> Any:
    if "$ref" not in says:
        return says
    found: Any = whole
    for piece in says["$ref"].removeprefix("#/").split("/"):
        found = found[piece]
    return found


def references(says: Any) -> Iterator[str]:
    if isinstance(says, dict):
        for key, value in says.items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(says, list):
        for value in says:
            yield from references(value)


def test_references_lead_somewhere_and_nothing_is_left_over() -> None:
    whole = document()
    used = set(references(whole))
    for reference in used:
        assert resolved(whole, {"$ref": reference}), reference
    there = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "parameters", "requestBodies", "responses")
        for name in whole["components"][kind]
    }
    assert there == used


def test_links_lead_to_operations_and_name_their_parameters() -> None:
    whole = document()
    operations = {
        says["operationId"]: says for methods in whole["paths"].values() for says in methods.values()
    }
    assert len(operations) == sum(map(len, whole["paths"].values())), "an operationId is used twice"
    links = [
        link
        for says in operations.values()
        for answer in says["responses"].values()
        for link in resolved(whole, answer).get("links", {}).values()
    ]
    assert links
    for link in links:
        parameters = operations[link["operationId"]]["parameters"]
        names = {resolved(whole, parameter)["name"] for parameter in parameters}
        assert set(link["parameters"]) <= names


def test_what_needs_a_token_says_so() -> None:
    whole = document()
    schemes = {name for one_of in whole["security"] for name in one_of}
    assert schemes == set(whole["components"]["securitySchemes"])
    for path, methods in whole["paths"].items():
        for says in methods.values():
            open_to_all = says.get("security") == []
            assert open_to_all == ("401" not in says["responses"]), path


async def test_it_is_served_without_a_token_and_only_once_to_who_has_it(client: ClientSession) -> None:
    async with client.get("/openapi.json") as answer:
        assert answer.status == 200 and answer.content_type == "application/json"
        served, tag = await answer.json(), answer.headers["ETag"]
    assert served == json.loads(json.dumps(document()))
    assert served["info"]["version"] == importlib.metadata.version("upwell")
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        async with client.get("/openapi.json", headers={"If-None-Match": known}) as answer:
            assert answer.status == 304 and await answer.read() == b"", known
            assert answer.headers["ETag"] == tag
    async with client.get("/openapi.json", headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200 and await answer.json() == served


async def test_what_is_open_to_all_is_and_the_rest_is_not(client: ClientSession) -> None:
    for path, methods in document()["paths"].items():
        for method, says in methods.items():
            if "servers" in says:
                continue
            there = re.sub(r"\{\w+\}", "some-name", path)
            async with client.request(method, there) as answer:
                expected = {200, 503} if says.get("security") == [] else {401}
                assert answer.status in expected, (method, path)
