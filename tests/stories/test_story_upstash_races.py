"""Many clients write through two front ends at once; what they were told, and what is left, is as if they had done so one after the
other, in the order of their mutations."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.service import TOKEN, Answer, Api, Service, running
from upwell.engine import open_engine
from upwell.log.receipt import Receipt, parse
from upwell.settings import Settings

SEED = 20_261_121
CLIENTS = 6
REQUESTS_EACH = 30
NAMESPACES = ("", "a", "b", "c")
IDS = ("x1", "x2", "x3", "y1", "y2", "y3")

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=2) as service:
        yield service


@dataclass
class Plain:
    """The same, one after the other: rows by namespace and id, in the order of writing."""

    spaces: dict[str, Rows] = field(default_factory=lambda: {"": {}})

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [{"id": id, "metadata": metadata} for id, metadata in self.spaces.get(name, {}).items()]

    def upsert(self, name: str, rows: list[dict[str, Any]]) -> Any:
        space = self.spaces.setdefault(name, {})
        for row in rows:
            space.pop(row["id"], None)
            space[row["id"]] = row["metadata"]
        return "Success"

    def update(self, name: str, change: dict[str, Any]) -> Any:
        space = self.spaces.get(name, {})
        if change["id"] not in space:
            return {"updated": 0}
        before = space[change["id"]] if change.get("metadataUpdateMode") == "PATCH" else {}
        space[change["id"]] = before | change["metadata"]
        return {"updated": 1}

    def delete(self, name: str, what: dict[str, Any]) -> Any:
        space = self.spaces.get(name, {})
        gone = [id for id, metadata in space.items() if _described(what, id, metadata)]
        for id in gone:
            del space[id]
        return {"deleted": len(gone)}

    def reset(self, name: str, everything: bool) -> Any:
        for one in list(self.spaces) if everything else [name]:
            self.spaces.get(one, {}).clear()
        return "Success"

    def delete_namespace(self, name: str) -> Any:
        # One that was gone by then did nothing.
        self.spaces.pop(name, None)
        return "Success"

    def rename(self, old: str, new: str, delete_existing: bool) -> Any:
        if old not in self.spaces:
            return 404
        if old != new:
            if new in self.spaces and not delete_existing:
                return 409
            self.spaces[new] = self.spaces.pop(old)
        return {"renamed": True}

    def do(self, command: str, name: str, body: Any) -> Any:
        """Apply what one request asks; returns what its answer is."""
        match command:
            case "upsert":
                return self.upsert(name, body)
            case "update":
                return self.update(name, body)
            case "delete":
                return self.delete(name, body)
            case "delete-namespace":
                return self.delete_namespace(name)
            case "rename-namespace":
                return self.rename(body["namespace"], body["newNamespace"], body["deleteExisting"])
            case _:
                return self.reset(name, command == "reset?all")


def _described(what: dict[str, Any], id: str, metadata: dict[str, Any]) -> bool:
    if "ids" in what:
        return id in what["ids"]
    if "prefix" in what:
        return id.startswith(what["prefix"])
    return bool(metadata["n"] == int(what["filter"].removeprefix("n = ")))


@dataclass(frozen=True)
class Done:
    """A request and its answer. ``after``: the mutation that its client had done before."""

    command: str
    namespace: str
    body: Any
    answer: Answer
    after: str | None

    @property
    def mutation(self) -> str | None:
        return self.answer.headers.get("X-Mutation-Id")


def drawn(rng: random.Random, tag: int) -> tuple[str, str, Any]:
    """Some request: command, namespace and body."""
    name, id = rng.choice(NAMESPACES), rng.choice(IDS)
    kind = rng.choices(
        ["upsert", "update", "delete", "range", "reset", "reset?all", "delete-namespace", "rename-namespace"],
        [12, 7, 6, 6, 2, 1, 3, 5],
    )[0]
    match kind:
        case "upsert":
            ids = rng.sample(IDS, rng.randint(1, 4))
            rows = [
                {"id": id, "vector": [1, tag], "metadata": {"n": rng.randrange(3), "by": tag}} for id in ids
            ]
            return kind, name, rows
        case "update":
            mode = rng.choice(["PATCH", "OVERWRITE"])
            metadata = {"n": rng.randrange(3), f"k{tag % 5}": tag}
            return kind, name, {"id": id, "metadata": metadata, "metadataUpdateMode": mode}
        case "delete":
            chosen = [
                {"ids": [id, rng.choice(IDS)]},
                {"prefix": id[0]},
                {"filter": f"n = {rng.randrange(3)}"},
            ]
            return kind, name, rng.choice(chosen)
        case "range":
            return kind, name, {"limit": 1_000, "includeMetadata": True}
        case "rename-namespace":
            old, new = rng.choice(NAMESPACES[1:]), rng.choice(NAMESPACES[1:])
            renaming = {"namespace": old, "newNamespace": new, "deleteExisting": rng.random() < 0.5}
            return kind, "", renaming
        case "delete-namespace":
            return kind, name or "a", None
        case _:
            return kind, "" if kind == "reset?all" else name, None


def call(api: Api, command: str, name: str, body: Any) -> Answer:
    """One request about the index of the story."""
    sent = None if body is None else json.dumps(body)
    return api.call("POST", f"/upstash/default/races/{command}{'/' if name else ''}{name}", sent)


def client(service: Service, number: int) -> list[Done]:
    """What one client does, each request when the one before is answered."""
    rng, done, last = random.Random(SEED + number), [], None
    for n in range(REQUESTS_EACH):
        command, name, body = drawn(rng, number * 1_000 + n)
        answer = call(service.apis[rng.randrange(2)], command, name, body)
        done.append(Done(command, name, body, answer, last))
        last = done[-1].mutation or last
    return done


def test_whatever_was_done_at_once_was_done_one_after_the_other(service: Service) -> None:
    assert service.apis[0].index("races").create(2).status == 200
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [one for each in pool.map(lambda n: client(service, n), range(CLIENTS)) for one in each]
    engine = open_engine(Settings.model_validate({"data": service.data, "token": TOKEN}))
    key = engine.find("default", "races").record.receipt_key

    def place(mutation: str | None) -> Receipt:
        return Receipt(0, 0) if mutation is None else parse(key, mutation)

    writes = sorted((one for one in done if one.mutation), key=lambda one: place(one.mutation))
    assert len(writes) > CLIENTS * REQUESTS_EACH / 2
    plain, states = Plain(), [(Receipt(0, 0), Plain())]
    for one in writes:
        expected = plain.do(one.command, one.namespace, one.body)
        got = one.answer.json["result"] if one.answer.status == 200 else one.answer.status
        assert got == expected, (one, place(one.mutation))
        states.append((place(one.mutation), deepcopy(plain)))

    for one in done:
        if one.command == "range":
            since = place(one.after)
            seen = one.answer.json["result"]["vectors"]
            assert any(seen == state.rows(one.namespace) for at, state in states if at >= since), one
        elif not one.mutation:
            assert (one.command, one.answer.status) == ("delete-namespace", 404), one

    for api in service.apis:
        assert set(call(api, "list-namespaces", "", None).json["result"]) == plain.spaces.keys()
        for name in NAMESPACES:
            left = call(api, "range", name, {"limit": 1_000, "includeMetadata": True}).json["result"][
                "vectors"
            ]
            assert left == plain.rows(name), name
        info = call(api, "info", "", None).json["result"]
        assert {name: one["vectorCount"] for name, one in info["namespaces"].items()} == {
            name: len(rows) for name, rows in plain.spaces.items()
        }
        assert info["vectorCount"] == sum(map(len, plain.spaces.values()))
