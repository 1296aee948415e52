"""How log lines look: to stderr, an event in lowercase and its facts as fields; for people or as JSON for machines.

stdout is left to what a program has to say, such as the ready line. What a line quotes may be of anybody's making, a path for
example: nothing in it can begin a line of its own or move a terminal's cursor, for what does not print is written as an escape.
"""

from __future__ import annotations

import logging
import sys

import structlog

from upwell.settings import Settings

BEFORE_TRACEBACK = "    "


def configure_logging(settings: Settings, process: str) -> None:
    """Set up structlog for this process; ``process`` (``api``, ``worker`` …) goes with every line."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # JSON has escapes of its own.
    last: list[structlog.types.Processor] = (
        [structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [escaped, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Libraries speak through the standard library; what they have to say below a warning is not ours to print.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaped("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING))


def escaped(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """A processor that leaves nothing in an event's strings that does not print. Tracebacks keep their lines, indented."""
    return {
        name: _indented(value) if name == "exception" and isinstance(value, str) else _plain(value)
        for name, value in event.items()
    }


class _Escaped(logging.Formatter):
    """The same for what libraries say: a first line, and what follows it indented."""

    def format(self, record: logging.LogRecord) -> str:
        return _indented(super().format(record)).removeprefix(BEFORE_TRACEBACK)


def _plain(value: object) -> object:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _indented(text: str) -> str:
    return "\n".join(f"{BEFORE_TRACEBACK}{_plain(line)}" for line in text.split("\n"))
