"""The Milvus door and clients who ask for too much: each is refused for what is theirs, before it costs the others anything."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import orjson
import pytest
from structlog.testing import capture_logs

from ingest import large
from ingest.doors.milvus import (
    collections,
    expressions,
    indexes,
    partitions,
    queries,
    schema_bodies,
    searches,
    writes,
)
from ingest.doors.milvus.context import NAMED_MAX, NESTS_MAX, VALUES_MAX, parse, validated
from ingest.doors.milvus.errors import MilvusError
from ingest.doors.milvus.expressions import WORDS_MAX, parse_expression
from ingest.doors.milvus.queries import Get, Query
from ingest.doors.milvus.search_bodies import HybridSearch
from tests.milvus_house import MilvusHouse, milvus_house
from upwell.errors import TooLarge, Unavailable
from upwell.query.search import Match
from upwell.query.search import search as search_dense
from upwell.schema import OPEN_SCHEMA

C = {"collectionName": "c"}
STRONG = C | {"consistencyLevel": "Strong"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path) as house:
        await house.make()
        rows = [{"id": n, "vector": [1, n + 1], "n": n} for n in range(10)]
        await house.data("entities/insert", C | {"data": rows}, headers={"Prefer": "wait=30"})
        yield house


def test_what_would_take_far_more_memory_than_bytes_is_counted_and_not_read() -> None:
    for item, more, says in ((b"[],", NESTS_MAX, "arrays and objects"), (b"1,", VALUES_MAX, "values")):
        body = b'{"collectionName":"c","id":[' + item * (more + 1) + b"1]}"
        with pytest.raises(TooLarge, match=f"{says}; at most {more} are allowed"):
            parse(body, Get)
    body = b'{"collectionName":"c","id":[' + b"1," * 1_000 + b"1]}"
    assert parse(body, Get).id == [1] * 1_001


def test_of_a_million_mistakes_one_is_told_and_so_are_names_that_are_too_many() -> None:
    for model, name, given in (
        (Query, "outputFields", 1),
        (Query, "partitionNames", {}),
        (HybridSearch, "search", "x"),
    ):
        with pytest.raises(MilvusError, match=rf"{name}\.0: ") as refused:
            validated(C | {name: [given] * 1_000}, model)
        assert len(refused.value.detail) < 200
    assert validated(C | {"outputFields": ["a"] * NAMED_MAX}, Query).output_fields
    with pytest.raises(MilvusError, match=f"outputFields: List should have at most {NAMED_MAX} items"):
        validated(C | {"outputFields": ["a"] * (NAMED_MAX + 1)}, Query)


def test_an_expression_has_so_many_words() -> None:
    for text in (
        " or ".join(["a == 1"] * (WORDS_MAX // 4 + 1)),
        "(" * WORDS_MAX + "a == 1" + ")" * WORDS_MAX,
        "a in [" + r"'\n'," * (WORDS_MAX // 2) + "1]",
    ):
        with pytest.raises(MilvusError, match=f"expected at most {WORDS_MAX} words"):
            parse_expression(text, OPEN_SCHEMA, bytes_max=1 << 20)
    # A list is one word, and so is what is in quotes; what does not end is for the parser to refuse.
    long = "a in [" + ",".join(f"'{n} ( ('" for n in range(WORDS_MAX)) + "]"
    assert parse_expression(long, OPEN_SCHEMA, bytes_max=1 << 20) is not None
    with pytest.raises(MilvusError, match="got"):
        parse_expression("a == '" + "( " * WORDS_MAX, OPEN_SCHEMA)


def test_templates_put_so_many_values_into_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "VALUES_MAX", 10)
    given = {"p": [1, 2, 3, 4, 5], "q": 1}
    assert parse_expression("a in {p} or b in {p}", OPEN_SCHEMA, given) is not None
    for text in ("a in {p} or b in {p} or c == {q}", " or ".join(["a == {q}"] * 11)):
        with pytest.raises(MilvusError, match="expected templates that put at most 10 values into it"):
            parse_expression(text, OPEN_SCHEMA, given)


def test_an_array_that_is_compared_whole_is_not_endless() -> None:
    with pytest.raises(MilvusError, match="expected an array of at most 256 elements, got 257"):
        parse_expression("a == {p}", OPEN_SCHEMA, {"p": [1] * 257})


async def test_searches_that_are_made_one_find_so_many_rows_together(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "FOUND_MAX", 20)
    one = {"data": [[1, 1]], "limit": 10}
    asked = C | {"rerank": {"strategy": "rrf", "params": {"k": 60}}, "limit": 3}
    assert len(await house.data("entities/hybrid_search", asked | {"search": [one, one]})) == 3
    code, says = await house.error("entities/hybrid_search", asked | {"search": [one, one, one]})
    assert (code, says[:50]) == (65535, "the limits of all search requests together are mor")
    grouped = asked | {"groupingField": "n", "groupSize": 2, "search": [one, one]}
    assert (await house.error("entities/hybrid_search", grouped))[1] == says


async def test_their_filters_are_read_once_each_and_not_without_end(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "PARAMS_BYTES_MAX", 100)
    long = "n >= 0 " + " " * 60_000
    for same, others in (
        ({"filter": long}, [{"filter": long + " " * n} for n in range(1, 5)]),
        (
            {"filter": "n in {p}", "exprParams": {"p": [1, 2]}},
            [{"filter": "n in {p}", "exprParams": {"p": [10**17] * n}} for n in range(1, 4)],
        ),
    ):
        asked = C | {"limit": 3}
        search = [{"data": [[1, 1]]} | same] * 20
        assert await house.data("entities/hybrid_search", asked | {"search": search})
        code, says = await house.error(
            "entities/hybrid_search",
            asked | {"search": [{"data": [[1, 1]]} | one for one in (same, *others)]},
        )
        assert (code, says[:41]) == (1100, "the filters of all search requests togeth")


async def test_searches_that_take_too_long_are_ended(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.make("c")
    await house.data("entities/insert", C | {"data": {"id": 1, "vector": [1, 0]}})
    await house.settle()
    clock, made = house.engine.clock, list[None]()
    real = clock.monotonic
    # Each search takes a second.
    monkeypatch.setattr(clock, "monotonic", lambda: real() + len(made))

    def slow(*arguments: Any, **more: Any) -> list[Match]:
        made.append(None)
        return search_dense(*arguments, **more)

    monkeypatch.setattr(searches, "search_dense", slow)
    many = C | {"data": [[1, 0]] * 500, "limit": 1}
    one = {"data": [[1, 0]], "annsField": "vector", "limit": 1}
    fused = C | {
        "search": [one] * 500,
        "limit": 1,
        "rerank": {"strategy": "rrf", "params": {"k": 60}},
    }
    grouped = many | {"groupingField": "kind"}
    for command, body, most in (
        ("search", many, 60),
        ("hybrid_search", fused, 60),
        ("search", grouped, 60),
        ("search", many, 7),
    ):
        before, headers = len(made), {"Request-Timeout": str(most)} if most < 60 else {}
        code, says = await house.error(f"entities/{command}", body, headers=headers)
        assert code == 1100 and says.startswith(f"search: it takes more than {most} s here")
        # Those that have begun in other threads come to their end.
        assert 0 < len(made) - before <= most + house.engine.settings.query_threads
    for headers in ({}, {"Request-Timeout": "0"}):
        found = await house.data("entities/search", many | {"data": [[1, 0]] * 5}, headers=headers)
        assert len(found) == 5


async def test_a_collection_has_so_many_declared_partitions(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PARTITIONS_MAX", 2)
    for name in ("a", "b", "a"):
        await house.data("partitions/create", C | {"partitionName": name})
    code, says = await house.error("partitions/create", C | {"partitionName": "c"})
    assert (code, says) == (65535, "partition number (2) exceeds max configuration (2), collection: c")


async def test_many_rows_are_answered_bit_by_bit_and_have_one_limit(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = STRONG | {"filter": "id >= 0", "limit": 0}
    got = STRONG | {"id": list(range(10))}
    whole = await house.data("entities/query", everything)
    assert len(whole) == 10
    for at_once, piece in ((9, 3), (9, 10), (3, 5)):
        monkeypatch.setattr(queries, "ROWS_AT_ONCE", at_once)
        monkeypatch.setattr(queries, "PIECE_ROWS", piece)
        assert await house.data("entities/query", everything) == whole
        assert await house.data("entities/get", got) == whole
    monkeypatch.setattr(large, "ANSWER_BYTES_MAX", len(orjson.dumps(whole)) - 20)
    assert (await house.error("entities/query", everything))[1].startswith("the answer has more than")


def off_loop(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, seen: set[str]) -> None:
    """Let a function say that it was called, and refuse to be called on the event loop."""
    function: Callable[..., Any] = getattr(module, name)
    loop = threading.get_ident()

    def checked(*arguments: Any, **more: Any) -> Any:
        assert threading.get_ident() != loop, f"{name} runs on the event loop"
        seen.add(f"{module.__name__.rpartition('.')[2]}.{name}")
        return function(*arguments, **more)

    monkeypatch.setattr(module, name, checked)


async def test_what_takes_as_long_as_a_request_is_long_is_done_off_the_loop(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set[str]()
    of = (
        *((queries, name) for name in ("ids_of", "shown_of")),
        *((searches, name) for name in ("ids_of", "shown_of", "vectors_of")),
        *((writes, name) for name in ("ids_of", "_removing")),
        *((collections, name) for name in ("wanted",)),
        (indexes, "index_facts"),
        (schema_bodies, "param_texts"),
    )
    for module, name in of:
        off_loop(monkeypatch, module, name, seen)
    await house.data("entities/get", C | {"id": [1]})
    await house.data("entities/query", C | {"filter": "id > 1"})
    await house.data("entities/search", C | {"data": [[1, 1]]})
    await house.data("entities/hybrid_search", C | {"search": [{"data": [[1, 1]]}]})
    await house.data("search", C | {"vector": [1, 1]}, version=1)
    await house.data("delete", C | {"id": [1]}, version=1)
    await house.make("d")
    await house.data("collections/alter_properties", C | {"properties": {"mmap.enabled": True}})
    made = {"fieldName": "vector", "indexName": "vector", "metricType": "COSINE"}
    await house.data("indexes/create", C | {"indexParams": [made]})
    await house.data(
        "indexes/alter_properties", C | {"indexName": "vector", "properties": {"mmap.enabled": True}}
    )
    assert seen == {f"{module.__name__.rpartition('.')[2]}.{name}" for module, name in of}


DEEP = b"[" * 300 + b"]" * 300


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("collections/create", b'"dimension":2,"params":{"ttlSeconds":%s}'),
        ("collections/alter_properties", b'"properties":{"a":%s}'),
        ("indexes/create", b'"indexParams":[{"fieldName":"x","params":{"a":%s}}]'),
        ("entities/query", b'"filter":"id > 0","orderByFields":[%s]'),
        ("entities/hybrid_search", b'"search":[{"data":[[1,1]],"filter":"id > 0","exprParams":{"a":%s}}]'),
    ],
)
async def test_what_is_nested_deeper_than_can_be_written_is_refused(
    house: MilvusHouse, command: str, rest: bytes
) -> None:
    code, says = await house.error(command, b'{"collectionName":"c",%s}' % (rest % DEEP))
    assert (code, says.rpartition(": ")[2]) == (1801, "expected JSON that is not nested so deeply")


async def test_who_runs_it_sees_a_failure_of_ours_although_it_is_answered_with_200(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> NoReturn:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(house.engine.catalog, "names", broken)
    with capture_logs() as logged:
        assert await house.error("collections/list", {}) == (1, "the disk is gone")
        # What a client did wrong is no failure of ours.
        assert (await house.error("collections/describe", {}))[0] == 1802
    assert [(one["event"], one["status"]) for one in logged if one["log_level"] == "error"] == [
        ("request failed", 503)
    ]
    async with house.session.get("/metrics") as reply:
        counted = await reply.text()
    for command, status in (("list", 503), ("describe", 200)):
        assert f'route="/v2/vectordb/collections/{command}",status="{status}"}} 1.0' in counted
