"""How log lines look: to stderr, an event in lowercase and its facts as fields; for people or as JSON for machines.

stdout is left to what a program has to say, such as the ready line.
"""

from __future__ import annotations

import logging
import sys

import structlog

from upwell.settings import Settings


def configure_logging(settings: Settings, process: str) -> None:
    """Set up structlog for this process; ``process`` (``api``, ``worker`` …) goes with every line."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Libraries speak through the standard library; what they have to say below a warning is not ours to print.
    logging.basicConfig(stream=sys.stderr, level=max(level, logging.WARNING), format="%(name)s: %(message)s")
