"""``upwell serve``, ``upwell api`` and ``upwell worker``: options over environment, then processes.

An option that is not given leaves the UPWELL_* variable, or the default, in force; children get everything by environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ingest.bootstrap import bootstrap_token, make_private
from ingest.cli.environment import environment_of
from ingest.cli.supervisor import Supervisor
from upwell.errors import Invalid
from upwell.settings import Settings

Host = Annotated[
    str | None, typer.Option(help="Address to bind to [default: 127.0.0.1].", envvar="UPWELL_HOST")
]
Port = Annotated[
    int | None, typer.Option(help="Port; 0 takes a free one [default: 8000].", envvar="UPWELL_PORT")
]
Data = Annotated[Path | None, typer.Option(help="Data directory [default: ./data].", envvar="UPWELL_DATA")]
Workers = Annotated[int | None, typer.Option(help="Worker processes [default: 1].", envvar="UPWELL_WORKERS")]
Redis = Annotated[
    str | None, typer.Option(help="redis://, rediss:// or unix:// address.", envvar="UPWELL_REDIS")
]
Store = Annotated[str | None, typer.Option(help="file:///path of the store.", envvar="UPWELL_STORE")]


def serve(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    workers: Workers = None,
    redis: Redis = None,
    store: Store = None,
) -> None:
    """Run everything on this machine: Valkey (unless --redis is given), the front end, and the workers."""
    settings = settings_from(host=host, port=port, data=data, workers=workers, redis=redis, store=store)
    make_private(settings.data)
    token, generated = bootstrap_token(settings)
    raise typer.Exit(Supervisor(settings.model_copy(update={"token": token}), generated).run())


def api(
    host: Host = None, port: Port = None, data: Data = None, redis: Redis = None, store: Store = None
) -> None:
    """Run one front end, against --redis and --store."""
    settings = settings_from(host=host, port=port, data=data, redis=redis, store=store)
    _become("ingest", settings)


def worker(data: Data = None, redis: Redis = None, store: Store = None) -> None:
    """Run one worker, against --redis and --store. Start as many as you like."""
    _become("workers", settings_from(data=data, redis=redis, store=store))


def settings_from(**options: object) -> Settings:
    """The settings: options given, then the environment, then defaults. Raises Invalid, which names the option."""
    try:
        return Settings.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        says = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{where}: {says}") from None


def _become(module: str, settings: Settings) -> None:
    """Go on as ``python -m module`` in this very process, so that signals and exit codes are its own."""
    os.execve(sys.executable, [sys.executable, "-m", module], environment_of(settings))  # noqa: S606
