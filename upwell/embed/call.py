"""A call's time, and connections that are cut off when it is over.

A client's own timeouts look at silence only: a server that drips a header or an answer byte by byte holds its thread for ever, and a thread that
hangs keeps the whole process from ending. So a call knows the connections that work for it, and giving it up shuts them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from upwell.clock import Clock

#: ``call``: the one that this thread works for.
_HERE = threading.local()


class Call:
    """When it ends, and whether anybody still waits for it."""

    def __init__(self, clock: Clock, lasts_s: float) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + lasts_s
        self._connections: dict[int, HTTPConnection] = {}
        self.given_up = threading.Event()

    @property
    def left_s(self) -> float:
        """How long it may still take; 0 if it is over."""
        return 0.0 if self.given_up.is_set() else max(0.0, self._ends_at - self._clock.monotonic())

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """What this thread connects to meanwhile is cut off when the call is given up."""
        _HERE.call = self
        try:
            yield
        finally:
            del _HERE.call
            self._connections.pop(threading.get_ident(), None)

    def uses(self, connection: HTTPConnection) -> None:
        """This thread is about to wait for ``connection``. Raises TimeoutError if nobody waits for this thread any more."""
        self._connections[threading.get_ident()] = connection
        if self.given_up.is_set():
            raise TimeoutError

    def give_up(self) -> None:
        """Nobody waits any more: cut off what still goes on. If a connection is another call's by now, that one connects again."""
        self.given_up.set()
        for connection in list(self._connections.values()):
            if connection.sock is not None:
                with contextlib.suppress(OSError):  # it was closed meanwhile
                    connection.sock.shutdown(socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _HERE.call.uses(self)

    def request(self, *args: Any, **named: Any) -> None:
        _HERE.call.uses(self)
        super().request(*args, **named)


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _HERE.call.uses(self)

    def request(self, *args: Any, **named: Any) -> None:
        _HERE.call.uses(self)
        super().request(*args, **named)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def connections(at_once: int) -> PoolManager:
    """Connections to one server, kept open; to be used only by threads that are ``working`` for a call."""
    pools = PoolManager(num_pools=1, maxsize=at_once)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pools
