"""The Upstash door and clients who ask for too much: each is refused for what is theirs, before it costs the others anything."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest import large
from ingest.doors.upstash import queries
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.filters import FIELDS_MAX, GLOBS_MAX, parse_filter
from ingest.doors.upstash.questions import FILTERS_MAX
from tests.upstash_door import TOKEN, UpstashHouse, upstash_house
from upwell.errors import Invalid

Set = Callable[..., None]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[UpstashHouse]:
    async with upstash_house(tmp_path, upstash_resumable_max=2, query_threads=1) as house:
        house.make()
        rows = [{"id": f"id{n}", "vector": [1, n + 1], "data": "x" * 1_000} for n in range(10)]
        await house.result("upsert", rows, headers={"Prefer": "wait=30"})
        yield house


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets constants of the answers."""

    def setting(**values: int) -> None:
        for name, value in values.items():
            monkeypatch.setattr(large, name, value)

    return setting


ASKED = {"vector": [1, 1], "includeData": True}


def test_too_many_ids_are_counted_and_not_read() -> None:
    with pytest.raises(Invalid, match="ids: expected at most 1, got 2"):
        Fields({"ids": [None, None]}).ids("ids", 10, 1)


async def test_the_answers_to_all_queries_of_a_request_have_one_limit(
    house: UpstashHouse, allow: Set
) -> None:
    allow(ANSWER_BYTES_MAX=10_000)
    one = {**ASKED, "topK": 6}
    assert len(await house.result("query", one)) == 6
    status, says = await house.error("query", [one, one])
    assert (status, says[:40]) == (422, "the answer has more than 10000 bytes; as")


async def test_the_first_answer_that_is_too_large_is_the_last_one_made(
    house: UpstashHouse, allow: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(ANSWER_BYTES_MAX=100)
    made: list[Any] = []
    run = queries._run

    def counted(*arguments: Any) -> bytes:
        made.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(queries, "_run", counted)
    assert (await house.error("query", [ASKED] * 50))[0] == 422
    assert (await house.result("query", {"vector": [1, 1], "topK": 1}))[0]["id"] == "id0"
    assert len(made) == 2, "and nothing goes on behind its back"


async def test_a_large_answer_is_whole_piece_by_piece(house: UpstashHouse, allow: Set) -> None:
    small = await house.call("query", ASKED)
    allow(PIECE_BYTES=7)
    large = await house.call("query", ASKED)
    assert large.result == small.result and len(large.result) == 10
    assert large.headers["Content-Length"] == small.headers["Content-Length"]
    url, headers = "/upstash/default/index/query", {"Authorization": f"Bearer {TOKEN}"}
    async with house.session.request("HEAD", url, data=orjson.dumps(ASKED), headers=headers) as head:
        assert (head.status, await head.read()) == (200, b"")
    assert (await house.call("query", ASKED)).result == small.result, "on the same connection"


async def test_only_so_many_large_answers_are_held(house: UpstashHouse, allow: Set) -> None:
    allow(PIECE_BYTES=7, HELD_BYTES_MAX=large._HELD.nbytes + 20_000)
    for _ in range(5):
        assert len(await house.result("query", ASKED)) == 10, "what was taken makes room"
        gc.collect()
    allow(HELD_BYTES_MAX=10_000)
    assert (await house.error("query", ASKED))[0] == 429
    allow(PIECE_BYTES=100_000)
    assert len(await house.result("query", ASKED)) == 10, "small ones are not counted"


async def test_a_resumable_query_that_nobody_heard_of_is_not_kept(house: UpstashHouse, allow: Set) -> None:
    begin = {**ASKED, "topK": 5}
    allow(ANSWER_BYTES_MAX=100)
    for _ in range(3):
        assert (await house.error("resumable-query", begin))[0] == 422
    allow(ANSWER_BYTES_MAX=100_000)
    begun = await house.result("resumable-query", begin)
    more = {"uuid": begun["uuid"], "additionalK": 5}
    allow(ANSWER_BYTES_MAX=100)
    assert (await house.error("resumable-query-next", more))[0] == 422
    allow(ANSWER_BYTES_MAX=100_000)
    found = [*begun["scores"], *await house.result("resumable-query-next", more)]
    assert [one["id"] for one in found] == [f"id{n}" for n in range(10)], (
        "what was not shown is still to come"
    )


async def test_who_begins_all_that_are_allowed_takes_none_from_another_index(house: UpstashHouse) -> None:
    house.make("other")
    await house.result("upsert", {"id": "a", "vector": [1, 1]}, index="other", headers={"Prefer": "wait=30"})
    for _ in range(2):
        await house.result("resumable-query", {"vector": [1, 1]})
    assert (await house.error("resumable-query", {"vector": [1, 1]}))[0] == 429
    assert (await house.result("resumable-query", {"vector": [1, 1]}, index="other"))["uuid"]


async def test_filters_of_one_request_are_read_once_each_and_not_without_end(house: UpstashHouse) -> None:
    longest = "n = 1" + " OR n = 1" * 1_800

    def asked(*filters: str) -> list[dict[str, Any]]:
        return [{"vector": [1, 1], "filter": one} for one in filters]

    assert await house.result("query", asked(*[longest] * 100)) == [[]] * 100
    status, says = await house.error(
        "query", asked(*(f"{longest} OR n = {n}" for n in range(FILTERS_MAX + 1)))
    )
    assert (status, says[:44]) == (422, "filter: expected at most 262144 characters i")


def test_a_filter_looks_at_so_many_fields_and_matches_so_many_patterns() -> None:
    def fields(count: int) -> str:
        return " OR ".join(f"f{n} = 1 OR f{n} = 2" for n in range(count))

    def globs(count: int) -> str:
        return " OR ".join(f"a GLOB '{n}*' OR a NOT GLOB '{n}*'" for n in range(count))

    for text, most in ((fields, FIELDS_MAX), (globs, GLOBS_MAX)):
        assert parse_filter(text(most), 16_384) is not None
        with pytest.raises(Invalid, match=f"at most {most} different (fields|patterns), got {most + 1}"):
            parse_filter(text(most + 1), 16_384)


async def test_a_filter_takes_only_so_long(tmp_path: Path) -> None:
    async with upstash_house(tmp_path, filter_s_max=1e-9) as house:
        house.make()
        await house.result("upsert", {"id": "a", "vector": [1, 1]}, headers={"Prefer": "wait=30"})
        assert await house.result("query", {"vector": [1, 1]})
        filtered = {"vector": [1, 1], "filter": "a = 1 OR b CONTAINS 1"}
        for command in ("query", "resumable-query"):
            status, says = await house.error(command, filtered)
            assert (status, says[:34]) == (422, "filter: it takes more than 1e-09 s")
        path = "/client/v4/accounts/default/vectorize/v2/indexes/index/query"
        asked, headers = {"vector": [1, 1], "filter": {"a": 1}}, {"Authorization": f"Bearer {TOKEN}"}
        async with house.session.post(path, json=asked, headers=headers) as answer:
            assert answer.status == 400 and "it takes more than" in await answer.text()


async def test_a_renaming_that_found_nothing_names_its_mutation(house: UpstashHouse) -> None:
    refused = await house.call("rename-namespace", {"namespace": "a", "newNamespace": "b"})
    assert refused.status == 404 and refused.headers["X-Mutation-Id"]
