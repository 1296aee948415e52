"""Every way Upwell can fail, as one small tree.

    UpwellError
    ├── Invalid              the request is wrong
    │   ├── InvalidLine      … and we know the line and the field
    │   ├── TooLarge         … and it is a matter of size
    │   ├── TooSlow          … or of time
    │   ├── KeyReused        … its idempotency key belongs to another one
    │   └── TextRefused      … a model will never take its text
    ├── NotFound             no such index, mutation or vector
    │   └── Gone             there was one, and it was deleted
    ├── Exists               the name is taken
    ├── Unauthenticated      no token, or one we do not know
    ├── Forbidden            a token that may not do this
    ├── Unavailable          a part we need is away
    │   ├── StoreFull        … namely room in the store
    │   ├── TooNew           … namely a newer Upwell, which wrote what we are to read
    │   └── ModelAway        … namely a model that turns text into vectors
    ├── Behind               we are asked for more than we keep up with
    │   └── TooOften         … or than one token may ask
    ├── Conflict             somebody else was first
    │   ├── AlreadyExists    … at writing an object that may be written once
    │   └── Fenced           … at committing; our work is void
    └── Corrupt              bytes are not what we wrote

A class's docstring is its default message. What HTTP status and vendor code each kind becomes is one table in
``ingest/problems.py`` and the doors; nothing here knows of HTTP.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum


class UpwellError(Exception):
    """Something in Upwell went wrong."""

    #: Would the same call, made later, be worth making?
    retry = False

    def __init__(self, detail: str = "", **facts: object) -> None:
        says = detail or inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(", ".join([says, *(f"{name}={value!r}" for name, value in facts.items())]))
        self.detail = says
        self.facts = facts

    def __reduce__(self) -> tuple[object, ...]:
        # An error may come from another process; its class's own way of being made is not that of its message.
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[UpwellError], args: tuple[object, ...], fields: dict[str, object]) -> UpwellError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class Invalid(UpwellError):
    """The request is wrong; change it before sending it again."""


class Reason(StrEnum):
    """Why a line of an upload cannot be accepted. Doors map each to their vendor's code."""

    UNPARSABLE = "unparsable"
    NOT_AN_OBJECT = "not_an_object"
    ID_MISSING = "id_missing"
    ID_TOO_LONG = "id_too_long"
    VALUES_INVALID = "values_invalid"
    NOT_FINITE = "not_finite"
    WRONG_DIMENSIONS = "wrong_dimensions"
    NAMESPACE_INVALID = "namespace_invalid"
    NAMESPACE_TOO_LONG = "namespace_too_long"
    METADATA_INVALID = "metadata_invalid"
    METADATA_KEY = "metadata_key"
    METADATA_TOO_LARGE = "metadata_too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProblem:
    """What is wrong with one line of an upload: where, which field, and what was expected."""

    #: 1-based, counting every line of the body as sent, blank ones included; for arrays, the element's place.
    line: int
    reason: Reason
    #: A path such as ``values[3]`` or ``metadata.a``; empty when the whole line is meant.
    field: str
    #: A sentence without the line and field, e.g. ``expected a finite number, got NaN``.
    detail: str
    #: The vector's id, where the line had a usable one.
    id: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}" + (f": {self.field}" if self.field else "")
        return f"{where}: {self.detail}"


class InvalidLine(Invalid):
    """A line of the upload cannot be accepted."""

    def __init__(self, problem: LineProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class TooLarge(Invalid):
    """The request is larger than this server allows."""


class TooSlow(Invalid):
    """The request's body stopped coming; send it again."""

    retry = True


class KeyReused(Invalid):
    """The idempotency key was used for another request."""


class TextRefused(Invalid):
    """The embedding model does not take this text, however often it is asked."""


class NotFound(UpwellError):
    """There is no such thing here."""


class Gone(NotFound):
    """It was here and has been deleted."""


class Exists(UpwellError):
    """The name is taken."""


class Unauthenticated(UpwellError):
    """The token is missing or not known here."""


class Forbidden(UpwellError):
    """The token does not allow this."""


class Unavailable(UpwellError):
    """A part we need is away; try again later."""

    retry = True


class StoreFull(Unavailable):
    """There is no room left in the store; its operator must make some."""


class TooNew(Unavailable):
    """A newer Upwell wrote this; upgrade this one."""


class ModelAway(Unavailable):
    """A model that turns text into vectors is away, or answers nonsense; try again later."""

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None, **facts: object) -> None:
        super().__init__(detail, **facts)
        #: When the model itself asks to be tried again, as far as it said so.
        self.retry_after_s = retry_after_s


class Behind(UpwellError):
    """The server cannot keep up; try again later."""

    retry = True

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None, **facts: object) -> None:
        super().__init__(detail, **facts)
        #: When it is worth trying again, as far as that is known.
        self.retry_after_s = retry_after_s


class TooOften(Behind):
    """The token was used more often than it may be; try again later."""


class Conflict(UpwellError):
    """Somebody else was first."""


class AlreadyExists(Conflict):
    """An object of this name is written already, and objects are written once."""


class Fenced(Conflict):
    """Another worker committed first; this work is void."""

    retry = True


class Corrupt(UpwellError):
    """Bytes in the store are not what was written."""
