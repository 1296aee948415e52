"""A front end in this very process, on a real socket, and a drain that can be held still: what the houses of single doors stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientSession, web

from ingest.app import Parts, assemble, create_app
from ingest.keys import OPERATIONS
from ingest.operations import Operations
from upwell.engine import Engine, open_engine
from upwell.settings import Settings

NO_REDIS = "redis://127.0.0.1:1/0"

H = TypeVar("H", bound="FrontHouse")


@dataclass
class FrontHouse:
    """A front end, its engine, and a drain that applies what comes unless it is told to wait."""

    engine: Engine
    parts: Parts
    operations: Operations
    session: ClientSession
    #: Cleared: nothing is applied.
    drains: asyncio.Event = field(default_factory=asyncio.Event)
    #: Mutations to come that are to fail, and why.
    fails: str | None = None


@asynccontextmanager
async def front_house(
    kind: type[H], folder: Path, token: str, settings: Mapping[str, object]
) -> AsyncIterator[H]:
    """A house of this kind, for one test. ``token``: the admin's."""
    chosen = Settings.model_validate(
        {"data": folder / "data", "token": token, "parse_processes": 0, **settings}
    )
    engine = open_engine(chosen)
    parts = assemble(engine, NO_REDIS)
    app = create_app(parts)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            house = kind(engine, parts, app[OPERATIONS], session)
            house.drains.set()
            draining = asyncio.create_task(_drain(house))
            try:
                yield house
            finally:
                draining.cancel()
                await asyncio.wait([draining])
    finally:
        await runner.cleanup()


async def _drain(house: FrontHouse) -> None:
    """Apply whatever comes, one log entry after the other, and tell those who wait."""
    while True:
        await house.drains.wait()
        for index_id in await asyncio.to_thread(lambda: list(house.engine.backlogged())):
            # Told to wait while it looked, it may have seen what was written since.
            await house.drains.wait()
            broken = None
            if house.fails is not None:
                entry = await asyncio.to_thread(house.engine.next_entry, index_id)
                broken = dict.fromkeys(entry, house.fails)
            await asyncio.to_thread(house.engine.apply_batch, index_id, lambda: True, broken=broken)
            house.parts.visibility.notice(index_id)
        await asyncio.sleep(0.005)
