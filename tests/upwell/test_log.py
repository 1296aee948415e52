"""The log: dense, in order, durable before anybody is told; and the dead zone, where a late writer must not believe itself."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.making import HandClock, delete, insert, make_engine, make_index, prepared, upsert
from upwell.changeset import (
    Changeset,
    Details,
    KeyScope,
    Operation,
    Rename,
    Selection,
    decode_columns,
    encode_columns,
    without_rows,
)
from upwell.engine import Index
from upwell.errors import Corrupt, LineProblem, NotFound, Reason, TooNew, Unavailable
from upwell.format import VERSION, Kind
from upwell.log import appender as appender_module
from upwell.log.appender import Appender
from upwell.log.entry import INLINE_BYTES_MAX, PreparedMutation, prepare
from upwell.log.receipt import PLACES_MAX, POSITION_MAX, Receipt, mint, parse
from upwell.sparse import Sparse

SECRET = b"0123456789abcdef"
RECEIPTS = st.builds(Receipt, st.integers(1, POSITION_MAX), st.integers(0, PLACES_MAX - 1))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def index(tmp_path: Path, clock: HandClock) -> Index:
    return make_index(make_engine(tmp_path, clock=clock, grace_s=100))


@given(receipt=RECEIPTS)
def test_a_receipt_comes_back_from_its_id(receipt: Receipt) -> None:
    name = mint(SECRET, receipt)
    assert parse(SECRET, name) == receipt
    assert len(name) == 36
    assert uuid.UUID(name).version == 8
    assert uuid.UUID(name).variant == uuid.RFC_4122


@given(receipt=RECEIPTS, bit=st.integers(0, 127))
def test_an_id_with_any_bit_changed_is_unknown(receipt: Receipt, bit: int) -> None:
    changed = str(uuid.UUID(int=uuid.UUID(mint(SECRET, receipt)).int ^ 1 << bit))
    with pytest.raises(NotFound):
        parse(SECRET, changed)


@given(receipt=RECEIPTS)
def test_ids_sort_as_their_mutations_do(receipt: Receipt) -> None:
    if receipt.position < POSITION_MAX:
        assert mint(SECRET, receipt) < mint(SECRET, Receipt(receipt.position + 1, 0))


def test_other_secrets_and_other_spellings_are_unknown() -> None:
    name = mint(SECRET, Receipt(3, 1))
    for unknown in (
        name.upper(),
        f"{{{name}}}",
        name.replace("-", ""),
        f"urn:uuid:{name}",
        "",
        "x",
        "é" * 36,
    ):
        if unknown != name:
            with pytest.raises(NotFound):
                parse(SECRET, unknown)
    with pytest.raises(NotFound):
        parse(b"another index's.", name)


COLUMNS = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=8),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        st.none() | st.text(max_size=4),
        st.none() | st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
    ),
    max_size=6,
)


@given(rows=COLUMNS)
def test_columns_come_back_as_they_were(rows: list[Any]) -> None:
    made = upsert(*rows, dimensions=3)
    back = decode_columns(encode_columns(made), Operation.UPSERT, received=made.received)
    assert back.ids.equals(made.ids)
    assert back.vectors is not None and made.vectors is not None
    assert back.vectors.tobytes() == made.vectors.tobytes()
    assert (back.namespaces is None) == (made.namespaces is None)
    assert made.metadata is None or (back.metadata is not None and back.metadata.equals(made.metadata))


def test_vectors_are_read_without_a_copy() -> None:
    encoded = encode_columns(upsert(*[(f"v{n}", (n, 1)) for n in range(1000)]))
    back = decode_columns(encoded, Operation.UPSERT, received=1000)
    assert back.vectors is not None
    address = back.vectors.__array_interface__["data"][0]
    assert encoded.address <= address < encoded.address + encoded.size
    with pytest.raises(Corrupt):
        decode_columns(encoded.slice(0, 100), Operation.UPSERT, received=1)


def test_a_changeset_that_does_not_fit_itself_is_refused() -> None:
    ids = pa.array(["a", "b"], pa.utf8())
    with pytest.raises(ValueError, match="float32"):
        Changeset(operation=Operation.UPSERT, ids=ids, vectors=np.zeros((2, 2)), received=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows"):
        Changeset(operation=Operation.DELETE, ids=ids, metadata=pa.array([b"{}"]), received=2)
    with pytest.raises(ValueError, match="go together"):
        Changeset(operation=Operation.INSERT, ids=ids, received=2)
    for operation in (Operation.RESET, Operation.RENAME_NAMESPACE):
        with pytest.raises(ValueError, match="go together"):
            without_rows(operation, Details())
    with pytest.raises(ValueError, match="unique in"):
        Changeset(operation=Operation.DELETE, ids=ids, received=2, details=Details(scope=KeyScope.OPEN))
    with pytest.raises(ValueError, match="made from data"):
        Changeset(operation=Operation.UPSERT, ids=ids, received=2, details=Details(embed=True))


def test_an_entry_keeps_everything_of_its_mutations(index: Index, clock: HandClock) -> None:
    problem = LineProblem(line=4, reason=Reason.NOT_FINITE, field="values[1]", detail="expected …", id="x")
    made = insert(("a", (1, 2), "n", {"k": 1}))
    left_out = Changeset(
        operation=made.operation, ids=made.ids, vectors=made.vectors, namespaces=made.namespaces,
        metadata=made.metadata, received=3, discarded=(problem,), discarded_count=2,
    )  # fmt: skip
    position = index.log_writer().append([prepare(left_out, clock.now()), prepared(delete("b", "c"))])
    entry = index.log.read(position)
    first, second = entry.mutations
    assert (first.received, first.rows, first.discarded, first.discarded_count) == (3, 1, (problem,), 2)
    assert first.accepted_at == clock.now()
    assert second.operation is Operation.DELETE and second.rows == 2
    back = entry.changeset(0, lambda _: pytest.fail("it has no payload object"))
    assert back.namespaces is not None and back.namespaces.to_pylist() == ["n"]
    assert back.discarded == (problem,)
    with pytest.raises(NotFound):
        index.log.read(position + 1)


DETAILS = [
    (Operation.DELETE_MATCHING, Details(selection=Selection(prefix="é", filter=["has", "k"]), scope=KeyScope.NAMESPACE)),
    (Operation.RESET, Details(selection=Selection())),
    (Operation.DELETE_NAMESPACE, Details(selection=Selection(namespace="n"), namespace="n")),
    (Operation.RENAME_NAMESPACE, Details(rename=Rename(namespace="n", new_namespace="m", delete_existing=True))),
    (Operation.UPDATE, Details(patch=True, scope=KeyScope.NAMESPACE, namespace="")),
    (Operation.UPDATE, Details(patch=True, shallow=True, adds=True)),
    (Operation.UPDATE, Details(namespace="n", inside=True)),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "details"), DETAILS)
def test_an_entry_keeps_what_an_operation_is_told(
    index: Index, operation: Operation, details: Details
) -> None:
    empty = Changeset(
        operation=Operation.UPDATE,
        ids=pa.array([], pa.utf8()),
        vectors=np.empty((0, 2), np.float32) if details.adds else None,
        received=0,
    )
    made = replace(empty, operation=operation, details=details)
    entry = index.log.read(index.log_writer().append([prepared(made)]))
    assert (entry.mutations[0].operation, entry.mutations[0].details) == (operation, details)
    back = entry.changeset(0, lambda _: pytest.fail("it has no payload object"))
    assert (back.operation, back.details, len(back)) == (operation, details, 0)
    assert (back.vectors is None) is not details.adds


def test_an_update_comes_back_with_what_it_gives_and_no_more() -> None:
    """Sparse vectors too; and nulls stay nulls: what is not given is kept."""
    ids, data = pa.array(["a", "b", "a"], pa.utf8()), pa.array(["x", None, ""], pa.utf8())
    sparse = Sparse.of([([3, 1, 3], [1, 2, 3]), ([], []), ([-1], [0.5])])
    made = Changeset(operation=Operation.UPDATE, ids=ids, sparse=sparse, data=data, received=3)
    back = decode_columns(encode_columns(made), Operation.UPDATE, received=3)
    assert back.data is not None and back.data.to_pylist() == ["x", None, ""]
    assert (back.vectors, back.metadata, back.namespaces) == (None, None, None)
    assert back.sparse is not None and len(back.sparse) == 3
    for name in ("indptr", "indices", "values"):
        kept, given = getattr(back.sparse, name), getattr(sparse, name)
        assert kept.dtype == given.dtype and kept.tolist() == given.tolist()


def test_an_older_worker_leaves_an_entry_alone_that_it_does_not_understand(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither fails the mutation nor goes on behind it: it says that it must be upgraded."""
    position = index.log_writer().append([prepared(without_rows(*DETAILS[1]))])
    monkeypatch.setitem(VERSION, Kind.LOG_ENTRY, 2)
    with pytest.raises(TooNew, match="upgrade"):
        index.log.read(position)
    with pytest.raises(TooNew, match="upgrade"):
        index.applier.apply_batch(lambda: True)
    assert index.head.refresh().applied_through == 0


