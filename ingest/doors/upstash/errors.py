"""Upstash's errors: ``{"error": text, "status": number}``, in the words recorded of the live service where those are known.

400 is for what is no JSON, 422 for JSON that is not what a command expects. How errors become answers is in ``answers.py``, so that a
parsing process, which raises them too, needs no HTTP.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from ingest.problems import status_of
from upwell.errors import (
    Behind,
    Forbidden,
    Gone,
    Invalid,
    InvalidLine,
    NotFound,
    TooLarge,
    TooSlow,
    Unauthenticated,
    UpwellError,
)

INVALID_TOKEN: Final = "Unauthorized: Invalid auth token"  # noqa: S105  what is said of one
DENSE_REQUIRED: Final = "This index requires dense vectors"
SPARSE_REQUIRED: Final = "This index requires sparse vectors"
NO_MODEL: Final = "Embedding data for this index is not allowed. The index must be created with an embedding model to use it."
IDS_OR_PREFIX: Final = "Only one of ids or prefix must be provided."
IDS_PREFIX_OR_FILTER: Final = "Only and only one of the ids, prefix, or filter must be provided."
NOT_A_METHOD: Final = "Only HEAD, GET, POST, PUT, and DELETE methods are allowed"
DEFAULT_NAMESPACE_STAYS: Final = 'The default namespace, which is the empty string "", cannot be deleted.'


class UpstashError(UpwellError):
    """An error with a status of its own, raised where the general table cannot tell."""

    def __init__(self, status: int, message: str, **facts: object) -> None:
        super().__init__(message, **facts)
        self.status = status


def wrong_dimensions(got: int, expected: int) -> str:
    """What is said of a vector with too many numbers, or too few."""
    return f"Invalid vector dimension: {got}, expected: {expected}"


def no_schema(database: str, collection: str) -> str:
    """What is said to whoever would write rows whose fields have declared types."""
    return (
        "This index's rows have fields of declared types, of which this door knows nothing; write it at Milvus's, /v2/vectordb, "
        f"where it is the collection {collection} of the database {database}"
    )


def no_namespace(namespace: str, index: str, **facts: object) -> UpstashError:
    """The error for a namespace that is not there."""
    return UpstashError(404, f"Namespace {namespace} for the index {index} does not exist", **facts)


def describe(error: UpwellError) -> tuple[int, str]:
    """The HTTP status and the text of an error."""
    status = int(status_of(error))
    name = error.facts.get("name")
    match error:
        case UpstashError():
            return error.status, error.detail
        case InvalidLine():
            where = f"{error.problem.field}: " if error.problem.field else ""
            says = f"{where}{error.problem.detail} (line {error.problem.line})"
            return status, f"Failed to parse the request body as JSON: {says}"
        case Unauthenticated():
            return status, INVALID_TOKEN
        case Forbidden():
            return status, f"Forbidden: {error.detail}"
        case Gone() if name is not None:
            return HTTPStatus.NOT_FOUND, f"Index {name} does not exist, it was deleted"
        case NotFound() if name is not None:
            return HTTPStatus.NOT_FOUND, f"Index {name} does not exist"
        case Gone():
            return HTTPStatus.NOT_FOUND, error.detail
        case Behind():
            return status, f"Too many requests: {error.detail}"
        case TooLarge() | TooSlow():
            return status, error.detail
        case Invalid():
            return HTTPStatus.UNPROCESSABLE_ENTITY, error.detail
        case _:
            return status, str(error)
