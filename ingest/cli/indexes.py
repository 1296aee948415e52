"""``upwell index create|list|delete|info``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from upwell.errors import Invalid
from upwell.shard.metric import Metric

index_commands = typer.Typer(help="Create, list, inspect and delete indexes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The index's name.")]


class Kind(StrEnum):
    """What an index holds."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@index_commands.command()
def create(
    name: Name,
    dimensions: Annotated[int, typer.Option(help="Numbers per vector.")],
    metric: Annotated[Metric, typer.Option(help="What queries rank by.")] = Metric.COSINE,
    kind: Annotated[Kind, typer.Option(help="Only dense indexes exist so far.")] = Kind.DENSE,
    shards: Annotated[int | None, typer.Option(help="Shards [default: the server's].")] = None,
    description: Annotated[str | None, typer.Option(help="A description.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Create an index."""
    if kind is not Kind.DENSE:
        raise Invalid(f"kind: {kind} indexes are not there yet; dense ones are")
    asked: dict[str, Any] = {"name": name, "config": {"dimensions": dimensions, "metric": metric}}
    asked |= {
        key: value for key, value in (("shards", shards), ("description", description)) if value is not None
    }

    async def work() -> None:
        async with Client(url, token, account) as client:
            await client.call("POST", client.indexes(), json=asked)

    run(work())
    Console().print(f"created [bold]{name}[/]: {dimensions} dimensions, {metric}")


@index_commands.command(name="list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, account: Account = DEFAULT_ACCOUNT) -> None:
    """List the account's indexes."""

    async def work() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with Client(url, token, account) as client:
            found = (await client.call("GET", client.indexes())).result
            return [
                (one, (await client.call("GET", client.indexes(f"/{one['name']}/info"))).result)
                for one in found
            ]

    table = Table("name", "dimensions", "metric", "vectors", "created")
    for one, info in run(work()):
        config = one["config"]
        vectors = f"{info['vectorCount']:,}"
        table.add_row(one["name"], str(config["dimensions"]), config["metric"], vectors, one["created_on"])
    Console().print(table)


@index_commands.command()
def info(name: Name, url: Url = DEFAULT_URL, token: Token = None, account: Account = DEFAULT_ACCOUNT) -> None:
    """Show an index's size, and how far its mutations are visible."""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (await client.call("GET", client.indexes(f"/{name}/info"))).result

    Console().print_json(data=run(work()))


@index_commands.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Delete an index and everything in it."""
    if not yes:
        typer.confirm(f"Delete index {name} and everything in it?", abort=True)

    async def work() -> None:
        async with Client(url, token, account) as client:
            await client.call("DELETE", client.indexes(f"/{name}"))

    run(work())
    Console().print(f"deleted [bold]{name}[/]")
