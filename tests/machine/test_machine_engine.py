"""Any order of inserts, upserts, deletes, drains, crashes and wipes comes to what a dict would hold.

The engine runs on a real directory; drains run through the real lease and generations on a real Valkey, which is wiped at any
moment. A crash drops every object in memory, at a random one of the places where a process may die, and opens the folder anew.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.making import Client, contents, delete, insert, make_engine, make_index, upsert
from upwell.clock import SystemClock
from upwell.doorbell.connection import connect
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.outcome import State
from upwell.query.search import search
from upwell.settings import Settings
from upwell.shard import merge
from upwell.shard.merge import FOLDED_BYTES_MAX
from upwell.shard.metric import Metric
from upwell.store import DirectoryStore
from workers.drain import Drainer

T = TypeVar("T")

NAMES = st.sampled_from([f"id{number}" for number in range(8)])
#: Whole numbers, so that what comes back can be compared exactly.
VALUES = st.tuples(st.integers(-9, 9), st.integers(-9, 9))
ROWS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6)


class CrashError(Exception):
    """The process died here."""


class CrashingStore(DirectoryStore):
    """A directory store whose process dies after so many more creates: before the write, or after it."""

    creates_left: int | None = None
    dies_after_the_write = False

    def create(self, key: str, *parts: Any) -> None:
        if self.creates_left is not None:
            self.creates_left -= 1
            if self.creates_left < 0:
                if self.dies_after_the_write:
                    super().create(key, *parts)
                raise CrashError(key)
        super().create(key, *parts)


class UpwellMachine(RuleBasedStateMachine):
    """One index against a dict; every acknowledged mutation is in ``log``, in order."""

    valkey: EmbeddedValkey

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="upwell-machine-"))
        self.loop = asyncio.new_event_loop()
        self.executor = ThreadPoolExecutor(2)
        #: What each acknowledged or possibly kept mutation does to a dict, by log position.
        self.mutations: list[tuple[str | None, str, list[tuple[str, tuple[int, int]]]]] = []
        self.acknowledged: list[str] = []
        self.visible_before = 0

    @initialize(
        shards=st.integers(1, 3),
        metric=st.sampled_from(Metric),
        small_batches=st.booleans(),
        folds=st.booleans(),
    )
    def create(self, shards: int, metric: Metric, small_batches: bool, folds: bool) -> None:
        self.batch = 3 if small_batches else 1000
        merge.FOLDED_BYTES_MAX = FOLDED_BYTES_MAX if folds else 0
        first = make_engine(self.folder)
        make_index(first, "machine", metric=metric, shards=shards)
        self.open()

    def open(self) -> None:
        """A new process: nothing but the folder is left of the old one."""
        self.store = CrashingStore(self.folder / "store")
        self.engine = make_engine(
            self.folder,
            store=self.store,
            batch_mutations_max=self.batch,
            compaction_settle_s=0,
            compaction_fanout=2,
        )
        self.engine.clock = SystemClock()
        self.index = self.engine.find("default", "machine")
        self.client = Client(self.index)

    @rule(rows=ROWS, operation=st.sampled_from(["insert", "upsert"]))
    def write(self, rows: list[tuple[str, tuple[int, int]]], operation: str) -> None:
        made = insert if operation == "insert" else upsert
        self.append(operation, rows, made(*rows))

    @rule(names=st.lists(NAMES, min_size=1, max_size=4))
    def remove(self, names: list[str]) -> None:
        self.append("delete", [(name, (0, 0)) for name in names], delete(*names))

    def append(self, operation: str, rows: list[tuple[str, tuple[int, int]]], changeset: Any) -> None:
        try:
            (mutation,) = self.client.append(changeset)
        except CrashError:
            # Not acknowledged; it may be in the log all the same, and then counts like any other.
            self.open()
            if self.index.log.exists(len(self.mutations) + 1):
                self.mutations.append((None, operation, rows))
            return
        self.mutations.append((mutation, operation, rows))
        self.acknowledged.append(mutation)

    @rule()
    def drain(self) -> None:
        try:
            self.run(self._drain())
        except CrashError:
            self.open()

    async def _drain(self) -> None:
        pool = connect(self.valkey.url)
        limits = Settings.model_validate({"lease_ttl_s": 30})
        drainer = Drainer(self.engine, limits, SystemClock(), self.executor)
        try:
            await drainer.drain(pool, self.index.record.id)
        finally:
            await pool.aclose(close_connection_pool=True)

    @rule()
    def drain_without_redis(self) -> None:
        """A worker that believes it holds the lease, whatever Redis thinks."""
        try:
            self.engine.apply_batch(self.index.record.id, lambda: True)
        except CrashError:
            self.open()

    @rule(data=st.data(), drains=st.integers(0, 2))
    def compact(self, data: st.DataObject, drains: int) -> None:
        """Merge what a shard has to merge; before its commit others may commit, again and again."""
        shard = data.draw(st.integers(0, self.index.record.shards - 1))
        chain, left = self.index.head.chain, [drains]
        commit = chain.commit

        def commit_late(*what: Any) -> None:
            chain.commit = commit  # type: ignore[method-assign]
            self.engine.apply_batch(self.index.record.id, lambda: True)
            left[0] -= 1
            if left[0] > 0:
                chain.commit = commit_late  # type: ignore[method-assign, assignment]
            commit(*what)

        if drains:
            chain.commit = commit_late  # type: ignore[method-assign, assignment]
        try:
            self.engine.compact(self.index.record.id, shard)
        except CrashError:
            self.open()
        finally:
            chain.commit = commit  # type: ignore[method-assign]

    @rule(creates=st.integers(0, 5), after=st.booleans())
    def crash_soon(self, creates: int, after: bool) -> None:
        self.store.creates_left = creates
        self.store.dies_after_the_write = after

    @rule()
    def crash_and_reopen(self) -> None:
        self.open()

    @rule()
    def flushall(self) -> None:
        with redis_py.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    @precondition(lambda self: self.acknowledged)
    @rule(data=st.data())
    def ask_for_status(self, data: st.DataObject) -> None:
        mutation = data.draw(st.sampled_from(self.acknowledged))
        position = next(n for n, (known, _, _) in enumerate(self.mutations, 1) if known == mutation)
        outcome = self.index.outcomes.of(mutation)
        assert outcome.receipt.position == position
        visible = position <= self.index.head.refresh().applied_through
        assert outcome.state is (State.VISIBLE if visible else State.QUEUED)
        assert outcome.result is not None
        if visible:
            assert outcome.result.model_dump(include=set(COUNTS)) == self.replay(position)[1]

    @invariant()
    def what_is_visible_is_a_prefix_of_what_was_written(self) -> None:
        if not hasattr(self, "index"):
            return
        through = self.index.head.refresh().applied_through
        assert self.visible_before <= through <= len(self.mutations)
        self.visible_before = through
        expected = self.replay(through)[0]
        found = {name: tuple(values) for (_, name), (values, _) in contents(self.index).items()}
        assert found == expected
        hits = search(self.index.newest.get(), QUERY, 20)
        assert {hit.found.id for hit in hits} == expected.keys()

    def replay(self, through: int) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
        """What a dict holds after the first ``through`` mutations, and what the last of them counted."""
        held: dict[str, tuple[int, int]] = {}
        counts = dict.fromkeys(COUNTS, 0)
        for _, operation, rows in self.mutations[:through]:
            counts = dict.fromkeys(COUNTS, 0)
            for name, values in rows:
                match operation:
                    case "insert":
                        counts["skipped" if name in held else "inserted"] += 1
                        held.setdefault(name, values)
                    case "upsert":
                        counts["replaced" if name in held else "inserted"] += 1
                        held[name] = values
                    case "delete":
                        counts["deleted"] += held.pop(name, None) is not None
        return held, counts

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            if hasattr(self, "index"):
                # In the end, whatever happened, a worker that finds Redis empty brings everything to light.
                self.flushall()
                self.open()
                self.run(self._drain())
                assert self.index.head.refresh().applied_through == len(self.mutations)
                self.what_is_visible_is_a_prefix_of_what_was_written()
        finally:
            merge.FOLDED_BYTES_MAX = FOLDED_BYTES_MAX
            self.loop.close()
            self.executor.shutdown()
            shutil.rmtree(self.folder, ignore_errors=True)


COUNTS = ("inserted", "replaced", "skipped", "deleted")
QUERY = np.array([1, 2], dtype=np.float32)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


def test_the_machine(valkey: EmbeddedValkey) -> None:
    UpwellMachine.valkey = valkey
    run_state_machine_as_test(
        UpwellMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
