"""Who writes and reads at the Upstash door: updates, deletes by what rows are like, namespaces that come, go and change their names, and
texts whose vectors a server makes, which is away now and then."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from urllib.parse import quote

from tests.crash.door_history import DoorRead, DoorWrite, Receipt
from tests.crash.load import Load
from tests.crash.processes import Slot
from tests.crash.world import UNSURE, Spec, World, now
from tests.embedding_server import DIMENSIONS, Answer, Asked, sound
from tests.plain_index import FILTERED, PlainMutation, PlainRow
from upwell.changeset import KeyScope, Operation
from upwell.errors import NotFound
from upwell.log.receipt import parse

SPACES = Spec("spaces", members=0, groups=0, dimensions=3, shards=3)
TEXTS = Spec("texts", members=0, groups=0, dimensions=DIMENSIONS, shards=2)
#: What creating them says besides; ``texts`` decides with its first write what ids are unique in.
CREATED: dict[str, dict[str, Any]] = {
    "spaces": {"kind": "hybrid", "idsUniqueIn": "namespace"},
    "texts": {"embeddingModel": "LETTERS"},
}
MODEL = "LETTERS"
NAMESPACES = ("", "a", "b", "c")
IDS = ("x-0", "x-1", "x-2", "y-0", "y-1")
PREFIXES = ("x-", "y-", "x-1")
#: Values that rows have at FILTERED.
KINDS = 3
#: A text with this in it is refused, for ever.
REFUSED = "refuse me"
EVERYTHING = {"includeVectors": True, "includeMetadata": True, "includeData": True}
INCLUDED = ("vector", "sparseVector", "metadata", "data")


@dataclass
class Moods:
    """How the embedding server is today: it answers, is away, slow, or breaks off in the midst; some texts it never takes."""

    world: World
    halt: bool = False
    #: How often it was asked in which mood.
    seen: dict[str, int] = field(default_factory=dict)
    _mood: str = "well"

    def answer(self, asked: Asked) -> Answer:
        """Its answer. Called by many threads."""
        mood = self._mood
        self.seen[mood] = self.seen.get(mood, 0) + 1
        if mood == "away":
            return Answer({"error": {"message": "come back later"}}, 503)
        if mood == "slow":
            time.sleep(0.3)
        if any(REFUSED in text for text in asked.texts):
            return Answer({"error": {"message": "no such texts, please"}}, 422)
        return Answer(sound(asked.texts), cut=20 if mood == "breaks off" else None)

    async def change(self) -> None:
        """Be well most of the time."""
        self.world.model.answer = self.answer
        dice = random.Random(self.world.dice.random())
        while not self.halt:
            self._mood = dice.choices(["well", "away", "slow", "breaks off"], [6, 1, 2, 1])[0]
            for _ in range(dice.randrange(6, 30)):
                if not self.halt:
                    await asyncio.sleep(0.05)
        self._mood = "well"


@dataclass
class DoorLoad:
    """What goes on at the door: start ``write`` and ``read`` in tasks, and set ``halt``."""

    world: World
    #: Whoever knows how to ask for a status.
    load: Load
    pause_s: float = 0.06
    halt: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def write(self) -> None:
        """Be a writer."""
        dice = self.world.dice
        while not self.halt:
            spec = dice.choice([SPACES, TEXTS])
            if spec is TEXTS and dice.random() < 0.02:
                many = [self._many_texts(dice.choice(NAMESPACES)) for _ in range(4)]
                await asyncio.gather(*(self.send(TEXTS, one) for one in many))
                continue
            write = await self.send(spec, self._mutation(spec))
            if write.receipt is not None and dice.random() < 0.4:
                slot = await self.world.any_front_end()
                await dice.choice([self.fetch, self.range])(spec, slot, dice.choice(NAMESPACES))
                await self.status(spec, write.receipt, dice.choice([0, 1]))
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def read(self) -> None:
        """Be a reader."""
        dice = self.world.dice
        kinds: list[Callable[[Spec, Slot, str], Awaitable[object]]] = [
            self.fetch,
            self.prefixed,
            self.range,
            self.namespaces,
        ]
        while not self.halt:
            slot = await self.world.any_front_end()
            await dice.choice(kinds)(dice.choice([SPACES, TEXTS]), slot, dice.choice(NAMESPACES))
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def finish(self) -> None:
        """Once all is quiet: everything, on every front end, and what became of the newest mutations."""
        for spec in (SPACES, TEXTS):
            while (await self.send(spec, self._upsert(spec, ""))).receipt is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            known = [one for one in self.world.history.door.writes if one.index == spec.name]
            receipts = sorted(one.receipt for one in known if one.receipt is not None)
            for slot in self.world.processes.of("api"):
                await self.load.status(spec, slot, self.load.mutation_id(spec, receipts[-1]), 30)
                for namespace in NAMESPACES:
                    await self.range(spec, slot, namespace, last=True)
            for receipt in receipts[-150:]:
                await self.status(spec, receipt, 0)

    # Writing.

    def _mutation(self, spec: Spec) -> PlainMutation:
        dice = self.world.dice
        namespace = dice.choice(NAMESPACES)
        kinds = ["upsert", "update", "ids", "prefix", "filter", "reset", "all", "delete", "rename"]
        kind = dice.choices(kinds, [6, 5, 1, 1, 1, 0.4, 0.1, 0.4, 0.7])[0]
        match kind:
            case "upsert":
                return self._upsert(spec, namespace)
            case "update":
                return self._update(spec, namespace)
            case "ids":
                rows = tuple(PlainRow(name, namespace or None) for name in dice.sample(IDS, 2))
                return self._of(Operation.DELETE, rows=rows)
            case "prefix":
                return self._of(Operation.DELETE_MATCHING, namespace=namespace, prefix=dice.choice(PREFIXES))
            case "filter":
                return self._of(
                    Operation.DELETE_MATCHING, namespace=namespace, equal=float(dice.randrange(KINDS))
                )
            case "reset":
                return self._of(Operation.RESET, namespace=namespace)
            case "all":
                return self._of(Operation.RESET)
            case "delete":
                return self._of(Operation.DELETE_NAMESPACE, namespace=namespace or "a")
            case _:
                old, new = dice.sample(NAMESPACES[1:], 2)
                return self._of(
                    Operation.RENAME_NAMESPACE,
                    namespace=old,
                    new_namespace=new,
                    delete_existing=dice.random() < 0.3,
                )

    def _of(self, operation: Operation, **more: Any) -> PlainMutation:
        return PlainMutation(operation=operation, scope=KeyScope.NAMESPACE, **more)

    def _upsert(self, spec: Spec, namespace: str) -> PlainMutation:
        number = next(self._numbers)
        names = self.world.dice.choices(IDS, k=self.world.dice.randrange(1, 5))
        as_texts = spec is TEXTS and self.world.dice.random() < 0.8
        rows = tuple(self._row(spec, namespace, name, number, as_texts=as_texts) for name in names)
        return self._of(Operation.UPSERT, rows=rows)

    def _many_texts(self, namespace: str) -> PlainMutation:
        """More texts than a drain embeds at once, if a few of these come together: then it asks others for help."""
        number = next(self._numbers)
        names = self.world.dice.choices(IDS, k=600)
        data = self._text(number)
        rows = (self._row(TEXTS, namespace, name, number, as_texts=True) for name in names)
        return self._of(Operation.UPSERT, rows=tuple(replace(row, data=data) for row in rows))

    def _row(self, spec: Spec, namespace: str, name: str, number: int, *, as_texts: bool) -> PlainRow:
        return PlainRow(
            id=name,
            namespace=namespace or None,
            values=None if as_texts else (float(number), *[0.5] * (spec.dimensions - 1)),
            sparse=((number, 0.5), (7, float(number))) if spec is SPACES else None,
            data=self._text(number) if as_texts else f"of {number}",
            metadata={FILTERED: self.world.dice.randrange(KINDS), "n": number},
        )

    def _text(self, number: int) -> str:
        return f"{REFUSED}, {number}" if self.world.dice.random() < 0.03 else f"text {number}"

    def _update(self, spec: Spec, namespace: str) -> PlainMutation:
        dice, number = self.world.dice, next(self._numbers)
        row = self._row(spec, namespace, dice.choice(IDS), number, as_texts=spec is TEXTS)
        data = row.data if dice.random() < 0.5 else None
        metadata: dict[str, Any] | None = dice.choice([row.metadata, {"n": number}, {FILTERED: None}, None])
        patch = metadata is not None and (metadata.get(FILTERED, 0) is None or dice.random() < 0.6)
        if metadata is None and data is None:
            metadata = {"n": number}
        has_vectors = spec is SPACES and dice.random() < 0.5
        changed = PlainRow(
            row.id, row.namespace, row.values if has_vectors else None, row.sparse if has_vectors else None,
            data, metadata,
        )  # fmt: skip
        return self._of(Operation.UPDATE, rows=(changed,), patch=patch)

    async def send(self, spec: Spec, mutation: PlainMutation) -> DoorWrite:
        """One mutation, once."""
        command, body = as_sent(mutation)
        slot = await self.world.any_front_end()
        started = now()
        status, envelope, headers = await self.world.door(slot, spec.name, command, body)
        said = envelope.get("error", "") if isinstance(envelope, dict) else ""
        receipt = self._receipt(spec, slot, headers.get("X-Mutation-Id"))
        counted, failed, refused = None, None, status == 429
        if status == 200:
            result = envelope["result"]
            if isinstance(result, dict):
                counted = result.get("updated", result.get("deleted"))
            if receipt is None:
                self.world.wrong(slot, f"{command} in {spec.name}", "a success without a mutation")
        elif status in (404, 409) and mutation.operation is Operation.RENAME_NAMESPACE:
            failed = said
        elif status == 404 and mutation.operation is Operation.DELETE_NAMESPACE:
            refused = True
            self._note(spec, slot, mutation.namespace or "", started, exists=False)
        elif status == 422 and receipt is not None:
            failed = said
        elif status not in UNSURE | {429, 500}:
            self.world.wrong(slot, f"{command} in {spec.name}", f"{status}: {envelope}")
        write = DoorWrite(
            index=spec.name, mutation=mutation, started=started, ended=now(), front_end=slot.name,
            receipt=receipt, counted=counted, failed=failed, refused=refused,
        )  # fmt: skip
        self.world.history.door.writes.append(write)
        return write

    def _receipt(self, spec: Spec, slot: Slot, mutation_id: str | None) -> Receipt | None:
        if mutation_id is None:
            return None
        try:
            found = parse(self.world.indexes[spec.name].record.receipt_key, mutation_id)
        except NotFound:
            self.world.wrong(slot, "write", f"not an id of {spec.name}: {mutation_id}")
            return None
        return found.position, found.place

    # Reading.

    async def status(self, spec: Spec, receipt: Receipt, wait_s: float) -> None:
        """What became of a mutation, on any front end."""
        slot = await self.world.any_front_end()
        await self.load.status(spec, slot, self.load.mutation_id(spec, receipt), wait_s)

    async def fetch(self, spec: Spec, slot: Slot, namespace: str) -> None:
        """Some rows by their ids."""
        names = self.world.dice.sample(IDS, self.world.dice.randrange(1, len(IDS) + 1))
        started = now()
        found = await self._ask(spec, slot, f"fetch/{namespace}", {"ids": names, **EVERYTHING})
        if found is not None:
            rows = zip(names, found, strict=True)
            shown = tuple((name, None if row is None else _shown(row)) for name, row in rows)
            self._note(spec, slot, namespace, started, rows=shown)

    async def prefixed(self, spec: Spec, slot: Slot, namespace: str) -> None:
        """Rows whose ids begin alike; those of the others are not told."""
        prefix = self.world.dice.choice(PREFIXES)
        started = now()
        found = await self._ask(spec, slot, f"fetch/{namespace}", {"prefix": prefix, **EVERYTHING})
        if found is not None:
            there = {row["id"]: _shown(row) for row in found}
            wanted = [name for name in IDS if name.startswith(prefix)]
            rows = tuple((name, there.get(name)) for name in sorted({*wanted, *there}))
            self._note(spec, slot, namespace, started, rows=rows)

    async def range(self, spec: Spec, slot: Slot, namespace: str, *, last: bool = False) -> None:
        """All rows of a namespace, in the order of writing."""
        started = now()
        found = await self._ask(spec, slot, f"range/{namespace}", {"limit": 1000, **EVERYTHING})
        if found is not None:
            rows = tuple((row["id"], _shown(row)) for row in found["vectors"])
            self._note(spec, slot, namespace, started, rows=rows, ordered=True, last=last)

    async def namespaces(self, spec: Spec, slot: Slot, _namespace: str) -> None:
        """Which namespaces there are."""
        started = now()
        found = await self._ask(spec, slot, "list-namespaces", None)
        for name in NAMESPACES[1:]:
            if found is not None:
                self._note(spec, slot, name, started, exists=name in found)

    async def _ask(self, spec: Spec, slot: Slot, command: str, body: Any) -> Any:
        status, envelope, _ = await self.world.door(slot, spec.name, command, body)
        if status == 200:
            return envelope["result"]
        if status not in UNSURE | {500}:
            self.world.wrong(slot, f"{command} in {spec.name}", f"{status}: {envelope}")
        return None

    def _note(self, spec: Spec, slot: Slot, namespace: str, started: float, **seen: Any) -> None:
        self.world.history.door.reads.append(
            DoorRead(
                index=spec.name,
                front_end=slot.name,
                namespace=namespace,
                started=started,
                ended=now(),
                **seen,
            )
        )


def as_sent(mutation: PlainMutation) -> tuple[str, Any]:
    """The command, with its namespace, and the body that say this."""
    rows = mutation.rows
    namespace = quote((rows[0].namespace if rows else mutation.namespace) or "", safe="")
    match mutation.operation:
        case Operation.UPSERT:
            texts = rows[0].values is None and rows[0].sparse is None
            return f"{'upsert-data' if texts else 'upsert'}/{namespace}", [_item(row) for row in rows]
        case Operation.UPDATE:
            mode = {"metadataUpdateMode": "PATCH" if mutation.patch else "OVERWRITE"}
            return f"update/{namespace}", _item(rows[0]) | mode
        case Operation.DELETE:
            return f"delete/{namespace}", {"ids": [row.id for row in rows]}
        case Operation.DELETE_MATCHING if mutation.prefix is not None:
            return f"delete/{namespace}", {"prefix": mutation.prefix}
        case Operation.DELETE_MATCHING:
            return f"delete/{namespace}", {"filter": f"{FILTERED} = {mutation.equal:g}"}
        case Operation.RESET:
            return ("reset?all", None) if mutation.namespace is None else (f"reset/{namespace}", None)
        case Operation.DELETE_NAMESPACE:
            return f"delete-namespace/{namespace}", None
        case Operation.RENAME_NAMESPACE:
            new = {"newNamespace": mutation.new_namespace, "deleteExisting": mutation.delete_existing}
            return "rename-namespace", {"namespace": mutation.namespace, **new}
    raise ValueError(mutation.operation)


def _item(row: PlainRow) -> dict[str, Any]:
    item: dict[str, Any] = {"id": row.id}
    if row.values is not None:
        item["vector"] = row.values
    if row.sparse is not None:
        item["sparseVector"] = {"indices": [i for i, _ in row.sparse], "values": [v for _, v in row.sparse]}
    if row.metadata is not None:
        item["metadata"] = row.metadata
    if row.data is not None:
        item["data"] = row.data
    return item


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in INCLUDED if name in row}
