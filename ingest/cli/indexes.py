"""``upwell index create|list|delete|info``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from upwell.errors import Invalid
from upwell.kinds import IndexKind
from upwell.schema import IdType
from upwell.shard.metric import Metric

index_commands = typer.Typer(help="Create, list, inspect and delete indexes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The index's name.")]


class IdsUniqueIn(StrEnum):
    """Within what an id stands for one row."""

    INDEX = "index"
    NAMESPACE = "namespace"


@index_commands.command()
def create(
    name: Name,
    dimensions: Annotated[
        int | None, typer.Option(help="Numbers per dense vector [default: the embedding model's].")
    ] = None,
    metric: Annotated[
        Metric | None, typer.Option(help="What queries of dense vectors rank by [default: cosine].")
    ] = None,
    kind: Annotated[
        IndexKind, typer.Option(help="What each row has: a vector of which kind, or of both.")
    ] = (IndexKind.DENSE),
    embedding_model: Annotated[
        str | None,
        typer.Option(
            help="Makes vectors of text: dense ones, such as wordllama; of a sparse index sparse ones."
        ),
    ] = None,
    sparse_embedding_model: Annotated[
        str | None,
        typer.Option(help="Makes sparse vectors of text [default, beside an embedding model: BM25]."),
    ] = None,
    ids_unique_in: Annotated[
        IdsUniqueIn | None, typer.Option(help="[default: as the first write with a namespace has it]")
    ] = None,
    ids: Annotated[
        IdType, typer.Option(help="What ids are: texts, or integers of 64 bits, as Milvus clients know them.")
    ] = IdType.TEXT,
    shards: Annotated[int | None, typer.Option(help="Shards [default: the server's].")] = None,
    description: Annotated[str | None, typer.Option(help="A description.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Create an index."""
    if kind.has_dense and dimensions is None and embedding_model is None:
        raise Invalid(f"a {kind} index needs --dimensions, or an --embedding-model that has some")
    if kind.has_dense and metric is None:
        metric = Metric.COSINE
    if not kind.has_dense:
        # It has one model, and compares by the inner product.
        sparse_embedding_model, embedding_model = sparse_embedding_model or embedding_model, None
        dimensions, metric = dimensions or None, None if metric is Metric.DOT_PRODUCT else metric
    config = {"dimensions": dimensions, "metric": metric}
    asked = {
        "name": name,
        "config": {key: value for key, value in config.items() if value is not None} or None,
        "kind": kind,
        "embeddingModel": embedding_model,
        "sparseEmbeddingModel": sparse_embedding_model,
        "idsUniqueIn": ids_unique_in,
        "ids": None if ids is IdType.TEXT else ids,
        "shards": shards,
        "description": description,
    }

    async def work() -> Any:
        async with Client(url, token, account) as client:
            there = {key: value for key, value in asked.items() if value is not None}
            return (await client.call("POST", client.indexes(), json=there)).result

    made = run(work())["config"]
    of_what = f"{made['dimensions']} dimensions, {made['metric']}" if kind.has_dense else ""
    says = ", ".join(one for one in (kind if kind.has_sparse else "", of_what) if one)
    Console().print(f"created [bold]{name}[/]: {says}")


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

    table = Table("name", "kind", "dimensions", "metric", "vectors", "created")
    for one, info in run(work()):
        kind, config = _kind_of(one), one["config"]
        dense = (str(config["dimensions"]), config["metric"]) if kind.has_dense else ("", "")
        table.add_row(one["name"], kind, *dense, f"{info['vectorCount']:,}", one["created_on"])
    Console().print(table)


@index_commands.command()
def info(name: Name, url: Url = DEFAULT_URL, token: Token = None, account: Account = DEFAULT_ACCOUNT) -> None:
    """Show an index's size, and how far its mutations are visible."""

    async def work() -> Any:
        async with Client(url, token, account) as client:
            return (await client.call("GET", client.indexes(f"/{name}/info"))).result

    result = run(work())
    Console().print_json(data={"kind": _kind_of(result)} | result)


def _kind_of(told: dict[str, Any]) -> IndexKind:
    """The service says it of those that are not like Cloudflare's."""
    return IndexKind(told.get("kind", IndexKind.DENSE))


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
