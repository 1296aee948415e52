"""``upwell mutation list|show|retry``: look into mutations, those that failed above all, and try them again."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from ingest.cli.status import IndexName, print_status

mutation_commands = typer.Typer(
    help="List mutations, show what they were to do, and try failed ones again.", no_args_is_help=True
)
Mutation = Annotated[str, typer.Argument(help="A mutationId.")]


class State(StrEnum):
    """Which mutations are listed."""

    QUEUED = "queued"
    VISIBLE = "visible"
    FAILED = "failed"


@mutation_commands.command(name="list")
def list_recent(
    index: IndexName,
    state: Annotated[State | None, typer.Option(help="Only those of this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 20,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """List an index's mutations, the newest first."""
    wanted = f"&state={state}" if state else ""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (
                await client.call("GET", client.indexes(f"/{index}/mutations?limit={limit}{wanted}"))
            ).result

    table = Table("mutationId", "operation", "state", "accepted", "error")
    for one in run(work()):
        table.add_row(
            one["mutationId"],
            one["operation"] or "",
            one["state"],
            one["acceptedAt"] or "",
            one["error"] or "",
        )
    Console().print(table)


@mutation_commands.command()
def show(
    mutation: Mutation,
    index: IndexName,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Print what a mutation was to do as NDJSON, and on stderr what became of it."""

    async def work() -> None:
        async with Client(url, token, account) as client:
            path = client.indexes(f"/{index}/mutations/{mutation}")
            status = (await client.call("GET", path)).result
            print_status(Console(stderr=True), status)
            async with client.stream(f"{path}/changeset") as answer:
                async for chunk in answer.content.iter_any():
                    sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    run(work())


@mutation_commands.command()
def retry(
    mutation: Mutation,
    index: IndexName,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Try a failed mutation again, as a new one behind all others; says its id."""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            path = client.indexes(f"/{index}/mutations/{mutation}/retry")
            return (await client.call("POST", path)).result

    Console().print(f"retried as {run(work())['mutationId']}", soft_wrap=True)
