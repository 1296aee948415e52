"""``upwell export``: all vectors of an index as NDJSON, counted, into a file or to standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import quote

import typer
from rich.console import Console

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, Token, Url, run
from upwell.errors import Exists, Unavailable, UpwellError

MEGABYTE = 1_000_000


def export(
    index: Annotated[str, typer.Argument(help="The index's name.")],
    output: Annotated[Path | None, typer.Option(help="A file to write [default: standard output].")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only vectors of this namespace.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Export all vectors of one version of an index, as the lines that upload takes. A part is never taken for the whole."""
    began = time.monotonic()
    with _sink(output) as sink:
        version, vectors, nbytes = run(_receive(url, token, account, _path(index, namespace), sink))
    seconds = time.monotonic() - began
    Console(stderr=True, soft_wrap=True).print(
        f"{vectors:,} vectors of version {version}, {nbytes / MEGABYTE:,.1f} MB in {seconds:.2f} s "
        f"({vectors / seconds if seconds else 0:,.0f} vectors/s)",
        highlight=False,
    )


def _path(index: str, namespace: str | None) -> str:
    return f"/{index}/export" + ("" if namespace is None else f"?namespace={quote(namespace, safe='')}")


async def _receive(
    url: str, token: str | None, account: str, path: str, sink: IO[bytes]
) -> tuple[str, int, int]:
    """The version, and how many vectors and bytes came. Raises UpwellError if not all came."""
    vectors = nbytes = 0
    async with Client(url, token, account) as client, client.stream(client.indexes(path)) as answer:
        promised = int(answer.headers["X-Upwell-Vectors"])
        try:
            async for chunk in answer.content.iter_any():
                sink.write(chunk)
                vectors += chunk.count(b"\n")
                nbytes += len(chunk)
        except client.BROKEN as error:
            raise UpwellError(
                f"the export broke off after {vectors:,} of {promised:,} vectors; the service's log says why"
            ) from error
        if vectors != promised:
            raise UpwellError(f"{vectors:,} of {promised:,} vectors came")
        return answer.headers["X-Upwell-Version"], vectors, nbytes


@contextmanager
def _sink(output: Path | None) -> Iterator[IO[bytes]]:
    """Where to write: a file gets its name once all is in it."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists():
        raise Exists("there is such a file already", path=str(output))
    private = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with private.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        private.replace(output)
    except OSError as error:
        raise Unavailable("the file could not be written", path=str(output), reason=str(error)) from error
    finally:
        private.unlink(missing_ok=True)
