"""``python -m workers``: one worker process, from the environment's settings, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import sys

import structlog
from setproctitle import setproctitle

from upwell.clock import SystemClock
from upwell.engine import open_engine
from upwell.errors import UpwellError
from upwell.logs import configure_logging
from upwell.settings import DEFAULT_REDIS, Settings
from workers.worker import WorkerProcess, stop_on_signals

log = structlog.get_logger()


async def work(settings: Settings) -> None:
    """Work until a signal says stop."""
    clock = SystemClock()
    engine = await asyncio.to_thread(open_engine, settings, clock)
    process = WorkerProcess(engine, settings, clock, settings.redis or DEFAULT_REDIS)
    stop_on_signals(process)
    log.info("working")
    await process.run()
    log.info("stopped")


def main() -> int:
    """Run one worker; returns the process's exit code."""
    setproctitle("upwell worker")
    settings = Settings()
    configure_logging(settings, "worker")
    try:
        asyncio.run(work(settings))
    except UpwellError as error:
        sys.stderr.write(f"upwell: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
