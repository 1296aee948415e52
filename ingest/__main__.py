"""``python -m ingest``: one front-end process, from the environment's settings, until SIGTERM or SIGINT.

It says that it serves in one of two ways: into the file that UPWELL_READY_FILE names (for a supervisor), or else as the
ready line on stdout.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

import structlog
from aiohttp import web
from setproctitle import setproctitle

from ingest.app import assemble, create_app
from ingest.bootstrap import bootstrap_token
from ingest.connections import listen
from ingest.malformed import quote_nothing
from upwell.engine import open_engine
from upwell.errors import UpwellError
from upwell.logs import configure_logging
from upwell.settings import DEFAULT_REDIS, Settings

log = structlog.get_logger()

#: How long requests under way may take to finish once we are told to stop.
SHUTDOWN_S = 5.0
#: New objects after which Python looks for cycles among them.
COLLECTED_AFTER = 10_000


async def serve(settings: Settings) -> None:
    """Serve until a signal says stop; then finish what was accepted. Raises OSError if the port cannot be had."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = await asyncio.to_thread(open_engine, settings)
    app = create_app(assemble(engine, settings.redis or DEFAULT_REDIS))
    # Bodies are inflated by ingest.body, which bounds what they may become.
    runner = web.AppRunner(
        app,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=settings.idle_s,
    )
    await runner.setup()
    listening: asyncio.Server | None = None
    try:
        listening = await listen(runner, settings)
        host, port = listening.sockets[0].getsockname()[:2]
        await asyncio.to_thread(_announce, f"http://{f'[{host}]' if ':' in host else host}:{port}")
        log.info("serving", host=host, port=port)
        await stop.wait()
        log.info("stopping")
    finally:
        if listening is not None:
            listening.close()
        await runner.cleanup()


def _run(main: Coroutine[None, None, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _keep_collections_short() -> None:
    """All threads stand still while Python looks for cycles: let it look neither at what is never let go of, 50 ms each time, nor
    after every 700 lists of a body."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER)


def _announce(address: str) -> None:
    ready_file = os.environ.get("UPWELL_READY_FILE")
    if ready_file is None:
        sys.stdout.write(f"upwell ready on {address}\n")
        sys.stdout.flush()
        return
    path = Path(ready_file)
    private = path.with_name(f"{path.name}.{os.getpid()}")
    private.write_text(f"{address}\n")
    private.replace(path)


def main() -> int:
    """Run one front end; returns the process's exit code."""
    setproctitle("upwell api")
    settings = Settings()
    configure_logging(settings, "api")
    quote_nothing()
    token, _ = bootstrap_token(settings)
    _keep_collections_short()
    try:
        _run(serve(settings.model_copy(update={"token": token})))
    except OSError as error:
        sys.stderr.write(
            f"upwell: cannot listen on {settings.host}:{settings.port}: {error.strerror or error}\n"
        )
        return 1
    except UpwellError as error:
        sys.stderr.write(f"upwell: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
