"""Who writes and reads at the Milvus door: rows of a collection as the other door's writers do (judged by ``door_check.py``), with texts, by
whose words they are found and deleted; and rows whose ids are given here, sent again until that is answered."""

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
from tests.plain_full_text import FUNCTION, TEXT_FIELDS, counted
from tests.plain_index import FILTERED, TEXTED, PlainMutation, PlainRow
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
#: Texts, whose words may be asked for, and the sparse vectors that a function makes of them.
TEXT, SPARSE = TEXT_FIELDS
TEXT = TEXT | {"elementTypeParams": TEXT["elementTypeParams"] | {"enable_match": True}}
BY_TEXT = {"fieldName": "sparse", "indexName": "by_text", "metricType": "BM25"}
WORDS = ("log", "queue", "shard", "door")


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
        for name, auto, texts in ((ROWS.name, False, True), (AUTO, True, False)):
            schema: dict[str, Any] = {"autoId": auto, "enableDynamicField": True}
            schema["fields"] = [ID, VECTOR, KIND, *([TEXT, SPARSE] if texts else [])]
            schema |= {"functions": [FUNCTION]} if texts else {}
            indexed = [*INDEXED, *([BY_TEXT] if texts else [])]
            await self.must(
                "collections/create", {"collectionName": name, "schema": schema, "indexParams": indexed}
            )
        await self.must("partitions/create", {"collectionName": ROWS.name, "partitionName": "p"})
        self.world.follow_door(ROWS.name, KeyScope.INDEX)

    # Rows, as the other door's.

    async def write(self) -> None:
        """Be a writer."""
        dice = self.world.dice
        while not self.halt:
            await self.send(self._mutation())
            if dice.random() < 0.5:
                await self._look()
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def read(self) -> None:
        """Be a reader."""
        dice = self.world.dice
        while not self.halt:
            await self._look()
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def _look(self) -> None:
        dice = self.world.dice
        slot, partition = await self.world.any_front_end(), dice.choice(PARTITIONS)
        match dice.randrange(3):
            case 0:
                await self.query(slot, partition)
            case 1:
                await self.query(slot, partition, dice.choice(WORDS))
            case _:
                await self.search(slot, partition, " ".join(dice.choices(WORDS, k=2)))

    def _mutation(self) -> PlainMutation:
        dice, number = self.world.dice, next(self.numbers)
        partition = dice.choice(PARTITIONS) or None
        names = dice.sample(IDS, dice.randrange(1, 4))
        metadata: dict[str, Any] = {FILTERED: dice.randrange(KINDS), "n": number}
        vector = (float(number), 0.5, 0.5)
        # A partial update means rows that lie in the partition that it names, and else rows anywhere.
        partial = {"patch": True, "shallow": True, "inside": partition is not None or dice.random() < 0.5}
        match dice.choices(
            ["put", "partial", "metadata", "text", "ids", "filter", "words"], [5, 2, 2, 2, 1, 1, 1]
        )[0]:
            case "put":
                rows = self._rows(names, partition, metadata, vector)
                return self._of(Operation.UPSERT, rows=rows)
            case "partial":
                given = {"m": number} if dice.random() < 0.5 else {"m": None, "j": {"x": number}}
                rows = self._rows(names, partition, metadata | given, vector)
                return self._of(Operation.UPDATE, rows=rows, adds=True, **partial)
            case "metadata":
                rows = tuple(PlainRow(name, partition, metadata={f"c{number % 3}": number}) for name in names)
                return self._of(Operation.UPDATE, rows=rows, **partial)
            case "text":
                rows = self._rows(names, partition, {f"c{number % 3}": number}, None)
                return self._of(Operation.UPDATE, rows=rows, **partial)
            case "ids":
                return self._of(Operation.DELETE, rows=tuple(PlainRow(name) for name in names))
            case "filter":
                return self._of(
                    Operation.DELETE_MATCHING, namespace=partition, equal=float(dice.randrange(KINDS))
                )
            case _:
                words = tuple(dice.sample(WORDS, 2))
                named = partition or dice.choice(["", None])
                given_as = dice.choice(["words", "phrase"])
                return self._of(Operation.DELETE_MATCHING, namespace=named, **{given_as: words})

    def _rows(
        self,
        names: list[str],
        partition: str | None,
        metadata: dict[str, Any],
        vector: tuple[float, ...] | None,
    ) -> tuple[PlainRow, ...]:
        """Rows with texts."""
        dice = self.world.dice
        texts = [" ".join(dice.choices([*WORDS, "Log"], k=dice.randrange(5))) for _ in names]
        return tuple(
            PlainRow(name, partition, vector, counted(text), metadata=metadata | {TEXTED: text})
            for name, text in zip(names, texts, strict=True)
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

    async def query(self, slot: Slot, partition: str, words: str = "", *, last: bool = False) -> None:
        """All rows of a partition, or those whose text has a word, Strong: what was acknowledged before is in it."""
        asked = f'text_match({TEXTED}, "{words}")' if words else f"id in [{','.join(IDS)}]"
        body = {"filter": asked, "outputFields": ["*"]}
        told, started = await self._strong(slot, "entities/query", partition, body)
        if told is not None:
            there = {str(row["id"]): shown_of(row) for row in told}
            names = there if words else {*IDS, *there}
            rows = tuple((name, there.get(name)) for name in sorted(names))
            self._note(slot, partition, started, rows=rows, words=words, last=last)

    async def search(self, slot: Slot, partition: str, words: str, *, last: bool = False) -> None:
        """What BM25 says of a partition's rows, Strong."""
        body = {"data": [words], "annsField": "sparse", "limit": 100, "outputFields": ["id"]}
        told, started = await self._strong(slot, "entities/search", partition, body)
        if told is not None:
            rows = tuple((str(row["id"]), {"score": row["distance"]}) for row in told)
            self._note(slot, partition, started, rows=rows, words=words, scored=True, last=last)

    async def _strong(self, slot: Slot, command: str, partition: str, body: Any) -> tuple[Any, float]:
        """The data of an answer, if there is one, and when it was asked for."""
        started = now()
        body |= {"collectionName": ROWS.name, "partitionNames": [partition or "_default"]}
        told = await self.ask(slot, command, body | {"consistencyLevel": "Strong"})
        if told.code != 0 and not told.unsure:
            self.world.wrong(slot, command, told)
        return told.data if told.code == 0 else None, started

    def _note(self, slot: Slot, partition: str, started: float, **seen: Any) -> None:
        self.world.history.door.reads.append(
            DoorRead(
                index=ROWS.name, front_end=slot.name, namespace=partition, started=started, ended=now(), **seen
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
                for words in WORDS:
                    await self.query(slot, partition, words, last=True)
                    await self.search(slot, partition, f"{words} {WORDS[0]}", last=True)
        await self.look_for(None)


def as_sent(mutation: PlainMutation, *, as_insert: bool) -> tuple[str, Any]:
    """The command and the body that say this."""
    partition = (mutation.rows[0].namespace if mutation.rows else mutation.namespace) or ""
    body: dict[str, Any] = {"collectionName": ROWS.name}
    if partition or mutation.inside or mutation.operation is Operation.DELETE_MATCHING:
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
            return "entities/delete", body | {"filter": _filter(mutation)}
    raise ValueError(mutation.operation)


def _filter(mutation: PlainMutation) -> str:
    if mutation.equal is not None:
        return f"{FILTERED} == {mutation.equal:g}"
    how, words = ("text_match", mutation.words) if mutation.words else ("phrase_match", mutation.phrase)
    return f'{how}({TEXTED}, "{" ".join(words)}")'


def _item(row: PlainRow) -> dict[str, Any]:
    item: dict[str, Any] = {"id": int(row.id), **(row.metadata or {})}
    if row.values is not None:
        item["vector"] = row.values
    return item


def shown_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row that a query showed, as ``door_check.py`` has it. Its sparse vector is not shown, and must be what its text says."""
    metadata = {
        name: value for name, value in row.items() if name not in ("id", "vector") and value is not None
    }
    sparse = counted(row[TEXTED])
    return {
        "vector": row["vector"],
        "sparseVector": {"indices": [index for index, _ in sparse], "values": [count for _, count in sparse]},
        "metadata": metadata,
    }
