"""Cloudflare's error codes: one table for kinds of error, one for lines of an upload, and the middleware that uses them.

Codes and wordings are those recorded from the live service. Where none is known, the code is 50000 plus the HTTP status,
so that it cannot be taken for one of Cloudflare's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from ingest.doors.cloudflare.envelope import failure
from ingest.keys import OPERATIONS
from ingest.problems import retry_after, status_of
from ingest.unread import demand_known_expectation
from upwell.errors import (
    Behind,
    Exists,
    Forbidden,
    Gone,
    Invalid,
    InvalidLine,
    LineProblem,
    NotFound,
    Reason,
    Unauthenticated,
    UpwellError,
)

log = structlog.get_logger()

OWN_CODES = 50_000

NO_ROUTE = 7003
METHOD_NOT_ALLOWED = 10405
NOT_AUTHENTICATED = 10000
NO_CREDENTIALS = 9106
NOT_AUTHORIZED = 7403
INDEX_NOT_FOUND = 3000
INDEX_DUPLICATE_NAME = 3002
INDEX_DELETED = 3005
QUERY_DIMENSIONS = 40006
IDS = 40007
ID_TOO_LONG = 40008
NAMESPACE_TOO_LONG = 40009
TOP_K = 40025
BODY_UNPARSABLE = 40026
TOO_MANY_REQUESTS = 40041
CURSOR = 40052
#: Of a message, not an error.
UNINDEXED_FILTER = OWN_CODES + 10

#: The code of each reason to refuse a line. Those not listed are lines "not in the expected format".
LINE_CODES: dict[object, int] = {
    Reason.ID_TOO_LONG: ID_TOO_LONG,
    Reason.NAMESPACE_TOO_LONG: NAMESPACE_TOO_LONG,
    Reason.WRONG_DIMENSIONS: 40012,
    Reason.METADATA_TOO_LARGE: 40016,
    Reason.METADATA_KEY: 40018,
}
LINE_UNEXPECTED_FORMAT = 40023


class CloudflareError(UpwellError):
    """An error with a code of its own, raised where the general table cannot tell."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def invalid_config(detail: str) -> CloudflareError:
    """The error for an index that cannot be made as it is described; the live service's code for it is not known."""
    return CloudflareError(400, OWN_CODES + 400, f"vectorize.index.invalid_config - {detail}")


def line_error(problem: LineProblem) -> tuple[int, str]:
    """The code and message of a line that cannot be accepted: Cloudflare's words, then line, field and reason."""
    code = LINE_CODES.get(problem.reason, LINE_UNEXPECTED_FORMAT)
    joined = "; "
    match problem.reason:
        case Reason.ID_TOO_LONG:
            begins = "id too long"
        case Reason.NAMESPACE_TOO_LONG:
            begins = "namespace too long"
        case Reason.WRONG_DIMENSIONS:
            begins, joined = f'invalid vector for id="{problem.id or ""}"', ", "
        case Reason.METADATA_TOO_LARGE:
            begins = f'oversized metadata for vector id="{problem.id or ""}"'
        case Reason.METADATA_KEY:
            begins = f'invalid metadata key for vector id="{problem.id or ""}"'
        case _:
            line = f"line Some({problem.line - 1})"
            begins = (
                f"failed to parse upsert vectors request in ndjson format: {line} was not expected format"
            )
    where = f"line {problem.line}" + (f", {problem.field}" if problem.field else "")
    return code, f"{begins}{joined}{problem.detail} ({where})"


def describe(error: UpwellError) -> tuple[int, int, str]:
    """The HTTP status, code and message of an error."""
    status = int(status_of(error))
    if isinstance(error, CloudflareError):
        return error.status, error.code, error.message
    if isinstance(error, InvalidLine):
        return status, *line_error(error.problem)
    name = error.facts.get("name")
    if isinstance(error, Gone) and name is not None:
        return status, INDEX_DELETED, f'vectorize.index.deleted - Index name "{name}" was deleted'
    if isinstance(error, NotFound) and name is not None:
        return status, INDEX_NOT_FOUND, f'vectorize.index.not_found - Index name "{name}"'
    if isinstance(error, Exists) and name is not None:
        return status, INDEX_DUPLICATE_NAME, f'vectorize.index.duplicate_name - Index name "{name}"'
    if isinstance(error, Unauthenticated):
        missing = error.detail.startswith("missing")
        code = NO_CREDENTIALS if missing else NOT_AUTHENTICATED
        return status, code, f"Authentication {'failed' if missing else 'error'}: {error.detail}"
    if isinstance(error, Forbidden):
        return status, NOT_AUTHORIZED, f"The given token is not authorized for this: {error.detail}"
    if isinstance(error, Behind):
        return status, TOO_MANY_REQUESTS, f"Too Many Requests: {error.detail}"
    if isinstance(error, Invalid):
        return status, OWN_CODES + status, error.detail
    return status, OWN_CODES + status, str(error)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors_in_envelopes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as an envelope; what nobody foresaw leaves as a 500 that tells nothing, and is logged."""
    try:
        demand_known_expectation(request)
        return await handler(request)
    except UpwellError as error:
        status, code, message = describe(error)
        if status >= 500:
            request.config_dict[OPERATIONS].report(request, error, status)
        if request.writer.output_size:
            # In the middle of a stream: aiohttp breaks it off, and that is all there is to tell.
            raise
        return failure(status, code, message, retry_after(error))
    except web.HTTPNotFound:
        message = f"Could not route to {request.path}, perhaps your object identifier is invalid?"
        return failure(404, NO_ROUTE, message)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"Method {request.method} not allowed here, only {allowed}"
        return failure(405, METHOD_NOT_ALLOWED, message, {"Allow": allowed})
    except web.HTTPExpectationFailed as error:
        return failure(error.status, OWN_CODES + error.status, str(error.text))
    except web.HTTPException:
        raise
    except Exception:
        log.exception("request failed unexpectedly", method=request.method, path=request.path)
        return failure(500, OWN_CODES + 500, "internal error")
