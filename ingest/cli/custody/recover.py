"""``upwell recover``: make Redis anew from the store."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from ingest.cli.custody.store import Data, Store, engine_on
from ingest.cli.run import Redis
from upwell.doorbell.connection import connect
from upwell.doorbell.recovery import forget, ours, ring_again
from upwell.engine import Engine
from upwell.errors import Invalid, NotFound, Unavailable, UpwellError


@dataclass(frozen=True, slots=True)
class Waiting:
    """An index, and what of it is not applied."""

    index_id: str
    name: str
    vectors: int
    mutations: int
    nbytes: int


def recover(
    redis: Redis = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Delete Upwell's keys first: leases of the dead, stuck jobs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before that.")] = False,
    data: Data = None,
    store: Store = None,
) -> None:
    """Ring for every index that has mutations waiting. Workers' sweeps do so too, within seconds; nothing of Redis is needed for more."""
    engine = engine_on(data, store, redis=redis)
    address = engine.settings.redis
    if address is None:
        raise Invalid("name the Redis that is to be made anew: --redis, or UPWELL_REDIS")
    waiting, damaged = _look(engine)
    console = Console()
    if waiting:
        table = Table("index", "vectors", "mutations waiting", "bytes waiting")
        for one in waiting:
            table.add_row(one.name, f"{one.vectors:,}", f"{one.mutations:,}", f"{one.nbytes:,}")
        console.print(table)
    for name, problem in damaged:
        console.print(f"[bold red]{name}[/] cannot be read: {problem}", highlight=False)
    try:
        rung, gone = asyncio.run(_ring(address, waiting, reset=reset, sure=yes))
    except (RedisError, OSError) as error:
        raise Unavailable("Redis does not answer", reason=str(error)) from None
    if reset:
        console.print(f"{gone} keys deleted", highlight=False)
    backlogged = sum(one.mutations > 0 for one in waiting)
    console.print(
        f"{len(waiting)} indexes, {backlogged} with mutations waiting, {rung} rung for", highlight=False
    )
    if damaged:
        raise typer.Exit(1)


def _look(engine: Engine) -> tuple[list[Waiting], list[tuple[str, str]]]:
    """What each index waits with, and the indexes that cannot be read."""
    waiting: list[Waiting] = []
    damaged: list[tuple[str, str]] = []
    for account in engine.catalog.accounts():
        for name in engine.store.list(f"catalog/{account}"):
            with contextlib.suppress(NotFound):
                try:
                    index = engine.find(account, name)
                    load, manifest = index.load(), index.head.refresh()
                except NotFound:
                    raise
                except UpwellError as error:
                    damaged.append((f"{account}/{name}", str(error)))
                    continue
                size = load.backlog
                waiting.append(
                    Waiting(
                        index.record.id, f"{account}/{name}", manifest.vectors, size.mutations, size.nbytes
                    )
                )
    return waiting, damaged


async def _ring(address: str, waiting: list[Waiting], *, reset: bool, sure: bool) -> tuple[int, int]:
    """How many indexes were rung for, and how many keys deleted."""
    redis = connect(address)
    gone = rung = 0
    try:
        await redis.ping()
        if reset:
            keys = await ours(redis)
            if keys and not sure:
                typer.confirm(f"Delete {len(keys)} keys of Upwell's, such as {keys[0]}?", abort=True)
            gone = await forget(redis, keys)
        for one in waiting:
            if one.mutations:
                rung += await ring_again(redis, one.index_id)
    finally:
        await redis.aclose(close_connection_pool=True)
    return rung, gone
