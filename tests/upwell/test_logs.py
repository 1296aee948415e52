"""Log lines: whatever they quote, each stays a line, and says nothing to a terminal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NASTY = "/a\n2026-01-01T00:00:00Z [error    ] forged\r\x1b[2J\x85\u2028\u202e\x00"
SPEAKS = f"""
import logging, structlog
from upwell.logs import configure_logging
from upwell.settings import Settings
configure_logging(Settings(log_format="%s"), "test")
log, nasty = structlog.get_logger(), {NASTY!r}
log.warning(nasty, path=nasty, alone="\\x1b[2J", more=[nasty])
log.error("request failed", error=nasty)
try:
    raise ValueError(nasty)
except ValueError:
    log.exception("failed", path=nasty)
    logging.getLogger("library").exception("failed %%s", nasty)
logging.getLogger("library").warning(nasty)
"""


def said(form: str) -> str:
    done = subprocess.run([sys.executable, "-c", SPEAKS % form], capture_output=True, check=True)
    return done.stderr.decode()


@pytest.mark.parametrize("form", ["console", "json"])
def test_nothing_that_is_quoted_moves_a_cursor_or_forges_a_line(form: str) -> None:
    text = said(form)
    assert all(line.isprintable() for line in text.split("\n"))
    # Only where a line of ours begins may something begin.
    beginnings = [line for line in text.split("\n") if line and not line.startswith("    ")]
    assert all(not line.startswith("2026-01-01") for line in beginnings)
    assert len(beginnings) == 5, text


def test_a_machine_reads_what_was_there() -> None:
    first, second = [json.loads(line) for line in said("json").split("\n") if line.startswith("{")][:2]
    assert first["path"] == NASTY == first["event"] == second["error"]
