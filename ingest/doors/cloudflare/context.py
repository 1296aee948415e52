"""What every handler of this door needs of a request: who may do this, to which index, with which JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from ingest.body import inflate
from ingest.body.precise import BYTE_ORDER_MARK
from ingest.doors.cloudflare.errors import BODY_UNPARSABLE, NO_ROUTE, OWN_CODES, CloudflareError
from ingest.doors.cloudflare.words import first_in_words
from ingest.keys import DOOR, OPERATIONS
from ingest.operations import Operations
from ingest.requests import bearer_token, read_body
from upwell.catalog.record import IndexRecord
from upwell.catalog.tokens import Access, Grant
from upwell.engine import Index
from upwell.errors import Invalid
from upwell.kinds import IndexKind

M = TypeVar("M", bound=BaseModel)

#: What the request's token allows, once it is known.
GRANT = web.RequestKey("grant", Grant)
#: More than the longest vector, spelt out, and the largest filter need. Decoded it may take thirty times as much.
QUESTION_BYTES_MAX = 1 << 20
#: Of a number in a query string.
DIGITS_MAX = 18
ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}")


def operations(request: web.Request) -> Operations:
    """The operations of this application."""
    return request.config_dict[OPERATIONS]


async def grant_at_door(request: web.Request) -> Grant:
    """What the request's token allows. Raises Unauthenticated, or Forbidden for a token of another door."""
    return await operations(request).grant_of(bearer_token(request), request.config_dict[DOOR])


async def authorised(request: web.Request, access: Access) -> str:
    """The account in the path, once the token is known to allow ``access`` there.

    Raises Unauthenticated, Forbidden, or a 404 for an account that cannot be one.
    """
    account = request.match_info["account"]
    grant = await grant_at_door(request)
    if not ACCOUNT.fullmatch(account):
        message = f"Could not route to {request.path}, perhaps your object identifier is invalid?"
        raise CloudflareError(404, NO_ROUTE, message)
    grant.check(access, account, request.match_info.get("index"))
    request[GRANT] = grant
    return account


def grant_of(request: web.Request) -> Grant:
    """What the token of an authorised request allows."""
    return request[GRANT]


async def authorised_index(request: web.Request, access: Access) -> Index:
    """The index in the path, once the token is known to allow ``access`` to it. Also raises NotFound and Gone."""
    account = await authorised(request, access)
    return await operations(request).find_index(account, request.match_info["index"])


async def json_body(
    request: web.Request, model: type[M], choose: Callable[[object], type[M]] | None = None
) -> M:
    """The JSON body under any content type, as ``model``, or as the one of its kinds that ``choose`` says when it has seen it. Raises a 400
    that names the field."""
    ops = operations(request)
    bytes_max = question_bytes_max(request)
    body = await read_body(request, bytes_max)
    encoding = request.headers.get("Content-Encoding")
    return await ops.parse(lambda: parse_json(inflate(body, encoding, bytes_max), model, choose))


def demand_dense(record: IndexRecord) -> None:
    """Raise a 400 for an index whose vectors this door has no words for. What names ids only, and what gives out, works there too."""
    if record.kind is not IndexKind.DENSE:
        raise CloudflareError(
            400,
            OWN_CODES + 400,
            f"this is a {record.kind} index, and there are only dense vectors at this door: write and query it at Upstash's, "
            f"/upstash/{record.account}/{record.name}",
        )


def demand_writable(record: IndexRecord) -> None:
    """Raise a 400 for an index whose rows this door cannot write. What names ids only, and what gives out, works there too."""
    demand_dense(record)
    if not record.effective_schema.is_open:
        raise CloudflareError(
            400,
            OWN_CODES + 400,
            "this index's rows have fields of declared types, of which this door knows nothing: write it at Milvus's, "
            f"/v2/vectordb, where it is the collection {record.name} of the database {record.account}",
        )


def question_bytes_max(request: web.Request) -> int:
    """How long a body may be that is no upload and no list of ids, sent or inflated."""
    return min(QUESTION_BYTES_MAX, operations(request).engine.settings.request_bytes_max)


def parse_json(
    body: bytes | bytearray | memoryview,
    model: type[M],
    choose: Callable[[object], type[M]] | None = None,
) -> M:
    """``body`` as ``model``, see ``json_body``. Raises a 400 that names the field and what was expected."""
    try:
        given = orjson.loads(bytes(body).removeprefix(BYTE_ORDER_MARK))
        return (model if choose is None else choose(given)).model_validate(given)
    except orjson.JSONDecodeError as error:
        raise unparsable(str(error)) from None
    except ValidationError as error:
        raise unparsable(first_in_words(error)) from None


def unparsable(detail: str) -> CloudflareError:
    """The error for a JSON body that is not what an endpoint expects."""
    return CloudflareError(400, BODY_UNPARSABLE, f"Failed to parse the request body as JSON: {detail}")


def number_in(request: web.Request, name: str, default: int, most: int) -> int:
    """``?name=N``, from 1 to ``most``. Raises Invalid."""
    text = request.query.get(name)
    if text is None:
        return default
    # Python refuses to read thousands of digits, with an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and 1 <= int(text) <= most):
        raise Invalid(f"{name}: expected a number from 1 to {most}, got {text[:64]!r}")
    return int(text)


def wait_seconds(request: web.Request, default: float = 0.0) -> float:
    """``?wait=SECONDS``, at most the server's limit. Raises Invalid."""
    text = request.query.get("wait")
    if text is None:
        return default
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= float("inf"):
        raise Invalid(f"wait: expected seconds, got {text[:64]!r}")
    return min(wait_s, operations(request).engine.settings.wait_s_max)
