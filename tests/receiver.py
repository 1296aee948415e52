"""A webhook's receiver: a plain HTTP server in a thread, which keeps what it was sent and answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook as Verifier


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """The message, once the official library has found its signature to be right."""
        return Verifier(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What it got, in order, and what it answers."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    #: Called for each request, which is kept first: the status to answer.
    answer: Callable[[Received], int] = lambda _: 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def ids(self) -> list[str]:
        """Of the messages, without repetitions."""
        return list(dict.fromkeys(one.id for one in self.received))

    def taken(self, kind: str = "mutation.visible") -> list[str]:
        """Mutations that were told of, in the order of the first time."""
        told = [one.json["data"]["mutationId"] for one in self.received if one.json["type"] == kind]
        return list(dict.fromkeys(told))


@contextmanager
def receiving(tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Receiver]:
    """A receiver on a free port of 127.0.0.1, or on ``port``."""
    receiver = Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with lock:
                receiver.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.path, headers, body)
            with lock:
                receiver.received.append(request)
            self.send_response(receiver.answer(request))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(receiver.body)))
            self.end_headers()
            self.wfile.write(receiver.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client may break off; that is for the test to notice."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    host, bound = server.server_address[:2]
    receiver.url = f"http{'s' if tls else ''}://{host!s}:{bound}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