def test_large_columns_lie_beside_the_log_and_small_ones_in_it(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=1024)
    rows = [(f"v{n}", [float(n)] * 1024) for n in range(INLINE_BYTES_MAX // 4096 + 1)]
    position = index.log_writer().append([prepared(upsert(*rows, dimensions=1024)), prepared(delete("a"))])
    entry = index.log.read(position)
    assert entry.mutations[0].payload is not None and entry.mutations[1].payload is None
    assert engine.store.size_bytes(index.log.key(position)) < 10_000
    assert len(entry.changeset(0, engine.store.read)) == len(rows)


def test_writers_of_many_front_ends_leave_no_gap_and_lose_nothing(index: Index) -> None:
    writers, appends = 6, 25

    def write(writer: int) -> list[int]:
        own = index.log_writer()
        return [own.append([prepared(upsert((f"w{writer}-{n}", (n, n))))]) for n in range(appends)]

    with ThreadPoolExecutor(writers) as pool:
        positions = list(pool.map(write, range(writers)))
    assert sorted(p for own in positions for p in own) == list(range(1, writers * appends + 1))
    assert all(own == sorted(own) for own in positions)
    for writer, own in enumerate(positions):
        for n, position in enumerate(own):
            changeset = index.log.read(position).changeset(0, lambda _: pytest.fail("small"))
            assert changeset.ids.to_pylist() == [f"w{writer}-{n}"]


def sleeping(index: Index, clock: HandClock, meanwhile: Callable[[], None], seconds: float) -> Any:
    """A create that sleeps before it happens, while others do ``meanwhile``."""
    create = index.log._store.create

    def slow(key: str, *parts: Any) -> None:
        if "/log/" in key and not slept:
            slept.append(key)
            meanwhile()
            clock.pass_s(seconds)
        create(key, *parts)

    slept: list[str] = []
    return slow


def test_in_the_dead_zone_nothing_is_acknowledged(
    index: Index, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position was free when the writer looked; while it slept another took it, and it was applied and swept."""
    sleeper, other = index.log_writer(), index.log_writer()
    sleeper.append([prepared(upsert(("a", (1, 1))))])

    def taken_applied_and_swept() -> None:
        position = other.append([prepared(upsert(("b", (2, 2))))])
        while index.applier.apply_batch(lambda: True):
            pass
        index.log._store.delete(index.log.key(position))

    slow = sleeping(index, clock, taken_applied_and_swept, seconds=101)
    monkeypatch.setattr(index.log._store, "create", slow)
    with pytest.raises(Unavailable, match="outcome is unknown"):
        sleeper.append([prepared(upsert(("lost", (3, 3))))])
    monkeypatch.undo()
    assert sleeper.append([prepared(upsert(("c", (4, 4))))]) == 3


def test_a_writer_that_loses_races_goes_on_where_the_log_is(index: Index) -> None:
    ahead, behind = index.log_writer(), index.log_writer()
    behind.append([prepared(upsert(("a", (1, 1))))])
    for n in range(40):
        ahead.append([prepared(upsert((f"v{n}", (1, 1))))])
    assert behind.append([prepared(upsert(("b", (1, 1))))]) == 42


class HeldWriter:
    """A log writer whose disk is as slow as the test wants it."""

    def __init__(self) -> None:
        self.entries: list[list[PreparedMutation]] = []
        self.gate = threading.Event()
        self.fails = 0

    def append(self, group: list[PreparedMutation]) -> int:
        assert self.gate.wait(20)
        if self.fails:
            self.fails -= 1
            raise Unavailable("disk full")
        self.entries.append(group)
        return len(self.entries)


def make_appender(
    writer: HeldWriter, pool: ThreadPoolExecutor, rung: list[int], rows_max: int = 10_000
) -> Appender:
    return Appender(
        writer,  # type: ignore[arg-type]
        pool,
        batch_vectors_max=rows_max,
        on_appended=lambda position, _entry: rung.append(position),
    )


async def test_what_arrives_during_a_write_shares_the_next_entry_in_order() -> None:
    writer, rung = HeldWriter(), []  # type: ignore[var-annotated]
    with ThreadPoolExecutor(1) as pool:
        appender = make_appender(writer, pool, rung)
        mutations = [prepared(upsert((f"v{n}", (n, n)))) for n in range(10)]
        waiting = [asyncio.ensure_future(appender.append(mutations[0]))]
        await asyncio.sleep(0)
        waiting += [asyncio.ensure_future(appender.append(one)) for one in mutations[1:]]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waiting)
        assert not appender.idle
        writer.gate.set()
        receipts = await asyncio.gather(*waiting)
        await appender.drained()
    assert [len(group) for group in writer.entries] == [1, 9]
    assert writer.entries[1] == mutations[1:]
    assert receipts == [Receipt(1, 0), *(Receipt(2, place) for place in range(9))]
    assert rung == [1, 2]
    assert appender.idle


async def test_a_failure_reaches_everybody_who_waits_and_the_next_append_works() -> None:
    writer = HeldWriter()
    writer.fails = 1
    writer.gate.set()
    rung: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        appender = make_appender(writer, pool, rung)
        one = prepared(upsert(("a", (1, 1))))
        results = await asyncio.gather(appender.append(one), appender.append(one), return_exceptions=True)
        failures = [result for result in results if isinstance(result, Unavailable)]
        assert failures and rung in ([], [1])
        assert await appender.append(one) == Receipt(len(writer.entries), 0)


async def test_an_entry_stays_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender_module, "ENTRY_MUTATIONS_MAX", 4)
    writer = HeldWriter()
    with ThreadPoolExecutor(1) as pool:
        appender = make_appender(writer, pool, [], rows_max=6)
        sizes = [1, 1, 1, 1, 1, 3, 3, 3, 7, 1]
        changesets = [upsert(*[(f"v{n}", (n, n)) for n in range(size)]) for size in sizes]
        waiting = [asyncio.ensure_future(appender.append(prepared(one))) for one in changesets]
        await asyncio.sleep(0.05)
        writer.gate.set()
        receipts = await asyncio.gather(*waiting)
    groups = [[one.mutation.rows for one in group] for group in writer.entries]
    assert [size for group in groups for size in group] == sizes
    assert all(len(group) <= 4 and (sum(group) <= 6 or len(group) == 1) for group in groups)
    assert receipts == sorted(receipts)


async def test_a_caller_that_goes_away_takes_nothing_with_it() -> None:
    writer = HeldWriter()
    with ThreadPoolExecutor(1) as pool:
        appender = make_appender(writer, pool, [])
        one = prepared(upsert(("a", (1, 1))))
        gone = asyncio.ensure_future(appender.append(one))
        stays = asyncio.ensure_future(appender.append(one))
        await asyncio.sleep(0.02)
        gone.cancel()
        writer.gate.set()
        await stays
        await appender.drained()
    assert sum(len(group) for group in writer.entries) == 2
