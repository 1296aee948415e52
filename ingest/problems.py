"""The one table from kinds of error to HTTP statuses. Doors add their vendor's codes and words to it."""

from __future__ import annotations

import math
from http import HTTPStatus

from upwell.errors import (
    Behind,
    Conflict,
    Corrupt,
    Exists,
    Forbidden,
    Gone,
    Invalid,
    KeyReused,
    NotFound,
    StoreFull,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
    UpwellError,
)

#: First match wins, so subclasses come before their parents.
STATUSES: tuple[tuple[type[UpwellError], HTTPStatus], ...] = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (TooSlow, HTTPStatus.REQUEST_TIMEOUT),
    (KeyReused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Invalid, HTTPStatus.BAD_REQUEST),
    (Gone, HTTPStatus.GONE),
    (NotFound, HTTPStatus.NOT_FOUND),
    # Not 409: Cloudflare's clients take it for a passing conflict and send the same again, twice.
    (Exists, HTTPStatus.BAD_REQUEST),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (Behind, HTTPStatus.TOO_MANY_REQUESTS),
    (StoreFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (Conflict, HTTPStatus.SERVICE_UNAVAILABLE),
    (Corrupt, HTTPStatus.INTERNAL_SERVER_ERROR),
    (UpwellError, HTTPStatus.INTERNAL_SERVER_ERROR),
)

#: Seconds after which a client that got one of these should try again, unless the error itself knows better.
RETRY_AFTER_S = {
    HTTPStatus.SERVICE_UNAVAILABLE: 1.0,
    HTTPStatus.TOO_MANY_REQUESTS: 5.0,
    # Room is made by people, or by the collector, and by neither at once.
    HTTPStatus.INSUFFICIENT_STORAGE: 30.0,
}


def status_of(error: UpwellError) -> HTTPStatus:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def retry_after(error: UpwellError) -> dict[str, str]:
    """The header that says when to try again: whole seconds, rounded up; none where that would be of no use."""
    wait_s = RETRY_AFTER_S.get(status_of(error))
    if isinstance(error, Behind) and error.retry_after_s is not None:
        wait_s = error.retry_after_s
    return {} if wait_s is None else {"Retry-After": str(max(1, math.ceil(wait_s)))}
