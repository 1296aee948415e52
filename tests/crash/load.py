"""Writers and readers: many at once, through whichever front end, each writing down what it sent and what it saw."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from tests.crash.history import SOME, Attempt, Counts, Operation, Read, Receipt, Status, Write
from tests.crash.processes import Slot
from tests.crash.witness import PLACE, SCALE
from tests.crash.world import RESEND_S, SPECS, UNSURE, Spec, World, now
from upwell.errors import NotFound
from upwell.log.receipt import Receipt as Place
from upwell.log.receipt import mint, parse

#: Groups lie so far apart that the nearest vectors of one are always its own.
DISTANCE = 1000.0
#: What a vector shows whose values and metadata are of different mutations.
PATCHWORK = -2
POLLS_MAX = 16


@dataclass
class Load:
    """What goes on in the world: start it with ``run`` in a task for each writer and reader, and set ``halt``."""

    world: World
    specs: tuple[Spec, ...] = SPECS
    #: Pause of a writer, and of a reader, between requests: at most.
    pause_s: float = 0.05
    halt: bool = False
    _polls: set[asyncio.Task[None]] = field(default_factory=set)
    _bodies: dict[tuple[str, int], str] = field(default_factory=dict)
    #: Groups that are just being written to: there is most to be seen of what should not be.
    _hot: deque[tuple[Spec, int]] = field(default_factory=lambda: deque(maxlen=6))

    async def write(self) -> None:
        """Be a writer."""
        dice = self.world.dice
        while not self.halt:
            spec = dice.choices(self.specs, [one.weight for one in self.specs])[0]
            if spec.metadata and dice.random() < 0.1:
                await self._flip(spec)
                continue
            operation: Operation = dice.choices(["upsert", "insert", "delete"], [6, 2, 2])[0]  # type: ignore[assignment]
            key = f"key-{dice.getrandbits(64):x}" if dice.random() < 0.2 else None
            await self.mutate(spec, dice.randrange(spec.groups), operation, key)
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def read(self) -> None:
        """Be a reader."""
        dice = self.world.dice
        kinds: list[Callable[[Spec, Slot], Awaitable[object]]] = [
            self.fetch,
            self.fetch,
            self.query,
            self.list,
            self.export,
            self.count,
            self.recent,
        ]
        while not self.halt:
            slot = await self.world.any_front_end()
            if self._hot and dice.random() < 0.5:
                spec, number = dice.choice(self._hot)
                await (self.fetch if dice.random() < 0.7 else self.query)(spec, slot, only=number)
            else:
                spec = dice.choices(self.specs, [max(one.weight, 1) for one in self.specs])[0]
                await dice.choice(kinds)(spec, slot)
            await asyncio.sleep(dice.uniform(0, self.pause_s))

    async def finish(self) -> None:
        """Wait for questions that are still under way."""
        self.halt = True
        await asyncio.gather(*self._polls)

    # Writing.

    async def mutate(self, spec: Spec, number: int, operation: Operation, key: str | None = None) -> Write:
        """One mutation of a whole group; with a key it is sent until it is acknowledged, and sometimes more often."""
        generation = next(self.world.generations)
        self._hot.append((spec, number))
        path, body = self._body(spec, number, operation, generation)
        return await self._send(spec, path, body, f"g{number}", generation, operation, key)

    async def _flip(self, spec: Spec) -> None:
        """A metadata index comes, and goes: the witness knows the second by the first one's number."""
        generation = next(self.world.generations)
        made = {"propertyName": f"p{generation}", "indexType": "number"}
        await self._send(spec, "/metadata_index/create", made, "", generation, "declare", None)
        gone = {"propertyName": f"p{generation}"}
        await self._send(spec, "/metadata_index/delete", gone, "", generation + 1, "declare", None)

    async def _send(
        self,
        spec: Spec,
        path: str,
        body: Any,
        group: str,
        generation: int,
        operation: Operation,
        key: str | None,
    ) -> Write:
        world, dice = self.world, self.world.dice
        began, attempts = now(), list[Attempt]()
        while True:
            twice = key is not None and dice.random() < 0.3
            sent = [self._attempt(spec, path, body, key) for _ in range(1 + twice)]
            attempts += await asyncio.gather(*sent)
            if key is None or now() - began > RESEND_S or any(one.receipt for one in attempts):
                break
        write = Write(
            index=spec.name, group=group, generation=generation, operation=operation,
            attempts=tuple(attempts), key=key,
        )  # fmt: skip
        world.history.writes.append(write)
        receipt = next((one.receipt for one in attempts if one.receipt), None)
        if receipt is not None and dice.random() < 0.4 and len(self._polls) < POLLS_MAX:
            task = asyncio.create_task(self._poll(spec, receipt, group))
            self._polls.add(task)
            task.add_done_callback(self._polls.discard)
        return write

    async def _attempt(self, spec: Spec, path: str, body: Any, key: str | None) -> Attempt:
        slot = await self.world.any_front_end()
        headers = {} if key is None else {"Idempotency_Key": key}
        started = now()
        status, envelope = await self.world.call(
            "write", "POST", f"/{spec.name}{path}", body, at=slot, **headers
        )
        attempt = Attempt(started=started, ended=now(), front_end=slot.name, refused=status == 429)
        if status == 200:
            return replace(attempt, receipt=self._receipt(spec, slot, envelope["result"]["mutationId"]))
        if status not in UNSURE | {429, 500}:
            self.world.wrong(slot, f"write {spec.name}{path}", f"{status}: {envelope}")
        return attempt

    def _receipt(self, spec: Spec, slot: Slot, mutation_id: str) -> Receipt | None:
        try:
            found = parse(self.world.indexes[spec.name].record.receipt_key, mutation_id)
        except NotFound:
            self.world.wrong(slot, "write", f"not an id of {spec.name}: {mutation_id}")
            return None
        return found.position, found.place

    def _body(self, spec: Spec, number: int, operation: Operation, generation: int) -> tuple[str, Any]:
        if operation == "delete":
            ids = [f"g{number}/{member}" for member in range(spec.members)]
            return "/delete_by_ids", {"ids": [*ids, f"mark/{generation}"]}
        template = self._bodies.get((spec.name, number))
        if template is None:
            template = self._bodies[spec.name, number] = "\n".join(
                _line(spec, number, n) for n in range(spec.members)
            )
        text = template.replace("SCALED", repr(generation * SCALE)).replace("GENERATION", str(generation))
        return f"/{operation}", text.encode()

    # Reading.

    async def fetch(self, spec: Spec, slot: Slot, *, only: int | None = None, last: bool = False) -> bool:
        """Whole groups, one or several at once, by their ids."""
        dice = self.world.dice
        groups = [*range(spec.groups)] if only is None else [only]
        if only is None and not last:
            groups = dice.sample(groups, min(dice.choice([1, 1, 3]), len(groups)))
        members = range(spec.members) if spec.asked is None else dice.sample(range(spec.members), spec.asked)
        ids = [f"g{number}/{member}" for number in groups for member in members]
        started = now()
        status, envelope = await self._ask("fetch", spec, slot, "/get_by_ids", {"ids": ids})
        if status != 200:
            return False
        seen = _seen(envelope["result"], spec, {f"g{number}" for number in groups})
        self._note(spec, slot, "fetch", started, seen, last=last)
        return True

    async def query(self, spec: Spec, slot: Slot, *, only: int | None = None) -> None:
        """The nearest vectors of where a group lies, sometimes with a filter, sometimes after a mutation."""
        dice = self.world.dice
        number = dice.randrange(spec.groups) if only is None else only
        body: dict[str, Any] = {
            "vector": _values(spec, number, 0, 0.0),
            "topK": spec.asked or spec.members,
            "returnValues": True,
            "returnMetadata": "all",
        }
        if spec.metadata and dice.random() < 0.7:
            body["filter"] = {"group": f"g{number}"}
        after: Receipt | None = None
        if dice.random() < 0.15:
            write = await self.mutate(spec, number, "upsert")
            after = min(write.receipts, default=None)
            if after is not None:
                body["after"] = self.mutation_id(spec, after)
        started = now()
        status, envelope = await self._ask("query", spec, slot, "/query", body)
        if status == 200:
            # Others may be near only where there are no own ones.
            matches = [one for one in envelope["result"]["matches"] if one["id"].startswith(f"g{number}/")]
            self._note(spec, slot, "query", started, _seen(matches, spec, {f"g{number}"}), after=after)

    async def list(self, spec: Spec, slot: Slot) -> None:
        """All ids, page by page, of one moment."""
        if spec.asked is not None:
            return
        found: defaultdict[str, list[int]] = defaultdict(list)
        started, cursor = now(), ""
        count = self.world.dice.choice([7, 1000])
        while True:
            path = f"/{spec.name}/list?count={count}{f'&cursor={cursor}' if cursor else ''}"
            status, envelope = await self.world.call("list", "GET", path, at=slot)
            if status == 400 and cursor:
                return  # it took us longer than a cursor is good for
            if status != 200:
                self._expect_away(status, slot, path, envelope)
                return
            for one in envelope["result"]["vectors"]:
                found[one["id"].rpartition("/")[0]].append(SOME)
            cursor = envelope["result"]["nextCursor"]
            if not cursor:
                break
        seen = {f"g{number}": tuple(found.pop(f"g{number}", ())) for number in range(spec.groups)}
        if found:
            self.world.wrong(slot, "list", f"ids that nobody wrote: {found}")
        self._note(spec, slot, "list", started, seen, whole=True)

    async def export(self, spec: Spec, slot: Slot) -> None:
        """All vectors, of one moment."""
        if spec.asked is not None:
            return
        started = now()
        status, envelope = await self.world.call("export", "GET", f"/{spec.name}/export", at=slot)
        if status == 200:
            groups = {f"g{number}" for number in range(spec.groups)}
            self._note(spec, slot, "export", started, _seen(envelope["lines"], spec, groups), whole=True)
        else:
            self._expect_away(status, slot, f"export of {spec.name}", envelope)

    async def count(self, spec: Spec, slot: Slot) -> None:
        """How many vectors there are: always whole groups of them."""
        status, envelope = await self.world.call("info", "GET", f"/{spec.name}/info", at=slot)
        if status != 200:
            self._expect_away(status, slot, "info", envelope)
        elif envelope["result"]["vectorCount"] % spec.members:
            self.world.wrong(
                slot, "info", f"{envelope['result']['vectorCount']} vectors in groups of {spec.members}"
            )

    async def recent(self, spec: Spec, slot: Slot) -> None:
        """What became of the newest mutations."""
        started = now()
        path = f"/{spec.name}/mutations?limit={self.world.dice.choice([3, 30])}"
        status, envelope = await self.world.call("recent", "GET", path, at=slot)
        if status != 200:
            self._expect_away(status, slot, path, envelope)
            return
        for one in envelope["result"]:
            self._note_status(spec, slot, started, one)

    async def _poll(self, spec: Spec, receipt: Receipt, group: str) -> None:
        """Ask for a mutation's status, of several front ends, with and without patience; once it is visible on one, read on another."""
        mutation = self.mutation_id(spec, receipt)
        for wait_s in (0, 1, 5, 0, 0):
            state = await self.status(spec, await self.world.any_front_end(), mutation, wait_s)
            if state == "visible" and group:
                await self.fetch(spec, await self.world.any_front_end(), only=int(group[1:]))

    def mutation_id(self, spec: Spec, receipt: Receipt) -> str:
        """The id that a receipt was acknowledged by."""
        return mint(self.world.indexes[spec.name].record.receipt_key, Place(*receipt))

    async def status(self, spec: Spec, slot: Slot, mutation: str, wait_s: float) -> str | None:
        """What a front end says of a mutation."""
        started = now()
        path = f"/{spec.name}/mutations/{mutation}?wait={wait_s}"
        status, envelope = await self.world.call("status", "GET", path, at=slot)
        if status != 200:
            self._expect_away(status, slot, path, envelope)
            return None
        return self._note_status(spec, slot, started, envelope["result"])

    async def _ask(self, what: str, spec: Spec, slot: Slot, path: str, body: Any) -> tuple[int, Any]:
        status, envelope = await self.world.call(what, "POST", f"/{spec.name}{path}", body, at=slot)
        if status != 200:
            self._expect_away(status, slot, path, envelope)
        return status, envelope

    def _expect_away(self, status: int, slot: Slot, request: str, envelope: Any) -> None:
        """Write down an answer other than that somebody died, or that something is away."""
        if status not in UNSURE | {500}:
            self.world.wrong(slot, request, f"{status}: {envelope}")

    def _note(
        self, spec: Spec, slot: Slot, kind: str, started: float, seen: dict[str, tuple[int, ...]], *,
        after: Receipt | None = None, last: bool = False, whole: bool = False,
    ) -> None:  # fmt: skip
        asked = None if whole else spec.asked
        self.world.history.reads.append(
            Read(
                index=spec.name,
                front_end=slot.name,
                kind=kind,
                started=started,
                ended=now(),
                seen=seen,
                asked=asked,
                after=after,
                last=last,
            )
        )

    def _note_status(self, spec: Spec, slot: Slot, started: float, one: dict[str, Any]) -> str:
        receipt = self._receipt(spec, slot, one["mutationId"])
        counts = one["counts"]
        if receipt is not None:
            status = Status(
                index=spec.name, front_end=slot.name, started=started, ended=now(), receipt=receipt,
                state=one["state"], visible_through=one["visibleThrough"], error=one["error"],
                counts=counts and Counts(*(counts[name] for name in ("inserted", "replaced", "skipped", "deleted", "updated"))),
            )  # fmt: skip
            self.world.history.statuses.append(status)
        return str(one["state"])


