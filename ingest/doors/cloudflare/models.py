"""Requests and results of the Cloudflare door, as pydantic models.

Requests are lenient where Cloudflare's own clients are careless (a boolean ``returnMetadata``, a null namespace) and exact
where a mistake would go unnoticed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from upwell.catalog.record import IndexRecord
from upwell.outcome import Outcome, State
from upwell.shard.metric import Metric

INDEX_NAME_PATTERN = r"^[a-z]+[a-z0-9_-]*[a-z0-9]+$"
INDEX_NAME_BYTES_MAX = 64
NAMESPACE_BYTES_MAX = 64
TOP_K_DEFAULT = 5
TOP_K_MAX = 100
#: With values or all metadata, answers are larger, and fewer may be asked for.
TOP_K_MAX_FULL = 50


class Request(BaseModel):
    """Keys a client adds that we do not know are ignored, as Cloudflare does."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Result(BaseModel):
    """What goes into an envelope's ``result``."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able Python, with the keys that clients expect."""
        return self.model_dump(mode="json", by_alias=True)


class IndexConfig(Request):
    """Dimensions and metric. Presets come with the rest of this door."""

    dimensions: Annotated[int, Field(ge=1, strict=True)]
    metric: Metric


class CreateIndex(Request):
    """Body of create. ``shards`` is Upwell's own."""

    name: Annotated[str, Field(pattern=INDEX_NAME_PATTERN, max_length=INDEX_NAME_BYTES_MAX)]
    config: IndexConfig
    description: str | None = Field(None, max_length=1024)
    shards: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None


def _lenient_return_metadata(value: object) -> object:
    if isinstance(value, bool):
        return "all" if value else "none"
    return "none" if value is None else value


class Query(Request):
    """Body of query: exactly one of ``vector`` and ``vectorId``. ``after`` is Upwell's own."""

    vector: list[float] | None = None
    vector_id: str | None = None
    top_k: Annotated[int, Field(ge=1)] = TOP_K_DEFAULT
    return_values: bool = False
    return_metadata: Annotated[
        Literal["none", "indexed", "all"], BeforeValidator(_lenient_return_metadata)
    ] = "none"
    namespace: str | None = None
    filter: dict[str, Any] | None = None
    #: A mutationId that this query must reflect.
    after: str | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Query:
        if (self.vector is None) == (self.vector_id is None):
            raise ValueError("expected exactly one of vector and vectorId")
        return self


class Match(Result):
    """One hit."""

    id: str
    score: float


def timestamp(when: datetime) -> str:
    """ISO 8601 in UTC with microseconds and ``Z``, as Cloudflare writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def index_result(record: IndexRecord) -> dict[str, Any]:
    """The index object of create, list and get."""
    created = timestamp(record.created_at)
    result: dict[str, Any] = {
        "name": record.name,
        "config": {"dimensions": record.dimensions, "metric": record.metric},
        "created_on": created,
        "modified_on": created,
    }
    if record.description is not None:
        result["description"] = record.description
    return result


class Counts(Result):
    """How many of a mutation's vectors or ids met which fate."""

    received: int
    inserted: int
    replaced: int
    skipped: int
    updated: int
    deleted: int
    discarded: int


class DiscardedLine(Result):
    """A line left out at the client's wish, and why."""

    line: int
    field: str
    id: str | None
    message: str


class MutationStatus(Result):
    """Result of the status endpoint. What is no longer known of an old mutation is null."""

    mutation_id: str
    operation: str | None
    state: State
    position: int
    visible_through: int
    accepted_at: str | None
    visible_at: str | None
    counts: Counts | None
    discarded: list[DiscardedLine]
    error: str | None


def mutation_status(outcome: Outcome, applying_through: int | None = None) -> MutationStatus:
    """A mutation's status; ``applying_through`` is how far a worker is getting just now, if that is known."""
    state, result = outcome.state, outcome.result
    if (
        state is State.QUEUED
        and applying_through is not None
        and outcome.receipt.position <= applying_through
    ):
        state = State.APPLYING
    counts = None
    if result is not None:
        counts = Counts.model_validate({name: getattr(result, name) for name in Counts.model_fields})
    return MutationStatus(
        mutation_id=outcome.mutation_id,
        operation=result.operation if result else None,
        state=state,
        position=outcome.receipt.position,
        visible_through=outcome.visible_through,
        accepted_at=timestamp(outcome.accepted_at) if outcome.accepted_at else None,
        visible_at=timestamp(outcome.visible_at) if outcome.visible_at else None,
        counts=counts,
        discarded=[
            DiscardedLine(line=line["line"], field=line["field"], id=line["id"], message=line["detail"])
            for line in (result.discarded_lines if result else ())
        ],
        error=outcome.error,
    )
