"""A dense model behind an HTTP server that speaks OpenAI's ``POST /v1/embeddings``.

Texts go out in requests of ``texts_per_request``, ``requests_at_once`` of them at the same time. A request that fails in passing (no
connection, silence, 408, 429, 5xx) is sent again, after pauses that double, vary by chance, and are as long as ``Retry-After`` asks if
that is not too long. What becomes of a call:

    400, 413, 422                            TextRefused, with what the server says: it will never take one of these texts
    any other failure, and nonsense          ModelAway: the server, its address or its key can be repaired

A call ends after ``call_s_max`` whatever the server does (``call.py``). Nothing follows redirects, since they would carry the key elsewhere, and no proxy is used. The key is in no error.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError, SSLError

from upwell.changeset import Matrix
from upwell.clock import Clock
from upwell.embed.call import Call, connections
from upwell.embed.configuration import ServerSettings
from upwell.embed.model import checked_vectors, nonsense, whole_unicode
from upwell.errors import ModelAway, TextRefused

#: The pause before a request is first sent again; it doubles each time, up to the longest.
PAUSE_S = 0.25
PAUSE_S_MAX = 5.0
#: Whoever asks for a longer pause is left alone, and the call fails.
RETRY_AFTER_S_MAX = 10.0
#: What an answer may take: so much for each number, and so much besides.
NUMBER_BYTES_MAX = 64
ANSWER_BYTES_MORE = 1 << 20
#: How much of a server's own words is repeated.
WORDS_LENGTH_MAX = 200

_PIECE_BYTES = 1 << 16
_IN_PASSING = {408, 429}
_ABOUT_THE_TEXT = {400, 413, 422}
_OF_CONFIGURATION = {
    401: "does not accept its API key",
    403: "does not accept its API key",
    404: "does not know that address or that model",
}


class _InPassing(Exception):
    """The request is worth sending again."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class OpenAIModel:
    """A server's model under a name. Sends nothing when made; its threads start with the first call."""

    def __init__(self, name: str, settings: ServerSettings, clock: Clock, key: str | None) -> None:
        self.name = name
        self.dimensions = settings.dimensions
        self.texts_at_once = settings.texts_per_request * settings.requests_at_once
        self._settings = settings
        self._clock = clock
        self._key = key
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._calls: set[Call] = set()
        at_once = settings.requests_at_once
        self._http = connections(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=f"embed-{name.lower()}")

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text, as the server has it."""
        size = self._settings.texts_per_request
        pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
        call = Call(self._clock, self._settings.call_s_max)
        self._calls.add(call)
        futures: list[Future[Matrix]] = []
        try:
            futures += self._submitted(pieces, call)
            parts = [future.result(timeout=call.left_s) for future in futures]
        except (TimeoutError, CancelledError):
            raise self._too_late() from None
        finally:
            self._calls.discard(call)
            call.give_up()
            for future in futures:
                future.cancel()
        return np.concatenate(parts) if parts else np.empty((0, self.dimensions), np.float32)

    def _submitted(self, pieces: Sequence[Sequence[str]], call: Call) -> list[Future[Matrix]]:
        try:
            return [self._threads.submit(self._request, piece, call) for piece in pieces]
        except RuntimeError as error:
            raise ModelAway(f"embedding model {self.name} is closed") from error

    def _too_late(self) -> ModelAway:
        return ModelAway(
            f"embedding model {self.name} did not answer all requests in time",
            seconds=self._settings.call_s_max,
        )

    def _request(self, texts: Sequence[str], call: Call) -> Matrix:
        """One request's vectors, tried until it is answered, or its tries or its time are used up."""
        tries = 0
        while True:
            if not call.left_s:
                raise self._too_late()
            tries += 1
            try:
                status, body = self._answer(texts, call)
            except _InPassing as failure:
                self._pause(failure, tries, call)
            else:
                return self._vectors(status, body, len(texts))

    def _pause(self, failure: _InPassing, tries: int, call: Call) -> None:
        """Wait before the next try. Raises ModelAway if there should be none."""
        asked_s = failure.retry_after_s
        pause_s = min(PAUSE_S * 2 ** (tries - 1), PAUSE_S_MAX)
        pause_s *= random.uniform(0.5, 1)  # noqa: S311  jitter needs no secrecy
        pause_s = max(pause_s, asked_s or 0.0)
        hopeless = tries >= self._settings.tries_max or pause_s >= min(call.left_s, RETRY_AFTER_S_MAX)
        if hopeless:
            raise ModelAway(
                f"embedding model {self.name} {failure}", retry_after_s=asked_s, tries=tries
            ) from failure
        call.given_up.wait(pause_s)

    def _answer(self, texts: Sequence[str], call: Call) -> tuple[int, bytes]:
        """Status and body of one try. Raises _InPassing, or ModelAway if the answer is too large."""
        asked: dict[str, object] = {
            "model": self._settings.model,
            "input": [whole_unicode(text) for text in texts],
            "encoding_format": "float",
        }
        if self._settings.send_dimensions:
            asked["dimensions"] = self.dimensions
        left_s = max(call.left_s, 0.01)  # none of them may be 0
        timeout = urllib3.Timeout(
            connect=min(self._settings.connect_timeout_s, left_s), read=min(self._settings.timeout_s, left_s)
        )
        try:
            with call.working():
                response = self._http.request(
                    "POST", self._settings.address, body=orjson.dumps(asked), headers=self._headers, timeout=timeout,
                    retries=False, redirect=False, preload_content=False, decode_content=False,
                )  # fmt: skip
                with contextlib.closing(response):
                    body = self._read(response, len(texts), call)
                    response.release_conn()
        except (HTTPError, OSError) as error:
            raise _InPassing(_said(error)) from error
        if response.status in _IN_PASSING or response.status >= 500:
            raise _InPassing(f"answered {response.status}", _seconds(response.headers.get("Retry-After")))
        return response.status, body

    def _read(self, response: urllib3.BaseHTTPResponse, texts: int, call: Call) -> bytes:
        most = texts * self.dimensions * NUMBER_BYTES_MAX + ANSWER_BYTES_MORE
        body = bytearray()
        while piece := response.read1(_PIECE_BYTES):
            body += piece
            if len(body) > most:
                raise nonsense(self.name, f"more than {most} bytes")
            if not call.left_s:
                raise self._too_late()
        return bytes(body)

    def _vectors(self, status: int, body: bytes, count: int) -> Matrix:
        if status in _ABOUT_THE_TEXT:
            raise TextRefused(f"embedding model {self.name} refuses the text ({status}): {self._words(body)}")
        if status != 200:
            reason = _OF_CONFIGURATION.get(status, "is not what it should be")
            raise ModelAway(f"the server of embedding model {self.name} {reason} (it answered {status})")
        try:
            data = orjson.loads(body)["data"]
            rows = [one["embedding"] for one in _in_order(data)]
            found = np.array(rows)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # a JSONDecodeError is a ValueError
            raise nonsense(self.name, "what is no list of vectors") from error
        if not rows:
            found = np.empty((0, self.dimensions))
        return checked_vectors(found, self.name, count, self.dimensions)

    def _words(self, body: bytes) -> str:
        """What the server says is wrong, in one line and without our key."""
        words: Any = None
        with contextlib.suppress(ValueError):
            words = orjson.loads(body)
        for field in ("error", "message", "detail"):
            if isinstance(words, dict):
                words = words.get(field, words)
        text = words if isinstance(words, str) else body.decode(errors="replace")
        if self._key is not None:
            text = text.replace(self._key, "***")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WORDS_LENGTH_MAX]

    def close(self) -> None:
        """Take no more calls; those that wait end soon with ModelAway."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for call in list(self._calls):
            call.give_up()
        self._http.clear()


def _in_order(data: Any) -> list[Any]:
    """The answer's items in the order of the texts: by ``index``, where they have one. Raises what a wrong shape raises."""
    indices = [one.get("index") for one in data]
    if all(index is None for index in indices):
        return list(data)
    if sorted(indices) != list(range(len(data))):
        raise ValueError("indices")
    return [one for _, one in sorted(zip(indices, data, strict=True), key=lambda pair: pair[0])]


def _said(error: Exception) -> str:
    """What went wrong with a connection, without its address."""
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return "could not be connected to in time"
    if isinstance(error, NewConnectionError):
        return "cannot be reached"
    if isinstance(error, SSLError):
        return "could not be connected to over TLS: is its certificate trusted here?"
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return "fell silent"
    return "broke the connection off"


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After in seconds; as a date, which needs clocks that agree, it is not looked at."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after[:9])