def _values(spec: Spec, number: int, member: int, scaled: float) -> list[float]:
    values = [DISTANCE * number, member / 1024, scaled] + [0.0] * (spec.dimensions - 3)
    assert values[PLACE] == scaled
    return values


def _line(spec: Spec, number: int, member: int) -> str:
    values = orjson.dumps(_values(spec, number, member, 0.0)[:PLACE])[1:-1].decode()
    rest = ",0" * (spec.dimensions - PLACE - 1)
    metadata = f',"metadata":{{"group":"g{number}","generation":GENERATION}}' if spec.metadata else ""
    return f'{{"id":"g{number}/{member}","values":[{values},SCALED{rest}]{metadata}}}'


def _seen(vectors: list[dict[str, Any]], spec: Spec, groups: set[str]) -> dict[str, tuple[int, ...]]:
    """The generations of the members of each group that an answer has."""
    seen: dict[str, list[int]] = {group: [] for group in groups}
    for vector in vectors:
        # It is written with as few digits as tell it from other float32.
        generation = round(vector["values"][PLACE] / SCALE)
        told = vector["metadata"]["generation"] if spec.metadata else generation
        seen[vector["id"].rpartition("/")[0]].append(generation if generation == told else PATCHWORK)
    return {group: tuple(generations) for group, generations in seen.items()}
