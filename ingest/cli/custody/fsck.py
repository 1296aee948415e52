"""``upwell fsck``: is everything in a store, or in a backup, as it was written, and does it fit together?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ingest.cli.custody.store import Data, Reading, Store, engine_on
from upwell.custody.archive import check_archive
from upwell.custody.check import check_store
from upwell.custody.findings import Finding, Report, Severity
from upwell.errors import UpwellError

CLEAN, PROBLEMS, COULD_NOT_RUN = 0, 1, 2
MEGABYTE = 1_000_000
_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def fsck(
    index: Annotated[str | None, typer.Option(help="Check this index only.")] = None,
    account: Annotated[str, typer.Option(help="Its account.", envvar="UPWELL_ACCOUNT")] = "default",
    backup: Annotated[Path | None, typer.Option(help="Check this backup instead of a store.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only names and headers: the contents are not read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    data: Data = None,
    store: Store = None,
) -> None:
    """Check a store, beside running processes or without them; nothing is changed.

    Exit code 0: clean; 1: problems; 2: it could not be checked.
    """
    began = time.monotonic()
    try:
        with Reading("fsck", shown=not json) as reading:
            if backup is not None:
                report = check_archive(backup, quick=quick, told=reading.more)
            else:
                only = None if index is None else (account, index)
                report = check_store(engine_on(data, store).store, only=only, quick=quick, told=reading.more)
    except UpwellError as error:
        sys.stderr.write(f"upwell: {error}\n")
        raise typer.Exit(COULD_NOT_RUN) from None
    seconds = time.monotonic() - began
    console = Console(soft_wrap=True)
    if json:
        console.print_json(data=report.to_json() | {"seconds": seconds})
    else:
        _print(console, report, seconds)
    raise typer.Exit(CLEAN if report.clean else PROBLEMS)


def _print(console: Console, report: Report, seconds: float) -> None:
    order = list(Severity)
    for one in sorted(report.findings, key=lambda one: (order.index(one.severity), one.index or "", one.key)):
        _print_finding(console, one)
    speed = report.nbytes / MEGABYTE / seconds if seconds else 0.0
    console.print(
        f"{report.objects:,} objects, {report.nbytes / MEGABYTE:,.1f} MB in {seconds:.2f} s ({speed:,.0f} MB/s); "
        f"{report.indexes} indexes, {report.vectors:,} vectors",
        highlight=False,
    )
    if report.clean:
        console.print("[bold green]clean[/]")
    else:
        errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
        console.print(f"[bold red]{errors} errors[/], {warnings} warnings", highlight=False)


def _print_finding(console: Console, one: Finding) -> None:
    of = f" ({one.index})" if one.index else ""
    style = _STYLE[one.severity]
    console.print(
        f"[{style}]{one.severity}[/] {escape(one.key)}{escape(of)}: {escape(one.problem)}", highlight=False
    )
    if one.severity is not Severity.NOTE:
        console.print(f"        means   {escape(one.meaning)}", highlight=False)
        console.print(f"        to do   {escape(one.remedy)}", highlight=False)
