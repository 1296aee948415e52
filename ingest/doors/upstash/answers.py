"""Answers: ``{"result": value}`` and ``{"error": text, "status": number}``, always JSON: clients read it whatever the status."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from aiohttp import payload, web
from aiohttp.abc import AbstractStreamWriter

from ingest.doors.upstash.errors import UpstashError, describe
from ingest.keys import OPERATIONS
from ingest.problems import retry_after
from ingest.unread import demand_known_expectation
from upwell.errors import Behind, Corrupt, UpwellError

log = structlog.get_logger()

MUTATION_ID = "X-Mutation-Id"
#: A thousand rows with all the data and metadata that they may have would be ten times as much.
ANSWER_BYTES_MAX = 128 << 20
#: Longer ones are written piece by piece, as the client takes them: the loop would stand still while it copies all at once.
PIECE_BYTES = 256 << 10
#: Of all such answers together that one front end holds for clients that are slow to take them.
HELD_BYTES_MAX = 1 << 30
#: The methods of which any will do for any command.
ALLOWED = "HEAD, GET, POST, PUT, DELETE"
#: The fact of an error that is met after a write was accepted: its mutation, which the answer names. It need not be sent again.
ACCEPTED = "mutation"


def encode(value: Any) -> bytes:
    """A value as JSON. float32 become the shortest numbers that read back as the same float32."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_many(encoded: Iterable[bytes]) -> bytes:
    """An array of what is encoded already."""
    return b"[" + b",".join(encoded) + b"]"


class Room:
    """How many bytes one answer may yet have. Shared by the threads that make parts of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = ANSWER_BYTES_MAX

    def take(self, nbytes: int) -> None:
        """Raises a 422 if there are not so many left."""
        with self._lock:
            self._left -= nbytes
            if self._left < 0:
                raise UpstashError(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"the answer has more than {ANSWER_BYTES_MAX} bytes; ask for fewer vectors, or for less of each",
                )


def encode_rows(rows: Iterable[Any], room: Room | None = None) -> bytes:
    """An array of rows, encoded one by one. Raises a 422 if the answer is too large to be held in memory by many at once; ``room``
    is that of an answer with several arrays."""
    encoded, room = [], room or Room()
    for row in rows:
        encoded.append(encode(row))
        room.take(len(encoded[-1]))
    return encode_many(encoded)


class _Held:
    """The large answers of this process that are not all taken yet. Used from one event loop at a time."""

    def __init__(self) -> None:
        self.nbytes = 0

    def hold(self, nbytes: int) -> None:
        """Count another one. Raises Behind if there are too many already."""
        if self.nbytes + nbytes > HELD_BYTES_MAX:
            raise Behind("too many large answers are being taken just now; try again later")
        self.nbytes += nbytes

    def let_go(self, nbytes: int) -> None:
        """One of them is taken, or nobody wants it any more."""
        self.nbytes -= nbytes


_HELD = _Held()


class _Large(payload.Payload):
    """An answer that is written piece by piece, and is counted until then. Raises Behind if there are too many."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        super().__init__(parts)
        self._size = sum(map(len, parts))
        _HELD.hold(self._size)
        # Also if it is never written, to whoever hung up.
        self._let_go = weakref.finalize(self, _HELD.let_go, self._size)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text: nobody asks for it."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """All of it, as fast as it is taken."""
        part = None
        try:
            for part in self._value:
                for start in range(0, len(part), PIECE_BYTES):
                    await writer.write(part[start : start + PIECE_BYTES])
        finally:
            # Who hangs up leaves an error behind that holds on to this frame and the writer's, until Python next looks for cycles;
            # so pieces are copies, too.
            part = None

    async def close(self) -> None:
        """It is written, or cannot be."""
        self._value = ()
        self._let_go()


def answer(encoded: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """A success, its result encoded already. Raises Behind for a large one if too many are being taken."""
    parts = (b'{"result":', encoded, b"}")
    body = b"".join(parts) if len(encoded) <= PIECE_BYTES else _Large(parts)
    return web.Response(body=body, content_type="application/json", headers=headers)


def success(result: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """A success; for results small enough to be encoded on the event loop."""
    return answer(encode(result), headers)


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal or a failure. What a text quotes may not be fit for UTF-8."""
    body = orjson.dumps({"error": text.encode("utf-8", "replace").decode(), "status": int(status)})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as JSON, which clients read whatever the status; what nobody foresaw leaves as a 500 that tells nothing, and
    is logged."""
    try:
        demand_known_expectation(request)
        return await handler(request)
    except UpwellError as error:
        status, text = describe(error)
        if isinstance(error, Corrupt):
            request.config_dict[OPERATIONS].met_damage(error)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error(
                "request failed", method=request.method, path=request.path, status=status, error=str(error)
            )
        accepted = error.facts.get(ACCEPTED)
        headers = retry_after(error) if accepted is None else {MUTATION_ID: str(accepted)}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ALLOWED}
        return failure(status, text, headers)
    except web.HTTPExpectationFailed as error:
        return failure(error.status, str(error.text))
    except web.HTTPNotFound:
        return failure(404, f"There is nothing at {request.path}; expected /upstash/ACCOUNT/INDEX/COMMAND")
    except web.HTTPException:
        raise
    except Exception:
        log.exception("request failed unexpectedly", method=request.method, path=request.path)
        return failure(500, "internal error")
