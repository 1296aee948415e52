"""Trying failed mutations again: one new mutation whoever asks, however often, and whatever became of the tries before."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.appending import Sender
from ingest.metrics import Metrics
from ingest.operations import Operations
from tests.making import Client, drain, make_engine, make_index, upsert
from upwell.engine import Engine, Index
from upwell.log.receipt import Receipt, mint
from upwell.log.request import Request
from upwell.outcome import State
from upwell.store import DirectoryStore

SENDER = Sender("token")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path, parse_processes=0)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


@pytest.fixture
async def operations(engine: Engine) -> AsyncIterator[Operations]:
    silent: Any = SimpleNamespace(ring=lambda _: None)
    operations = Operations(engine, silent, silent, Metrics(silent, engine.clock))
    yield operations
    await operations.close()


def fail(engine: Engine, index: Index, position: int, places: int = 1) -> None:
    """Apply the next entry, so that its mutations fail."""
    broken = {Receipt(position, place): "it broke" for place in range(places)}
    engine.apply_batch(index.record.id, lambda: True, broken=broken)


async def test_a_thousand_tries_that_failed_are_followed_to_the_last(
    engine: Engine, index: Index, operations: Operations
) -> None:
    ids = Client(index).append(*(upsert((f"v{n}", (1, n))) for n in range(1_200)))
    fail(engine, index, 1, len(ids))
    for place, before in enumerate(ids[:-1], 1):
        index.requests.settle(Request.of_retry(before), Receipt(1, place))
    accepted = await operations.retry(index, ids[0], SENDER)
    assert not accepted.replayed and accepted.receipt == Receipt(2, 0)
    for one in (ids[0], ids[600], ids[-1]):
        again = await operations.retry(index, one, SENDER)
        assert again.replayed and again.mutation_id == accepted.mutation_id
    drain(engine, index)
    assert index.outcomes.of(accepted.mutation_id).state is State.VISIBLE


async def test_a_try_that_was_damaged_keeps_nobody_from_another(
    engine: Engine, index: Index, operations: Operations
) -> None:
    (bad,) = Client(index).append(upsert(("a", (1, 2))))
    fail(engine, index, 1)
    lost = await operations.retry(index, bad, SENDER)
    path = Path(engine.store.root) / index.log.key(2)  # type: ignore[attr-defined]
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes()[:100])
    drain(engine, index)
    assert index.outcomes.of(lost.mutation_id).state is State.FAILED
    fresh = await operations.retry(index, bad, SENDER)
    drain(engine, index)
    assert index.outcomes.of(fresh.mutation_id).state is State.VISIBLE


async def test_what_is_answered_about_a_try_is_durable(
    engine: Engine, index: Index, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad,) = Client(index).append(upsert(("a", (1, 2))))
    fail(engine, index, 1)
    request = Request.of_retry(bad)
    first = await operations.retry(index, bad, SENDER)
    confirmed: list[str] = []
    monkeypatch.setattr(DirectoryStore, "confirm", lambda _, key: confirmed.append(key))
    again = await operations.retry(index, bad, SENDER)
    assert again.replayed and again.mutation_id == first.mutation_id == mint(
        index.record.receipt_key, first.receipt
    )
    assert f"{index.record.folder}/request/{request.name}" in confirmed
