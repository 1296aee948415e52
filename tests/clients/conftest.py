"""Fixtures of the clients' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.javascript import Home, require_clients


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home for a JavaScript client. No client may have tried to reach another machine."""
    require_clients()
    home = Home(tmp_path, {})
    yield home
    assert not home.refused.exists(), f"a client called {home.refused.read_text('utf-8').split()}"
