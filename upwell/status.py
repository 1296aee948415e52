"""A mutation's outcome as people see it: one rendering for the status endpoint, the streams of events, and webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from upwell.outcome import Outcome, State


class Shown(BaseModel):
    """What leaves us as JSON."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able Python, with the keys that clients expect."""
        return self.model_dump(mode="json", by_alias=True)


class Counts(Shown):
    """How many of a mutation's vectors or ids met which fate."""

    received: int
    inserted: int
    replaced: int
    skipped: int
    updated: int
    deleted: int
    discarded: int


class DiscardedLine(Shown):
    """A line left out at the client's wish, and why."""

    line: int
    field: str
    id: str | None
    message: str


class MutationStatus(Shown):
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


def timestamp(when: datetime) -> str:
    """ISO 8601 in UTC with microseconds and ``Z``, as Cloudflare writes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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
