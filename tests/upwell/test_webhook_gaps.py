"""What a webhook is told when what it is owed is partly forgotten: no less than what is known, and never a false alarm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.making import drain, upsert
from tests.webhook_house import House, fail_once, make_house, mutations, take_all, turn
from upwell.webhook import Message
from upwell.webhook import delivery as delivery_module
from upwell.webhook.model import WAIT_MAX_S


@pytest.fixture
def house(tmp_path: Path) -> House:
    return make_house(tmp_path)


def gap_of(message: Message) -> Any:
    body = json.loads(message.body)
    assert body["type"] == "mutations.gap"
    return body["data"]


def test_what_failed_is_sent_as_it_was_although_it_is_forgotten_and_a_gap_is_told(house: House) -> None:
    webhook = house.hook()
    made = house.write(2)
    fail_once(house.index, webhook)
    ((_, failing),) = house.index.webhooks.everything()
    house.write(3)
    house.forget()
    later = house.write(2)
    house.forget()
    newest = house.write(2)
    house.clock.pass_s(2 * WAIT_MAX_S)
    first, gap, *rest = take_all(turn(house.index, webhook))
    assert first == failing.pending and first.mutation_id == made[0]
    assert gap_of(gap) == {"account": "default", "index": "index", "afterPosition": 1, "throughPosition": 5}
    assert mutations(rest) == [*later, *newest], "and nothing that is known is left out"


def test_a_gap_with_nothing_known_behind_it(house: House) -> None:
    webhook = house.hook()
    house.write(3)
    house.engine.compact(house.index.record.id, 0)
    manifest = house.index.head.refresh()
    fence = manifest.model_copy(update={"version": manifest.version + 1, "writer": "x"})
    house.index.head.chain.commit(manifest, fence, (), house.clock.monotonic())
    house.forget()
    (gap,) = take_all(turn(house.index, webhook))
    assert gap_of(gap)["throughPosition"] == 3 and house.index.webhooks.due() == []
    made = house.write(1)
    assert mutations(take_all(turn(house.index, webhook))) == made


def test_an_index_that_rested_for_long_has_no_gap(house: House) -> None:
    """All that was applied is told; that its commit is swept must not make what comes next look lost."""
    hooks = [house.hook()]
    for number in range(3):
        made = house.write(2)
        for one in hooks:
            assert mutations(take_all(turn(house.index, one))) == made
        manifest = house.index.head.refresh()
        fence = manifest.model_copy(update={"version": manifest.version + 1, "writer": f"w{number}"})
        house.index.head.chain.commit(manifest, fence, (), house.clock.monotonic())
        house.forget()
        assert house.index.webhooks.due() == []
        hooks.append(house.hook())


def test_a_stream_of_outcomes_at_the_end_of_what_is_known_is_empty_and_no_gap(house: House) -> None:
    (made,) = house.write(1)
    receipt = house.index.outcomes.of(made).receipt
    manifest = house.index.head.refresh()
    fence = manifest.model_copy(update={"version": manifest.version + 1, "writer": "x"})
    house.index.head.chain.commit(manifest, fence, (), house.clock.monotonic())
    house.forget()
    applied = house.index.outcomes.applied_after(receipt, 10)
    assert applied is not None and applied.outcomes == []


def test_long_backlogs_are_told_in_several_goes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "AT_ONCE", 4)
    webhook = house.hook()
    made = house.client.append(*(upsert((f"v{n}", (n, 0))) for n in range(6)))
    drain(house.engine, house.index)
    made += house.write(6)
    assert mutations(take_all(turn(house.index, webhook))) == made
    assert house.index.webhooks.due() == []


def test_a_store_that_lost_its_folder_of_steps_begins_again_from_the_registration(house: House) -> None:
    webhook = house.hook()
    made = house.write(2)
    take_all(turn(house.index, webhook))
    shutil.rmtree(house.folder / "store" / house.index.record.folder / "delivery")
    assert mutations(take_all(turn(house.reopened(), webhook))) == made
