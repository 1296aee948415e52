"""``upwell token create``, ``list``, ``rotate`` and ``revoke``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from ingest.doors import Door
from upwell.catalog.tokens import ANY, Access
from upwell.errors import Invalid

token_commands = typer.Typer(help="Make, list, rotate and revoke tokens.", no_args_is_help=True)
DAY_S = 86_400


@token_commands.callback()
def tokens() -> None:
    """Make, list, rotate and revoke tokens."""


@token_commands.command()
def create(
    account: Annotated[
        str, typer.Option(help="The account it is for; * for any.", envvar="UPWELL_ACCOUNT")
    ] = "default",
    index: Annotated[str, typer.Option(help="The index it is for; * for any.")] = ANY,
    door: Annotated[Door, typer.Option(help="The door it may be used at; * for any.")] = Door.ANY,
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
    if door is not Door.ANY:
        asked["door"] = door
    if expires_days is not None:
        asked["expires_in_s"] = expires_days * DAY_S
    if rate is not None:
        asked["rate"] = rate

    _show(run(_call(url, token, account, "", asked)))


@token_commands.command(name="list")
def list_all(
    everything: Annotated[
        bool, typer.Option("--all", help="Those too that cannot be used any more.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """List tokens: what each allows, and never the token itself."""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (await client.call("GET", "/upwell/v1/tokens")).result

    columns = ("id", "name", "account", "index", "door", "access", "expires_at", "state")
    table = Table(*columns)
    for listed in run(work()):
        if everything or listed["state"] == "active":
            state = (
                "rotated, still good"
                if listed["state"] == "active" and listed["rotated"]
                else listed["state"]
            )
            # Names are anybody's: neither markup nor control characters of theirs reach the terminal.
            cells = [
                "".join(c for c in str(listed[column] or "–") if c.isprintable()) for column in columns[:-1]
            ]
            table.add_row(*map(Text, cells), state)
    Console().print(table)


@token_commands.command()
def rotate(
    rotated: Annotated[str, typer.Argument(help="The token itself; - reads it from standard input.")],
    overlap: Annotated[
        float, typer.Option(help="Seconds for which it may still be used beside the new one.", min=0)
    ] = 0,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Exchange a token for a new one that allows the same; it is shown once."""
    _show(run(_call(url, token, account, "/rotate", {"token": _given(rotated), "overlap_s": overlap})))


@token_commands.command()
def revoke(
    revoked: Annotated[
        str | None, typer.Argument(help="The token itself; - reads it from standard input.")
    ] = None,
    id: Annotated[str | None, typer.Option(help="Instead of the token: its id, as lists tell it.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Make a token useless from now on, on every front end."""
    if (revoked is None) == (id is None):
        raise Invalid("revoke: give either the token or its --id")
    asked = {"id": id} if revoked is None else {"token": _given(revoked)}
    run(_call(url, token, account, "/revoke", asked))
    Console(stderr=True).print("revoked")


async def _call(url: str, token: str | None, account: str, rest: str, asked: dict[str, Any]) -> Any:
    async with Client(url, token, account) as client:
        return (await client.call("POST", f"/upwell/v1/tokens{rest}", json=asked)).result


def _given(token: str) -> str:
    """A token on the command line is seen by everybody on the machine; on standard input it is not."""
    return sys.stdin.readline().strip() if token == "-" else token  # noqa: S105  a dash


def _show(issued: dict[str, Any]) -> None:
    where = "" if issued["door"] == ANY else f", door {issued['door']}"
    Console(stderr=True).print(
        f"{issued['access']} token for account {issued['account']}, index {issued['index']}{where}:"
    )
    typer.echo(issued["token"])
