"""What one webhook is owed, and the account of what became of it: for the courier who holds the webhook's lease.

    outcomes ──► due() ──► messages, in order ──► a try (HTTP, not here) ──► succeeded / failed / refused ──► save()

A message counts as delivered once a step of progress says so in the store. Steps are written every second while all goes well and
after every failure, so a courier who is killed repeats at most a second's messages, and loses none. A failed message is kept in the
step whole: it is sent again as it was, even if the commit that tells about it is swept by then. Those behind it are as well known
as status knows them (``results_s``); where that is over, a gap is told instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.log.receipt import PLACES_MAX, Receipt
from upwell.outcome import Outcomes
from upwell.webhook.ledger import Ledger
from upwell.webhook.messages import gap, told
from upwell.webhook.model import Message, Problem, Webhook, wait_s

#: A step is written after this long, however well all goes.
SAVE_S = 1.0
#: Mutations looked at in one go: a commit applies no more.
AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Due:
    """Messages to be delivered one after the other; after them, nothing up to ``through`` is left to be told."""

    messages: tuple[Message, ...]
    through: Receipt


class Delivery:
    """One webhook's turn. For one courier; ``due``, ``is_wanted`` and ``save`` block, the others only note what happened."""

    def __init__(
        self, ledger: Ledger, webhook: Webhook, record: IndexRecord, outcomes: Outcomes, clock: Clock, *,
        is_live: Callable[[], bool], tries_max: int,
    ) -> None:  # fmt: skip
        self.webhook = webhook
        self._ledger = ledger
        self._record = record
        self._outcomes = outcomes
        self._clock = clock
        self._is_live = is_live
        self._tries_max = tries_max
        self._step, self.progress = ledger.progress(webhook)
        self._saved = self.progress
        self._saved_at = clock.monotonic()

    def due(self) -> Due | None:
        """What is to be told next; None if there is nothing, or it is too early. May raise Unavailable, Corrupt or NotFound."""
        now, at = self._clock.now(), self.progress.receipt
        if self.progress.rests(now):
            return None
        if self.progress.pending is not None:
            return Due((self.progress.pending,), self.progress.pending.receipt)
        applied = self._outcomes.applied_after(at, AT_ONCE)
        if applied is None:
            through = Receipt(max(self._outcomes.known_from() - 1, at.position), PLACES_MAX - 1)
            return Due((gap(self._record, self.webhook, at, through, now),), through)
        if not applied.outcomes:
            # So these entries have no more of them. To know it keeps an index that rests for long from telling of a gap: what applied
            # them may be swept then, and nobody could say any more whether there was more in them.
            self.progress = self.progress.passed(applied.through)
            return None
        messages = tuple(
            told(self._record, self.webhook, outcome, now)
            for outcome in applied.outcomes
            if outcome.state.value in self.webhook.events
        )
        return Due(messages, applied.through)

    def is_wanted(self) -> bool:
        """Are the webhook and its index still there?"""
        return self._ledger.exists(self.webhook.id) and self._is_live()

    def succeeded(self, message: Message) -> None:
        """The receiver took ``message``."""
        self.progress = self.progress.succeeded(message, self._clock.now())

    def failed(self, message: Message, reason: str) -> bool:
        """The receiver did not take ``message``; returns whether that was the last try, and the next message's turn has come."""
        problem = self._problem(message, reason)
        tries = self.progress.tries + 1
        if tries >= self._tries_max:
            self.progress = self.progress.gave_up(message, problem)
            return True
        chance = random.uniform(0.75, 1.25)  # noqa: S311  jitter needs no secrecy
        self.progress = self.progress.failed(message, problem, wait_s(tries) * chance)
        return False

    def refused(self, message: Message, reason: str) -> None:
        """The receiver wants to be told nothing any more."""
        self.progress = self.progress.disabled(self._problem(message, reason))

    def passed(self, due: Due) -> None:
        """All of ``due`` is seen to."""
        self.progress = self.progress.passed(due.through)

    @property
    def must_be_saved(self) -> bool:
        """Is it time to write a step?"""
        return self.progress != self._saved and self._clock.monotonic() - self._saved_at >= SAVE_S

    def save(self) -> None:
        """Write a step, if there is anything new. Raises Fenced if somebody else delivers too, NotFound if nobody should."""
        if self.progress == self._saved:
            return
        self._ledger.step(self.webhook.id, self._step + 1, self.progress)
        self._step, self._saved, self._saved_at = self._step + 1, self.progress, self._clock.monotonic()

    def _problem(self, message: Message, reason: str) -> Problem:
        return Problem(
            at=self._clock.now(), message_id=message.id, mutation_id=message.mutation_id, reason=reason
        )
