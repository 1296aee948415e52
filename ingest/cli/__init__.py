"""The ``upwell`` command: run the service (serve, api, worker), use it (index, upload, status, token, export, demo),
and look after it (fsck, backup, restore, recover).

``ingest`` never imports ``workers``: a worker is started as a process, by its module's name.
"""

from __future__ import annotations

import sys

import typer

from ingest.cli.custody.carry import backup, restore
from ingest.cli.custody.export import export
from ingest.cli.custody.fsck import fsck
from ingest.cli.custody.recover import recover
from ingest.cli.demo import demo
from ingest.cli.indexes import index_commands
from ingest.cli.mutation import mutation_commands
from ingest.cli.run import api, serve, worker
from ingest.cli.status import status
from ingest.cli.token import token_commands
from ingest.cli.upload import upload
from upwell.errors import UpwellError

app = typer.Typer(
    name="upwell",
    help="Upwell: a self-hosted mutation queue for vectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serve, api, worker, upload, status, demo, export, fsck, backup, restore, recover):
    app.command()(command)
app.add_typer(index_commands, name="index")
app.add_typer(mutation_commands, name="mutation")
app.add_typer(token_commands, name="token")


def main() -> None:
    """Run the command line; errors we foresaw are one line on stderr and exit code 1."""
    try:
        app()
    except UpwellError as error:
        sys.stderr.write(f"upwell: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
