"""The webhooks of one index in the store: a record for each, and how far it has come.

    index/{id}/webhook/{webhook}                 the registration; a webhook exists as long as this does
    index/{id}/delivery/{webhook}/{number:020d}  its progress: numbered without gaps, each a whole value, the last one counts

A step of progress is created if absent, so that of two couriers who both think that a webhook is theirs only one gets on. The last two
are kept: a listing that meets a step being written and an old one being deleted then still finds one of them. What a courier
writes that slept through all this has a number that is not the last, and is deleted by whoever writes next.

All of it lies in the index's folder and leaves with it.
"""

from __future__ import annotations

import threading

import structlog

from upwell.errors import AlreadyExists, Fenced, NotFound, Unavailable
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.ids import numbered, numbers_in
from upwell.store import Store, create_own, read_object
from upwell.webhook.model import Progress, Webhook

log = structlog.get_logger()

#: Steps of a webhook's progress that are kept.
STEPS_KEPT = 2


class Ledger:
    """Records and progress. Blocking; safe to share between threads."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        #: What is known never changes: a record, and a step by its number.
        self._records: dict[str, Webhook] = {}
        self._steps: dict[str, tuple[int, Progress]] = {}

    def ids(self) -> list[str]:
        """The webhooks there are. One listing."""
        return list(self._store.list(f"{self._folder}/webhook"))

    def exists(self, webhook_id: str) -> bool:
        """Is this webhook still registered? One look."""
        return self._store.exists(self._record_key(webhook_id))

    def add(self, webhook: Webhook) -> None:
        """Register."""
        create_own(
            self._store, self._record_key(webhook.id), *pack(Kind.WEBHOOK, webhook.model_dump(mode="json"))
        )

    def record(self, webhook_id: str) -> Webhook:
        """A registration. Raises NotFound or Corrupt."""
        if not self.exists(webhook_id):
            self._forget(webhook_id)
            raise NotFound("there is no such webhook", id=webhook_id)
        with self._lock:
            known = self._records.get(webhook_id)
        if known is None:
            box = read_object(self._store, self._record_key(webhook_id), Kind.WEBHOOK)
            with box.understood():
                known = Webhook.model_validate(box.meta)
            with self._lock:
                self._records[webhook_id] = known
        return known

    def progress(self, webhook: Webhook) -> tuple[int, Progress]:
        """How far a webhook has come, and the number of that step; 0 before the first."""
        while True:
            numbers = self._numbers(webhook.id)
            if not numbers:
                return 0, Progress(position=webhook.position, place=webhook.place)
            with self._lock:
                known = self._steps.get(webhook.id)
            if known is not None and known[0] == numbers[-1]:
                return known
            progress = self._read_step(webhook.id, numbers[-1])
            # Without it, others went on meanwhile.
            if progress is not None:
                return self._know(webhook.id, numbers[-1], progress)

    def step(self, webhook_id: str, number: int, progress: Progress) -> None:
        """Make ``progress`` the step of this ``number``, the next one. Raises Fenced if another has taken it, NotFound if the
        webhook is gone."""
        reached(Step.WEBHOOK_STEP_BEFORE)
        try:
            self._store.create(
                self._step_key(webhook_id, number), *pack(Kind.WEBHOOK, progress.model_dump(mode="json"))
            )
        except AlreadyExists:
            if self._read_step(webhook_id, number) != progress:
                raise Fenced("somebody else delivers for this webhook") from None
            # A client library sent our own step twice.
        reached(Step.WEBHOOK_STEP_WRITTEN)
        if not self.exists(webhook_id):
            # Removed meanwhile: perhaps just before our step was there to be removed with it.
            self._remove_steps(webhook_id)
            raise NotFound("there is no such webhook", id=webhook_id)
        self._know(webhook_id, number, progress)
        for old in self._numbers(webhook_id):
            if old <= number - STEPS_KEPT:
                self._store.delete(self._step_key(webhook_id, old))

    def remove(self, webhook_id: str) -> None:
        """Deregister. Raises NotFound."""
        if not self.exists(webhook_id):
            raise NotFound("there is no such webhook", id=webhook_id)
        self._store.delete(self._record_key(webhook_id))
        # Before its steps go: a webhook that is back after a power failure, without them, would begin from its start.
        self._store.confirm(self._record_key(webhook_id))
        self._remove_steps(webhook_id)
        self._forget(webhook_id)

    def _remove_steps(self, webhook_id: str) -> None:
        try:
            self._store.delete_folder(f"{self._folder}/delivery/{webhook_id}")
        except (NotFound, Unavailable) as error:
            # Somebody was writing there. The webhook is gone all the same; what is left of it goes with the index.
            log.warning("a webhook's progress was not deleted", webhook=webhook_id, error=str(error))

    def _read_step(self, webhook_id: str, number: int) -> Progress | None:
        """What a step says; None if it is deleted."""
        try:
            box = read_object(self._store, self._step_key(webhook_id, number), Kind.WEBHOOK)
        except NotFound:
            return None
        with box.understood():
            return Progress.model_validate(box.meta)

    def _know(self, webhook_id: str, number: int, progress: Progress) -> tuple[int, Progress]:
        with self._lock:
            self._steps[webhook_id] = (number, progress)
        return number, progress

    def _forget(self, webhook_id: str) -> None:
        with self._lock:
            self._records.pop(webhook_id, None)
            self._steps.pop(webhook_id, None)

    def _numbers(self, webhook_id: str) -> list[int]:
        return numbers_in(self._store.list(f"{self._folder}/delivery/{webhook_id}"))

    def _record_key(self, webhook_id: str) -> str:
        return f"{self._folder}/webhook/{webhook_id}"

    def _step_key(self, webhook_id: str, number: int) -> str:
        return f"{self._folder}/delivery/{webhook_id}/{numbered(number)}"
