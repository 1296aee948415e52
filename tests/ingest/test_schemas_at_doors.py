"""An index with a schema of rows, at the doors that have no schemas: its ids are what they must be, and closed ones are not written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.upstash_door import TOKEN, UpstashHouse, upstash_house
from upwell.catalog.names import NewIndex
from upwell.schema import INT64_SCHEMA, FieldType, RowSchema, ScalarField
from upwell.shard.metric import Metric

CLOSED = (
    RowSchema(fields=(ScalarField(name="price", type=FieldType.INT64),)),
    RowSchema(dynamic=False),
)
MANY = str(1 << 63)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[UpstashHouse]:
    async with upstash_house(tmp_path) as made:
        yield made


def make(house: UpstashHouse, schema: RowSchema) -> None:
    new = NewIndex(
        name="index", description=None, dimensions=2, metric=Metric.COSINE, shards=2, row_schema=schema
    )
    house.engine.create("default", new)


async def cloudflare(house: UpstashHouse, operation: str, body: bytes, query: str = "") -> tuple[int, Any]:
    """An answer of Cloudflare's door."""
    path = f"/client/v4/accounts/default/vectorize/v2/indexes/index/{operation}{query}"
    headers = {"Authorization": f"Bearer {TOKEN}", "Prefer": "wait=20"}
    async with house.session.post(path, data=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def binding(house: UpstashHouse, operation: str, body: bytes) -> tuple[int, Any]:
    """An answer of the Workers binding."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    path = f"/bindings/vectorize/default/index/{operation}"
    async with house.session.post(path, data=body, headers=headers) as reply:
        return reply.status, await reply.json()


def line(id: Any) -> bytes:
    return orjson.dumps({"id": id, "values": [1, 2]})


async def test_ids_that_must_be_integers_are_held_to_that_at_each_door(house: UpstashHouse) -> None:
    make(house, INT64_SCHEMA)
    for operation in ("insert", "upsert"):
        status, said = await cloudflare(house, operation, line(1) + b"\n" + line("x1"))
        assert status == 400
        (error,) = said["errors"]
        assert error["code"] == 40023 and error["message"].endswith("(line 2, id)")
        assert "this index takes only integers of 64 bits for ids" in error["message"]
        status, said = await binding(house, operation, line(MANY))
        assert (status, said["code"]) == (400, 40023) and "integers of 64 bits" in said["error"]
    assert (await cloudflare(house, "insert", line(-5) + b"\n" + line("6")))[0] == 200
    status, said = await cloudflare(
        house, "upsert", line(7) + b"\n" + line("07"), "?unparsable-behavior=discard"
    )
    assert status == 200
    rows = [{"id": 8, "vector": [1, 2]}, {"id": "8.0", "vector": [1, 2]}]
    status, text = await house.error("upsert", rows)
    assert status == 422 and "integers of 64 bits" in text and "id" in text
    status, text = await house.error("update", {"id": "x", "vector": [1, 2]})
    assert status == 422 and text.startswith("id: this index takes only integers of 64 bits")
    await house.result("upsert", rows[:1])
    # What names other ids finds nothing.
    found = await house.result("fetch", {"ids": ["-5", 6, "7", 8, "07", "x"]})
    assert [one and one["id"] for one in found] == ["-5", "6", "7", "8", None, None]
    status, said = await cloudflare(house, "get_by_ids", b'{"ids":["x",6]}')
    assert status == 200 and [one["id"] for one in said["result"]] == ["6"]
    assert await house.result("delete", ["x", "6"]) == {"deleted": 1}


@pytest.mark.parametrize("schema", CLOSED, ids=["declared fields", "nothing else"])
async def test_rows_with_declared_fields_are_written_at_their_own_door(
    house: UpstashHouse, schema: RowSchema
) -> None:
    make(house, schema)
    for operation in ("insert", "upsert"):
        status, said = await cloudflare(house, operation, line("a"))
        (error,) = said["errors"]
        assert (status, error["code"]) == (400, 50400)
        assert (
            "/v2/vectordb" in error["message"]
            and "collection index of the database default" in error["message"]
        )
        assert (await binding(house, operation, line("a")))[0] == 400
    row = {"id": "a", "vector": [1, 2], "data": "x"}
    for command in ("upsert", "upsert-data", "update"):
        status, text = await house.error(command, row)
        assert status == 422 and "/v2/vectordb" in text, command
    # All else works.
    assert await house.result("delete", ["a"]) == {"deleted": 0}
    assert await house.result("fetch", {"ids": ["a"]}) == [None]
    assert (await cloudflare(house, "delete_by_ids", b'{"ids":["a"]}'))[0] == 200
    assert (await cloudflare(house, "query", b'{"vector":[1,2]}'))[0] == 200
    assert await house.result("query", {"vector": [1, 2], "topK": 1}) == []


async def test_an_id_may_be_as_long_as_the_schema_says_and_the_door_allows(house: UpstashHouse) -> None:
    make(house, RowSchema(id_bytes_max=4))
    status, said = await cloudflare(house, "upsert", line("abcde"))
    assert status == 400 and "max is 4 bytes, got 5 bytes" in said["errors"][0]["message"]
    assert (await house.error("upsert", {"id": "abcde", "vector": [1, 2]}))[0] == 422
    assert (await cloudflare(house, "upsert", line("abcd")))[0] == 200
