"""Who writes and reads at the Milvus door: rows of a collection as the other door's writers do (judged by ``door_check.py``), and rows whose ids
are given here, sent again until that is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.crash.door_history import DoorRead, DoorWrite, Receipt
from tests.crash.milvus_history import AutoInsert, AutoRead
from tests.crash.processes import Slot
from tests.crash.world import RESEND_S, Spec, World, now
from tests.plain_index import FILTERED, PlainMutation, PlainRow
from upwell.changeset import KeyScope, Operation
from upwell.errors import NotFound
from upwell.log.receipt import parse

ROWS = Spec("rows", members=0, groups=0, dimensions=3)
AUTO = "auto"
PARTITIONS = ("", "p")
IDS = tuple(str(number) for number in (*range(4), 2**53 + 1))
#: Values that rows have at FILTERED.
KINDS = 3
#: Codes of answers that do not say whether it was done: not ready, and no room.
UNSURE_CODES = frozenset({1, 9})
#: It is behind: not taken.
BEHIND = 8
VECTOR = {"fieldName": "vector", "dataType": "FloatVector", "elementTypeParams": {"dim": "3"}}
ID = {"fieldName": "id", "dataType": "Int64", "isPrimary": True}
KIND = {"fieldName": FILTERED, "dataType": "Int64", "nullable": True}
INDEXED = [{"fieldName": "vector", "indexName": "vector", "metricType": "L2", "indexType": "AUTOINDEX"}]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; ``code`` -1: there was none."""

    code: int
    data: Any
    headers: Mapping[str, str]
    message: str = ""

    @property
    def unsure(self) -> bool:
        """Was it done? Nobody knows."""
        return self.code == -1 or self.code in UNSURE_CODES


