"""Fixtures of the clients' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.javascript import Home, require_clients
from tests.clients.upstash import Upstash
from tests.service import running


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home for a JavaScript client. No client may have tried to reach another machine."""
    require_clients()
    home = Home(tmp_path, {})
    yield home
    assert not home.refused.exists(), f"a client called {home.refused.read_text('utf-8').split()}"


@pytest.fixture(scope="module")
def upstash() -> Iterator[Upstash]:
    """A service for all tests of a module; each makes indexes of its own there."""
    with running() as service:
        yield Upstash(service)
