"""Who may do what at the Milvus door: the four forms of a token, what tokens are limited to, and what browsers are told."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest.doors import Door
from ingest.doors.milvus.commands import COMMANDS
from tests.milvus_house import TOKEN, MilvusHouse, milvus_house
from upwell.catalog.tokens import ANY, Access


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


def issue(house: MilvusHouse, **limits: Any) -> str:
    given = {
        "name": "t",
        "account": ANY,
        "index": ANY,
        "access": Access.ADMIN,
        "lasts": None,
        "door": ANY,
    } | limits
    token, _ = house.engine.tokens.issue(**given)
    return token


async def test_each_form_of_a_token_is_taken(house: MilvusHouse) -> None:
    for given in (
        f"Bearer {TOKEN}", f"Bearer root:{TOKEN}", f"bearer {TOKEN}", basic(f"root:{TOKEN}"), basic(TOKEN),
        TOKEN, f"root:{TOKEN}",
    ):  # fmt: skip
        headers = {"Authorization": given}
        for version, command, method in ((1, "collections", "GET"), (2, "collections/list", "POST")):
            answer = await house.ask(version, command, {}, method=method, headers=headers)
            assert answer.data == [], given
            challenged = "WWW-Authenticate" in answer.headers
            assert challenged == given.startswith("Basic"), given


async def test_others_get_401_and_1800_and_nothing_else(house: MilvusHouse) -> None:
    wrong = (
        None, "", "Bearer", "Bearer wrong-token", f"Bearer {TOKEN}x", f"Bearer {TOKEN}:root", "Basic !!!", basic("root:Milvus"),
        f"Digest {TOKEN}",
    )  # fmt: skip
    for given in wrong:
        headers = {} if given is None else {"Authorization": given}
        for version, command, method in ((1, "insert", "POST"), (2, "collections/drop", "POST")):
            answer = await house.ask(version, command, {}, method=method, headers=headers, token=None)
            assert (answer.status, answer.json) == (
                401,
                {"code": 1800, "message": "user hasn't authenticated"},
            ), given


async def test_a_token_for_reading_may_not_change_anything(house: MilvusHouse) -> None:
    await house.make("c")
    token = issue(house, access=Access.READ)
    for version, commands in COMMANDS.items():
        for name, command in commands.items():
            if command.access is Access.READ:
                continue
            answer = await house.ask(version, name, {"collectionName": "c"}, token=token)
            assert answer.status == 403, name
            code, text = answer.error
            assert code == 1401 and text.startswith("privilege not permitted: "), name
    assert await house.data("collections/list", {}, token=token) == ["c"]


async def test_a_token_for_writing_makes_no_collections(house: MilvusHouse) -> None:
    await house.make("c")
    token = issue(house, access=Access.WRITE)
    for name in (
        "collections/create",
        "collections/drop",
        "databases/create",
        "indexes/create",
        "aliases/create",
    ):
        assert (await house.ask(2, name, {"collectionName": "c"}, token=token)).status == 403, name
    await house.data("partitions/create", {"collectionName": "c", "partitionName": "p"}, token=token)
    await house.data("collections/release", {"collectionName": "c"}, token=token)


async def test_a_token_of_one_database_sees_that_one(house: MilvusHouse) -> None:
    await house.data("databases/create", {"dbName": "mine"})
    token = issue(house, account="mine")
    assert await house.data("databases/list", {}, token=token) == ["mine"]
    await house.data(
        "collections/create", {"dbName": "mine", "collectionName": "c", "dimension": 2}, token=token
    )
    assert await house.data("collections/list", {}, headers={"DB-Name": "mine"}, token=token) == ["c"]
    for name, body in (
        ("collections/list", {}),
        ("collections/create", {"collectionName": "c", "dimension": 2}),
        ("collections/describe", {"collectionName": "c"}),
        ("databases/describe", {"dbName": "default"}),
        ("databases/create", {"dbName": "more"}),
        ("aliases/list", {"dbName": "default"}),
    ):
        answer = await house.ask(2, name, body, token=token)
        assert (answer.status, answer.json["code"]) == (403, 1401), name


async def test_a_token_of_one_collection_sees_that_one(house: MilvusHouse) -> None:
    for name in ("mine", "other"):
        await house.make(name)
        await house.data("aliases/create", {"collectionName": name, "aliasName": f"{name}_too"})
    token = issue(house, account="default", index="mine")
    assert await house.data("collections/list", {}, token=token) == ["mine"]
    assert await house.data("collections", version=1, method="GET", token=token) == ["mine"]
    assert await house.data("aliases/list", {}, token=token) == ["mine_too"]
    await house.data("collections/describe", {"collectionName": "mine"}, token=token)
    assert await house.data("aliases/describe", {"aliasName": "mine_too"}, token=token)
    for command, body in (
        ("collections/describe", {"collectionName": "other"}),
        ("collections/has", {"collectionName": "no"}),
        ("collections/describe", {"collectionName": "other_too"}),
        ("collections/create", {"collectionName": "mine", "dimension": 2}),
        ("collections/rename", {"collectionName": "mine", "newCollectionName": "more"}),
        ("aliases/describe", {"aliasName": "other_too"}),
        ("aliases/describe", {"aliasName": "nobodys"}),
        ("aliases/list", {"collectionName": "other"}),
        ("aliases/create", {"collectionName": "mine", "aliasName": "x"}),
        ("entities/query", {"collectionName": "other", "filter": "id > 0"}),
        ("entities/insert", {"collectionName": "other", "data": [{"id": 1, "vector": [1, 2]}]}),
    ):
        answer = await house.ask(2, command, body, token=token)
        assert (answer.status, answer.json["code"]) == (403, 1401), command


async def test_a_token_of_another_door_is_of_no_use_here(house: MilvusHouse) -> None:
    answer = await house.ask(2, "collections/list", {}, token=issue(house, door=Door.UPSTASH))
    assert (answer.status, answer.json["code"]) == (403, 1401)
    assert await house.data("collections/list", {}, token=issue(house, door=Door.MILVUS)) == []


async def test_what_is_no_command_is_not_found(house: MilvusHouse) -> None:
    for version, command, method in (
        (2, "collections/nothing", "POST"), (2, "collections/list", "GET"), (1, "collections", "POST"), (2, "", "POST"),
        (1, "entities/insert", "POST"), (2, "insert", "POST"),
    ):  # fmt: skip
        answer = await house.ask(version, command, {}, method=method)
        assert (answer.status, answer.json) == (404, "404 page not found"), command


async def test_pages_of_any_origin_are_told_that_they_may_call(house: MilvusHouse) -> None:
    for command, method, status in (
        ("collections/list", "OPTIONS", 204), ("no/such", "OPTIONS", 204), ("collections/list", "POST", 200), ("no/such", "POST", 404),
    ):  # fmt: skip
        answer = await house.ask(2, command, {} if method == "POST" else None, method=method)
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "OPTIONS" in answer.headers["Access-Control-Allow-Methods"]
    refused = await house.ask(2, "collections/list", {}, token="nobody-is-this")
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")


async def test_what_is_not_offered_says_why(house: MilvusHouse) -> None:
    for command, words in (
        ("users/create", "upwell token"),
        ("roles/grant_privilege_v2", "upwell token"),
        ("privilege_groups/list", "upwell token"),
        ("resource_groups/list", "resource groups"),
        ("jobs/import/create", "entities/insert"),
        ("segments/describe", "segments"),
        ("quotacenter/describe", "quotas"),
        ("collections/add_function", "functions are declared with a collection"),
        ("collections/add_function_field", "functions are declared with a collection"),
        ("collections/fields/drop", "a field stays once it is declared"),
    ):
        code, text = await house.error(command, {})
        assert code == 1100 and words in text, command
    assert await house.data("users/list", {}) == ["root"]
    assert await house.data("users/describe", {"userName": "root"}) == ["admin"]
    assert await house.data("roles/list", {}) == ["admin", "public"]
    assert await house.data("roles/describe", {"roleName": "public"}) == []
    assert (await house.error("users/describe", {"userName": "someone"}))[0] == 1100
    assert (await house.error("roles/describe", {"roleName": "x"}))[0] == 1100


async def test_the_database_and_the_collection_that_are_checked_are_those_that_are_meant(
    house: MilvusHouse,
) -> None:
    await house.data("databases/create", {"dbName": "foreign"})
    for database in ("default", "foreign"):
        for name in ("mine", "other"):
            await house.make(name, dbName=database)
    token = issue(house, account="default", index="mine")
    row = b'"data":[{"id":1,"vector":[1,2]}]}'
    for header, body in (
        ("foreign", b'{"collectionName":"mine",'),
        ("foreign", b'{"dbName":"","collectionName":"mine",'),
        ("foreign", b'{"dbName":null,"collectionName":"mine",'),
        ("default", b'{"dbName":"foreign","collectionName":"mine",'),
        ("default", b'{"dbName":"default","dbName":"foreign","collectionName":"mine",'),
        ("default", b'{"collectionName":"mine","collectionName":"other",'),
        ("default", b'{"collectionName":"mine","collection\\u004eame":"other",'),
        ("default", b'{"collectionName":"mine/../other",'),
    ):
        for version, insert, look in (
            (1, "insert", "query"),
            (2, "entities/insert", "collections/describe"),
        ):
            for command, rest in ((insert, row), (look, b'"filter":"id > 0"}')):
                answer = await house.ask(
                    version, command, body + rest, token=token, headers={"DB-Name": header}
                )
                assert (answer.status, answer.json["code"]) == (403, 1401), (command, body, header)
    # What the body says counts more than the header.
    said = {"dbName": "default", "collectionName": "mine"}
    await house.data("collections/describe", said, token=token, headers={"DB-Name": "foreign"})
