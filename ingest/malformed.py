"""What is not HTTP gets its 400 from aiohttp; and in the log a line that quotes nothing of it, for it may hold a token."""

from __future__ import annotations

import logging

import structlog
from aiohttp.http_exceptions import HttpProcessingError

log = structlog.get_logger()


class WithoutQuotes(logging.Filter):
    """Of errors in a request's own form only their kind is logged; all else goes through."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Is the record to be written as it is?"""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        log.info("malformed request", kind=type(error).__name__)
        return False


def quote_nothing() -> None:
    """Set it up for this process."""
    logging.getLogger("aiohttp.server").addFilter(WithoutQuotes())
