"""A real Valkey for each test: plain, or one that can be frozen, wiped and restarted."""

from tests.valkey_server import redis_pool, server, valkey

__all__ = ["redis_pool", "server", "valkey"]
