"""``upwell status``: where a mutation is on its way."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run

IndexName = Annotated[str, typer.Option("--index", help="The index's name.", envvar="UPWELL_INDEX")]


def status(
    mutation: Annotated[str, typer.Argument(help="A mutationId.")],
    index: IndexName,
    wait: Annotated[float, typer.Option(help="Seconds to wait for it to be visible, at most 60.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Say where a mutation is: queued, applying, visible or failed."""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (
                await client.call("GET", client.indexes(f"/{index}/mutations/{mutation}?wait={wait}"))
            ).result

    result = run(work())
    console = Console()
    if json:
        console.print_json(data=result)
        return
    print_status(console, result)


def print_status(console: Console, result: dict[str, Any]) -> None:
    """A mutation's status in a line, and why it failed in another."""
    counts = ", ".join(f"{name} {count}" for name, count in (result["counts"] or {}).items() if count)
    console.print(
        f"[bold]{result['state']}[/]  {result['operation'] or ''}  position {result['position']}  {counts}"
    )
    if result["error"]:
        console.print(f"[red]{result['error']}[/]")
