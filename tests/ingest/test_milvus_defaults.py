"""Fields with a default, of rows that say nothing about them: those that were there before the field was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.doors.milvus.expressions import parse_expression
from tests.milvus_house import MilvusHouse, Row, milvus_house
from upwell.schema import FieldType, RowSchema, ScalarField
from upwell.shard.filter import MetadataColumns, matching

ABOUT: Final[Row] = {"collectionName": "c"}
OLD: Final = [{"id": number, "vector": [1, number]} for number in range(3)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


def field(name: str, kind: str, **more: object) -> Row:
    return {"fieldName": name, "dataType": kind, "nullable": True, **more}


async def test_rows_of_before_have_the_default_of_a_field_that_was_added(house: MilvusHouse) -> None:
    await house.make("c")
    await house.data("entities/insert", {**ABOUT, "data": OLD})
    for added in (
        field("n", "Int64", defaultValue=42),
        field("word", "VarChar", defaultValue="none", elementTypeParams={"max_length": 9}),
        field("empty", "Int64"),
    ):
        await house.data("collections/fields/add", {**ABOUT, "schema": added})
    new = [{"id": 3, "vector": [1, 1], "n": 1, "word": "a"}, {"id": 4, "vector": [2, 1], "n": None}]
    await house.data("entities/insert", {**ABOUT, "data": new})

    async def left_by(asked: str) -> list[int]:
        body = {**ABOUT, "filter": asked, "consistencyLevel": "Strong", "outputFields": ["id"]}
        return [row["id"] for row in await house.data("entities/query", body)]

    rows = await house.data(
        "entities/query",
        {
            **ABOUT,
            "filter": "",
            "limit": 9,
            "consistencyLevel": "Strong",
            "outputFields": ["n", "word", "empty"],
        },
    )
    assert [(row["n"], row["word"], row["empty"]) for row in rows] == [
        (42, "none", None), (42, "none", None), (42, "none", None), (1, "a", None), (42, "none", None),
    ]  # fmt: skip
    assert await left_by("n == 42") == [0, 1, 2, 4]
    assert await left_by("not (n == 42)") == await left_by("n != 42") == [3]
    assert await left_by('n > 10 and word like "no%"') == [0, 1, 2, 4]
    assert await left_by("n is null") == await left_by("empty is not null") == []
    asked = {
        **ABOUT,
        "data": [[1, 0]],
        "groupingField": "n",
        "groupSize": 9,
        "strictGroupSize": True,
        "outputFields": ["n"],
    }
    hits = await house.data("entities/search", asked)
    assert sorted((row["id"], row["n"]) for row in hits) == [(0, 42), (1, 42), (2, 42), (3, 1), (4, 42)]
    assert len(await house.data("entities/search", asked | {"groupSize": 1})) == 2
    await house.data("entities/delete", {**ABOUT, "filter": 'word == "none" and id < 2'})
    assert await left_by("n > 0") == [2, 3, 4]


SCHEMA: Final = RowSchema(
    fields=tuple(
        ScalarField(name=name, type=kind, nullable=True, default=default)
        for name, kind, default in (
            ("a", FieldType.INT64, 3),
            ("b", FieldType.DOUBLE, 2.5),
            ("w", FieldType.VARCHAR, "m"),
            ("f", FieldType.BOOL, True),
            ("x", FieldType.INT64, None),
        )
    ),
    dynamic=False,
)
DEFAULTS: Final = {one.name: one.default for one in SCHEMA.fields if one.default is not None}
ORDERS: Final = ("==", "!=", "<", "<=", ">", ">=")
numbers = st.integers(0, 5)
columns = st.sampled_from("abx")
asked = st.one_of(
    st.tuples(columns, st.sampled_from(ORDERS), numbers).map(lambda it: f"{it[0]} {it[1]} {it[2]}"),
    st.tuples(columns, st.sampled_from(ORDERS), columns).map(lambda it: f"{it[0]} {it[1]} {it[2]}"),
    st.tuples(st.sampled_from("ax"), numbers, numbers).map(lambda it: f"{it[0]} in [{it[1]}, {it[2]}]"),
    st.tuples(st.sampled_from("ax"), numbers).map(lambda it: f"{it[0]} % 2 == {it[1] % 2}"),
    st.sampled_from(['w == "m"', 'w != "n"', 'w like "m%"', 'w > "a"', "f == true", "f != true", "a is null", "x is not null"]),
)  # fmt: skip
claims = st.recursive(
    asked,
    lambda part: (
        st.tuples(part, st.sampled_from(["and", "or"]), part).map(lambda it: f"({it[0]}) {it[1]} ({it[2]})")
        | part.map(lambda it: f"not ({it})")
    ),
    max_leaves=4,
)
rows = st.fixed_dictionaries(
    {}, optional={"a": numbers, "b": st.sampled_from([0.5, 2.5, 3.0]), "w": st.sampled_from("amz"), "f": st.booleans(), "x": numbers}
)  # fmt: skip


def holds(text: str, schema: RowSchema, row: Row) -> bool:
    found = parse_expression(text, schema)
    assert found is not None
    return bool(matching(found, 1, MetadataColumns(pa.array([orjson.dumps(row)], pa.binary()), 1))[0])


@given(claims, rows)
def test_a_filter_sees_what_it_would_see_if_the_defaults_were_written(text: str, row: Row) -> None:
    plain = SCHEMA.model_copy(
        update={"fields": tuple(one.model_copy(update={"default": None}) for one in SCHEMA.fields)}
    )
    assert holds(text, SCHEMA, row) == holds(text, plain, DEFAULTS | row)
