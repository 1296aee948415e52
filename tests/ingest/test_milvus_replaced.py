"""A collection is made anew with another metric in the very moment in which something is added to it: that is not acknowledged, and sent again
it is in the new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.milvus_house import TOKEN, MilvusHouse, milvus_house
from upwell.catalog.names import NewIndex
from upwell.catalog.notes import Notes
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


async def unindexed(house: MilvusHouse) -> Index:
    await house.data("collections/create", OF_C | {"schema": {"fields": FIELDS}})
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


async def test_a_row_is_not_acknowledged_and_sent_again_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with milvus_house(tmp_path) as house:
        index = await unindexed(house)
        replaced_before(monkeypatch, house, index, LogWriter, "append")
        headers = {"Idempotency-Key": "once"}
        code, says = await house.error("entities/insert", ROW, headers=headers)
        assert code == NO_COLLECTION and "send it again" in says
        assert await metric_of(house) is Metric.EUCLIDEAN
        await house.data("entities/insert", ROW, headers=headers)
        await house.settle()
        await house.data(
            "indexes/create", OF_C | {"indexParams": [{"fieldName": "vector", "metricType": "L2"}]}
        )
        await house.data("collections/load", OF_C)
        assert await house.data("collections/get_stats", OF_C) == {"rowCount": 1}
        code, says = await house.error(
            "indexes/create", OF_C | {"indexParams": [{"fieldName": "vector", "metricType": "IP"}]}
        )
        assert code == 65535, says


async def test_nor_is_what_is_remembered_of_a_collection(
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
