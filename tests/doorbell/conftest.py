"""A real Valkey for each test, and the promise that every key it is left with is meant to be there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.valkey_server import server
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import PERMANENT

__all__ = ["server", "valkey"]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    if server.alive():
        with redis.Redis.from_url(server.url) as client:
            stays = {key.decode() for key in client.scan_iter() if client.ttl(key) == -1}
        assert stays <= PERMANENT, f"keys without a time to live: {stays - PERMANENT}"
    server.stop()
