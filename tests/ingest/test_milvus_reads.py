"""The Milvus door's ``query`` and ``get``, against plain rows."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest import large
from ingest.appending import Sender
from ingest.doors.milvus import queries
from ingest.doors.milvus.facts import change_facts
from tests.milvus_house import MilvusHouse, Row, milvus_house
from tests.milvus_rows import PLAIN, ids, made, put
from upwell.catalog.names import NewIndex
from upwell.changeset import Changeset, Details, KeyScope, Operation
from upwell.query import keyed
from upwell.query.lookup import Found
from upwell.schema import Consistency, FieldType, IdType, RowSchema, ScalarField
from upwell.shard.metric import Metric

BIG = 2**53 + 1
V1, V2 = 1, 2
QUERY = {V1: "query", V2: "entities/query"}
GET = {V1: "get", V2: "entities/get"}
OF_C = {"collectionName": "c"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path, milvus_read_wait_s=30.0) as house:
        yield house


def rows_of(count: int) -> list[Row]:
    """Some rows, in an order that is not that of their ids."""
    rng = random.Random(count)
    rows = [
        {
            "id": n,
            "vector": [1.0, n],
            "n": rng.randrange(10),
            "x": rng.randrange(8) / 4,
            "word": rng.choice(["a", "ab", "b", "ä"]),
            "yes": rng.random() < 0.5,
        }
        for n in range(-3, count - 3)
    ]
    rng.shuffle(rows)
    return rows


def batched(rows: Sequence[Row], count: int) -> Iterator[Sequence[Row]]:
    """So many at a time."""
    return (rows[start : start + count] for start in range(0, len(rows), count))


async def query(house: MilvusHouse, version: int = V2, **asked: Any) -> Any:
    return await house.data(QUERY[version], OF_C | asked, version=version)


async def test_rows_come_in_the_order_of_their_keys_page_by_page(house: MilvusHouse) -> None:
    index = made(house)
    rows = rows_of(250)
    for some in batched(rows, 60):
        await put(house, index, some)
    by_id = {row["id"]: row for row in rows}
    for version in (V1, V2):
        found = await query(house, version, filter="id >= -3")
        assert ids(found) == list(range(-3, 97)), "a hundred, unless asked for more"
        paged = []
        for offset in range(0, 260, 70):
            paged += await query(house, version, filter="id >= -3", limit=70, offset=offset)
        assert paged == [by_id[n] for n in range(-3, 247)]


async def test_keys_that_are_texts_are_in_the_order_of_their_characters(house: MilvusHouse) -> None:
    index = made(house, RowSchema(ids=IdType.TEXT))
    words = ["10", "9", "B", "a", "ä", "\U0001f600", "\uffee"]
    await put(house, index, [{"id": one, "vector": [1, 1]} for one in reversed(words)])
    assert ids(await query(house)) == sorted(words)
    assert ids(await house.data(GET[V2], OF_C | {"id": [*words, "nobody", "9"]})) == sorted(words)


def plain_filters(rng: random.Random, depth: int = 3) -> tuple[str, Callable[[Row], bool]]:
    """A random filter, and what it means."""
    if depth and rng.random() < 0.6:
        text, means = plain_filters(rng, depth - 1)
        other, says = plain_filters(rng, depth - 1)
        match rng.randrange(3):
            case 0:
                return f"({text} and {other})", lambda row: means(row) and says(row)
            case 1:
                return f"(({text}) || {other})", lambda row: means(row) or says(row)
            case _:
                return f"not ({text})", lambda row: not means(row)
    number, half, word = rng.randrange(10), rng.randrange(8) / 4, rng.choice(["a", "ab", "b", "ä"])
    return rng.choice(
        [
            (f"n > {number}", lambda row: row["n"] > number),
            (f"n in [{number}, 3]", lambda row: row["n"] in (number, 3)),
            (f"{half} <= x < 2", lambda row: half <= row["x"] < 2),
            (f"id == {number}", lambda row: row["id"] == number),
            (f"id > {number}", lambda row: row["id"] > number),
            (f'word == "{word}"', lambda row: row["word"] == word),
            (f'word like "{word}%"', lambda row: row["word"].startswith(word)),
            ("yes == true", lambda row: row["yes"]),
        ]
    )


async def test_filters_leave_what_they_say_and_counts_count_it(house: MilvusHouse) -> None:
    index, rows, rng = made(house), rows_of(120), random.Random(7)
    for some in batched(rows, 50):
        await put(house, index, some)
    for _ in range(60):
        text, means = plain_filters(rng)
        expected = sorted(row["id"] for row in rows if means(row))
        found = await query(house, filter=text, limit=1_000, outputFields=["word"])
        assert ids(found) == expected, text
        assert all(row.keys() == {"id", "word"} for row in found)
        assert await query(house, filter=text, outputFields=["count(*)"]) == [{"count(*)": len(expected)}]


async def test_what_a_filter_is_told_beside_it(house: MilvusHouse) -> None:
    await put(house, made(house), rows_of(20))
    found = await query(house, filter="id in {those}", exprParams={"those": [3, 1, 99]})
    assert ids(found) == [1, 3]
    code, says = await house.error(QUERY[V2], OF_C | {"filter": "id in {those}"})
    assert code in (1100, 65535) and "those" in says


async def test_get_finds_by_ids_of_any_spelling(house: MilvusHouse) -> None:
    schema = PLAIN.model_copy(update={"id_field": "key"})
    await put(house, made(house, schema), [{"id": n, "vector": [1, n]} for n in (BIG, BIG + 1, 5, -7)])

    async def get(id: Any, **headers: str) -> list[Any]:
        asked = OF_C | {"id": id, "outputFields": []}
        first, second = [
            await house.data(GET[version], asked, version=version, headers=headers) for version in (V1, V2)
        ]
        assert first == second
        return ids(first, "key")

    assert await get(BIG) == [BIG]
    assert await get(str(BIG)) == [BIG]
    assert await get([BIG + 1, "5", -7, 5, 8, "-7"]) == [-7, 5, BIG + 1], "each once, in the order of keys"
    assert await get([]) == []
    assert await get([5.0]) == [5]
    assert await get([BIG], **{"Accept-Type-Allow-Int64": "false"}) == [str(BIG)]


async def test_what_can_be_no_id_is_refused(house: MilvusHouse) -> None:
    made(house)
    wrong: list[Any] = ["x", True, 1.5, 2**63, {"a": 1}, [[1]], [None], "", "9" * 50]
    for id in wrong:
        code, says = await house.error(GET[V2], OF_C | {"id": id})
        assert code == 1806 and says.startswith("please check the primary key"), id


async def test_partitions_are_read_apart(house: MilvusHouse) -> None:
    index = made(house)
    for partition, n in (("", 1), ("north", 2), ("south", 3)):
        await put(house, index, [{"id": n, "vector": [1, 1]}], partition)
    for partitions, there in (
        ([], [1, 2, 3]),
        (["_default"], [1]),
        (["north"], [2]),
        (["south", "_default", "south"], [1, 3]),
    ):
        asked: Row = {"partitionNames": partitions}
        assert ids(await query(house, **asked)) == there
        assert ids(await house.data(GET[V2], OF_C | asked | {"id": [1, 2, 3]})) == there
        assert await query(house, outputFields=["count(*)"], **asked) == [{"count(*)": len(there)}]
    code, says = await house.error(QUERY[V2], OF_C | {"partitionNames": ["north", "west"]})
    assert "west" in says and code == 200


async def test_partitions_that_a_key_decides_cannot_be_named(house: MilvusHouse) -> None:
    field = ScalarField(name="p", type=FieldType.VARCHAR)
    made(house, PLAIN.model_copy(update={"fields": (field,), "partition_key": "p"}))
    code, says = await house.error(QUERY[V2], OF_C | {"partitionNames": ["_default"]})
    assert code == 65535 and "partition key mode" in says


async def test_an_index_of_another_door_is_read_too(house: MilvusHouse) -> None:
    """Where ids are unique in a namespace only, one may be in several partitions."""
    new = NewIndex(
        name="c",
        description=None,
        dimensions=2,
        metric=Metric.COSINE,
        shards=2,
        key_scope=KeyScope.NAMESPACE,
    )
    house.engine.catalog.create("default", new)
    index = house.engine.find("default", "c")
    for partition in ("", "n"):
        await put(house, index, [{"id": one, "vector": [1, 1], "p": partition} for one in "ab"], partition)
    assert [(row["id"], row["p"]) for row in await query(house)] == [
        ("a", ""),
        ("a", "n"),
        ("b", ""),
        ("b", "n"),
    ]
    found = await house.data(GET[V2], OF_C | {"id": "b", "partitionNames": ["n"]})
    assert [(row["id"], row["p"]) for row in found] == [("b", "n")]


REFUSED: list[tuple[Row, int, str]] = [
    ({"limit": 16_385}, 65535, "(offset+limit) should be in range [1, 16384], but got 16385"),
    ({"limit": 1, "offset": 16_384}, 65535, "(offset+limit) should be in range [1, 16384], but got 16385"),
    ({"offset": -1}, 65535, "offset [-1] is invalid, should be gte than 0"),
    ({"limit": -1}, 65535, "limit [-1] is invalid, should be greater than 0"),
    ({"limit": 0}, 1100, "empty expression should be used with limit"),
    ({"outputFields": ["count(*)", "id"]}, 1100, "count entities with pagination is not allowed"),
    ({"orderByFields": ["n"]}, 1100, 'orderByFields is not supported, got ["n"]'),
    ({"consistencyLevel": "strong"}, 1100, "consistencyLevel can only be [Strong, Session, Bounded"),
    ({"limit": "3"}, 1801, "limit"),
    ({"filter": "n >"}, 1100, ""),
    ({"filter": "n == 1" + " " * 70_000}, 1100, ""),
]


async def test_what_a_query_cannot_ask(house: MilvusHouse) -> None:
    made(house)
    for asked, code, says in REFUSED:
        got, told = await house.error(QUERY[V2], OF_C | asked)
        assert got == code and says in told, asked


async def test_a_query_without_a_limit_has_no_pages(house: MilvusHouse) -> None:
    await put(house, made(house), rows_of(130))
    assert len(await query(house, filter="id >= 0", limit=0, offset=5)) == 127


async def test_v1_needs_a_filter(house: MilvusHouse) -> None:
    made(house)
    for asked in ({}, {"filter": ""}, {"filter": None}):
        code, says = await house.error(QUERY[V1], OF_C | asked, version=V1)
        assert code == 1802 and "filter" in says
    code, says = await house.error(GET[V1], OF_C, version=V1)
    assert code == 1802 and "id" in says


async def test_a_count_is_an_integer_of_64_bits(house: MilvusHouse) -> None:
    await put(house, made(house), rows_of(7))
    asked: Row = {"outputFields": ["count(*)"], "limit": 3}
    assert await query(house, **asked) == [{"count(*)": 7}]
    headers = {"Accept-Type-Allow-Int64": "false"}
    assert await house.data(QUERY[V2], OF_C | asked, headers=headers) == [{"count(*)": "7"}]
    assert await query(house, V1, filter="id > 0", outputFields=["count(*)"]) == [{"count(*)": 3}]


async def test_strong_reads_see_what_was_acknowledged_and_others_what_is_visible(house: MilvusHouse) -> None:
    index = made(house)
    house.drains.clear()
    await put(house, index, [{"id": 1, "vector": [1, 1]}], waits=False)
    for level in ("Bounded", "Eventually", "Customized", "", None):
        assert await query(house, consistencyLevel=level) == []
    assert await query(house, V1, filter="id > 0", consistencyLevel="Strong") == [], "v1 does not wait"
    house.drains.set()
    assert ids(await query(house, consistencyLevel="Strong")) == [1]
    await put(house, index, [{"id": 2, "vector": [1, 1]}], waits=False)
    assert ids(await house.data(GET[V2], OF_C | {"id": [1, 2], "consistencyLevel": "Session"})) == [1, 2]


async def test_a_collection_says_how_consistent_its_reads_are(house: MilvusHouse) -> None:
    index = made(house, PLAIN.model_copy(update={"consistency": Consistency.STRONG}))
    for n in range(5):
        await put(house, index, [{"id": n, "vector": [1, 1]}], waits=False)
        assert len(await query(house)) == n + 1


async def test_a_read_that_may_not_wait_long_says_so(house: MilvusHouse) -> None:
    index = made(house)
    house.drains.clear()
    mutation = await put(house, index, [{"id": 1, "vector": [1, 1]}], waits=False)
    headers = {"Request-Timeout": "0"}
    code, says = await house.error(QUERY[V2], OF_C | {"consistencyLevel": "Strong"}, headers=headers)
    assert code == 1 and "consistencyLevel Bounded" in says
    code, _ = await house.error(QUERY[V2], OF_C, headers=headers | {"X-After-Mutation": mutation})
    assert code == 1
    house.drains.set()
    assert ids(await house.data(QUERY[V2], OF_C, query={"after": mutation})) == [1]
    # What is there already is answered.
    there = OF_C | {"filter": "id > 0", "consistencyLevel": "Bounded"}
    assert ids(await house.data(QUERY[V2], there, headers=headers)) == [1]
    code, says = await house.error(QUERY[V2], OF_C, query={"after": "nonsense"})
    assert code == 1100


async def test_what_is_not_loaded_is_not_read(house: MilvusHouse) -> None:
    change_facts(made(house), lambda facts: facts.model_copy(update={"loaded": False}))
    for command, asked in ((QUERY[V2], {}), (GET[V2], {"id": 1})):
        code, says = await house.error(command, OF_C | asked)
        assert code == 101 and "not loaded" in says


async def test_an_answer_has_so_many_bytes_and_no_more(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(house, made(house), rows_of(30))
    whole = await query(house)
    monkeypatch.setattr(large, "PIECE_BYTES", 7)
    assert await query(house) == whole, "piece by piece"
    monkeypatch.setattr(large, "ANSWER_BYTES_MAX", 1_000)
    code, says = await house.error(QUERY[V2], OF_C)
    assert code == 1100 and says.startswith("the answer has more than 1000 bytes")
    assert len(await query(house, limit=2)) == 2


async def test_of_all_rows_only_a_piece_is_in_memory_at_once(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(house, made(house), rows_of(130))
    whole = await query(house, filter="id >= 0", limit=0)
    objects, before_each, encoded = [], list[int](), large.encoded_rows

    def remembered(*arguments: Any) -> Found:
        objects.append(Found(*arguments))
        return objects[-1]

    def watched(rows: Iterable[Any], room: large.Room) -> list[bytes]:
        before_each.append(len(objects))
        return encoded(rows, room)

    monkeypatch.setattr(queries, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(queries, "PIECE_ROWS", 30)
    monkeypatch.setattr(keyed, "Found", remembered)
    monkeypatch.setattr(queries, "encoded_rows", watched)
    assert await query(house, filter="id >= 0", limit=0) == whole
    assert before_each == [0, 30, 60, 90, 120]


async def test_more_rows_than_any_answer_has_are_not_looked_at(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(house, made(house), rows_of(130))
    smallest = len(b'{"id":0}')
    monkeypatch.setattr(large, "ANSWER_BYTES_MAX", 126 * smallest)
    looked_at = list[object]()
    monkeypatch.setattr(keyed, "Found", lambda *arguments: looked_at.append(arguments))
    code, says = await house.error(
        QUERY[V2], OF_C | {"filter": "id >= 0", "limit": 0, "outputFields": ["id"]}
    )
    assert code == 1100 and says.startswith("the answer has more than 1008 bytes")
    assert not looked_at


async def test_fields_that_are_declared_are_shown_as_they_are_declared(house: MilvusHouse) -> None:
    schema = RowSchema(
        id_field="key",
        ids=IdType.INT64,
        vector_field="emb",
        fields=(
            ScalarField(name="n", type=FieldType.INT64),
            ScalarField(name="j", type=FieldType.JSON, nullable=True),
        ),
    )
    await put(house, made(house, schema), [{"id": 1, "vector": [1, 2], "n": BIG, "j": {"a": 1}, "free": BIG}])
    whole = {"key": 1, "emb": [1.0, 2.0], "n": BIG, "j": {"a": 1}, "free": BIG}
    assert await query(house, V1, filter="n > 0") == [whole]
    headers = {"Accept-Type-Allow-Int64": "false"}
    found = await house.data(QUERY[V2], OF_C | {"filter": f"n == {BIG}"}, headers=headers)
    assert found == [whole | {"key": "1", "n": str(BIG)}]
    assert await query(house, outputFields=["free", "j"]) == [{"key": 1, "j": {"a": 1}, "free": BIG}]


async def test_rows_that_are_gone_are_not_read(house: MilvusHouse) -> None:
    index = made(house)
    await put(house, index, rows_of(10))
    gone = Changeset(
        operation=Operation.DELETE,
        ids=pa.array(["1", "2"], pa.utf8()),
        received=2,
        details=Details(scope=KeyScope.INDEX),
    )
    await house.operations.append(index, gone, Sender("test"))
    assert ids(await query(house, filter="0 <= id < 4", consistencyLevel="Strong")) == [0, 3]
    assert await house.data(GET[V2], OF_C | {"id": [1, 2]}) == []
