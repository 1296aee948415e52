"""What a webhook is told, as JSON: ``{"type", "timestamp", "data"}``, as the Standard Webhooks specification has it.

    mutation.visible, mutation.failed    data: account, index, and what the status endpoint says of the mutation
    mutations.gap                        data: account, index, afterPosition, throughPosition: mutations in between became visible or
                                         failed, and what became of each is no longer known here

A message's id is made of what it is about, so that every try, by whichever worker, has the same.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import orjson

from upwell.catalog.record import IndexRecord
from upwell.log.receipt import Receipt
from upwell.outcome import Outcome
from upwell.status import mutation_status, timestamp
from upwell.webhook.model import Message, Webhook

GAP = "mutations.gap"


def told(record: IndexRecord, webhook: Webhook, outcome: Outcome, now: datetime) -> Message:
    """The message of one mutation. Its timestamp is when the mutation became visible; of a failed one, ``now``."""
    return _message(
        f"mutation.{outcome.state}",
        record,
        webhook,
        at=outcome.visible_at or now,
        about=outcome.mutation_id,
        mutation_id=outcome.mutation_id,
        through=outcome.receipt,
        data=mutation_status(outcome).to_json(),
    )


def gap(record: IndexRecord, webhook: Webhook, after: Receipt, through: Receipt, now: datetime) -> Message:
    """The message that says what cannot be told any more."""
    return _message(
        GAP,
        record,
        webhook,
        at=now,
        about=f"{after.position}.{after.place}-{through.position}",
        mutation_id=None,
        through=through,
        data={"afterPosition": after.position, "throughPosition": through.position},
    )


def _message(
    kind: str,
    record: IndexRecord,
    webhook: Webhook,
    *,
    at: datetime,
    about: str,
    mutation_id: str | None,
    through: Receipt,
    data: dict[str, Any],
) -> Message:
    body = {
        "type": kind,
        "timestamp": timestamp(at),
        "data": {"account": record.account, "index": record.name, **data},
    }
    # Not ".": the specification puts one behind the id when it signs.
    digest = hashlib.sha256(f"{webhook.id} {kind} {about}".encode()).hexdigest()
    return Message(
        id=f"msg_{digest[:32]}",
        type=kind,
        mutation_id=mutation_id,
        position=through.position,
        place=through.place,
        body=orjson.dumps(body).decode(),
    )
