"""``upwell token create`` and ``upwell token revoke``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from upwell.catalog.tokens import ANY, Access

token_commands = typer.Typer(help="Make and revoke tokens.", no_args_is_help=True)
DAY_S = 86_400


@token_commands.callback()
def tokens() -> None:
    """Make and revoke tokens."""


@token_commands.command()
def create(
    account: Annotated[
        str, typer.Option(help="The account it is for; * for any.", envvar="UPWELL_ACCOUNT")
    ] = "default",
    index: Annotated[str, typer.Option(help="The index it is for; * for any.")] = ANY,
    access: Annotated[
        Access, typer.Option(help="What it allows; each includes the ones before.")
    ] = Access.WRITE,
    name: Annotated[str, typer.Option(help="A name to know it by.")] = "",
    rate: Annotated[
        str | None,
        typer.Option(help="How often it may be used, as in 1200/5minutes [default: as the server is set]."),
    ] = None,
    expires_days: Annotated[float | None, typer.Option(help="Days until it ends [default: never].")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Make a token; it is shown once."""
    asked: dict[str, Any] = {"account": account, "index": index, "access": access, "name": name}
    if expires_days is not None:
        asked["expires_in_s"] = expires_days * DAY_S
    if rate is not None:
        asked["rate"] = rate

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (await client.call("POST", "/upwell/v1/tokens", json=asked)).result

    result = run(work())
    Console(stderr=True).print(
        f"{result['access']} token for account {result['account']}, index {result['index']}:"
    )
    typer.echo(result["token"])


@token_commands.command()
def revoke(
    revoked: Annotated[str, typer.Argument(help="The token itself; - reads it from standard input.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Make a token useless from now on, on every front end."""
    asked = {"token": sys.stdin.readline().strip() if revoked == "-" else revoked}

    async def work() -> None:
        async with Client(url, token, account) as client:
            await client.call("POST", "/upwell/v1/tokens/revoke", json=asked)

    run(work())
    Console(stderr=True).print("revoked")
