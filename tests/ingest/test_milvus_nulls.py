"""Dynamic fields that are null at the Milvus door: kept, shown, and to filters as good as none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.milvus_house import MilvusHouse, Row, milvus_house
from tests.milvus_rows import ids


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as house:
        yield house


async def test_dynamic_fields_that_are_null_stay_so(house: MilvusHouse) -> None:
    await house.make()
    rows = [
        {"id": 1, "vector": [1, 0], "d": None},
        {"id": 2, "vector": [0, 1]},
        {"id": 3, "vector": [0, 1], "d": 5},
    ]
    await house.data("entities/insert", {"collectionName": "c", "data": rows})

    async def left_by(text: str) -> list[Row]:
        asked = {"filter": text, "outputFields": ["d"], "consistencyLevel": "Strong"}
        found: list[Row] = await house.data("entities/query", {"collectionName": "c", **asked})
        return found

    assert await left_by("id > 0") == [{"id": 1, "d": None}, {"id": 2}, {"id": 3, "d": 5}]
    assert ids(await left_by("d is null")) == ids(await left_by("not exists d")) == [1, 2]
    assert ids(await left_by("d == 5")) == ids(await left_by("d is not null")) == [3]
    assert await left_by("d != 5") == await left_by("not (d == 5)") == []
    changed = [{"id": 1, "e": 1}, {"id": 2, "e": None}, {"id": 3, "e": 3}]
    await house.data("entities/upsert", {"collectionName": "c", "data": changed, "partialUpdate": True})
    await house.data(
        "entities/upsert", {"collectionName": "c", "data": [{"id": 3, "d": None}], "partialUpdate": True}
    )
    shown = await house.data(
        "entities/query",
        {"collectionName": "c", "filter": "id > 0", "outputFields": ["d", "e"], "consistencyLevel": "Strong"},
    )
    assert shown == [{"id": 1, "d": None, "e": 1}, {"id": 2}, {"id": 3, "e": 3}]


async def test_a_field_that_is_added_sees_no_null(house: MilvusHouse) -> None:
    await house.make()
    rows = [{"id": 1, "vector": [1, 0], "d": None, "e": None}, {"id": 2, "vector": [0, 1]}]
    await house.data("entities/insert", {"collectionName": "c", "data": rows})
    for name, more in (("d", {"defaultValue": 5}), ("e", {})):
        schema = {"fieldName": name, "dataType": "Int64", "nullable": True, **more}
        await house.data("collections/fields/add", {"collectionName": "c", "schema": schema})

    async def left_by(text: str) -> list[Row]:
        asked = {"filter": text, "outputFields": ["d", "e"], "consistencyLevel": "Strong"}
        found: list[Row] = await house.data("entities/query", {"collectionName": "c", **asked})
        return found

    both = [{"id": 1, "d": 5, "e": None}, {"id": 2, "d": 5, "e": None}]
    for text in ("id > 0", "d == 5", "d is not null", "d > 4", "not (d == 6)", "e is null", "d != 4"):
        assert await left_by(text) == both, text
    for text in ("d is null", "d != 5", "e is not null", "e == 5", "not (e == 5)", "d == e", "d < 5"):
        assert await left_by(text) == [], text
