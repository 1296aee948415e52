"""``upwell upload``: a file of NDJSON, in batches, until every vector is visible.

One request is under way at a time, because order matters when an id occurs twice; the next batch is read meanwhile. The service
knows lines of a request; what it says is translated to lines of the file.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Protocol, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from ingest.cli.client import DEFAULT_ACCOUNT, DEFAULT_URL, Account, Client, ServerSaid, Token, Url, run
from ingest.cli.status import IndexName
from upwell.errors import Invalid, UpwellError

BATCH_LINES = 5_000
BATCH_BYTES = 48 << 20
WAIT_S = 30


@dataclass(slots=True)
class Batch:
    """Lines of the file that go into one request."""

    text: bytes
    #: The file's number of the batch's first line, from 1.
    first_line: int
    #: Lines that are not blank.
    vectors: int


@dataclass(slots=True)
class Summary:
    """What an upload came to."""

    vectors: int = 0
    nbytes: int = 0
    mutations: list[str] = field(default_factory=list)
    seconds_to_acknowledged: float = 0.0
    seconds_to_visible: float = 0.0


class Follower(Protocol):
    """Told how an upload goes."""

    def sent(self, nbytes: int, vectors: int) -> None:
        """A batch is acknowledged."""
        ...

    def visible(self, vectors: int) -> None:
        """So many vectors more are visible."""
        ...


def upload(
    file: Annotated[str, typer.Argument(help="A file of NDJSON, or - for standard input.")],
    index: IndexName,
    insert: Annotated[
        bool, typer.Option("--insert", help="Keep vectors that exist, instead of replacing them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON, and no bar.")] = False,
    batch: Annotated[int, typer.Option(help="Vectors per request.", min=1)] = BATCH_LINES,
    url: Url = DEFAULT_URL,
    token: Token = None,
    account: Account = DEFAULT_ACCOUNT,
) -> None:
    """Upload a file of NDJSON and wait until it is visible."""
    operation = "insert" if insert else "upsert"

    async def work(source: IO[bytes], follower: Follower) -> Summary:
        async with Client(url, token, account) as client:
            return await upload_lines(client, index, operation, source, follower, batch)

    with _opened(file) as source, Bar(file, shown=not json) as bar:
        summary = run(work(source, bar))
    console = Console()
    if json:
        console.print_json(data=asdict(summary))
        return
    rate = summary.vectors / summary.seconds_to_visible if summary.seconds_to_visible else 0
    console.print(
        f"{summary.vectors:,} vectors visible: acknowledged in {summary.seconds_to_acknowledged:.2f} s, "
        f"visible in {summary.seconds_to_visible:.2f} s ({rate:,.0f} vectors/s)"
    )


async def upload_lines(
    client: Client,
    index: str,
    operation: str,
    source: IO[bytes],
    follower: Follower,
    batch_lines: int = BATCH_LINES,
) -> Summary:
    """Send all lines of ``source`` and wait until they are visible. Raises UpwellError at the first refusal."""
    began = time.monotonic()
    summary = Summary()
    waiting: asyncio.Queue[tuple[str, int] | None] = asyncio.Queue()
    watcher = asyncio.create_task(_follow(client, index, waiting, follower))
    try:
        batches = batches_of(source, batch_lines)
        following = await asyncio.to_thread(next, batches, None)
        while following is not None:
            batch, reading = following, asyncio.create_task(asyncio.to_thread(next, batches, None))
            mutation = await _send(client, index, operation, batch)
            following = await reading
            summary.vectors += batch.vectors
            summary.nbytes += len(batch.text)
            summary.mutations.append(mutation)
            follower.sent(len(batch.text), batch.vectors)
            waiting.put_nowait((mutation, batch.vectors))
            if watcher.done():
                break
        summary.seconds_to_acknowledged = time.monotonic() - began
        waiting.put_nowait(None)
        await watcher
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    summary.seconds_to_visible = time.monotonic() - began
    return summary


async def _send(client: Client, index: str, operation: str, batch: Batch) -> str:
    try:
        answer = await client.call("POST", client.indexes(f"/{index}/{operation}"), ndjson=batch.text)
    except ServerSaid as error:
        raise _in_the_file(error, batch.first_line) from None
    return str(answer.result["mutationId"])


async def _follow(
    client: Client, index: str, waiting: asyncio.Queue[tuple[str, int] | None], follower: Follower
) -> None:
    """Wait for mutation after mutation: their order is the order in which they become visible."""
    while (following := await waiting.get()) is not None:
        mutation, vectors = following
        await wait_until_visible(client, index, mutation)
        follower.visible(vectors)


async def wait_until_visible(client: Client, index: str, mutation: str) -> dict[str, Any]:
    """A mutation's status once it is visible. Raises UpwellError if it fails."""
    path = client.indexes(f"/{index}/mutations/{mutation}?wait={WAIT_S}")
    while True:
        status: dict[str, Any] = (await client.call("GET", path)).result
        if status["state"] == "visible":
            return status
        if status["state"] == "failed":
            raise UpwellError(f"mutation {mutation} failed: {status['error']}")


def batches_of(source: IO[bytes], batch_lines: int) -> Iterator[Batch]:
    """The file in batches of whole lines, each within the limits of a request. Batches of blank lines are left out."""
    lines: list[bytes] = []
    first, nbytes, vectors = 1, 0, 0
    for number, line in enumerate(source, start=1):
        if lines and (vectors == batch_lines or nbytes + len(line) > BATCH_BYTES):
            if vectors:
                yield Batch(b"".join(lines), first, vectors)
            lines, first, nbytes, vectors = [], number, 0, 0
        lines.append(line)
        nbytes += len(line)
        vectors += not line.isspace()
    if vectors:
        yield Batch(b"".join(lines), first, vectors)


def _in_the_file(error: ServerSaid, first_line: int) -> ServerSaid:
    """The same refusal with the file's line numbers."""

    def renumber(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) + first_line - 1}"

    errors = [
        said | {"message": re.sub(r"(\bline )(\d+)", renumber, str(said.get("message", "")))}
        for said in error.errors
    ]
    return ServerSaid(error.status, errors)


def _opened(file: str) -> IO[bytes]:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from None


class Bar:
    """A progress bar: bytes sent, vectors acknowledged, vectors visible. Use as a context manager."""

    def __init__(self, file: str, *, shown: bool) -> None:
        self._total = Path(file).stat().st_size if file != "-" and Path(file).is_file() else None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("acknowledged {task.fields[acknowledged]:,}  visible {task.fields[shown]:,}"),
            TimeElapsedColumn(),
            disable=not shown,
            console=Console(stderr=True),
        )
        self._acknowledged = self._visible = 0

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task("upload", total=self._total, acknowledged=0, shown=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sent(self, nbytes: int, vectors: int) -> None:
        self._acknowledged += vectors
        self._progress.update(self._task, advance=nbytes, acknowledged=self._acknowledged)

    def visible(self, vectors: int) -> None:
        self._visible += vectors
        self._progress.update(self._task, shown=self._visible)
