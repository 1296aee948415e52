"""Whatever is sent to a command of the Milvus door, it is answered in Milvus's shape, and nothing of it is taken for a failure of ours."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from ingest.doors.milvus.commands import COMMANDS
from tests.milvus_house import MilvusHouse, milvus_house

FIELDS = [
    {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
    {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
    {"fieldName": "n", "dataType": "Int64", "nullable": True},
]
#: What each command takes something of, and all of it could be.
GOOD: dict[str, Any] = {
    "collectionName": "c", "dbName": "default", "partitionName": "p", "partitionNames": ["p"], "indexName": "vector",
    "indexParams": [{"fieldName": "vector", "indexName": "vector", "metricType": "COSINE", "indexType": "AUTOINDEX", "params": {}}],
    "aliasName": "x", "fieldName": "n", "fieldParams": {"mmap.enabled": True}, "newCollectionName": "d", "newDbName": "",
    "properties": {"a": 1}, "propertyKeys": ["a"], "schema": {"fields": FIELDS}, "params": {"shardsNum": 2}, "dimension": 2,
    "metricType": "COSINE", "idType": "Int64", "autoID": False, "description": "", "data": [[1, 2]], "filter": "id > 0",
    "id": [1], "limit": 2, "offset": 0, "outputFields": ["*"], "vector": [1, 2], "annsField": "vector", "searchParams": {},
    "search": [{"data": [[1, 2]], "annsField": "vector", "limit": 2}], "rerank": {"strategy": "rrf", "params": {}},
    "consistencyLevel": "Bounded", "userName": "root", "roleName": "public", "jobID": 1, "exprParams": {}, "partialUpdate": False,
    "elementTypeParams": {}, "groupingField": "n", "ids": None, "primaryFieldName": "id", "vectorFieldName": "vector",
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 1.5, "", " ", "c", "nothing", "\u0000", "\ud7ff\U0001f600", "../..", "x" * 70_000,
    [], [None], [[]], ["c"], [{}], [[1, 2]], {}, {"fields": [{}]}, {"a": {"b": [None, {"c": 1e308}]}},
    {"fields": [{"fieldName": "id", "dataType": "Int64", "isPrimary": True, "elementTypeParams": {"dim": None}}]},
)  # fmt: skip


TRIES = 14


async def test_nonsense_is_refused_as_such(tmp_path: Path) -> None:
    chance = Random(7)
    async with milvus_house(tmp_path, milvus_read_wait_s=0.5, wait_s_max=0.5) as house:
        for version, commands in COMMANDS.items():
            for command, what in commands.items():
                if what.method == "POST":
                    # There may be one already, and a strange one.
                    await house.call(2, "collections/create", {"collectionName": "c", "dimension": 2})
                    for _ in range(TRIES):
                        wrong = {name: chance.choice(VALUES) for name in chance.sample(list(GOOD), 3)}
                        await _try(house, version, command, GOOD | wrong)


async def _try(house: MilvusHouse, version: int, command: str, body: dict[str, Any]) -> None:
    answer = await house.ask(version, command, body)
    told = answer.json
    assert answer.status == 200 and isinstance(told["code"], int), (command, body, answer)
    assert told.get("message") != "internal error", (command, body)


async def test_null_is_an_empty_object(tmp_path: Path) -> None:
    async with milvus_house(tmp_path) as house:
        assert await house.data("collections/list", b"null") == []
        assert await house.data("databases/list", b" null ") == ["default"]
        assert (await house.error("collections/describe", b"null"))[0] == 1802
        assert (await house.error("collections/create", b"null", version=1))[0] == 1802
        assert (await house.error("entities/insert", b"null"))[0] == 1802
