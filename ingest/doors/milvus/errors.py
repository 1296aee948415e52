"""Milvus's errors: ``{"code": number, "message": text}``, with HTTP status 200 whatever went wrong, but for who may not.

Codes are those of Milvus's ``merr``; texts as well, where they are known. How errors become answers is in ``answers.py``, so that a
parsing process, which raises them too, needs no HTTP.
"""

from __future__ import annotations

from enum import IntEnum
from http import HTTPStatus

from upwell.errors import (
    Behind,
    Exists,
    Forbidden,
    Invalid,
    NotFound,
    StoreFull,
    TooLarge,
    TooOften,
    TooSlow,
    Unauthenticated,
    Unavailable,
    UpwellError,
)


class Code(IntEnum):
    """What clients may tell errors apart by."""

    NOT_READY = 1
    RATE_LIMITED = 8
    QUOTA_EXCEEDED = 9
    COLLECTION_NOT_FOUND = 100
    COLLECTION_NOT_LOADED = 101
    TOO_MANY_COLLECTIONS = 102
    PARTITION_NOT_FOUND = 200
    PARTITION_NOT_LOADED = 201
    INDEX_NOT_FOUND = 700
    DATABASE_NOT_FOUND = 800
    DATABASE_INVALID = 802
    INVALID_PARAMETER = 1100
    PARAMETER_MISSING = 1101
    PRIVILEGE_NOT_PERMITTED = 1401
    ALIAS_NOT_FOUND = 1600
    ALIAS_IS_COLLECTION = 1601
    ALIAS_TAKEN = 1602
    FIELD_NOT_FOUND = 1700
    FIELD_NAME_INVALID = 1701
    NOT_AUTHENTICATED = 1800
    NOT_JSON = 1801
    MISSING_REQUIRED = 1802
    BAD_DATA = 1804
    CHECK_PRIMARY_KEY = 1806
    UNEXPECTED = 65535


NOT_AUTHENTICATED = "user hasn't authenticated"
NOT_JSON = "can only accept json format request"
MISSING_REQUIRED = "missing required parameters"
BAD_DATA = "fail to deal the insert data"
CHECK_PRIMARY_KEY = "please check the primary key and its' type can only in [int, string]"


class MilvusError(UpwellError):
    """An error with a code of its own, raised where the general table cannot tell."""

    def __init__(self, code: int, message: str, status: int = HTTPStatus.OK, **facts: object) -> None:
        super().__init__(message, **facts)
        self.code = int(code)
        self.status = int(status)


def invalid(message: str, expected: str | None = None, actual: str | None = None) -> MilvusError:
    """``MESSAGE: invalid parameter[expected=…][actual=…]``, code 1100."""
    told = "" if expected is None else f"[expected={expected}][actual={actual}]"
    return MilvusError(Code.INVALID_PARAMETER, f"{message}: invalid parameter{told}")


def missing(*names: str) -> MilvusError:
    """The error for parameters that must be there, code 1802."""
    return MilvusError(
        Code.MISSING_REQUIRED, f"{MISSING_REQUIRED}, required parameters: [{', '.join(names)}]"
    )


def not_json(detail: str) -> MilvusError:
    """The error for a body that is no JSON, or not what a command expects, code 1801."""
    return MilvusError(Code.NOT_JSON, f"{NOT_JSON}, error: {detail}")


def bad_data(detail: str) -> MilvusError:
    """The error for rows that a collection does not take, code 1804."""
    return MilvusError(Code.BAD_DATA, f"{BAD_DATA}, error: {detail}")


def bad_ids(detail: str) -> MilvusError:
    """The error for what cannot be ids of a collection, code 1806."""
    return MilvusError(Code.CHECK_PRIMARY_KEY, f"{CHECK_PRIMARY_KEY}, error: {detail}")


def no_collection(database: str, name: str) -> MilvusError:
    """The error for a collection that is not there, code 100."""
    return MilvusError(
        Code.COLLECTION_NOT_FOUND, f"can't find collection[database={database}][collection={name}]"
    )


def no_database(name: str) -> MilvusError:
    """The error for a database that is not there, code 800."""
    return MilvusError(Code.DATABASE_NOT_FOUND, f"database not found[database={name}]")


def not_loaded(name: str) -> MilvusError:
    """The error for reading of a collection that is not loaded, code 101."""
    return MilvusError(Code.COLLECTION_NOT_LOADED, f"collection not loaded[collection={name}]")


def no_partition(name: str) -> MilvusError:
    """The error for a partition that is not there, code 200."""
    return MilvusError(Code.PARTITION_NOT_FOUND, f"partition not found[partition={name}]")


def no_index(name: str) -> MilvusError:
    """The error for an index that is not there, code 700."""
    return MilvusError(Code.INDEX_NOT_FOUND, f"index not found[indexName={name}]")


def duplicate(name: str) -> MilvusError:
    """The error for a collection that is there, and is not what is asked for, code 1100."""
    return invalid(f"create duplicate collection with different parameters, collection: {name}")


def refused(message: str) -> MilvusError:
    """The error for what cannot be done as things are, which Milvus gives no code of its own: 65535."""
    return MilvusError(Code.UNEXPECTED, message)


#: First match wins, so subclasses come before their parents.
CODES: tuple[tuple[type[UpwellError], Code], ...] = (
    (TooLarge, Code.INVALID_PARAMETER),
    (TooSlow, Code.NOT_READY),
    (Invalid, Code.INVALID_PARAMETER),
    (NotFound, Code.COLLECTION_NOT_FOUND),
    (Exists, Code.INVALID_PARAMETER),
    (Unauthenticated, Code.NOT_AUTHENTICATED),
    (Forbidden, Code.PRIVILEGE_NOT_PERMITTED),
    (TooOften, Code.RATE_LIMITED),
    (Behind, Code.RATE_LIMITED),
    (StoreFull, Code.QUOTA_EXCEEDED),
    (Unavailable, Code.NOT_READY),
    (UpwellError, Code.UNEXPECTED),
)


def describe(error: UpwellError) -> tuple[int, int, str]:
    """The HTTP status, the code and the text of an error."""
    match error:
        case MilvusError():
            return error.status, error.code, error.detail
        case Unauthenticated():
            return HTTPStatus.UNAUTHORIZED, Code.NOT_AUTHENTICATED, NOT_AUTHENTICATED
        case Forbidden():
            return (
                HTTPStatus.FORBIDDEN,
                Code.PRIVILEGE_NOT_PERMITTED,
                f"privilege not permitted: {error.detail}",
            )
        case _:
            code = next(code for kind, code in CODES if isinstance(error, kind))
            return HTTPStatus.OK, code, error.detail
