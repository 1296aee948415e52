"""A Valkey that can be frozen, wiped and restarted, for every test that asks for one."""

from tests.valkey_server import server

__all__ = ["server"]
