"""An index with webhooks, without HTTP: what tests of them stand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.making import Client, HandClock, drain, make_engine, make_index, upsert
from upwell.engine import Engine, Index
from upwell.webhook import Delivery, Event, Message, Webhook

URL = "https://example.com/hook"
BOTH = (Event.VISIBLE, Event.FAILED)


@dataclass
class House:
    """An engine with one index, and a client that writes to it."""

    engine: Engine
    index: Index
    client: Client
    clock: HandClock
    folder: Path

    def hook(self, *events: Event) -> Webhook:
        return self.index.webhooks.create(URL, events or BOTH, None)

    def write(self, count: int = 1) -> list[str]:
        """Mutations, each its own entry, applied at once by one commit."""
        made = [self.client.append(upsert((f"v{n}", (n, 0))))[0] for n in range(count)]
        drain(self.engine, self.index)
        return made

    def reopened(self) -> Index:
        """The same index as another process sees it."""
        return make_engine(self.folder, clock=self.clock).find("default", "index")

    def forget(self) -> None:
        """Let another process sweep what it may: all manifests but the newest."""
        manifests = self.folder / "store" / self.index.record.folder / "manifest"
        for path in sorted(manifests.iterdir())[:-1]:
            path.unlink()
        self.index = self.reopened()


def make_house(folder: Path, tries_max: int = 36) -> House:
    """A new one."""
    clock = HandClock()
    engine = make_engine(folder, clock=clock, webhook_tries_max=tries_max)
    index = make_index(engine)
    return House(engine, index, Client(index), clock, folder)


def turn(index: Index, webhook: Webhook) -> Delivery:
    delivery = index.webhooks.delivery(webhook.id)
    assert delivery is not None
    return delivery


def take_all(delivery: Delivery) -> list[Message]:
    """Deliver all that is due, with success, and say so in the store."""
    taken = []
    while (due := delivery.due()) is not None:
        for message in due.messages:
            delivery.succeeded(message)
            taken.append(message)
        delivery.passed(due)
    delivery.save()
    return taken


def mutations(messages: list[Message]) -> list[str | None]:
    return [message.mutation_id for message in messages]


def steps(house: House, webhook: Webhook) -> list[int]:
    folder = house.folder / "store" / house.index.record.folder / "delivery" / webhook.id
    return sorted(int(path.name) for path in folder.iterdir()) if folder.exists() else []


def fail_once(index: Index, webhook: Webhook, reason: str = "answered 500") -> bool:
    delivery = turn(index, webhook)
    due = delivery.due()
    assert due is not None
    over = delivery.failed(due.messages[0], reason)
    delivery.save()
    return over
