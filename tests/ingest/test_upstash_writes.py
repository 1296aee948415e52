"""Writes of the Upstash door: what they come to, in which order, what is known of them, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from tests.upstash_door import UpstashHouse, upstash_house
from upwell.changeset import KeyScope
from upwell.kinds import IndexKind
from upwell.outcome import State

EVERYTHING = {"includeVectors": True, "includeMetadata": True, "includeData": True}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[UpstashHouse]:
    async with upstash_house(tmp_path) as house:
        house.make()
        yield house


async def rows(house: UpstashHouse, *ids: str, namespace: str = "", index: str = "index") -> Any:
    command = f"fetch/{namespace}" if namespace else "fetch"
    return await house.result(command, {"ids": list(ids), **EVERYTHING}, index=index)


async def test_a_row_is_replaced_whole_and_the_last_of_one_id_counts(house: UpstashHouse) -> None:
    first = {"id": "a", "vector": [0.1, 0.2], "metadata": {"k": [1, {"n": None}]}, "data": "text"}
    await house.result("upsert", [first, {"id": "b", "vector": [1, 1]}, {"id": "b", "vector": [1, 2]}])
    assert await rows(house, "a", "b") == [first, {"id": "b", "vector": [1, 2]}]
    await house.result("upsert", {"id": "a", "vector": [3, 4], "metadata": None, "data": None})
    assert await rows(house, "a") == [{"id": "a", "vector": [3, 4]}]


async def test_updates_are_the_truth_at_their_place_in_the_order(house: UpstashHouse) -> None:
    house.drains.clear()
    sent = [
        ("upsert", {"id": "a", "vector": [1, 2], "metadata": {"a": 1, "in": {"x": 1, "y": 2}}}),
        ("update", {"id": "a", "metadata": {"in": {"x": None}, "b": 2}, "metadataUpdateMode": "PATCH"}),
        ("delete", {"ids": ["a", "a", "z"]}),
        ("update", {"id": "a", "metadata": {"c": 3}}),
        ("upsert", {"id": "a", "vector": [5, 6]}),
        ("update", {"id": "a", "metadata": {"d": {"e": 4}}, "metadataUpdateMode": "PATCH"}),
        ("update", {"id": "a", "vector": [7, 8], "data": "new", "metadataUpdateMode": "OVERWRITE"}),
        ("delete", {"ids": ["a"]}),
    ]
    waiting = []
    for place, (command, body) in enumerate(sent, 1):
        waiting.append(asyncio.create_task(house.call(command, body)))
        index = house.engine.find("default", "index")
        while index.log.tail(0) < place:  # noqa: ASYNC110  a file appears
            await asyncio.sleep(0.002)
    fetched = asyncio.create_task(rows(house, "a"))
    await asyncio.sleep(0.05)
    assert not fetched.done(), "it waits for all writes before it"
    house.drains.set()
    results = [(await one).result for one in waiting]
    assert results == [
        "Success",
        {"updated": 1},
        {"deleted": 1},
        {"updated": 0},
        "Success",
        {"updated": 1},
        {"updated": 1},
        {"deleted": 1},
    ]
    assert await fetched == [None]


async def test_a_patch_merges_and_an_overwrite_does_not(house: UpstashHouse) -> None:
    await house.result(
        "upsert/ns", {"id": "a", "vector": [1, 2], "metadata": {"k": {"x": 1, "y": 2}, "z": 0}}
    )
    patch = {"id": "a", "metadata": {"k": {"x": None, "w": [1]}, "z": None}, "metadataUpdateMode": "PATCH"}
    assert await house.result("update/ns", patch) == {"updated": 1}
    assert (await rows(house, "a", namespace="ns"))[0]["metadata"] == {"k": {"y": 2, "w": [1]}}
    assert await house.result("update/ns", {"id": "a", "metadata": {"only": 1}}) == {"updated": 1}
    assert (await rows(house, "a", namespace="ns"))[0] == {
        "id": "a",
        "vector": [1, 2],
        "metadata": {"only": 1},
    }
    assert await house.result("update", patch) == {"updated": 0}, "it is in another namespace"


async def test_deletes_by_prefix_and_by_filter_and_resets_stay_in_their_namespace(
    house: UpstashHouse,
) -> None:
    for namespace in ("upsert", "upsert/one", "upsert/two"):
        many = [
            {"id": f"{letter}{n}", "vector": [1, n], "metadata": {"n": n}}
            for letter in "ab"
            for n in range(3)
        ]
        await house.result(namespace, many)
    assert await house.result("delete/one", {"prefix": "a"}) == {"deleted": 3}
    assert await house.result("delete/one", {"filter": "n >= 1", "ids": None, "prefix": None}) == {
        "deleted": 2
    }
    assert await house.result("delete/never", {"prefix": "a"}) == {"deleted": 0}
    assert await house.result("reset/two") == "Success"
    assert await house.result("reset/nowhere") == "Success"
    assert await house.result("list-namespaces") == ["", "one", "two"]
    counts = (await house.result("info"))["namespaces"]
    assert {name: each["vectorCount"] for name, each in counts.items()} == {"": 6, "one": 1, "two": 0}
    assert await house.result("reset?all") == "Success"
    assert (await house.result("info"))["vectorCount"] == 0


async def test_ids_are_named_as_each_client_has_ever_named_them(house: UpstashHouse) -> None:
    """An array and nothing else: Python until 0.7.1, JavaScript 1.1. One id that is no array: ``index.delete({ids: "a"})``."""
    await house.result("upsert/ns", [{"id": str(n), "vector": [n, 1]} for n in range(7)])
    assert await house.result("delete/ns", ["0", 1, "1", "z"]) == {"deleted": 2}
    assert await house.result("delete/ns", []) == {"deleted": 0}
    assert await house.result("delete/ns", {"ids": "2"}) == {"deleted": 1}
    assert await house.result("delete/ns", {"ids": 3}) == {"deleted": 1}
    assert await house.result("fetch/ns", {"ids": "4"}) == [{"id": "4"}]
    assert await house.result("fetch/ns", {"ids": 5}) == [{"id": "5"}]
    assert [row["id"] for row in (await house.result("range/ns", {"limit": 9}))["vectors"]] == ["4", "5", "6"]


async def test_the_same_id_in_two_namespaces(house: UpstashHouse) -> None:
    await house.result("upsert", {"id": "a", "vector": [1, 2]})
    await house.result("upsert/ns", {"id": "a", "vector": [3, 4]})
    assert await rows(house, "a") == [{"id": "a", "vector": [1, 2]}]
    assert await rows(house, "a", namespace="ns") == [{"id": "a", "vector": [3, 4]}]
    assert await house.result("delete", {"ids": ["a"]}) == {"deleted": 1}
    assert await rows(house, "a", "a", namespace="ns") == [{"id": "a", "vector": [3, 4]}] * 2


async def test_in_an_index_of_one_id_a_row_an_update_means_the_row_of_its_namespace(
    house: UpstashHouse,
) -> None:
    house.make("one-id", key_scope=KeyScope.INDEX)
    await house.result("upsert/ns", {"id": "a", "vector": [1, 2]}, index="one-id")
    assert await house.result("update", {"id": "a", "data": "x"}, index="one-id") == {"updated": 0}
    assert await house.result("delete", {"ids": ["a"]}, index="one-id") == {"deleted": 0}
    assert await rows(house, "a", index="one-id") == [None]
    assert await house.result("update/ns", {"id": "a", "data": "x"}, index="one-id") == {"updated": 1}


async def test_namespaces_are_deleted_and_renamed(house: UpstashHouse) -> None:
    for namespace in ("one", "two"):
        await house.result(f"upsert/{namespace}", {"id": namespace, "vector": [1, 2]})
    assert await house.error("rename-namespace", {"namespace": "no", "newNamespace": "x"}) == (
        404,
        "Namespace no for the index index does not exist",
    )
    status, says = await house.error("rename-namespace", {"namespace": "one", "newNamespace": "two"})
    assert status == 409 and says.startswith("Namespace two exists already")
    moved = {"namespace": "one", "newNamespace": "two", "deleteExisting": True}
    assert await house.result("rename-namespace", moved) == {"renamed": True}
    assert await house.result("list-namespaces") == ["", "two"]
    assert await rows(house, "one", "two", namespace="two") == [{"id": "one", "vector": [1, 2]}, None]
    assert await house.result("delete-namespace/two", method="DELETE") == "Success"
    assert await house.error("delete-namespace/two") == (
        404,
        "Namespace two for the index index does not exist",
    )
    assert await house.error("delete-namespace") == (
        422,
        'The default namespace, which is the empty string "", cannot be deleted.',
    )
    assert await house.result("list-namespaces") == [""]


async def test_a_namespace_is_deleted_by_whoever_was_acknowledged_before(house: UpstashHouse) -> None:
    house.drains.clear()
    await house.result("upsert/ns", {"id": "a", "vector": [1, 2]})
    deleted = asyncio.create_task(house.call("delete-namespace/ns"))
    await asyncio.sleep(0.05)
    house.drains.set()
    assert (await deleted).result == "Success"
    assert await house.result("list-namespaces") == [""]


async def test_each_write_names_its_mutation(house: UpstashHouse) -> None:
    index = house.engine.find("default", "index")
    for command, body in (
        ("upsert/ns", {"id": "a", "vector": [1, 2]}),
        ("update/ns", {"id": "a", "data": "x"}),
        ("delete/ns", {"prefix": "a"}),
        ("reset/ns", []),
        ("rename-namespace", {"namespace": "ns", "newNamespace": "other"}),
        ("delete-namespace/other", None),
    ):
        answer = await house.call(command, body, headers={"Prefer": "wait=20"})
        assert answer.status == 200 and answer.headers["X-Mutation-State"] == "visible", answer
        assert answer.headers["Preference-Applied"] == "wait=20"
        assert index.outcomes.of(answer.headers["X-Mutation-Id"]).state is State.VISIBLE


async def test_what_is_not_applied_in_time_is_accepted_all_the_same(house: UpstashHouse) -> None:
    house.drains.clear()
    hurried = {"Prefer": "wait=0"}
    answer = await house.call("upsert", {"id": "a", "vector": [1, 2]}, headers=hurried)
    assert answer.result == "Success" and answer.headers["X-Mutation-State"] == "queued"
    answer = await house.call("update", {"id": "a", "vector": [3, 4]}, headers=hurried)
    assert answer.status == 503 and "accepted and will be applied" in answer.error[1]
    assert answer.headers["X-Mutation-Id"] in answer.error[1] and "Retry-After" not in answer.headers
    house.drains.set()
    assert await rows(house, "a") == [{"id": "a", "vector": [3, 4]}]


async def test_a_query_sees_a_reset_and_the_end_of_a_namespace(house: UpstashHouse) -> None:
    """A query waits for nothing, and the official clients reset and ask at once: so whoever removes everything waits instead."""
    for command in ("reset/ns", "reset?all", "delete-namespace/ns"):
        await house.result("upsert/ns", {"id": "a", "vector": [1, 2]})
        assert await rows(house, "a", namespace="ns") == [{"id": "a", "vector": [1, 2]}]
        house.drains.clear()
        removing = asyncio.create_task(house.call(command))
        await asyncio.sleep(0.05)
        assert not removing.done(), command
        house.drains.set()
        answer = await removing
        assert answer.result == "Success" and answer.headers["X-Mutation-State"] == "visible"
        assert await house.result("query/ns", {"vector": [1, 2]}) == [], command


async def test_a_reset_that_is_not_applied_in_time_has_succeeded(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, upstash_read_wait_s=0.05) as house:
        house.make()
        patiently = {"Prefer": "wait=30"}
        await house.result("upsert", {"id": "a", "vector": [1, 2]}, headers=patiently)
        assert await rows(house, "a") == [{"id": "a", "vector": [1, 2]}]
        house.drains.clear()
        answer = await house.call("reset")
        assert answer.result == "Success" and answer.headers["X-Mutation-State"] == "queued"
        house.drains.set()
        await house.result("upsert/ns", {"id": "b", "vector": [1, 2]}, headers=patiently)
        assert await rows(house, "a") == [None]


async def test_a_write_that_fails_says_why_to_whoever_waits(house: UpstashHouse) -> None:
    house.fails = "the model is away"
    for command, headers in (("update", {}), ("delete", {}), ("upsert", {"Prefer": "wait=20"})):
        body = {"ids": ["a"]} if command == "delete" else {"id": "a", "vector": [1, 2]}
        answer = await house.call(command, body, headers=headers)
        assert answer.error[0] == 422 and "the model is away" in answer.error[1]
        assert answer.headers["X-Mutation-Id"]


async def test_a_request_that_is_sent_again_counts_once(house: UpstashHouse) -> None:
    await house.result("upsert/ns", {"id": "a", "vector": [1, 2]})
    for command, body, result in (
        ("delete/ns", {"ids": ["a"]}, {"deleted": 1}),
        ("delete-namespace/ns", None, "Success"),
    ):
        key = {"Idempotency-Key": f"once-{command}"}
        first = await house.call(command, body, headers=key)
        again = await house.call(command, body, headers=key)
        assert first.result == again.result == result
        assert first.headers["X-Mutation-Id"] == again.headers["X-Mutation-Id"]
        assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    other = await house.error("delete/ns", {"ids": ["b"]}, headers={"Idempotency-Key": "once-delete/ns"})
    assert other[0] == 422 and "Idempotency-Key" in other[1]


async def test_text_is_embedded_after_it_was_acknowledged(house: UpstashHouse) -> None:
    house.make("words", IndexKind.HYBRID, 256, embedding_model="wordllama", sparse_embedding_model="BM25")
    house.drains.clear()
    texts = [
        {"id": "a", "data": "a cat sleeps", "metadata": {"k": 1}},
        {"id": 2, "data": "stocks fell today"},
    ]
    assert await house.result("upsert-data/ns", texts, index="words") == "Success"
    house.drains.set()
    (before,) = await rows(house, "a", namespace="ns", index="words")
    assert before["data"] == "a cat sleeps" and before["metadata"] == {"k": 1}
    assert len(before["vector"]) == 256 and before["sparseVector"]["indices"]
    for data, best in (("a cat sleeps", "a"), ("stocks fell today", "2")):
        found = await house.result(
            "query-data/ns", {"data": data, "topK": 1, "queryMode": "DENSE"}, index="words"
        )
        assert found == [{"id": best, "score": 1}]
    assert await house.result("update/ns", {"id": "a", "metadata": {"k": 2}}, index="words") == {"updated": 1}
    (same,) = await rows(house, "a", namespace="ns", index="words")
    assert same == before | {"metadata": {"k": 2}}, "nothing was embedded again"
    changed = {"id": "a", "data": "rockets fly to the moon"}
    assert await house.result("update/ns", changed, index="words") == {"updated": 1}
    (after,) = await rows(house, "a", namespace="ns", index="words")
    assert after["vector"] != before["vector"] and after["sparseVector"] != before["sparseVector"]
    assert (after["data"], after["metadata"]) == (changed["data"], {"k": 2})
    own = {
        "id": "a",
        "data": "text",
        "vector": [1.0] * 256,
        "sparseVector": {"indices": [1], "values": [1.0]},
    }
    assert await house.result("update/ns", own, index="words") == {"updated": 1}
    assert await rows(house, "a", namespace="ns", index="words") == [own | {"metadata": {"k": 2}}], (
        "vectors as sent"
    )
    assert await house.result("update/ns", {"id": "nobody", "data": "text"}, index="words") == {"updated": 0}


async def test_encoded_bodies(house: UpstashHouse) -> None:
    text = orjson.dumps([{"id": "a", "vector": [1, 2]}])
    for coding, body in (("gzip", gzip.compress(text)), ("zstd", zstandard.compress(text))):
        assert await house.result("upsert", body, headers={"Content-Encoding": coding}) == "Success"
    assert (await house.error("upsert", text, headers={"Content-Encoding": "gzip"}))[0] == 422
    asked = gzip.compress(json.dumps({"ids": ["a"]}).encode())
    assert await house.result("fetch", asked, headers={"Content-Encoding": "gzip"}) == [{"id": "a"}]


async def test_large_bodies_are_read_by_another_process(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, parse_processes=1) as house:
        house.make(kind=IndexKind.HYBRID, dimensions=768)
        many = [
            {
                "id": n,
                "vector": [n + i / 768 for i in range(768)],
                "sparseVector": {"indices": [n], "values": [1]},
            }
            for n in range(100)
        ]
        assert await house.result("upsert/ns", many) == "Success"
        status, says = await house.error(
            "upsert/ns", [*many, {"id": "odd", "vector": [1], "sparseVector": {}}]
        )
        assert status == 422 and says == 'Invalid vector dimension: 1, expected: 768 (item 101, id "odd")'
        assert (await house.error("upsert/ns", json.dumps(many).encode()[:-1]))[0] == 400
        (found,) = await rows(house, "99", namespace="ns")
        assert found["vector"][767] == pytest.approx(99 + 767 / 768)
        assert found["sparseVector"] == {"indices": [99], "values": [1.0]}
