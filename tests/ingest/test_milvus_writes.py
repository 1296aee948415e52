"""Writes of the Milvus door: what they come to, what is answered, and what is refused and changes nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
import pytest

from ingest.doors.milvus.facts import change_facts
from tests.milvus_house import MilvusHouse, milvus_house
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.changeset import KeyScope
from upwell.engine import Index
from upwell.errors import Unavailable
from upwell.kinds import IndexKind
from upwell.outcome import State
from upwell.query.lookup import lookup
from upwell.schema import FieldType, IdType, RowSchema, ScalarField
from upwell.shard.metric import Metric

V = [0.5, 1.0]
INTEGERS = RowSchema(ids=IdType.INT64)
AUTO = RowSchema(ids=IdType.INT64, auto_id=True)
STRICT = RowSchema(
    ids=IdType.INT64,
    dynamic=False,
    fields=(
        ScalarField(name="n", type=FieldType.INT32),
        ScalarField(name="o", type=FieldType.BOOL, nullable=True),
    ),
)
JSON_FIELD = ScalarField(name="j", type=FieldType.JSON)
WAIT = {"Prefer": "wait=30"}
BIG = (1 << 53) + 1


def make(
    house: MilvusHouse,
    schema: RowSchema | None = INTEGERS,
    name: str = "c",
    kind: IndexKind = IndexKind.DENSE,
    key_scope: KeyScope = KeyScope.INDEX,
) -> Index:
    """A new, empty collection, as its creation would make it."""
    new = NewIndex(
        name=name,
        description=None,
        dimensions=2 if kind.has_dense else 0,
        metric=Metric.COSINE,
        shards=2,
        kind=kind,
        key_scope=key_scope,
        row_schema=schema,
    )
    house.engine.catalog.create("default", new)
    return house.engine.find("default", name)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as house:
        yield house


async def put(house: MilvusHouse, rows: Any, command: str = "entities/upsert", **more: Any) -> Any:
    """The data of a write that must succeed, once it is visible."""
    how = {"version": 1} if command in ("insert", "upsert") else {}
    return await house.data(command, {"collectionName": "c", "data": rows} | more, headers=WAIT, **how)


async def rows(index: Index, *ids: object, namespace: str = "") -> dict[str, Any]:
    """What there is of these rows: their metadata by id."""

    def found() -> dict[str, Any]:
        asked = [str(id) for id in ids]
        there = lookup(index.newest.get(), asked, namespace, within_namespace=bool(namespace))
        return {one.id: orjson.loads(one.metadata or b"{}") for one in there}

    return await asyncio.to_thread(found)


async def count(index: Index) -> int:
    return await asyncio.to_thread(lambda: index.head.refresh().vectors)


async def test_ids_come_back_as_they_are_kept(house: MilvusHouse) -> None:
    index = make(house)
    data = [{"id": BIG, "vector": V, "color": "red"}, {"id": str(BIG + 1), "vector": V}]
    for version, commands in ((1, ("insert", "upsert")), (2, ("entities/insert", "entities/upsert"))):
        for command in commands:
            verb = command.removeprefix("entities/")
            body = {"collectionName": "c", "data": data}
            answer = await house.ask(version, command, body, headers=WAIT)
            assert answer.data == {f"{verb}Count": 2, f"{verb}Ids": [BIG, BIG + 1]}
            assert answer.json.get("cost") == (0 if version == 2 else None)
            assert answer.headers["X-Mutation-State"] == "visible"
            assert answer.headers["Preference-Applied"] == "wait=30"
            told = await house.ask(version, command, body, headers={"Accept-Type-Allow-Int64": "false"})
            assert told.data[f"{verb}Ids"] == [str(BIG), str(BIG + 1)]
            assert "X-Mutation-State" not in told.headers and told.headers["X-Mutation-Id"]
    assert await rows(index, BIG, BIG + 1) == {str(BIG): {"color": "red"}, str(BIG + 1): {}}
    make(house, RowSchema(), "texts")
    text = {"collectionName": "texts", "data": {"id": "7", "vector": V}}
    assert await house.data("entities/upsert", text) == {"upsertCount": 1, "upsertIds": ["7"]}


@pytest.mark.parametrize("size", [1, 3_000])
async def test_a_body_may_say_last_what_it_is_about(tmp_path: Path, size: int) -> None:
    async with milvus_house(tmp_path, parse_processes=1 if size > 1 else 0) as house:
        index = make(house)
        data = json.dumps([{"vector": V, "id": id, "text": "x" * 90} for id in range(size)])
        body = (
            '{"data": [7], "collectionName": "other", "x": [{"collectionName": "y"}],'
            f' "data": {data}, "partitionName": "_default", "collectionName": "c", "dbName": "default"}}'
        ).encode()
        for headers, sent in ((WAIT, body), (WAIT | {"Content-Encoding": "gzip"}, gzip.compress(body))):
            assert (await house.data("entities/insert", sent, headers=headers))["insertCount"] == size
        assert await count(index) == size
        if size > 1:
            broken = body.replace(b'"id": 2999', b'"id": 2.5')
            code, says = await house.error("entities/insert", broken)
            assert code == 1804 and says.endswith("[expected=Int64][actual=2.5] (row 2999)")


REFUSED: list[tuple[Any, int, str]] = [
        (b"", 1801, "should not be empty"),
        (b"[]", 1801, "Expecting an object"),
        (b'{"collectionName": "c", "data": [{"id": 1, "vector": [1, 2]}', 1801, "expected JSON"),
        (b'{"collectionName": "c", "data": [{"id": 1, "vector": [1, 2,]}]}', 1801, "data[0]"),
        (b'{"collectionName": "c", "x": nan, "data": []}', 1801, "error: x: "),
        ({"collectionName": 7, "data": [{}]}, 1801, "collectionName: expected a string, got the number 7"),
        ({"collectionName": "c", "data": "x"}, 1801, "data: expected an object or an array of objects"),
        ({"collectionName": "c", "data": [{}], "partialUpdate": 1}, 1801, "partialUpdate: expected true or false"),
        ({"collectionName": "c"}, 1802, "missing required parameters, required parameters: [collectionName, data]"),
        ({"data": [{}]}, 1802, "missing required parameters, required parameters: [collectionName, data]"),
        ({"collectionName": "c", "data": []}, 1804, "fail to deal the insert data, error: missing required parameters"),
        ({"collectionName": "x", "data": [{}]}, 100, "can't find collection[database=default][collection=x]"),
        ({"collectionName": "c", "data": [{}], "dbName": "x"}, 800, "database not found[database=x]"),
        ({"collectionName": "c", "data": [{}], "partitionName": "p"}, 200, "partition not found[partition=p]"),
        ({"collectionName": "c", "data": [{}] * 6}, 1100, "data: expected at most 5 rows, got 6: invalid parameter"),
        ({"collectionName": "c", "data": [{}] * 60}, 1100, "too many"),
        (
            {"collectionName": "c", "data": [{}], "fieldOps": [{"fieldName": "a", "op": "ARRAY_APPEND"}]},
            1100,
            "fieldOps: ARRAY_APPEND of a is not supported: invalid parameter[expected=REPLACE][actual=ARRAY_APPEND]",
        ),
        ({"collectionName": "c", "data": [{}], "fieldOps": 7}, 1801, "fieldOps: expected an array"),
    ]  # fmt: skip


async def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    async with milvus_house(tmp_path, milvus_vectors_max=5) as house:
        index = make(house)
        for body, code, says in REFUSED:
            for version, command in ((1, "upsert"), (2, "entities/insert")):
                if version == 2 or code != 200:
                    told = await house.error(command, body, version=version)
                    assert told[0] == code and says in told[1], (body, told)
        assert index.log.tail(0) == 0


async def test_what_adds_no_rows_is_taken_by_an_index_that_is_full(tmp_path: Path) -> None:
    async with milvus_house(tmp_path, vectors_max=1) as house:
        index = make(house)
        await put(house, {"id": 1, "vector": V})
        await house.settle()
        full = "too many vectors in the index; max is 1, it has 1"
        for rows, partial in (({"id": 2, "vector": V}, False), ({"id": 1, "vector": V}, True)):
            body = {"collectionName": "c", "data": rows, "partialUpdate": partial}
            told = await house.error("entities/upsert", body)
            assert told == (1100, full)
        assert await put(house, {"id": 1, "n": 5}, partialUpdate=True)
        assert index.log.tail(0) == 2


async def test_who_may_not_write_does_not(house: MilvusHouse) -> None:
    make(house)
    make(house, name="other")
    body = {"collectionName": "c", "data": {"id": 1, "vector": V}}
    what: dict[str, Any] = {
        "account": "default",
        "index": "*",
        "access": Access.WRITE,
        "door": "*",
        "name": "n",
        "lasts": None,
    }
    issue = house.engine.tokens.issue
    for token in (issue(**what | {"access": Access.READ})[0], issue(**what | {"index": "other"})[0]):
        for command, sent in (
            ("entities/insert", body),
            ("entities/delete", {"collectionName": "c", "filter": "id == 1"}),
        ):
            answer = await house.ask(2, command, sent, token=token)
            assert answer.status == 403 and answer.error[0] == 1401
    assert (await house.ask(2, "entities/upsert", body, token="x" * 20)).status == 401
    assert (await house.data("entities/upsert", body, token=issue(**what | {"index": "c"})[0]))[
        "upsertIds"
    ] == [1]


async def test_made_ids_and_requests_that_are_sent_again(house: MilvusHouse) -> None:
    index = make(house, AUTO)
    body = {"collectionName": "c", "data": [{"vector": V}, {"vector": V}]}
    keyed = WAIT | {"Idempotency-Key": "k"}
    first = await house.ask(2, "entities/insert", body, headers=keyed)
    again = await house.ask(2, "entities/insert", body, headers=keyed)
    assert first.data == again.data and again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert first.headers["X-Mutation-Id"] == again.headers["X-Mutation-Id"]
    other = await house.error(
        "entities/insert", {"collectionName": "c", "data": {"vector": V}}, headers=keyed
    )
    assert other[0] == 1100 and "Idempotency-Key" in other[1]
    made = [*first.data["insertIds"], *(await put(house, {"vector": V}, "entities/insert"))["insertIds"]]
    assert await count(index) == 3 == len(await rows(index, *made))
    assert (await house.error("insert", {"collectionName": "c", "data": {"id": 1, "vector": V}}, version=1))[
        0
    ] == 1804
    assert (await put(house, {"id": made[0], "vector": V, "a": 1}, "upsert"))["upsertIds"] == [made[0]]
    assert (await rows(index, made[0]))[str(made[0])] == {"a": 1} and await count(index) == 3


async def test_partial_updates(house: MilvusHouse) -> None:
    index = make(house, STRICT)
    await put(house, [{"id": 1, "vector": V, "n": 1, "o": True}, {"id": 2, "vector": V, "n": 2}])
    await put(house, [{"id": 1, "n": 10}, {"id": 2, "n": 20}], partialUpdate=True)
    await put(house, {"id": 1, "o": None}, partialUpdate=True)
    assert await rows(index, 1, 2) == {"1": {"n": 10}, "2": {"n": 20}}
    await put(house, {"id": 2, "vector": [3, 4]}, partialUpdate=True)
    await put(
        house, [{"id": 2, "vector": [3, 4], "n": 5}, {"id": 3, "vector": V, "n": 3}], partialUpdate=True
    )
    assert await rows(index, 2, 3) == {"2": {"n": 5}, "3": {"n": 3}}
    for lacking, row in (("vector", {"id": 4, "n": 1}), ("n", {"id": 4, "vector": V})):
        body = {"collectionName": "c", "data": row, "partialUpdate": True}
        code, says = await house.error("entities/upsert", body)
        assert code == 1100
        assert says.startswith(f"fieldSchema({lacking}) has no corresponding fieldData pass in")
    assert await count(index) == 3


async def test_a_partial_update_that_is_sent_again_is_not_refused_for_what_came_after(
    house: MilvusHouse,
) -> None:
    index = make(house)
    await put(house, {"id": 1, "vector": V})
    body = {"collectionName": "c", "data": {"id": 1, "n": 5}, "partialUpdate": True}
    keyed = WAIT | {"Idempotency-Key": "k"}
    first = await house.ask(2, "entities/upsert", body, headers=keyed)
    await house.data("entities/delete", {"collectionName": "c", "filter": "id == 1"}, headers=WAIT)
    again = await house.ask(2, "entities/upsert", body, headers=keyed)
    assert first.data == again.data == {"upsertCount": 1, "upsertIds": [1]}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await house.error("entities/upsert", body, headers=WAIT))[0] == 1100
    assert await count(index) == 0


async def test_a_partial_update_waits_for_what_was_acknowledged(house: MilvusHouse) -> None:
    index = make(house)
    house.drains.clear()
    await house.data("entities/insert", {"collectionName": "c", "data": {"id": 1, "vector": V}})
    body = {"collectionName": "c", "data": {"id": 1, "a": {"b": 1}}, "partialUpdate": True}
    sent = asyncio.create_task(house.ask(2, "entities/upsert", body))
    hurried = await house.ask(2, "entities/upsert", body, headers={"Request-Timeout": "0"})
    assert hurried.error[0] == 1 and not sent.done()
    house.drains.set()
    assert (await sent).data == {"upsertCount": 1, "upsertIds": [1]}
    await house.settle()
    assert await rows(index, 1) == {"1": {"a": {"b": 1}}}


async def test_partitions(house: MilvusHouse) -> None:
    index = make(house)
    for name in ("p", "q"):
        await house.data("partitions/create", {"collectionName": "c", "partitionName": name})
    await put(house, [{"id": 1, "vector": V}, {"id": 2, "vector": V}], partitionName="p")
    await put(house, {"id": 3, "vector": V}, partitionName="q")
    await put(house, {"id": 4, "vector": V}, partitionName="_default")
    assert set(await rows(index, 1, 2, 3, 4, namespace="p")) == {"1", "2"}
    refused = {"collectionName": "c", "data": {"id": 3, "a": 1}, "partialUpdate": True, "partitionName": "p"}
    assert (await house.error("entities/upsert", refused))[0] == 1100
    assert (await house.error("entities/upsert", refused | {"partitionName": "_default"}))[0] == 1100
    remove = {"collectionName": "c", "filter": "id in [1, 3, 4]"}
    assert await house.data("entities/delete", remove | {"partitionName": "p"}, headers=WAIT) == {
        "deleteCount": 3
    }
    assert set(await rows(index, 1, 2, 3, 4)) == {"2", "3", "4"}
    assert await house.data("entities/delete", remove | {"partitionName": "_default"}, headers=WAIT) == {
        "deleteCount": 3
    }
    assert set(await rows(index, 2, 3, 4)) == {"2", "3"}
    assert (await house.error("entities/delete", remove | {"partitionName": "x"}))[0] == 200


async def test_a_partial_update_means_rows_of_the_partition_that_it_names(house: MilvusHouse) -> None:
    index = make(house)
    for name in ("p", "q"):
        await house.data("partitions/create", {"collectionName": "c", "partitionName": name})
    await put(house, [{"id": 1, "vector": V, "a": 1}, {"id": 2, "vector": V, "a": 1}], partitionName="p")
    changed = {"collectionName": "c", "data": {"id": 1, "vector": V, "b": 2}, "partialUpdate": True}
    for place, before in (("p", {"a": 1}), ("q", {}), ("_default", {})):
        # Where it is not inside it is a new row, which takes the place of the one elsewhere: a key is there once.
        await house.data("entities/upsert", changed | {"partitionName": place}, headers=WAIT)
        inside = "" if place == "_default" else place
        assert (await rows(index, 1, namespace=inside)) == {"1": {**before, "b": 2}}
    await house.data("entities/upsert", changed | {"data": {"id": 2, "b": 2}}, headers=WAIT)
    assert (await rows(index, 2, namespace="p")) == {"2": {"a": 1, "b": 2}}


async def test_deletes_of_v2(house: MilvusHouse) -> None:
    index = make(house)
    await put(house, [{"id": id, "vector": V, "n": id % 3} for id in range(9)])
    body = {"collectionName": "c"}
    answer = await house.ask(2, "entities/delete", body | {"filter": "id in [0, 1, 99]"}, headers=WAIT)
    assert answer.data == {"deleteCount": 3} and answer.headers["X-Mutation-State"] == "visible"
    assert await house.data("entities/delete", body | {"filter": "id == 2"}, headers=WAIT) == {
        "deleteCount": 1
    }
    assert await count(index) == 6
    answer = await house.ask(2, "entities/delete", body | {"filter": "n == {k}", "exprParams": {"k": 0}})
    assert answer.data == {"deleteCount": 2} and answer.headers["X-Mutation-State"] == "visible"
    assert await rows(index, *range(9)) == {"4": {"n": 1}, "5": {"n": 2}, "7": {"n": 1}, "8": {"n": 2}}
    house.drains.clear()
    for headers in ({"Request-Timeout": "0"}, {"Prefer": "wait=0"}):
        answer = await house.ask(2, "entities/delete", body | {"filter": "id > 4"}, headers=headers)
        assert answer.data == {} and answer.headers["X-Mutation-State"] == "queued"
    house.drains.set()
    await house.settle()
    assert await count(index) == 1


async def test_deletes_of_v1(house: MilvusHouse) -> None:
    index = make(house, RowSchema())
    await put(house, [{"id": id, "vector": V, "n": 1} for id in "abcdef"])
    for which in (
        {"id": "a"},
        {"id": ["b", "x"]},
        {"id": "c", "filter": 'id == "d"'},
        {"filter": 'id like "e%"'},
    ):
        body = {"collectionName": "c"} | which
        assert await house.data("delete", body, version=1, headers=WAIT) == {}
    assert set(await rows(index, *"abcdef")) == {"c", "f"}


NOT_DELETED: list[tuple[int, Any, int, str]] = [
    (1, {}, 1802, "required parameters: [collectionName]"),
    (1, {"collectionName": "c"}, 1802, "required parameters: [collectionName, id/filter]"),
    (2, {"collectionName": "c", "id": 1}, 1802, "required parameters: [collectionName, filter]"),
    (2, {"collectionName": "c", "filter": "  "}, 1100, "invalid expression"),
    (2, {"collectionName": "c", "filter": "id =="}, 1100, "id =="),
    (1, {"collectionName": "c", "id": [1, 2.5]}, 1806, "please check the primary key and its' type"),
    (1, {"collectionName": "c", "id": 9007199254740993.0}, 1806, "expected an integer of 64 bits"),
    (1, {"collectionName": "x", "id": 1}, 100, "can't find collection"),
]


async def test_deletes_that_are_refused(house: MilvusHouse) -> None:
    index = make(house)
    for version, body, code, says in NOT_DELETED:
        told = await house.error("delete" if version == 1 else "entities/delete", body, version=version)
        assert told[0] == code and says in told[1], (body, told)
    assert index.log.tail(0) == 0


async def test_an_index_of_another_door(house: MilvusHouse) -> None:
    index = make(house, None, key_scope=KeyScope.NAMESPACE)
    assert await put(house, {"id": 7, "vector": V, "a": 1}) == {"upsertCount": 1, "upsertIds": ["7"]}
    assert await rows(index, 7) == {"7": {"a": 1}}
    remove = {"collectionName": "c", "filter": 'id in ["7"]'}
    assert await house.data("entities/delete", remove, headers=WAIT) == {"deleteCount": 1}
    assert await count(index) == 0


async def test_sparse_and_hybrid_collections(house: MilvusHouse) -> None:
    index = make(house, INTEGERS, kind=IndexKind.HYBRID)
    row = {"id": 1, "vector": V, "sparse": {"4294967294": 0.5, "3": 1}}
    assert (await put(house, row))["upsertCount"] == 1
    (found,) = await asyncio.to_thread(lambda: lookup(index.newest.get(), ["1"]))
    assert found.sparse is not None and np.array_equal(found.sparse[1], np.array([1, 0.5], np.float32))
    assert np.array_equal(found.values, np.array(V, np.float32))
    body = {"collectionName": "c", "data": {"id": 1, "vector": V}}
    assert "missing vector field: sparse" in (await house.error("entities/upsert", body))[1]


async def test_a_write_that_fails_says_so_to_who_waits(house: MilvusHouse) -> None:
    make(house)
    house.fails = "as the test wants it"
    answer = await house.ask(
        2, "entities/upsert", {"collectionName": "c", "data": {"id": 1, "vector": V}}, headers=WAIT
    )
    assert answer.error == (65535, "the write failed and changed nothing: as the test wants it")
    assert answer.headers["X-Mutation-Id"]


@pytest.mark.parametrize("as_text", [False, True])
async def test_json_is_read_as_it_is_shown(tmp_path: Path, as_text: bool) -> None:
    document, schema = '{"a":[1,null]}', RowSchema(ids=IdType.INT64, fields=(JSON_FIELD,))
    async with milvus_house(tmp_path, milvus_json_as_text=as_text) as house:
        index = make(house, schema)
        change_facts(index, lambda facts: facts.model_copy(update={"loaded": True}))
        await put(
            house, [{"id": 1, "vector": V, "j": {"a": [1, None]}}, {"id": 2, "vector": V, "j": document}]
        )
        (one, two) = await house.data("entities/query", {"collectionName": "c", "outputFields": ["j"]})
        assert one["j"] == (document if as_text else {"a": [1, None]}) and two["j"] == document
        # What was shown may be sent back, and is the same.
        assert await put(house, [one | {"vector": V}, two | {"vector": V}])
        assert await house.data("entities/query", {"collectionName": "c", "outputFields": ["j"]}) == [
            one,
            two,
        ]


async def test_who_cannot_be_told_what_became_of_a_write_is_told_that_it_was_accepted(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(house)

    async def unknown(*_: object) -> NoReturn:
        raise Unavailable("the disk does not answer")

    monkeypatch.setattr(house.operations, "outcome", unknown)
    body = {"collectionName": "c", "data": {"id": 1, "vector": V}}
    answer = await house.ask(2, "entities/insert", body, headers=WAIT)
    assert answer.error[0] == 1
    monkeypatch.undo()
    outcome = await house.operations.outcome(index, answer.headers["X-Mutation-Id"], 30.0)
    assert outcome.state is State.VISIBLE
