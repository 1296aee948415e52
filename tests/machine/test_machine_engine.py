"""Any order of mutations of every operation, drains, crashes and wipes comes to what a dict would hold.

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

from tests.making import Client, contents, make_engine, make_index
from tests.plain_index import COUNTED, PlainIndex, PlainMutation, PlainRow
from tests.thorough import examples
from upwell.changeset import KeyScope, Operation
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
VALUES = st.tuples(st.integers(-9, 9).map(float), st.integers(-9, 9).map(float))
SPACES = st.sampled_from(["n", "m"])
ROWS = st.lists(
    st.builds(PlainRow, id=NAMES, namespace=st.none() | SPACES, values=VALUES), min_size=1, max_size=6
).map(tuple)
#: What takes many rows away, or calls them otherwise.
SWEEPING = st.one_of(
    st.builds(
        PlainMutation,
        operation=st.just(Operation.DELETE_MATCHING),
        namespace=st.none() | SPACES,
        prefix=st.sampled_from(["id1", "id2", "i"]),
    ),
    st.builds(PlainMutation, operation=st.just(Operation.RESET), namespace=st.none() | SPACES),
    st.builds(PlainMutation, operation=st.just(Operation.DELETE_NAMESPACE), namespace=SPACES),
    st.builds(
        PlainMutation,
        operation=st.just(Operation.RENAME_NAMESPACE),
        namespace=SPACES,
        new_namespace=SPACES,
        delete_existing=st.booleans(),
    ),
)


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
        #: Each acknowledged or possibly kept mutation, by log position.
        self.mutations: list[tuple[str | None, PlainMutation]] = []
        self.acknowledged: list[str] = []
        self.visible_before = 0

    @initialize(
        shards=st.integers(1, 3),
        metric=st.sampled_from(Metric),
        small_batches=st.booleans(),
        folds=st.booleans(),
        scope=st.sampled_from(KeyScope),
    )
    def create(self, shards: int, metric: Metric, small_batches: bool, folds: bool, scope: KeyScope) -> None:
        self.batch = 3 if small_batches else 1000
        merge.FOLDED_BYTES_MAX = FOLDED_BYTES_MAX if folds else 0
        first = make_engine(self.folder)
        make_index(first, "machine", metric=metric, shards=shards, key_scope=scope)
        self.scope = scope
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

    @rule(rows=ROWS, operation=st.sampled_from([Operation.INSERT, Operation.UPSERT, Operation.UPDATE]))
    def write(self, rows: tuple[PlainRow, ...], operation: Operation) -> None:
        self.append(PlainMutation(operation, rows, scope=KeyScope.NAMESPACE))

    @rule(names=st.lists(NAMES, min_size=1, max_size=4), space=st.none() | SPACES)
    def remove(self, names: list[str], space: str | None) -> None:
        rows = tuple(PlainRow(name, space) for name in names)
        self.append(PlainMutation(Operation.DELETE, rows))

    @rule(mutation=SWEEPING)
    def sweep(self, mutation: PlainMutation) -> None:
        self.append(mutation)

    def append(self, plain: PlainMutation) -> None:
        try:
            (mutation,) = self.client.append(plain.changeset())
        except CrashError:
            # Not acknowledged; it may be in the log all the same, and then counts like any other.
            self.open()
            if self.index.log.exists(len(self.mutations) + 1):
                self.mutations.append((None, plain))
            return
        self.mutations.append((mutation, plain))
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
        position = next(n for n, (known, _) in enumerate(self.mutations, 1) if known == mutation)
        outcome = self.index.outcomes.of(mutation)
        assert outcome.receipt.position == position
        visible = position <= self.index.head.refresh().applied_through
        assert outcome.result is not None
        counted = self.replay(position)[1]
        if visible and isinstance(counted, str):
            assert outcome.state is State.FAILED and counted in str(outcome.error)
            return
        assert outcome.state is (State.VISIBLE if visible else State.QUEUED)
        if visible:
            assert outcome.result.model_dump(include=set(COUNTED)) == counted

    @invariant()
    def what_is_visible_is_a_prefix_of_what_was_written(self) -> None:
        if not hasattr(self, "index"):
            return
        through = self.index.head.refresh().applied_through
        assert self.visible_before <= through <= len(self.mutations)
        self.visible_before = through
        expected = self.replay(through)[0]
        view = self.index.newest.get()
        found = {
            (view.namespaces.name(space or ""), name): tuple(values)
            for (space, name), (values, _) in contents(self.index).items()
        }
        assert found == {(held.namespace, held.id): held.values for held in expected.rows.values()}
        assert view.namespaces.identities.keys() == expected.namespaces
        hits = search(view, QUERY, 50)
        assert sorted(hit.found.id for hit in hits) == sorted(held.id for held in expected.rows.values())

    def replay(self, through: int) -> tuple[PlainIndex, dict[str, int] | str]:
        """What a dict holds after the first ``through`` mutations, and what the last of them counted, or why it failed."""
        held = PlainIndex(self.scope)
        counts: dict[str, int] | str = {}
        for position, (_, plain) in enumerate(self.mutations[:through], 1):
            counts = held.apply(plain, (position, 0))
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
            max_examples=examples(60),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
