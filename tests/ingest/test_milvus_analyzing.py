"""``common/run_analyzer``: answered as Milvus does, by an analyzer that is told or by a field's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.milvus_house import MilvusHouse, Row, milvus_house

RUN = "common/run_analyzer"
FIELDS: list[Row] = [
    {"fieldName": "pk", "dataType": "Int64", "isPrimary": True},
    {"fieldName": "v", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}},
    {
        "fieldName": "body",
        "dataType": "VarChar",
        "elementTypeParams": {
            "max_length": 100,
            "enable_analyzer": True,
            "analyzer_params": {"type": "english"},
        },
    },
    {"fieldName": "plain", "dataType": "VarChar", "elementTypeParams": {"max_length": 100}},
]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as made:
        yield made


async def terms(house: MilvusHouse, **asked: Any) -> list[list[str]]:
    """Of each text."""
    data = await house.data(RUN, asked)
    assert data.keys() == {"results"}
    assert all(token.keys() == {"token"} for result in data["results"] for token in result["tokens"])
    return [[token["token"] for token in result["tokens"]] for result in data["results"]]


async def test_texts_are_analyzed_as_told(house: MilvusHouse) -> None:
    text = ["Milvus is a vector database built for scale!", ""]
    assert await terms(house, text=text) == [
        ["milvus", "is", "a", "vector", "database", "built", "for", "scale"],
        [],
    ]
    # The example of Milvus's documentation.
    told = '{"type": "english", "stop_words": ["a", "an", "the"]}'
    expected = [["milvus", "vector", "databas", "built", "scale"], []]
    assert await terms(house, text=text, analyzerParams=told) == expected
    assert await terms(house, text=text, analyzerParams={"type": "english"}) == expected
    assert await terms(house) == []
    assert await terms(house, text=["A b"], analyzerParams="  ") == [["a", "b"]]


async def test_where_terms_stand_and_how_they_are_hashed(house: MilvusHouse) -> None:
    told = {"tokenizer": "standard", "filter": ["lowercase", {"type": "stop", "stop_words": ["of"]}]}
    asked = {"text": ["Übung of TEA"], "analyzerParams": told, "withDetail": True, "withHash": True}
    [result] = (await house.data(RUN, asked))["results"]
    # CRC-32 of the term, as zlib and Go have it.
    assert result["tokens"] == [
        {
            "token": "übung",
            "startOffset": 0,
            "endOffset": 6,
            "position": 0,
            "positionLength": 1,
            "hash": 0x18340F4D,
        },
        {
            "token": "tea",
            "startOffset": 10,
            "endOffset": 13,
            "position": 2,
            "positionLength": 1,
            "hash": 0x8E86D7B2,
        },
    ]
    [result] = (await house.data(RUN, asked | {"withDetail": False}))["results"]
    assert [token.keys() for token in result["tokens"]] == [{"token", "hash"}] * 2


async def test_of_a_long_term_a_hundred_bytes_are_hashed(house: MilvusHouse) -> None:
    text = ["a" * 100 + " " + "a" * 101]
    [result] = (await house.data(RUN, {"text": text, "withHash": True}))["results"]
    [first, second] = result["tokens"]
    assert first["hash"] == second["hash"] == 0xAF707A64
    assert first["token"] != second["token"]


async def test_a_field_has_its_own_analyzer(house: MilvusHouse) -> None:
    await house.make_full(FIELDS)
    await house.data("aliases/create", {"collectionName": "c", "aliasName": "also"})
    for name in ("c", "also"):
        found = await terms(house, text=["The running foxes"], collectionName=name, fieldName="body")
        assert found == [["run", "fox"]]
    named: Row = {"text": ["Foxes"], "collectionName": "c", "fieldName": "body", "analyzerNames": ["default"]}
    assert await terms(house, **named) == [["fox"]]


REFUSED: list[tuple[Row, int, str]] = [
    ({"text": "not a list"}, 1801, "text"),
    ({"text": ["a"] * 4_097}, 1801, "text"),
    ({"text": ["a"], "analyzerParams": "{"}, 1100, "analyzer params should be JSON"),
    ({"text": ["a"], "analyzerParams": "[]"}, 1100, "params should be a json map"),
    ({"text": ["a"], "analyzerParams": "null"}, 1100, "params should be a json map"),
    ({"text": ["a"], "analyzerParams": 1}, 1801, "analyzerParams"),
    ({"text": ["a"], "analyzerParams": {"type": "chinese"}}, 1100, "chinese"),
    ({"text": ["a"], "analyzerParams": "[" * 1_000 + "]" * 1_000}, 1100, "params should be a json map"),
    ({"text": ["é" * 32_768]}, 1100, "a text has more than 65535 bytes"),
    ({"text": ["a" * 65_000] * 5}, 1100, "bytes"),
    ({"text": ["a"], "collectionName": "nowhere", "fieldName": "body"}, 100, "can't find collection"),
    ({"text": ["a"], "collectionName": "c"}, 1802, "fieldName"),
    ({"text": ["a"], "collectionName": "c", "fieldName": "gone"}, 1700, "field not found[field=gone]"),
    ({"text": ["a"], "collectionName": "c", "fieldName": "v"}, 1700, "field not found[field=v]"),
    ({"text": ["a"], "collectionName": "c", "fieldName": "plain"}, 1100, "field plain has no analyzer"),
    (
        {"text": ["a"], "collectionName": "c", "fieldName": "body", "analyzerParams": "{}"},
        1100,
        "cannot be given for a field",
    ),
    (
        {"text": ["a"], "collectionName": "c", "fieldName": "body", "analyzerNames": ["de"]},
        1100,
        "multi_analyzer_params",
    ),
]


async def test_what_cannot_be_analyzed_is_refused(house: MilvusHouse) -> None:
    await house.make_full(FIELDS)
    for asked, code, message in REFUSED:
        told = await house.error(RUN, asked)
        assert told[0] == code, (asked, told)
        assert message in told[1], (asked, told)


async def test_the_field_of_a_collection_is_only_for_who_may_read_it(house: MilvusHouse) -> None:
    await house.make_full(FIELDS)
    answer = await house.ask(2, RUN, {"text": ["a"]}, token="nobodys-token-0123456789")
    assert (answer.status, answer.json["code"]) == (401, 1800)
