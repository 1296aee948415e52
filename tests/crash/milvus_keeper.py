"""Collections, partitions and databases that come, go, and change their names, metrics and load state at the Milvus door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.milvus_history import Kept
from tests.crash.milvus_load import AUTO, ID, VECTOR, MilvusLoad, Told
from tests.crash.processes import Slot


@dataclass
class Keeper:
    """One client who changes something that nobody else does, so that he knows how it must be."""

    load: MilvusLoad
    number: int
    #: How it is; None: one of the two, for nobody said whether the last change was made.
    now: Any = None

    async def keep(self, change: Callable[[Keeper], Awaitable[None]]) -> None:
        """Do one sort of change over and over, and look whether it is as it was answered."""
        while not self.load.halt:
            await change(self)
            await asyncio.sleep(self.load.world.dice.uniform(0, 4 * self.load.pause_s))

    async def settle(
        self, command: str, body: Any, before: Any, after: Any, look: Callable[[Slot], Any]
    ) -> Any:
        """Ask for a change, then look at any front end: it is as before or, which it must be if that was acknowledged, as after."""
        world = self.load.world
        slot = await world.any_front_end()
        told = await self.load.ask(slot, command, body)
        seen = None
        while seen is None:
            seen = await look(await world.any_front_end())
            if self.load.halt and seen is None:
                return None
        allowed = (after,) if told.code == 0 else (before, after)
        world.history.milvus.kept.append(Kept(command, allowed, seen, told.code))
        return seen

    async def partitions(self) -> None:
        """A partition comes and goes."""
        name = f"w{self.number}"
        before = bool(self.now)
        body = {"collectionName": AUTO, "partitionName": name}

        async def look(slot: Slot) -> bool | None:
            told = await self.load.ask(slot, "partitions/has", body)
            return told.data["has"] if told.code == 0 else None

        command = "partitions/drop" if before else "partitions/create"
        if before:
            # Only what is released is dropped.
            await self.load.ask(
                await self.load.world.any_front_end(),
                "partitions/release",
                {"collectionName": AUTO, "partitionNames": [name]},
            )
        self.now = await self.settle(command, body, before, not before, look)

    async def databases(self) -> None:
        """A database comes and goes."""
        name, before = f"d{self.number}", bool(self.now)

        async def look(slot: Slot) -> bool | None:
            told = await self.load.ask(slot, "databases/list", {})
            return name in told.data if told.code == 0 else None

        command = "databases/drop" if before else "databases/create"
        self.now = await self.settle(command, {"dbName": name}, before, not before, look)

    async def loads(self) -> None:
        """A collection is loaded and released; now and then it is made anew under a name of its own."""
        name = f"l{self.number}"
        if self.now is None:
            body = {"collectionName": name, "dimension": 3}
            await self.load.ask(await self.load.world.any_front_end(), "collections/create", body)
        before = self.now is not False

        async def look(slot: Slot) -> bool | None:
            told = await self.load.ask(slot, "collections/get_load_state", {"collectionName": name})
            return told.data["loadState"] == "LoadStateLoaded" if told.code == 0 else None

        command = "collections/release" if before else "collections/load"
        if self.now is None and await look(await self.load.world.any_front_end()) is None:
            return
        self.now = await self.settle(command, {"collectionName": name}, before, not before, look)

    async def names(self) -> None:
        """A collection is renamed to and fro, and is there under one name, or for a moment two."""
        names = (f"r{self.number}", f"s{self.number}")
        if self.now is None:
            body = {"collectionName": names[0], "dimension": 3}
            await self.load.ask(await self.load.world.any_front_end(), "collections/create", body)

        async def look(slot: Slot) -> tuple[bool, ...] | None:
            told = await self.load.ask(slot, "collections/list", {})
            return tuple(name in told.data for name in names) if told.code == 0 else None

        seen = self.now or await look(await self.load.world.any_front_end())
        if seen is None or not any(seen):
            return
        # Of both: half done by one who died, and completed by whoever does it again.
        old, new = names if seen[0] else names[::-1]
        after = tuple(name == new for name in names)
        body = {"collectionName": old, "newCollectionName": new}
        world = self.load.world
        told = await self.load.ask(await world.any_front_end(), "collections/rename", body)
        found = await look(await world.any_front_end())
        if found is not None:
            allowed = (after,) if told.code == 0 else (seen, after, (True, True))
            world.history.milvus.kept.append(Kept("collections/rename", allowed, found, told.code))
        self.now = found

    async def metrics(self) -> None:
        """A collection without an index; its metric is chosen while it is written to, and what was acknowledged is in it."""
        load, world = self.load, self.load.world
        number = next(load.numbers)
        name = f"m{number}"
        schema = {"enableDynamicField": True, "fields": [ID, VECTOR]}
        told = await load.ask(
            await world.any_front_end(), "collections/create", {"collectionName": name, "schema": schema}
        )
        if told.code != 0:
            return

        async def write(id: int) -> int | None:
            body = {"collectionName": name, "data": [{"id": id, "vector": [1, 2, id]}]}
            await asyncio.sleep(world.dice.uniform(0, 0.02))
            return (
                id
                if (await load.ask(await world.any_front_end(), "entities/insert", body)).code == 0
                else None
            )

        async def choose(metric: str) -> Told:
            params = [{"fieldName": "vector", "metricType": metric}]
            body = {"collectionName": name, "indexParams": params}
            await asyncio.sleep(world.dice.uniform(0, 0.01))
            return await load.ask(await world.any_front_end(), "indexes/create", body)

        *written, chosen = await asyncio.gather(write(1), write(2), choose("L2"))
        del chosen
        told = Told(-1, None, {})
        for command, more in (
            ("indexes/create", {"indexParams": [{"fieldName": "vector"}]}),
            ("collections/load", {}),
        ):
            await load.ask(await world.any_front_end(), command, {"collectionName": name, **more})
        wanted = {id for id in written if id is not None}
        body = {
            "collectionName": name,
            "filter": "id > 0",
            "consistencyLevel": "Strong",
            "outputFields": ["id"],
        }
        for _ in range(20):
            told = await load.ask(await world.any_front_end(), "entities/query", body)
            if not told.unsure:
                break
        if told.code == 0:
            found = {int(row["id"]) for row in told.data}
            allowed = tuple(sorted(wanted | more) for more in (set(), {1}, {2}, {1, 2}))
            world.history.milvus.kept.append(Kept("indexes/create", allowed, sorted(found), 0))
        await load.ask(await world.any_front_end(), "collections/drop", {"collectionName": name})


#: What each of those who change something does.
CHANGES = (
    Keeper.partitions,
    Keeper.databases,
    Keeper.loads,
    *(Keeper.names, Keeper.metrics) * 2,
)
