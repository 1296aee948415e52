"""Many clients of the Milvus door at several front ends at once: what is acknowledged at one is seen by a Strong read at any other, and of those
who want the same thing at once one has it, or all do, and nobody half of it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.milvus_door import Milvus, by_id, strong
from tests.service import Service, running, until
from tests.thorough import THOROUGH

NAMES = itertools.count()
CLIENTS = 8
#: How long a Strong read waits here.
READ_WAIT_S = 0.5
#: Of what comes out otherwise each time.
TURNS = 12 if THOROUGH else 3
NOT_READY = 1
NO_COLLECTION = 100
INVALID = 1100
REFUSED = 65535
VECTOR = {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": "2"}}
ID = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=3 if THOROUGH else 2, workers=1, UPWELL_MILVUS_READ_WAIT_S="20") as service:
        yield service


@pytest.fixture
def doors(service: Service) -> list[Milvus]:
    return [Milvus(api, 2) for api in service.apis]


def fresh(doors: Sequence[Milvus], dimension: int = 2, **more: Any) -> str:
    name = f"together_{next(NAMES)}"
    doors[0].data("collections/create", {"collectionName": name, "dimension": dimension, **more})
    return name


def code_of(door: Milvus, command: str, body: Any) -> int:
    """How a command ended, which is never an error that nobody thought of."""
    answer = door.ask(command, body)
    assert answer.status == 200, answer
    code: int = answer.json["code"]
    return code


def at_once(doors: Sequence[Milvus], *doing: Callable[[Milvus], Any]) -> list[Any]:
    """Have each done at the same time, at one front end after the other; what each returned."""
    with ThreadPoolExecutor(len(doing)) as pool:
        return [
            one.result() for one in [pool.submit(what, doors[n % len(doors)]) for n, what in enumerate(doing)]
        ]


def ids_of(door: Milvus, name: str, **asked: Any) -> set[int]:
    body = {"collectionName": name, "filter": "id >= 0", "outputFields": ["id"], "limit": 16_000}
    rows = door.data("entities/query", strong(body | asked))
    return {int(one) for one in by_id(rows)}


def test_what_one_front_end_acknowledged_a_strong_read_at_another_sees(doors: list[Milvus]) -> None:
    name = fresh(doors)

    def client(number: int) -> Callable[[Milvus], None]:
        def go(_: Milvus) -> None:
            dice, mine = random.Random(number), range(10 * number, 10 * number + 10)
            held: dict[int, dict[str, Any]] = {}
            for turn in range(8):
                id, writes, reads = dice.choice(mine), dice.choice(doors), dice.choice(doors)
                row = {"id": id, "vector": [1, turn], "turn": turn}
                match dice.choice(["insert", "upsert", "partial", "delete", "filter"]):
                    case "delete":
                        writes.data("entities/delete", {"collectionName": name, "filter": f"id == {id}"})
                        held.pop(id, None)
                    case "filter":
                        asked = f"id == {id} and turn < {turn}"
                        told = writes.data("entities/delete", {"collectionName": name, "filter": asked})
                        assert told["deleteCount"] == (1 if held.pop(id, None) is not None else 0)
                    case "partial":
                        row[f"p{turn}"] = turn
                        writes.data(
                            "entities/upsert", {"collectionName": name, "data": [row], "partialUpdate": True}
                        )
                        held[id] = held.get(id, {}) | row
                    case put:
                        writes.data(f"entities/{put}", {"collectionName": name, "data": [row]})
                        held[id] = row
                body = {"collectionName": name, "filter": f"id in {list(mine)}", "outputFields": ["*"]}
                found = by_id(reads.data("entities/query", strong(body)))
                assert found == held
                got = reads.data("entities/get", strong({"collectionName": name, "id": [id]}))
                assert [one["id"] for one in got] == ([id] if id in held else [])

        return go

    at_once(doors, *(client(number) for number in range(4)))


def test_bounded_reads_never_wait_and_strong_ones_no_longer_than_they_may() -> None:
    with running(apis=2, workers=1, UPWELL_MILVUS_READ_WAIT_S=str(READ_WAIT_S)) as service:
        one, other = (Milvus(api, 2) for api in service.apis)
        name = fresh([one])
        about: dict[str, Any] = {"collectionName": name, "filter": "id > 0", "outputFields": ["id"]}
        search: dict[str, Any] = {"collectionName": name, "data": [[1, 1]], "annsField": "vector"}
        one.write("entities/insert", {"collectionName": name, "data": [{"id": 1, "vector": [1, 1]}]})

        def refused_in_time() -> None:
            one.data("entities/insert", {"collectionName": name, "data": [{"id": 2, "vector": [1, 1]}]})
            for level in ("Bounded", "Eventually"):
                asked = about | {"consistencyLevel": level}
                assert [row["id"] for row in other.data("entities/query", asked)] == [1]
                found = other.data("entities/search", search | {"consistencyLevel": level})
                assert [row["id"] for row in found] == [1]
            questions: list[tuple[str, dict[str, Any]]] = [("query", about), ("search", search)]
            for command, asked in questions:
                began = time.monotonic()
                code, says = other.refusal(f"entities/{command}", strong(asked))
                assert time.monotonic() - began >= READ_WAIT_S
                assert code == NOT_READY and "acknowledged before this read are not visible yet" in says

        os.kill(service.workers[0].pid, signal.SIGSTOP)
        refused_in_time()
        os.kill(service.workers[0].pid, signal.SIGCONT)
        for _ in until(60):
            if other.ask("entities/query", strong(about)).json["code"] == 0:
                break
        assert {row["id"] for row in other.data("entities/query", strong(about))} == {1, 2}
        one.write("entities/delete", {"collectionName": name, "filter": "id in [2]"})
        other.data("collections/flush", {"collectionName": name})
        # No worker hears of anything, and none applies it: nor one that had not done with the last.
        service.rests()
        service.valkey.stop()
        refused_in_time()
        service.valkey.start()
        for _ in until(60):
            if other.ask("entities/query", strong(about)).json["code"] == 0:
                break
        assert {row["id"] for row in other.data("entities/query", strong(about))} == {1, 2}


def test_the_same_collection_made_by_many_at_once_is_made_once(doors: list[Milvus]) -> None:
    for with_index in (True, False):
        name = f"together_{next(NAMES)}"
        schema = {"enableDynamicField": True, "fields": [ID, VECTOR]}
        body: dict[str, Any] = {"collectionName": name, "schema": schema}
        if with_index:
            body["indexParams"] = [{"fieldName": "vector", "metricType": "L2"}]
        codes = at_once(doors, *[lambda door: code_of(door, "collections/create", body)] * CLIENTS)  # noqa: B023
        assert codes == [0] * CLIENTS
        for door in doors:
            shown = door.data("collections/describe", {"collectionName": name})
            assert [one["name"] for one in shown["fields"]] == ["id", "vector"]
            assert len(shown["indexes"]) == int(with_index)
            assert door.data("collections/list", {}).count(name) == 1


def test_of_different_ones_of_one_name_one_is_made(doors: list[Milvus]) -> None:
    name = f"together_{next(NAMES)}"

    def makes(dimension: int) -> Callable[[Milvus], int]:
        body = {"collectionName": name, "dimension": dimension}
        return lambda door: code_of(door, "collections/create", body)

    codes = at_once(doors, *(makes(2 + n % 3) for n in range(9)))
    assert set(codes) == {0, INVALID} and codes.count(0) == 3
    (dimension,) = {2 + n % 3 for n, code in enumerate(codes) if code == 0}
    for door in doors:
        row = {"id": dimension, "vector": [1] * dimension}
        door.data("entities/upsert", {"collectionName": name, "data": [row]})


def test_made_dropped_and_written_to_at_once_it_is_whole_or_not_there(doors: list[Milvus]) -> None:
    name = f"together_{next(NAMES)}"
    body = {"collectionName": name, "dimension": 2}
    row = {"collectionName": name, "data": [{"id": 1, "vector": [1, 1]}]}
    make, drop, write = (
        lambda door: code_of(door, "collections/create", body),
        lambda door: code_of(door, "collections/drop", {"collectionName": name}),
        lambda door: code_of(door, "entities/insert", row),
    )
    for _ in range(TURNS):
        made, _, _, dropped, *written = at_once(doors, make, make, make, drop, write, write)
        assert made in (0, REFUSED, NO_COLLECTION) and dropped == 0
        assert set(written) <= {0, NO_COLLECTION}
        is_there = {door.data("collections/has", {"collectionName": name})["has"] for door in doors}
        assert len(is_there) == 1
    assert [code_of(door, "collections/create", body) for door in doors] == [0] * len(doors)
    doors[0].data("entities/insert", row)
    assert [ids_of(door, name) for door in doors] == [{1}] * len(doors)


def test_an_alias_that_many_want_is_of_one_of_them(doors: list[Milvus]) -> None:
    names = [fresh(doors) for _ in range(4)]
    alias = f"alias_{next(NAMES)}"

    def wants(name: str) -> Callable[[Milvus], int]:
        return lambda door: code_of(door, "aliases/create", {"collectionName": name, "aliasName": alias})

    codes = at_once(doors, *map(wants, names))
    assert codes.count(0) == 1
    (owner,) = [name for name, code in zip(names, codes, strict=True) if code == 0]
    for door in doors:
        assert door.data("aliases/describe", {"aliasName": alias})["collectionName"] == owner
    at_once(
        doors,
        *(
            lambda door, name=name: door.data("aliases/alter", {"collectionName": name, "aliasName": alias})
            for name in names
        ),
    )
    assert len({door.data("aliases/describe", {"aliasName": alias})["collectionName"] for door in doors}) == 1


def test_of_those_who_rename_a_collection_one_does(doors: list[Milvus]) -> None:
    name = fresh(doors)
    doors[0].write("entities/insert", {"collectionName": name, "data": [{"id": 7, "vector": [1, 1]}]})
    new = [f"{name}_{n}" for n in range(CLIENTS)]

    def renames(to: str) -> Callable[[Milvus], int]:
        return lambda door: code_of(
            door, "collections/rename", {"collectionName": name, "newCollectionName": to}
        )

    codes = at_once(doors, *map(renames, new))
    assert codes.count(0) == 1 and set(codes) <= {0, NO_COLLECTION, REFUSED}
    (called,) = [to for to, code in zip(new, codes, strict=True) if code == 0]
    for door in doors:
        assert [one for one in door.data("collections/list", {}) if one.startswith(name)] == [called]
        assert ids_of(door, called) == {7}


def test_of_many_who_change_one_row_in_part_none_is_forgotten(doors: list[Milvus]) -> None:
    name = fresh(doors)
    doors[0].write("entities/insert", {"collectionName": name, "data": [{"id": 1, "vector": [1, 1]}]})

    def sets(number: int) -> Callable[[Milvus], None]:
        def go(door: Milvus) -> None:
            for turn in range(4):
                row = {"id": 1, f"m{number}_{turn}": turn, f"last{number}": turn}
                body = {"collectionName": name, "data": [row], "partialUpdate": True}
                door.data("entities/upsert", body)

        return go

    at_once(doors, *map(sets, range(CLIENTS)))
    wanted = {f"m{number}_{turn}": turn for number in range(CLIENTS) for turn in range(4)}
    wanted |= {f"last{number}": 3 for number in range(CLIENTS)}
    for door in doors:
        (row,) = door.data("entities/get", strong({"collectionName": name, "id": [1], "outputFields": ["*"]}))
        assert row == wanted | {"id": 1, "vector": [1, 1]}


def test_ids_that_front_ends_give_are_all_different(doors: list[Milvus]) -> None:
    name = fresh(doors, autoID=True)
    body = {"collectionName": name, "data": [{"vector": [1, n]} for n in range(50)]}
    told = at_once(doors, *[lambda door: door.data("entities/insert", body)["insertIds"]] * 9)
    given = [int(id) for ids in told for id in ids]
    assert len(set(given)) == len(given) == 9 * 50
    assert ids_of(doors[0], name) == set(given)


def test_a_metric_chosen_while_rows_come_loses_none_of_them(doors: list[Milvus]) -> None:
    for turn in range(TURNS):
        name = f"together_{next(NAMES)}"
        schema = {"enableDynamicField": True, "fields": [ID, VECTOR]}
        doors[0].data("collections/create", {"collectionName": name, "schema": schema})
        doors[1].data("aliases/create", {"collectionName": name, "aliasName": f"{name}_too"})
        chooses = {"collectionName": name, "indexParams": [{"fieldName": "vector", "metricType": "L2"}]}

        def choose(door: Milvus) -> int:
            time.sleep(0.002 * (turn % 4))  # noqa: B023
            return code_of(door, "indexes/create", chooses)  # noqa: B023

        def write(id: int) -> Callable[[Milvus], int | None]:
            body = {"collectionName": name, "data": [{"id": id, "vector": [1, id]}]}  # noqa: B023
            return lambda at: id if code_of(at, "entities/insert", body) == 0 else None

        chosen, also, *written = at_once(doors, choose, choose, write(1), write(2))
        wanted = {id for id in written if id is not None}
        assert chosen in (0, INVALID) and chosen == also
        if chosen != 0:
            params = [{"fieldName": "vector", "metricType": "COSINE"}]
            doors[0].data("indexes/create", {"collectionName": name, "indexParams": params})
        (shown,) = doors[-1].data("indexes/describe", {"collectionName": name, "indexName": "vector"})
        assert shown["metricType"] == ("L2" if chosen == 0 else "COSINE")
        doors[0].data("collections/load", {"collectionName": name})
        for door in doors:
            assert wanted <= ids_of(door, f"{name}_too") <= {1, 2}
