"""Indexes that come and go: a name is taken, written to, given up and taken again, each by one hand, so that its order is known."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tests.crash.processes import Slot
from tests.crash.world import UNSURE, Spec, World

ROWS = 5
#: The name is taken: by the creation that nobody answered.
DUPLICATE_NAME = 3002


@dataclass
class Brief:
    """Whoever makes and deletes indexes. What one sees that is wrong is written down as an answer."""

    world: World
    halt: bool = False
    #: Lives that went as they should.
    lives: int = 0

    async def come_and_go(self, number: int) -> None:
        """Live after life of one name, each known by its number of dimensions and its generation."""
        name, life = f"brief-{number}", 0
        while not self.halt:
            life += 1
            dimensions = 2 + life % 7
            if not await self._create(name, dimensions):
                continue
            await self._see_everywhere(name, dimensions)
            mutation = await self._write(name, dimensions, life)
            if mutation is not None:
                await self._see_rows(name, mutation, life)
            if not await self._delete(name):
                continue
            await self._see_nowhere(name, mutation)
            self.lives += 1
            await asyncio.sleep(self.world.dice.uniform(0, 0.3))

    async def _create(self, name: str, dimensions: int) -> bool:
        unsure = False
        while True:
            spec = Spec(name, ROWS, 1, dimensions=dimensions, shards=2)
            status, envelope = await self.world.make(name, spec)
            if status == 200:
                return True
            if status == 400 and unsure and envelope["errors"][0]["code"] == DUPLICATE_NAME:
                return True
            if status not in UNSURE:
                self.world.wrong(None, f"create {name}", f"{status}: {envelope}")
                return False
            unsure = True

    async def _delete(self, name: str) -> bool:
        unsure = False
        while True:
            status, envelope = await self.world.call("delete index", "DELETE", f"/{name}")
            if status == 200 or (status == 410 and unsure):
                return True
            if status not in UNSURE:
                self.world.wrong(None, f"delete {name}", f"{status}: {envelope}")
                return False
            unsure = True

    async def _write(self, name: str, dimensions: int, life: int) -> str | None:
        lines = [f'{{"id":"{n}","values":{[life, *[0] * (dimensions - 1)]}}}' for n in range(ROWS)]
        status, envelope = await self.world.call(
            "write", "POST", f"/{name}/upsert", "\n".join(lines).encode()
        )
        if status != 200 and status not in UNSURE:
            self.world.wrong(None, f"write {name}", f"{status}: {envelope}")
        return envelope["result"]["mutationId"] if status == 200 else None

    async def _see_everywhere(self, name: str, dimensions: int) -> None:
        for slot in self._front_ends():
            status, envelope = await self.world.call("get index", "GET", f"/{name}", at=slot)
            if status in UNSURE:
                continue
            if status != 200 or envelope["result"]["config"]["dimensions"] != dimensions:
                self.world.wrong(slot, f"get {name}, which was created", f"{status}: {envelope}")

    async def _see_rows(self, name: str, mutation: str, life: int) -> None:
        """Once it is visible on one front end, all rows are on all."""
        path = f"/{name}/mutations/{mutation}?wait=2"
        status, envelope = await self.world.call("status", "GET", path)
        if status != 200 or envelope["result"]["state"] != "visible":
            self._expect(status == 200 or status in UNSURE, path, status, envelope)
            return
        for slot in self._front_ends():
            ids = {"ids": [str(n) for n in range(ROWS)]}
            status, envelope = await self.world.call("fetch", "POST", f"/{name}/get_by_ids", ids, at=slot)
            if status in UNSURE:
                continue
            found = [one["values"][0] for one in envelope["result"]] if status == 200 else []
            self._expect(found == [life] * ROWS, f"fetch of {name}", status, envelope)

    async def _see_nowhere(self, name: str, mutation: str | None) -> None:
        for slot in self._front_ends():
            status, envelope = await self.world.call("get index", "GET", f"/{name}", at=slot)
            self._expect(
                status == 410 or status in UNSURE, f"get {name}, which was deleted", status, envelope
            )
            if mutation is not None:
                path = f"/{name}/mutations/{mutation}"
                status, envelope = await self.world.call("status", "GET", path, at=slot)
                self._expect(status in UNSURE | {404, 410}, f"{path} of a deleted index", status, envelope)

    def _front_ends(self) -> list[Slot]:
        return [slot for slot in self.world.processes.of("api") if slot.url is not None]

    def _expect(self, holds: bool, request: str, status: int, envelope: Any) -> None:
        if not holds:
            self.world.wrong(None, request, f"{status}: {envelope}")