@dataclass
class MilvusLoad:
    """What goes on at the door: start ``write``, ``insert`` and the others in tasks, and set ``halt``."""

    world: World
    pause_s: float = 0.06
    halt: bool = False
    #: The numbers of all that is made.
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def ask(self, slot: Slot, command: str, body: Any, **headers: str) -> Told:
        """One request. Whatever no request should be answered is written down."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        status, said, got = await self.world.milvus(slot, command, body, sent)
        if status == 0 or not isinstance(said, dict):
            return Told(-1, None, got)
        if status != 200:
            self.world.wrong(slot, command, f"{status}: {said}")
        return Told(said.get("code", -1), said.get("data"), got, said.get("message", ""))

    async def must(self, command: str, body: Any) -> Any:
        """The same, in peace."""
        told = await self.ask(await self.world.any_front_end(), command, body)
        assert told.code == 0, told
        return told.data

    async def begin(self) -> None:
        """Make the collections, in peace."""
        for name, auto in ((ROWS.name, False), (AUTO, True)):
            schema = {"autoId": auto, "enableDynamicField": True, "fields": [ID, VECTOR, KIND]}
            body = {"collectionName": name, "schema": schema, "indexParams": INDEXED}
            await self.must("collections/create", body)
        await self.must("partitions/create", {"collectionName": ROWS.name, "partitionName": "p"})
        self.world.follow_door(ROWS.name, KeyScope.INDEX)

    # Rows, as the other door's.

    async def write(self) -> None:
        """Be a writer."""
        dice = self.world.dice
        while not self.halt:
            await self.send(self._mutation())
            if dice.random() < 0.5:
                await self.query(await self.world.any_front_end(), dice.choice(PARTITIONS))
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def read(self) -> None:
        """Be a reader."""
        dice = self.world.dice
        while not self.halt:
            await self.query(await self.world.any_front_end(), dice.choice(PARTITIONS))
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    def _mutation(self) -> PlainMutation:
        dice, number = self.world.dice, next(self.numbers)
        partition = dice.choice(PARTITIONS) or None
        names = dice.sample(IDS, dice.randrange(1, 4))
        metadata = {FILTERED: dice.randrange(KINDS), "n": number}
        vector = (float(number), 0.5, 0.5)
        match dice.choices(["put", "partial", "metadata", "ids", "filter"], [5, 2, 2, 1, 1])[0]:
            case "put":
                rows = tuple(PlainRow(name, partition, vector, metadata=metadata) for name in names)
                return self._of(Operation.UPSERT, rows=rows)
            case "partial":
                given = {"m": number} if dice.random() < 0.5 else {"n": number, "m": None, "j": {"x": number}}
                rows = tuple(PlainRow(name, partition, vector, metadata=metadata | given) for name in names)
                rows = tuple(PlainRow(one.id, one.namespace, vector, metadata=one.metadata) for one in rows)
                return self._of(Operation.UPDATE, rows=rows, patch=True, shallow=True, adds=True)
            case "metadata":
                rows = tuple(PlainRow(name, partition, metadata={f"c{number % 3}": number}) for name in names)
                return self._of(Operation.UPDATE, rows=rows, patch=True, shallow=True)
            case "ids":
                return self._of(Operation.DELETE, rows=tuple(PlainRow(name) for name in names))
            case _:
                return self._of(
                    Operation.DELETE_MATCHING, namespace=partition, equal=float(dice.randrange(KINDS))
                )

    def _of(self, operation: Operation, **more: Any) -> PlainMutation:
        return PlainMutation(operation=operation, scope=KeyScope.INDEX, **more)

    async def send(self, mutation: PlainMutation) -> DoorWrite:
        """One mutation, once."""
        command, body = as_sent(mutation, as_insert=self.world.dice.random() < 0.5)
        slot, started = await self.world.any_front_end(), now()
        waits = {"Prefer": "wait=2"} if self.world.dice.random() < 0.3 else {}
        told = await self.ask(slot, command, body, **waits)
        receipt = self._receipt(slot, told.headers.get("X-Mutation-Id"))
        counted, refused = None, told.code == BEHIND
        if told.code == 0:
            if receipt is None:
                self.world.wrong(slot, command, "a success without a mutation")
            if mutation.operation is Operation.DELETE_MATCHING:
                counted = told.data.get("deleteCount")
        elif told.code == 1100 and "no row with the primary key" in told.message:
            refused = True
        elif not told.unsure and not refused:
            self.world.wrong(slot, command, f"{told}")
        write = DoorWrite(
            index=ROWS.name, mutation=mutation, started=started, ended=now(), front_end=slot.name,
            receipt=receipt, counted=counted, refused=refused,
        )  # fmt: skip
        self.world.history.door.writes.append(write)
        return write

    def _receipt(self, slot: Slot, mutation_id: str | None) -> Receipt | None:
        if mutation_id is None:
            return None
        try:
            found = parse(self.world.indexes[ROWS.name].record.receipt_key, mutation_id)
        except NotFound:
            self.world.wrong(slot, "write", f"not an id of {ROWS.name}: {mutation_id}")
            return None
        return found.position, found.place

    async def query(self, slot: Slot, partition: str, *, last: bool = False) -> None:
        """All rows of a partition, Strong: what was acknowledged before is in it."""
        started = now()
        body = {
            "collectionName": ROWS.name,
            "filter": f"id in [{','.join(IDS)}]",
            "outputFields": ["*"],
            "partitionNames": [partition or "_default"],
            "consistencyLevel": "Strong",
        }
        told = await self.ask(slot, "entities/query", body)
        if told.code != 0:
            if not told.unsure:
                self.world.wrong(slot, "query", told)
            return
        there = {str(row["id"]): shown_of(row) for row in told.data}
        rows = tuple((name, there.get(name)) for name in sorted({*IDS, *there}))
        self.world.history.door.reads.append(
            DoorRead(
                index=ROWS.name, front_end=slot.name, namespace=partition, started=started, ended=now(),
                rows=rows, last=last,
            )
        )  # fmt: skip

    # Rows whose ids are given here.

    async def insert(self) -> None:
        """Be a writer of rows without ids, who sends each request until it is answered, and some once more."""
        dice, number = self.world.dice, 0
        while not self.halt:
            number = next(self.numbers)
            rows = [{"vector": [number, n, 1], FILTERED: 1, "n": number} for n in range(dice.randrange(1, 4))]
            one = AutoInsert(number, len(rows), now())
            self.world.history.milvus.inserts.append(one)
            again = dice.random() < 0.3
            while now() - one.started < RESEND_S:
                slot = await self.world.any_front_end()
                told = await self.ask(
                    slot,
                    "entities/insert",
                    {"collectionName": AUTO, "data": rows},
                    Idempotency_Key=f"k{number}",
                )
                if told.code == 0:
                    told_ids = tuple(map(str, told.data["insertIds"]))
                    one.answers.append((told_ids, told.headers.get("X-Mutation-Id", "")))
                    one.ended = now()
                    if not again:
                        break
                    again = False
                elif not told.unsure and told.code != BEHIND:
                    self.world.wrong(slot, "insert", told)
                    break
            if one.answers:
                await self.look_for(number)
            await asyncio.sleep(dice.uniform(0, 3 * self.pause_s))

    async def look_for(self, number: int | None) -> None:
        """The rows of one such request, or of all of them, at any front end, Strong."""
        slots = [await self.world.any_front_end()] if number is not None else self.world.processes.of("api")
        for slot in slots:
            started = now()
            body: dict[str, Any] = {"collectionName": AUTO, "outputFields": ["id", "n"], "limit": 16_000}
            body |= {
                "filter": f"n == {number}" if number else f"{FILTERED} == 1",
                "consistencyLevel": "Strong",
            }
            told = await self.ask(slot, "entities/query", body)
            if told.code == 0:
                found = tuple((int(row["n"]), str(row["id"])) for row in told.data)
                self.world.history.milvus.reads.append(AutoRead(slot.name, started, number, found))
            elif not told.unsure:
                self.world.wrong(slot, "query", told)

    async def finish(self) -> None:
        """Once all is quiet: everything, on every front end."""
        while (await self.send(self._mutation())).receipt is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for slot in self.world.processes.of("api"):
            for partition in PARTITIONS:
                await self.query(slot, partition, last=True)
        await self.look_for(None)


def as_sent(mutation: PlainMutation, *, as_insert: bool) -> tuple[str, Any]:
    """The command and the body that say this."""
    partition = (mutation.rows[0].namespace if mutation.rows else mutation.namespace) or ""
    body: dict[str, Any] = {"collectionName": ROWS.name}
    if partition or mutation.operation is Operation.DELETE_MATCHING:
        body["partitionName"] = partition or "_default"
    match mutation.operation:
        case Operation.UPSERT:
            command = "entities/insert" if as_insert else "entities/upsert"
            return command, body | {"data": [_item(row) for row in mutation.rows]}
        case Operation.UPDATE:
            return "entities/upsert", body | {
                "data": [_item(row) for row in mutation.rows],
                "partialUpdate": True,
            }
        case Operation.DELETE:
            return "entities/delete", body | {
                "filter": f"id in [{','.join(row.id for row in mutation.rows)}]"
            }
        case Operation.DELETE_MATCHING:
            if mutation.namespace is None:
                del body["partitionName"]
            return "entities/delete", body | {"filter": f"{FILTERED} == {mutation.equal:g}"}
    raise ValueError(mutation.operation)


def _item(row: PlainRow) -> dict[str, Any]:
    item: dict[str, Any] = {"id": int(row.id), **(row.metadata or {})}
    if row.values is not None:
        item["vector"] = row.values
    return item


def shown_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row that a query showed, as ``door_check.py`` has it."""
    metadata = {
        name: value for name, value in row.items() if name not in ("id", "vector") and value is not None
    }
    return {"vector": row["vector"], "metadata": metadata}
