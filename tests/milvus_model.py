"""A collection of the Milvus door as a dict, and a client who does anything to both: whatever it asks, they must say the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np
import orjson

from tests.milvus_house import Answer, MilvusHouse, Row

DEFAULT: Final = "_default"
#: None: nobody knows, because there is nothing there that could be compared.
Claim = Callable[[Row], bool | None]
DECLARED: Final[list[Row]] = [
    {"fieldName": "n", "dataType": "Int64", "nullable": True},
    {"fieldName": "t", "dataType": "VarChar", "elementTypeParams": {"max_length": 20}, "defaultValue": "x"},
    {"fieldName": "b", "dataType": "Bool"},
    {"fieldName": "f", "dataType": "Double", "nullable": True},
    {"fieldName": "j", "dataType": "JSON", "nullable": True},
    {"fieldName": "a", "dataType": "Array", "elementDataType": "Int64", "elementTypeParams": {"max_capacity": 4}, "nullable": True},
]  # fmt: skip
LARGE: Final = (2**53 + 1, 2**63 - 1, -(2**63), 9_007_199_254_740_993)


@dataclass
class Model:
    """What there ought to be."""

    name: str
    texts: bool
    declared: bool
    dynamic: bool
    rows: dict[int | str, Row] = field(default_factory=dict)
    partition_of: dict[int | str, str] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=lambda: {DEFAULT})
    released: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """Its declared fields."""
        return [one["fieldName"] for one in DECLARED] if self.declared else []

    def put(self, rows: list[Row], partition: str | None) -> None:
        """Whole rows in the place of those with their keys."""
        for row in rows:
            whole = {"t": "x"} if self.declared else {}
            whole |= {
                name: value for name, value in row.items() if value is not None or name not in self.names
            }
            self.rows[row["id"]] = whole
            self.partition_of[row["id"]] = partition or DEFAULT

    def has(self, id: int | str, partition: str | None) -> bool:
        """Is there a row of this key: in a partition, or (None) anywhere?"""
        return id in self.rows and partition in (None, self.partition_of[id])

    def update(self, rows: list[Row], partition: str | None) -> None:
        """Change what rows give; add those that are not there, as if there were none elsewhere."""
        for row in rows:
            if not self.has(row["id"], partition):
                self.put([{name: value for name, value in row.items() if value is not None}], partition)
                continue
            old = self.rows[row["id"]] | row
            if self.declared and old.get("t", "") is None:
                old["t"] = "x"
            self.rows[row["id"]] = {
                name: value for name, value in old.items() if value is not None or name not in row
            }

    def remove(self, ids: list[int | str]) -> None:
        """Forget rows."""
        for id in ids:
            self.rows.pop(id, None)
            self.partition_of.pop(id, None)

    def found(self, claim: Claim, partitions: list[str] | None) -> list[int | str]:
        """The ids of rows of which it is true, in order."""
        return sorted(
            (
                id
                for id, row in self.rows.items()
                if claim(row) and (partitions is None or self.partition_of[id] in partitions)
            ),
            key=lambda id: id.encode() if isinstance(id, str) else id,
        )

    def shown(self, id: int | str, *, as_text: bool) -> Row:
        """A row as an answer has it."""
        row = self.rows[id]
        shown = {name: row.get(name) for name in self.names} | row
        if as_text:
            for name in ("n", "id") if self.declared else ("id",):
                shown[name] = str(shown[name]) if isinstance(shown.get(name), int) else shown.get(name)
            if self.declared and shown["a"] is not None:
                shown["a"] = [str(one) for one in shown["a"]]
        return shown


class Client:
    """Somebody who does anything."""

    def __init__(self, house: MilvusHouse, model: Model, chance: Random) -> None:
        self.house, self.model, self.chance = house, model, chance

    async def begin(self) -> None:
        """Make the collection."""
        model = self.model
        pk: Row = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
        if model.texts:
            pk |= {"dataType": "VarChar", "elementTypeParams": {"max_length": 30}}
        vector = {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": 2}}
        fields = [pk, vector, *(DECLARED if model.declared else [])]
        await self.house.make_full(fields, model.name, dynamic=model.dynamic, metrics={"vector": "L2"})

    async def step(self) -> None:
        """Do something."""
        steps = (
            [self.write] * 6
            + [self.update, self.update, self.delete, self.delete]
            + [self.query, self.query, self.get, self.count, self.search, self.partition, self.wrong]
        )
        await self.chance.choice(steps)()

    # Writing.

    def id(self) -> int | str:
        """One of a few keys, so that they meet."""
        number = self.chance.randrange(25)
        if self.model.texts:
            return self.chance.choice(["k", "ä", "K", "/"]) + str(number)
        return number if number > 3 else LARGE[number]

    def row(self, *, whole: bool = True) -> Row:
        """A row, or a part of one."""
        chance = self.chance
        row: Row = {"id": self.id()}
        if whole or chance.random() < 0.5:
            row["vector"] = [round(chance.uniform(-3, 3), 2) for _ in range(2)]
        values: dict[str, Callable[[], Any]] = {}
        if self.model.declared:
            values = {
                "n": lambda: chance.choice([None, 1, 2, 3, *LARGE]),
                "t": lambda: chance.choice([None, "x", "xy", "", "é%_"]),
                "b": lambda: chance.random() < 0.5,
                "f": lambda: chance.choice([None, 1.5, -2.25, 1e300]),
                "j": lambda: chance.choice([None, {"a": 1}, {"a": "1", "b": [1, 2]}, [1], 7, True, "q", {}]),
                "a": lambda: chance.choice([None, [], [1], [1, 2, 2], [LARGE[0]]]),
            }
        if self.model.dynamic:
            values |= {
                "d": lambda: chance.choice([None, 1, 1.0, "1", True, {"e": 2}, [1]]),
                "e f": lambda: chance.choice([None, "z", 2**63]),
            }
        for name, value in values.items():
            if (whole and name == "b") or chance.random() < 0.6:
                row[name] = value()
        return row

    def rows(self, *, whole: bool = True) -> list[Row]:
        """Some rows; parts of them have the same fields."""
        rows = [self.row(whole=whole) for _ in range(self.chance.randrange(1, 6))]
        if whole:
            return rows
        names = rows[0].keys()
        return [one for one in rows if one.keys() == names]

    def someplace(self) -> tuple[Row, str | None]:
        """Where it is written."""
        if self.chance.random() < 0.5:
            return {}, None
        name = self.chance.choice(sorted(self.model.partitions))
        return {"partitionName": name}, name

    async def ask(self, version: int, command: str, body: Row, **how: Any) -> Answer:
        """One request about the collection."""
        path = f"entities/{command}" if version == 2 else command
        return await self.house.ask(version, path, {"collectionName": self.model.name, **body}, **how)

    async def write(self) -> None:
        """insert, upsert."""
        rows, (where, partition) = self.rows(), self.someplace()
        verb, version = self.chance.choice(["insert", "upsert"]), self.chance.choice([1, 2])
        answer = await self.ask(version, verb, {"data": rows, **where})
        ids = [row["id"] for row in rows]
        if verb == "upsert" and len(set(ids)) < len(ids):
            assert answer.error[0] == 1100
            return
        assert answer.data == {f"{verb}Count": len(ids), f"{verb}Ids": ids}
        self.model.put(rows, partition if version == 2 else None)

    async def update(self) -> None:
        """upsert with partialUpdate."""
        rows, (where, partition) = self.rows(whole=False), self.someplace()
        version = self.chance.choice([1, 2])
        answer = await self.ask(version, "upsert", {"data": rows, "partialUpdate": True, **where})
        ids, needed = [row["id"] for row in rows], {"vector"} | ({"b", "t"} if self.model.declared else set())
        inside = partition if version == 2 else None
        lacking = not all(self.model.has(id, inside) for id in ids)
        if len(set(ids)) < len(ids) or (lacking and not needed <= rows[0].keys()):
            assert answer.error[0] == 1100, answer
            return
        assert answer.data["upsertIds"] == ids
        self.model.update(rows, inside)

    async def delete(self) -> None:
        """By ids or by a filter, everywhere or in a partition."""
        where, partition = self.someplace()
        if self.chance.random() < 0.4:
            ids = [self.id() for _ in range(self.chance.randrange(1, 4))]
            assert (await self.ask(1, "delete", {"id": ids})).data == {}
            self.model.remove(ids)
            return
        text, claim = self.claim()
        gone = self.model.found(claim, None if partition is None else [partition])
        deleted = (await self.ask(2, "delete", {"filter": text, **where})).data
        if not text.startswith("id in"):
            assert deleted == {"deleteCount": len(gone)}, (text, where)
        self.model.remove(gone)

    async def partition(self) -> None:
        """Make one, or release and drop one with its rows."""
        model, name = self.model, self.chance.choice(["p", "q", "r"])
        asked = {"collectionName": model.name, "partitionName": name}
        if self.chance.random() < 0.6:
            await self.house.data("partitions/create", asked)
            model.partitions.add(name)
        elif name in model.partitions:
            assert "please release it first" in (await self.house.error("partitions/drop", asked))[1]
            some = {"collectionName": model.name, "partitionNames": [name]}
            await self.house.data("partitions/release", some)
            refused = await self.ask(2, "query", {"filter": "", "limit": 1, "partitionNames": [name]})
            assert refused.error[0] == 201, refused
            if self.chance.random() < 0.5:
                await self.house.data("partitions/load", some)
                return
            await self.house.data("partitions/drop", asked)
            model.remove([id for id, where in model.partition_of.items() if where == name])
            model.partitions.discard(name)
        else:
            await self.house.data("partitions/drop", asked)
        listed = await self.house.data("partitions/list", {"collectionName": model.name})
        assert set(listed) == model.partitions and listed[0] == DEFAULT, (listed, model.partitions)

    async def wrong(self) -> None:
        """What is refused changes nothing."""
        bad: list[Row] = [
            {"id": 1.5}, {"id": None}, {"vector": [1]}, {"vector": [1, "x"]}, {"vector": None}, {"vector": [1, 1e39]}, {"$meta": 1},
        ]  # fmt: skip
        if self.model.declared:
            bad += [
                {"n": "x"},
                {"n": 2**63},
                {"t": "é" * 11},
                {"b": None},
                {"b": 7},
                {"a": [1] * 5},
                {"a": ["x"]},
            ]
        rows = [*self.rows(), self.row() | self.chance.choice(bad)]
        answer = await self.ask(self.chance.choice([1, 2]), "insert", {"data": rows})
        assert answer.error[0] in (1100, 1804), (answer, rows[-1])

    # Reading.

    def claim(self) -> tuple[str, Claim]:
        """What may be said of rows: as text, and as a function."""
        chance = self.chance
        if chance.random() < 0.3:
            (one, says), (two, means) = self.leaf(), self.leaf()
            if chance.random() < 0.5:
                return f"({one}) and ({two})", lambda row: _every(says(row), means(row))
            return f"({one}) or ({two})", lambda row: _some(says(row), means(row))
        text, claim = self.leaf()
        if chance.random() < 0.25:
            return f"not ({text})", lambda row: None if (said := claim(row)) is None else not said
        return text, claim

    def leaf(self) -> tuple[str, Claim]:
        """One comparison."""
        ids = [self.id() for _ in range(self.chance.randrange(4))]
        limit = self.chance.choice([0, 2, 2**53, LARGE[0]])
        leaves: list[tuple[str, Claim]] = [
            (f"id in {orjson.dumps(ids).decode()}", lambda row: row["id"] in ids),
        ]
        if ids:
            order = self.chance.choice(["<", ">="])
            leaves += [
                (
                    f"id {order} {orjson.dumps(ids[0]).decode()}",
                    lambda row: _ordered(row["id"], order, ids[0]),
                )
            ]
        if self.model.declared:
            leaves += [
                (f"n > {limit}", lambda row: row["n"] > limit if "n" in row else None),
                ("n is null", lambda row: "n" not in row),
                ('t == "x"', lambda row: row["t"] == "x"),
                ('t like "x%"', lambda row: row["t"].startswith("x")),
                ("b == true", lambda row: row["b"]),
                ("f < 0.5", lambda row: row["f"] < 0.5 if "f" in row else None),
                ("array_contains(a, 1)", lambda row: 1 in row["a"] if "a" in row else None),
                ("array_length(a) == 3", lambda row: len(row["a"]) == 3 if "a" in row else None),
                ('j["a"] == 1', lambda row: _is_one(row["j"].get("a")) if isinstance(row.get("j"), dict) else None),
                ('exists j["b"]', lambda row: isinstance(row.get("j"), dict) and "b" in row["j"]),
            ]  # fmt: skip
        if self.model.dynamic:
            leaves += [
                ("d == 1", lambda row: _is_one(row.get("d"))),
                ("exists d", lambda row: row.get("d") is not None),
                ("d is null", lambda row: row.get("d") is None),
                ("d['e'] == 2", lambda row: row["d"]["e"] == 2 if isinstance(row.get("d"), dict) else None),
                ('$meta["e f"] == "z"', lambda row: row["e f"] == "z" if isinstance(row.get("e f"), str) else None),
            ]  # fmt: skip
        return self.chance.choice(leaves)

    def inside(self) -> tuple[Row, list[str] | None]:
        """Where it is read."""
        if self.chance.random() < 0.6:
            return {}, None
        names = self.chance.sample(sorted(self.model.partitions), 1)
        return {"partitionNames": names}, names

    def style(self) -> tuple[dict[str, str], bool]:
        """Headers, and whether they ask for integers as texts."""
        as_text = self.chance.random() < 0.4
        return ({"Accept-Type-Allow-Int64": "false"} if as_text else {}), as_text

    async def query(self) -> None:
        """Rows by a filter."""
        text, claim = self.claim()
        (headers, as_text), (where, partitions) = self.style(), self.inside()
        limit, offset = self.chance.choice([(3, 0), (100, 0), (2, 1)])
        version = 2 if where else self.chance.choice([1, 2])
        if version == 1:
            await self.house.settle(self.model.name)
        asked = {
            "filter": text,
            "limit": limit,
            "offset": offset,
            "outputFields": ["*"],
            "consistencyLevel": "Strong",
        }
        rows = (await self.ask(version, "query", asked | where, headers=headers)).data
        ids = self.model.found(claim, partitions)[offset:][:limit]
        assert rows == [self.model.shown(id, as_text=as_text) for id in ids], (text, where)

    async def get(self) -> None:
        """Rows by ids."""
        ids = [self.id() for _ in range(self.chance.randrange(1, 5))]
        (headers, as_text), (where, partitions) = self.style(), self.inside()
        given = [str(id) for id in ids] if self.chance.random() < 0.3 else ids
        rows = (
            await self.ask(2, "get", {"id": given, "consistencyLevel": "Strong", **where}, headers=headers)
        ).data
        found = self.model.found(lambda row: row["id"] in ids, partitions)
        assert rows == [self.model.shown(id, as_text=as_text) for id in found]

    async def count(self) -> None:
        """How many rows there are."""
        text, claim = self.claim()
        where, partitions = self.inside()
        asked = {"filter": text, "outputFields": ["count(*)"], "consistencyLevel": "Strong"}
        found = (await self.ask(2, "query", asked | where)).data
        assert found == [{"count(*)": len(self.model.found(claim, partitions))}], (text, where)

    async def search(self) -> None:
        """The nearest rows."""
        text, claim = self.claim()
        where, partitions = self.inside()
        sought = np.array([self.chance.uniform(-3, 3) for _ in range(2)], np.float32)
        asked = {"data": [sought.tolist()], "filter": text, "limit": 5, "outputFields": ["*"], "consistencyLevel": "Strong"}  # fmt: skip
        answer = await self.ask(2, "search", asked | where)
        hits = answer.data
        near = {
            id: float(((np.array(self.model.rows[id]["vector"]) - sought.astype(float)) ** 2).sum())
            for id in self.model.found(claim, partitions)
        }
        assert answer.json["topks"] == [len(hits)]
        assert np.allclose([hit["distance"] for hit in hits], sorted(near.values())[:5], rtol=1e-5), text
        for hit in hits:
            distance = hit.pop("distance")
            assert np.isclose(distance, near[hit["id"]], rtol=1e-5)
            assert hit == self.model.shown(hit["id"], as_text=False)


def _is_one(value: Any) -> bool | None:
    return value == 1 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ordered(one: Any, order: str, other: Any) -> bool:
    if isinstance(one, str):
        one, other = one.encode(), other.encode()
    return bool(one < other) if order == "<" else bool(one >= other)


def _every(one: bool | None, other: bool | None) -> bool | None:
    return False if False in (one, other) else None if None in (one, other) else True


def _some(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else None if None in (one, other) else False
