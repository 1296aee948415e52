"""The webhooks of one index: registered, listed, deregistered, and asked what they are owed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.errors import Corrupt, Invalid, NotFound
from upwell.ids import new_identity
from upwell.outcome import Outcomes
from upwell.webhook.addresses import destination
from upwell.webhook.delivery import Delivery
from upwell.webhook.ledger import Ledger
from upwell.webhook.model import Event, Progress, Webhook
from upwell.webhook.signing import check_secret, new_secret

log = structlog.get_logger()

#: Every mutation costs a request for each of them.
WEBHOOKS_MAX = 10


class Webhooks:
    """Blocking; safe to share between threads."""

    def __init__(
        self, ledger: Ledger, record: IndexRecord, outcomes: Outcomes, clock: Clock, *,
        is_live: Callable[[], bool], tries_max: int,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._record = record
        self._outcomes = outcomes
        self._clock = clock
        #: Does the index still have its name?
        self._is_live = is_live
        self._tries_max = tries_max

    def create(self, url: str, events: Sequence[Event], secret: str | None) -> Webhook:
        """Register a URL, to be told of what becomes visible or fails from now on. Raises Invalid.

        That the URL may be called at all is for the caller to check, and for the courier, at every call.
        """
        destination(url)
        if secret is not None:
            check_secret(secret)
        self._check_room(WEBHOOKS_MAX - 1)
        start = self._outcomes.newest()
        webhook = Webhook(
            id=new_identity(),
            url=url,
            events=tuple(dict.fromkeys(events)),
            secret=secret or new_secret(),
            created_at=self._clock.now(),
            position=start.position,
            place=start.place,
        )
        self._ledger.add(webhook)
        try:
            # Again, for those who register at once: of too many each steps back.
            self._check_room(WEBHOOKS_MAX)
        except Invalid:
            self._ledger.remove(webhook.id)
            raise
        return webhook

    def everything(self) -> list[tuple[Webhook, Progress]]:
        """All webhooks and how far each has come, the oldest first."""
        found = []
        for webhook_id in self._ledger.ids():
            try:
                webhook = self._ledger.record(webhook_id)
                found.append((webhook, self._ledger.progress(webhook)[1]))
            except NotFound:
                continue
            except Corrupt as error:
                # One that is damaged must not keep the others from being delivered for, or listed.
                log.error("a webhook cannot be read", webhook=webhook_id, error=str(error))
        return sorted(found, key=lambda one: (one[0].created_at, one[0].id))

    def delete(self, webhook_id: str) -> None:
        """Deregister: what is not on its way by now is never sent. Raises NotFound."""
        self._ledger.remove(webhook_id)

    def due(self) -> list[str]:
        """The webhooks that there may be something to tell now. Three looks for each, and one at the index."""
        webhooks = self.everything()
        if not webhooks:
            return []
        now, newest = self._clock.now(), self._outcomes.newest()
        return [
            webhook.id
            for webhook, progress in webhooks
            if not progress.rests(now) and (progress.pending is not None or progress.receipt < newest)
        ]

    def delivery(self, webhook_id: str) -> Delivery | None:
        """A turn of one webhook's courier; None if it is not registered any more."""
        try:
            webhook = self._ledger.record(webhook_id)
        except NotFound:
            return None
        return Delivery(
            self._ledger,
            webhook,
            self._record,
            self._outcomes,
            self._clock,
            is_live=self._is_live,
            tries_max=self._tries_max,
        )

    def _check_room(self, others_max: int) -> None:
        if len(self._ledger.ids()) > others_max:
            raise Invalid(f"an index has at most {WEBHOOKS_MAX} webhooks; delete one first")
