"""An embedding server for tests: real HTTP in threads, OpenAI's shapes, and whatever faults a test scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSIONS = 4


def vector_of(text: str) -> list[float]:
    """What the server makes of a text: numbers that float32 holds exactly."""
    return [float(len(text)), float(sum(text.encode()) % 1_000), float(ord(text[0]) if text else 0), 0.5]


def item(index: int, text: str) -> dict[str, object]:
    return {"object": "embedding", "index": index, "embedding": vector_of(text)}


def sound(texts: Sequence[str]) -> dict[str, object]:
    """The answer of a server in good health."""
    return {"object": "list", "data": [item(i, text) for i, text in enumerate(texts)], "model": "m"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any

    @property
    def texts(self) -> list[str]:
        texts: list[str] = self.body["input"]
        return texts


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send; ``cut`` sends only so many bytes of what was announced, and ends the connection."""

    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class EmbeddingServer:
    """What it was asked, in the order of arrival, and how it answers."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    #: Called by many threads.
    answer: Callable[[Asked], Answer] = lambda asked: Answer(sound(asked.texts))
    #: Set when the test is over: who hangs waits for it.
    over: threading.Event = field(default_factory=threading.Event)

    def hang(self, _: Asked) -> Answer:
        """An answer that does not come while the test lasts."""
        self.over.wait(60)
        return Answer({})

    def script(self, *answers: Answer) -> None:
        """Give these answers, one a request, and sound ones after them."""
        rest = list(answers)
        self.answer = lambda asked: rest.pop(0) if rest else Answer(sound(asked.texts))


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """One that listens on a free port."""
    server = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Asked(self.path, dict(self.headers), body)
            server.asked.append(asked)
            answer = server.answer(asked)
            said = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(said)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said[: answer.cut])
            except OSError:
                self.close_connection = True  # whoever asked has gone
            if answer.cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Http(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client may break off; that is for the test to notice."""

    with Http(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            http.shutdown()
            thread.join()
