"""Which store a command works on, and how it shows that it gets on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from ingest.cli.run import settings_from
from upwell.clock import SystemClock
from upwell.engine import Engine
from upwell.errors import NotFound
from upwell.store import open_store

Data = Annotated[
    Path | None,
    typer.Option(help="Data directory whose store is meant [default: ./data].", envvar="UPWELL_DATA"),
]
Store = Annotated[str | None, typer.Option(help="file:///path of the store.", envvar="UPWELL_STORE")]


def engine_on(data: Path | None, store: str | None, *, to_look: bool = True, **options: object) -> Engine:
    """An engine on a store that is there, by default one that changes nothing of it, which may then be mounted read-only.

    Raises NotFound: none is made for having been asked about.
    """
    settings = settings_from(data=data, store=store, **options)
    if settings.store is None and not (settings.data / "store").is_dir():
        raise NotFound("there is no store here; name one with --data or --store", data=str(settings.data))
    if settings.store is not None and settings.store.startswith("file://"):
        path = Path(settings.store.removeprefix("file://localhost").removeprefix("file://"))
        if not path.is_dir():
            raise NotFound("there is no store here", store=settings.store)
    opened = open_store(settings.store, settings.data, to_look=to_look)
    return Engine(opened, settings, SystemClock())


class Reading:
    """Bytes read, and how fast, on stderr. Use as a context manager; any thread may tell it of more."""

    def __init__(self, what: str, *, shown: bool, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            disable=not shown,
            transient=True,
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._what, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def more(self, nbytes: int) -> None:
        """So many bytes more are read."""
        self._progress.update(self._task, advance=nbytes)
