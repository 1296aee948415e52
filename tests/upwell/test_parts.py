"""Sharing a batch: whoever writes its parts, and however many of them fail, the index is what it would have been."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.making import Client, contents, delete, insert, make_engine, make_index
from upwell.changeset import Changeset, Operation
from upwell.engine import Engine, Index
from upwell.errors import Fenced
from upwell.shard import apply as apply_module
from upwell.shard.part import PartTask, part_key
from upwell.store import DirectoryStore


class Sharers:
    """Other processes, as far as one batch sees them: claims in a set, help when it is offered."""

    def __init__(self, helps: Callable[[PartTask], None] = lambda _: None) -> None:
        self.claimed: set[tuple[str, int]] = set()
        self.tasks: list[PartTask] = []
        self._helps = helps

    def offer(self, task: PartTask, shards: int) -> None:
        assert shards > 1
        self.tasks.append(task)
        self._helps(task)

    def claim(self, token: str, shard: int) -> bool:
        if (token, shard) in self.claimed:
            return False
        self.claimed.add((token, shard))
        return True


@pytest.fixture(autouse=True)
def shared_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_module, "SHARED_ROWS_MIN", 10)
    monkeypatch.setattr(apply_module, "HELP_LEAST_S", 0.05)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def index(engine: Engine) -> Index:
    """Two shards, some rows, and a batch of every operation that waits."""
    index = make_index(engine, shards=2)
    client = Client(index)
    client.append(insert(*((f"v{n}", (n, 0)) for n in range(40))))
    assert index.applier.apply_batch(lambda: True) is not None
    rows = [(f"v{n % 60}", (n, n), None, {"n": n}) for n in range(30, 90)]
    client.append(
        insert(*rows[:20]),
        Changeset(
            operation=Operation.UPSERT, ids=pa.array(["x"]), vectors=np.zeros((1, 3), np.float32), received=1
        ),
    )
    client.append(insert(*rows[20:]), delete(*(f"v{n}" for n in range(10, 35))))
    return index


def other(engine: Engine) -> Engine:
    """Another process on the same store."""
    return make_engine(engine.settings.data, store=engine.store)


def expected(engine: Engine, index: Index, tmp_path: Path) -> tuple[object, object]:
    """What the index and its results are once the batch is applied: by one process, from a copy of the log."""
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    alone = make_engine(tmp_path, store=DirectoryStore(tmp_path / "copy")).find("default", "index")
    assert alone.applier.apply_batch(lambda: True) is not None
    return contents(alone), alone.head.chain.results(alone.head.refresh().version)


def outcome(index: Index) -> tuple[object, object]:
    return contents(index), index.head.chain.results(index.head.refresh().version)


@pytest.mark.parametrize("helped", [0, 1, 2])
def test_a_shared_batch_comes_to_what_one_process_makes_of_it(
    engine: Engine, index: Index, tmp_path: Path, helped: int
) -> None:
    wanted = expected(engine, index, tmp_path)
    helper = other(engine)
    done: list[int] = []

    def help_with(task: PartTask) -> None:
        for shard in range(helped, 2):
            sharers.claim(task.token, shard)
        done.append(helper.help_apply(index.record.id, task, sharers))
        for shard in range(helped, 2):
            sharers.claimed.remove((task.token, shard))

    sharers = Sharers(help_with)
    applied = index.applier.apply_batch(lambda: True, sharing=sharers)
    assert applied is not None and done == [helped]
    assert outcome(index) == wanted
    totals = index.head.refresh().totals
    assert totals.vector_bytes == (40 + 60) * 8 and totals.applied_bytes > 0
    assert [failure.place for failure in index.head.refresh().failures] == [1]


def test_a_helper_that_claims_and_dies_is_not_waited_for_long(
    engine: Engine, index: Index, tmp_path: Path
) -> None:
    wanted = expected(engine, index, tmp_path)
    sharers = Sharers(lambda task: sharers.claimed.update({(task.token, 0), (task.token, 1)}))
    assert index.applier.apply_batch(lambda: True, sharing=sharers) is not None
    assert outcome(index) == wanted


def test_a_helper_that_comes_late_finds_nothing_to_do(engine: Engine, index: Index) -> None:
    sharers = Sharers()
    assert index.applier.apply_batch(lambda: True, sharing=sharers) is not None
    (task,) = sharers.tasks
    sharers.claimed.clear()
    assert other(engine).help_apply(index.record.id, task, sharers) == 0
    assert sharers.claimed == set()


def test_a_helper_that_finds_other_damage_keeps_out_of_it(engine: Engine, index: Index) -> None:
    helper, done = other(engine), []

    def help_with(task: PartTask) -> None:
        done.append(helper.help_apply(index.record.id, task.model_copy(update={"left_out": ()}), sharers))

    sharers = Sharers(help_with)
    assert index.applier.apply_batch(lambda: True, sharing=sharers) is not None
    assert done == [0]


def test_parts_of_a_batch_that_lost_are_swept(engine: Engine, index: Index) -> None:
    helper = other(engine)
    sharers = Sharers(lambda task: void(helper.help_apply(index.record.id, task, sharers)))
    with pytest.raises(Fenced):
        index.applier.apply_batch(lambda: False, sharing=sharers)
    (task,) = sharers.tasks
    assert all(engine.store.exists(part_key(index.record.folder, task.token, shard)) for shard in (0, 1))
    assert index.applier.apply_batch(lambda: True) is not None
    clock = index._engine.clock
    for _ in range(15):
        clock.pass_s(100)  # type: ignore[attr-defined]
        index.collector.collect()
    assert list(engine.store.list(f"{index.record.folder}/part")) == []
    named = {segment.id for segment in index.head.refresh().segments()}
    assert set(engine.store.list(f"{index.record.folder}/segment")) == named


def void(_: object) -> None:
    """For a lambda that is called for what it does."""


def test_a_small_batch_and_one_of_a_single_shard_are_never_shared(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = make_index(engine, "single", shards=1)
    Client(single).append(insert(*((f"v{n}", (n, 0)) for n in range(40))))
    sharers = Sharers()
    assert single.applier.apply_batch(lambda: True, sharing=sharers) is not None
    monkeypatch.setattr(apply_module, "SHARED_ROWS_MIN", 41)
    double = make_index(engine, "double", shards=2)
    Client(double).append(insert(*((f"v{n}", (n, 0)) for n in range(40))))
    assert double.applier.apply_batch(lambda: True, sharing=sharers) is not None
    assert sharers.tasks == []
