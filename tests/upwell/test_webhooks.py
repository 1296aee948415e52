"""Webhooks without HTTP: what is registered, what is owed, and that progress loses nothing whoever writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.making import delete, drain, make_index, upsert
from tests.webhook_house import BOTH, URL, House, fail_once, make_house, mutations, steps, take_all, turn
from upwell.errors import Fenced, Invalid, NotFound
from upwell.webhook import Event, Webhook
from upwell.webhook import delivery as delivery_module
from upwell.webhook.model import WAIT_MAX_S, wait_s
from upwell.webhook.registry import WEBHOOKS_MAX


@pytest.fixture
def house(tmp_path: Path) -> House:
    return make_house(tmp_path)


# Registering.


def test_what_is_registered_is_listed_and_can_be_deleted(house: House) -> None:
    first, second = house.hook(), house.hook(Event.FAILED)
    assert first.secret.startswith("whsec_") and first.secret != second.secret
    assert [one.id for one, _ in house.reopened().webhooks.everything()] == sorted([first.id, second.id])
    house.index.webhooks.delete(first.id)
    assert [(one.id, one.events) for one, _ in house.reopened().webhooks.everything()] == [
        (second.id, (Event.FAILED,))
    ]
    for gone in (first.id, "0" * 32):
        with pytest.raises(NotFound):
            house.index.webhooks.delete(gone)
    assert house.index.webhooks.delivery(first.id) is None


def test_one_damaged_record_keeps_no_other_from_being_told(house: House) -> None:
    damaged, whole = house.hook(), house.hook()
    house.write()
    (path,) = (house.folder / "store" / house.index.record.folder / "webhook").glob(damaged.id)
    path.chmod(0o600)
    path.write_bytes(b"x" * 200)
    index = house.reopened()
    assert [one.id for one, _ in index.webhooks.everything()] == [whole.id]
    assert index.webhooks.due() == [whole.id]


def test_the_secret_is_in_no_repr(house: House) -> None:
    webhook = house.hook()
    assert webhook.secret not in repr(webhook) and webhook.secret not in str(webhook)


def test_an_index_has_so_many_webhooks_and_no_more(house: House) -> None:
    made = [house.hook() for _ in range(WEBHOOKS_MAX)]
    with pytest.raises(Invalid, match="at most 10"):
        house.hook()
    house.index.webhooks.delete(made[3].id)
    house.hook()


def test_of_too_many_who_register_at_once_none_is_too_many(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = house.index.webhooks._ledger
    for _ in range(WEBHOOKS_MAX - 1):
        house.hook()
    add = ledger.add

    def race(webhook: Webhook) -> None:
        monkeypatch.setattr(ledger, "add", add)
        house.hook()
        add(webhook)

    monkeypatch.setattr(ledger, "add", race)
    with pytest.raises(Invalid, match="at most 10"):
        house.hook()
    assert len(ledger.ids()) == WEBHOOKS_MAX


@pytest.mark.parametrize("url", ["ftp://example.com", "http://127.1/", "x"])
def test_a_url_that_is_none_is_not_registered(house: House, url: str) -> None:
    with pytest.raises(Invalid, match="url"):
        house.index.webhooks.create(url, BOTH, None)
    assert house.index.webhooks.everything() == []


# What is owed.


def test_only_what_becomes_visible_from_now_on_is_told_in_order(house: House) -> None:
    house.write(3)
    waiting = house.client.append(upsert(("w", (1, 1))), delete("w"))
    webhook = house.hook()
    assert turn(house.index, webhook).due() is None and house.index.webhooks.due() == []
    drain(house.engine, house.index)
    after = [*waiting, *house.write(4), *house.write(2)]
    assert house.index.webhooks.due() == [webhook.id] == house.engine.webhooks_due(house.index.record.id)
    assert mutations(take_all(turn(house.index, webhook))) == after
    assert house.index.webhooks.due() == []


def test_a_message_says_what_status_says(house: House) -> None:
    webhook = house.hook()
    (mutation,) = house.write()
    house.clock.pass_s(60)
    (message,) = take_all(turn(house.index, webhook))
    body = json.loads(message.body)
    assert body["type"] == "mutation.visible" == message.type
    assert body["timestamp"] == body["data"]["visibleAt"] == "2026-01-02T03:04:05.006789Z"
    assert body["data"] | {"counts": None} == {
        "account": "default",
        "index": "index",
        "mutationId": mutation,
        "operation": "upsert",
        "state": "visible",
        "position": 1,
        "visibleThrough": 1,
        "acceptedAt": "2026-01-02T03:04:05.006789Z",
        "visibleAt": "2026-01-02T03:04:05.006789Z",
        "counts": None,
        "discarded": [],
        "error": None,
    }
    assert body["data"]["counts"]["inserted"] == 1


def damage(house: House, monkeypatch: pytest.MonkeyPatch) -> str:
    """A mutation that cannot be applied."""
    monkeypatch.setattr("upwell.log.writer.INLINE_BYTES_MAX", 0)
    (mutation,) = house.client.append(upsert(("damaged", (1, 1))))
    monkeypatch.undo()
    (payload,) = (house.folder / "store" / house.index.record.folder / "payload").iterdir()
    data = bytearray(payload.read_bytes())
    data[-100] ^= 1
    payload.write_bytes(data)
    drain(house.engine, house.index)
    return mutation


def test_failures_and_visibility_are_told_to_whom_asked_for_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = {name: house.hook(*events) for name, events in (
        ("both", BOTH), ("visible", (Event.VISIBLE,)), ("failed", (Event.FAILED,)),
    )}  # fmt: skip
    (before,) = house.write()
    failed = damage(house, monkeypatch)
    (after,) = house.write()
    told = {name: take_all(turn(house.index, hook)) for name, hook in hooks.items()}
    assert mutations(told["both"]) == [before, failed, after]
    assert mutations(told["visible"]) == [before, after]
    assert mutations(told["failed"]) == [failed]
    body = json.loads(told["failed"][0].body)
    assert body["type"] == "mutation.failed" and body["data"]["state"] == "failed" and body["data"]["error"]
    assert house.index.webhooks.due() == [], "those who are not told are past it too"
    ids = {message.id for messages in told.values() for message in messages}
    assert len(ids) == 6, "of each webhook and mutation its own"


def test_a_message_is_the_same_to_the_byte_for_every_worker(house: House) -> None:
    webhook = house.hook()
    house.write(3)
    one, other = turn(house.index, webhook).due(), turn(house.reopened(), webhook).due()
    assert one is not None and one == other
    assert all("." not in message.id for message in one.messages)


# Progress.


def test_a_courier_that_dies_repeats_and_loses_nothing(house: House) -> None:
    webhook = house.hook()
    made = house.write(5)
    dying = turn(house.index, webhook)
    due = dying.due()
    assert due is not None
    for message in due.messages[:2]:
        dying.succeeded(message)
    assert mutations(take_all(turn(house.reopened(), webhook))) == made, "nothing of it was saved"
    more = house.write(5)
    dying = turn(house.index, webhook)
    due = dying.due()
    assert due is not None
    for message in due.messages[:2]:
        dying.succeeded(message)
    dying.save()
    assert mutations(take_all(turn(house.reopened(), webhook))) == more[2:]


def test_of_two_couriers_only_one_gets_on(house: House) -> None:
    webhook = house.hook()
    made = house.write(3)
    slow, quick = turn(house.index, webhook), turn(house.reopened(), webhook)
    due = slow.due()
    assert due is not None
    assert mutations(take_all(quick)) == made
    slow.succeeded(due.messages[0])
    with pytest.raises(Fenced):
        slow.save()
    (_, progress), *_ = house.reopened().webhooks.everything()
    assert progress.delivered == made[-1]


def test_a_courier_that_slept_through_many_steps_spoils_nothing(house: House) -> None:
    webhook = house.hook()
    house.write(1)
    sleeper = turn(house.reopened(), webhook)
    due = sleeper.due()
    assert due is not None
    for _ in range(5):
        take_all(turn(house.index, webhook))
        house.write(1)
    made = house.write(1)
    sleeper.succeeded(due.messages[0])
    sleeper.save()  # its number was taken once, and is free again
    assert mutations(take_all(turn(house.reopened(), webhook)))[-1:] == made
    assert 1 not in steps(house, webhook), "what it wrote is deleted by the next"


def test_old_steps_are_deleted(house: House) -> None:
    webhook = house.hook()
    for _ in range(7):
        house.write(1)
        take_all(turn(house.index, webhook))
    assert steps(house, webhook) == [6, 7]
    house.index.webhooks.delete(webhook.id)
    assert steps(house, webhook) == []


def test_a_step_of_a_webhook_that_was_deleted_meanwhile_does_not_stay(house: House) -> None:
    webhook = house.hook()
    house.write(1)
    delivery = turn(house.index, webhook)
    due = delivery.due()
    assert due is not None and delivery.is_wanted()
    house.reopened().webhooks.delete(webhook.id)
    assert not delivery.is_wanted()
    delivery.succeeded(due.messages[0])
    with pytest.raises(NotFound):
        delivery.save()
    assert steps(house, webhook) == []


def test_steps_are_written_now_and_then_and_not_for_each_message(house: House) -> None:
    webhook = house.hook()
    house.write(3)
    delivery = turn(house.index, webhook)
    due = delivery.due()
    assert due is not None and not delivery.must_be_saved
    delivery.succeeded(due.messages[0])
    assert not delivery.must_be_saved
    house.clock.pass_s(delivery_module.SAVE_S)
    assert delivery.must_be_saved
    delivery.save()
    assert not delivery.must_be_saved and steps(house, webhook) == [1]
    delivery.save()
    assert steps(house, webhook) == [1], "nothing new, nothing written"


def test_a_deleted_index_has_nothing_due(house: House) -> None:
    webhook = house.hook()
    house.write(1)
    delivery = turn(house.index, webhook)
    assert house.engine.webhook_indexes() == [house.index.record.id]
    house.engine.catalog.delete("default", "index")
    assert house.engine.webhook_indexes() == [] == house.engine.webhooks_due(house.index.record.id)
    assert house.engine.webhook_delivery(house.index.record.id, webhook.id) is None
    assert not delivery.is_wanted()
    house.engine.collect_dead_indexes()
    house.clock.pass_s(house.engine.settings.grace_s)
    assert house.engine.collect_dead_indexes() == 1
    assert not (house.folder / "store" / house.index.record.folder).exists()


def test_only_indexes_with_webhooks_are_found(house: House) -> None:
    other = make_index(house.engine, "other")
    assert house.engine.webhook_indexes() == []
    webhook = other.webhooks.create(URL, BOTH, None)
    assert house.engine.webhook_indexes() == [other.record.id]
    other.webhooks.delete(webhook.id)
    assert house.engine.webhook_indexes() == []


# Failing.


def test_each_wait_is_twice_the_one_before_up_to_an_hour() -> None:
    waits = [wait_s(tries) for tries in range(1, 36)]
    assert waits[:5] == [1, 2, 4, 8, 16] and waits[-1] == WAIT_MAX_S == wait_s(10_000)
    assert 0.9 < sum(waits) / 86_400 < 1.1, "the default number of tries takes about a day"


def test_a_message_that_failed_is_tried_again_later_and_holds_up_the_others(house: House) -> None:
    webhook = house.hook()
    first, second = house.write(2)
    waited = []
    for _ in range(6):
        assert not fail_once(house.reopened(), webhook)
        index, began = house.reopened(), house.clock.seconds
        while index.webhooks.due() == []:
            assert turn(index, webhook).due() is None
            house.clock.pass_s(0.05)
        waited.append(house.clock.seconds - began)
    for tries, seconds in enumerate(waited, 1):
        assert 0.75 * wait_s(tries) <= seconds <= 1.25 * wait_s(tries) + 0.1
    ((_, progress),) = house.reopened().webhooks.everything()
    assert progress.tries == 6 and progress.last_problem is not None
    assert progress.last_problem.reason == "answered 500" and progress.last_problem.mutation_id == first
    assert mutations(take_all(turn(house.reopened(), webhook))) == [first, second]
    ((_, progress),) = house.reopened().webhooks.everything()
    assert (progress.tries, progress.retry_at, progress.pending) == (0, None, None)


def test_a_clock_that_is_set_back_does_not_put_a_try_off_for_ever(house: House) -> None:
    webhook = house.hook()
    house.write(1)
    fail_once(house.index, webhook)
    house.clock.pass_s(-86_400)
    assert house.index.webhooks.due() == [webhook.id]


def test_after_so_many_tries_a_message_is_given_up_and_the_next_goes_on(tmp_path: Path) -> None:
    house = make_house(tmp_path, tries_max=3)
    webhook = house.hook()
    _, second = house.write(2)
    given_up = []
    for _ in range(3):
        given_up.append(fail_once(house.index, webhook))
        house.clock.pass_s(2 * WAIT_MAX_S)
    assert given_up == [False, False, True]
    ((_, progress),) = house.index.webhooks.everything()
    assert progress.given_up == 1 and progress.delivered is None
    assert mutations(take_all(turn(house.index, webhook))) == [second]
    ((_, progress),) = house.index.webhooks.everything()
    assert progress.given_up == 1 and progress.delivered == second


def test_a_receiver_that_wants_no_more_gets_no_more(house: House) -> None:
    webhook = house.hook()
    house.write(2)
    delivery = turn(house.index, webhook)
    due = delivery.due()
    assert due is not None
    delivery.refused(due.messages[0], "answered 410 Gone")
    delivery.save()
    house.clock.pass_s(86_400)
    house.write(1)
    index = house.reopened()
    assert index.webhooks.due() == [] and turn(index, webhook).due() is None
    ((_, progress),) = index.webhooks.everything()
    assert progress.disabled_at is not None
