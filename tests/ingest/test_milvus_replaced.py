"""A collection is made anew with another metric in the very moment in which something is added to it: rows are put into the new one, and all
else is not acknowledged, and sent again it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.doors.milvus import indexes
from ingest.doors.milvus.facts import IndexFact
from tests.milvus_house import TOKEN, MilvusHouse, milvus_house
from upwell.catalog.names import NewIndex
from upwell.catalog.notes import Notes
from upwell.catalog.replacing import Replacing
from upwell.changeset import KeyScope
from upwell.engine import Index
from upwell.log.writer import LogWriter
from upwell.shard.metric import Metric
from upwell.webhook.registry import Webhooks

FIELDS = [
    {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
    {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": "2"}},
]
OF_C = {"collectionName": "c"}
ROW = OF_C | {"data": [{"id": 1, "vector": [1, 2]}]}
NO_COLLECTION = 100


async def unindexed(house: MilvusHouse, **more: Any) -> Index:
    await house.data("collections/create", OF_C | {"schema": {"fields": FIELDS, **more}})
    return house.engine.find("default", "c")


def replaced_before(
    monkeypatch: pytest.MonkeyPatch, house: MilvusHouse, index: Index, kind: type, name: str, **how: Any
) -> None:
    """Have the index replaced, once, by somebody who has looked already, just before something else is done."""
    real: Callable[..., Any] = getattr(kind, name)
    record = index.record
    new = NewIndex(
        name=record.name,
        description=None,
        dimensions=record.dimensions,
        metric=Metric.EUCLIDEAN,
        shards=1,
        key_scope=KeyScope.INDEX,
        row_schema=record.row_schema,
    )
    left = [replace(new, **how)]

    def first(*arguments: Any) -> Any:
        if left:
            house.engine.replace(index, left.pop())
        return real(*arguments)

    monkeypatch.setattr(kind, name, first)


async def metric_of(house: MilvusHouse) -> Metric:
    return house.engine.find("default", "c").record.metric


async def test_a_row_is_put_into_the_one_that_took_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        replaced_before(monkeypatch, house, index, LogWriter, "append")
        headers = {"Idempotency-Key": "once", "Prefer": "wait=30"}
        first, again = [await house.ask(2, "entities/insert", ROW, headers=headers) for _ in range(2)]
        assert first.data == again.data == {"insertCount": 1, "insertIds": [1]}
        assert first.headers["X-Mutation-State"] == again.headers["X-Mutation-State"] == "visible"
        assert first.headers["X-Mutation-Id"] == again.headers["X-Mutation-Id"]
        assert "Idempotency-Replayed" not in first.headers and "Idempotency-Replayed" in again.headers
        assert await metric_of(house) is Metric.EUCLIDEAN
        await house.data(
            "indexes/create", OF_C | {"indexParams": [{"fieldName": "vector", "metricType": "L2"}]}
        )
        await house.data("collections/load", OF_C)
        assert await house.data("collections/get_stats", OF_C) == {"rowCount": 1}
        code, says = await house.error(
            "indexes/create", OF_C | {"indexParams": [{"fieldName": "vector", "metricType": "IP"}]}
        )
        assert code == 65535, says


async def test_so_is_a_delete_of_what_is_there_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its outcome, which is that of the other index."""
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        replaced_before(monkeypatch, house, index, LogWriter, "append")
        asked = OF_C | {"filter": "id > 0"}
        assert await house.data("entities/delete", asked) == {"deleteCount": 0}
        assert await metric_of(house) is Metric.EUCLIDEAN


async def test_so_is_a_row_from_another_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house, enableDynamicField=True)
        replaced_before(monkeypatch, house, index, LogWriter, "append")
        headers = {"Authorization": f"Bearer {TOKEN}", "Prefer": "wait=30"}
        url = "/client/v4/accounts/default/vectorize/v2/indexes/c/upsert"
        body = b'{"id": "1", "values": [1, 2]}\n'
        async with house.session.post(url, data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert (await answer.json())["result"]["state"] == "visible"
        assert await metric_of(house) is Metric.EUCLIDEAN
        assert house.engine.find("default", "c").head.refresh().vectors == 1


async def test_a_row_of_one_that_was_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when another has its name by then, which did not take its place."""
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        real, left = LogWriter.append, [True]

        def first(*arguments: Any) -> Any:
            if left:
                left.pop()
                house.engine.catalog.delete("default", "c")
                house.engine.create("default", NewIndex.like(index.record, Metric.COSINE))
            return real(*arguments)

        monkeypatch.setattr(LogWriter, "append", first)
        code, says = await house.error("entities/insert", ROW)
        assert code == NO_COLLECTION and "send it again" in says
        assert not house.engine.find("default", "c").log.exists(1)


async def test_what_is_remembered_of_a_collection_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        asked = OF_C | {"partitionName": "p"}
        # The copy is made by then.
        replaced_before(monkeypatch, house, index, Notes, "change")
        code, _ = await house.error("partitions/create", asked)
        assert code == NO_COLLECTION and await metric_of(house) is Metric.EUCLIDEAN
        assert await house.data("partitions/has", asked) == {"has": False}
        await house.data("partitions/create", asked)
        assert await house.data("partitions/has", asked) == {"has": True}


async def test_nor_is_a_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with milvus_house(tmp_path, webhook_private_addresses=True) as house:
        index = await unindexed(house)
        replaced_before(monkeypatch, house, index, Webhooks, "create")
        url = "/client/v4/accounts/default/vectorize/v2/indexes/c/webhooks"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for wanted, there in ((410, 0), (200, 1)):
            async with house.session.post(
                url, json={"url": "http://127.0.0.1:1/"}, headers=headers
            ) as answer:
                assert answer.status == wanted, await answer.text()
            assert len(house.engine.find("default", "c").webhooks.everything()) == there


async def test_what_was_written_to_keeps_its_metric_and_says_so(tmp_path: Path) -> None:
    async with milvus_house(tmp_path) as house:
        await unindexed(house)
        await house.data("entities/insert", ROW)
        params = {"indexParams": [{"fieldName": "vector", "metricType": "L2"}]}
        code, says = await house.error("indexes/create", OF_C | params)
        assert code == 1100 and "written to: its vectors are compared by COSINE" in says
        assert await metric_of(house) is Metric.COSINE


async def test_a_metric_that_was_chosen_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has an index of one metric on vectors that are compared by another."""
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        chosen = [IndexFact(name="vector", field="vector", metric="COSINE")]
        real, looks = Replacing.check_unused, list[object]()

        def chosen_before_the_second(*arguments: Any) -> None:
            real(*arguments)
            looks.append(arguments)
            if len(looks) == 2:
                indexes.make_indexes(house.engine, index, chosen)

        monkeypatch.setattr(Replacing, "check_unused", chosen_before_the_second)
        params = {"indexParams": [{"fieldName": "vector", "metricType": "L2"}]}
        code, says = await house.error("indexes/create", OF_C | params)
        assert code == 65535 and "at most one distinct index" in says
        [shown] = await house.data("indexes/describe", OF_C | {"indexName": "vector"})
        assert shown["metricType"] == "COSINE" and await metric_of(house) is Metric.COSINE


async def test_who_makes_sure_of_it_once_more_finds_the_one_that_took_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        replaced_before(monkeypatch, house, index, Notes, "change")
        await house.data("collections/create", OF_C | {"schema": {"fields": FIELDS}})
        assert house.engine.find("default", "c").record.id != index.record.id
        assert await metric_of(house) is Metric.EUCLIDEAN
