"""What is kept of a webhook: its registration, which never changes, and its progress, each step a new value."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from upwell.log.receipt import Receipt
from upwell.outcome import State

#: Seconds until the first try is repeated; each wait is twice the one before, up to an hour. So a receiver that was away for long is
#: found again within an hour, and the 36 tries that settings allow take a day.
WAIT_FIRST_S = 1.0
WAIT_MAX_S = 3600.0
#: More doublings lead beyond the longest wait, or beyond a float.
DOUBLINGS_MAX = 32


class Event(StrEnum):
    """What a webhook may ask to be told of."""

    VISIBLE = State.VISIBLE.value
    FAILED = State.FAILED.value


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Webhook(_Frozen):
    """A registration. Mutations behind ``position`` and ``place`` had become visible before it, and are none of its business."""

    id: str
    url: str
    events: tuple[Event, ...] = Field(min_length=1)
    #: Kept as it is: signing needs it. ``repr`` leaves it out, so that no log line can show it.
    secret: str = Field(repr=False)
    created_at: datetime
    position: int
    place: int


class Message(_Frozen):
    """Something to be told: sent again, it is the same to the byte."""

    #: What receivers tell repetitions by.
    id: str
    type: str
    #: Of the mutation it is about; none for a gap.
    mutation_id: str | None
    #: Once it is delivered, everything up to here has been told.
    position: int
    place: int
    body: str

    @property
    def receipt(self) -> Receipt:
        """Where its mutation lies, or where a gap ends."""
        return Receipt(self.position, self.place)


class Problem(_Frozen):
    """Why a try failed."""

    at: datetime
    message_id: str
    mutation_id: str | None
    reason: str


class Progress(_Frozen):
    """How far a webhook has come. Everything up to ``position`` and ``place`` was delivered, given up, or not asked for."""

    position: int
    place: int
    #: The newest mutation that was delivered, and when.
    delivered: str | None = None
    delivered_at: datetime | None = None
    #: The message that failed last and is tried again. Kept whole: what it is about may be forgotten meanwhile.
    pending: Message | None = None
    #: How often it was tried.
    tries: int = 0
    #: When it is tried next.
    retry_at: datetime | None = None
    last_problem: Problem | None = None
    #: How many messages were given up.
    given_up: int = 0
    #: Since when the receiver wants no more.
    disabled_at: datetime | None = None

    @property
    def receipt(self) -> Receipt:
        """How far it has come."""
        return Receipt(self.position, self.place)

    def rests(self, now: datetime) -> bool:
        """Is it disabled, or is it too early for the next try?

        Wall time decides, since nothing else outlives a process. A clock that jumps makes a try too early, or late by no more
        than the longest wait.
        """
        if self.disabled_at is not None:
            return True
        return self.retry_at is not None and now < self.retry_at <= now + timedelta(seconds=2 * WAIT_MAX_S)

    def passed(self, through: Receipt) -> Progress:
        """Nothing up to ``through`` is left to be told."""
        return self.model_copy(update={"position": through.position, "place": through.place})

    def succeeded(self, message: Message, now: datetime) -> Progress:
        """The receiver took ``message``."""
        told = {} if message.mutation_id is None else {"delivered": message.mutation_id, "delivered_at": now}
        return self._settled(message).model_copy(update=told)

    def failed(self, message: Message, problem: Problem, wait_s: float) -> Progress:
        """It did not; ``message`` is tried again."""
        update = {
            "pending": message,
            "tries": self.tries + 1,
            "retry_at": problem.at + timedelta(seconds=wait_s),
            "last_problem": problem,
        }
        return self.model_copy(update=update)

    def gave_up(self, message: Message, problem: Problem) -> Progress:
        """It did not, for the last time."""
        return self._settled(message).model_copy(
            update={"given_up": self.given_up + 1, "last_problem": problem}
        )

    def disabled(self, problem: Problem) -> Progress:
        """It wants to be told nothing any more."""
        update = {"pending": None, "tries": 0, "retry_at": None}
        return self.model_copy(update={**update, "disabled_at": problem.at, "last_problem": problem})

    def _settled(self, message: Message) -> Progress:
        return self.passed(message.receipt).model_copy(update={"pending": None, "tries": 0, "retry_at": None})


def wait_s(tries: int) -> float:
    """How long to wait after so many tries, before chance is added."""
    return min(WAIT_MAX_S, WAIT_FIRST_S * 2.0 ** min(tries - 1, DOUBLINGS_MAX))
