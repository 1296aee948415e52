"""``upwell backup`` and ``upwell restore``: carrying an index out of a store, and into one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ingest.cli.custody.store import Data, Reading, Store, engine_on
from upwell.custody.archive import Archive
from upwell.custody.backup import take_backup
from upwell.custody.restore import restore_backup

MEGABYTE = 1_000_000


def backup(
    index: Annotated[str, typer.Argument(help="The index's name.")],
    to: Annotated[Path, typer.Option(help="A file to write, or a folder to write one into.")],
    account: Annotated[str, typer.Option(help="Its account.", envvar="UPWELL_ACCOUNT")] = "default",
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Take along what is acknowledged and not applied yet.")
    ] = True,
    data: Data = None,
    store: Store = None,
) -> None:
    """Back an index up into one file, beside running processes. Everything acknowledged before it began is in it."""
    engine = engine_on(data, store)
    record = engine.find(account, index).record
    began = time.monotonic()
    with Reading("backup", shown=True) as reading:
        file, contents = take_backup(engine.store, record, to, engine.clock, with_log=log, told=reading.more)
    seconds = time.monotonic() - began
    nbytes = file.stat().st_size
    waiting = contents.log_through - contents.applied_through
    Console(soft_wrap=True).print(
        f"{file}: {account}/{index} at version {contents.version}, {contents.vectors:,} vectors"
        + (f" and {waiting} log entries not applied yet" if waiting else "")
        + f"; {nbytes / MEGABYTE:,.1f} MB in {seconds:.2f} s",
        highlight=False,
    )


def restore(
    file: Annotated[Path, typer.Argument(help="A file that upwell backup wrote.")],
    name: Annotated[str, typer.Option("--as", help="The new index's name; it must be free.")],
    account: Annotated[
        str | None, typer.Option(help="Its account [default: the one it was in].", envvar="UPWELL_ACCOUNT")
    ] = None,
    data: Data = None,
    store: Store = None,
) -> None:
    """Make a new index of a backup, beside running processes. Nothing is written unless all of the backup is whole."""
    engine = engine_on(data, store, to_look=False)
    began = time.monotonic()
    with Archive(file) as archive, Reading("restore", shown=True) as reading:
        contents = archive.contents
        record = restore_backup(
            file,
            engine.store,
            engine.catalog,
            engine.clock,
            engine.settings.grace_s,
            account=account,
            name=name,
            told=reading.more,
        )
    seconds = time.monotonic() - began
    waiting = contents.log_through - contents.applied_through
    Console(soft_wrap=True).print(
        f"{record.account}/{record.name}: {contents.vectors:,} vectors as of {contents.taken_at:%Y-%m-%d %H:%M:%S} UTC, in {seconds:.2f} s"
        + (f"; workers apply the {waiting} log entries that were waiting" if waiting else ""),
        highlight=False,
    )
