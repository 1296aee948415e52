"""Compaction: what it chooses, what it costs, and that nobody can tell that it happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.making import Client, HandClock, contents, delete, drain, make_engine, make_index, upsert
from upwell.changeset import Changeset, Operation
from upwell.engine import Engine, Index
from upwell.errors import Fenced
from upwell.kinds import IndexKind
from upwell.manifest import DeletionRef, SegmentRef
from upwell.outcome import State
from upwell.query.search import search
from upwell.shard import ann, merge
from upwell.shard.merge import FOLDED_BYTES_MAX
from upwell.shard.metric import Metric
from upwell.shard.plan import COLUMNS_BYTES_MAX, PlanLimits, plan
from upwell.sparse import Sparse

LIMITS = PlanLimits(row_bytes=FOLDED_BYTES_MAX // 100, fanout=4, rows_max=100_000)


def refs(*lives: int) -> list[SegmentRef]:
    return [SegmentRef(id=f"s{n}", rows=live, nbytes=live * LIMITS.row_bytes) for n, live in enumerate(lives)]


def deleted(segment: SegmentRef, count: int) -> SegmentRef:
    return segment.model_copy(update={"deletions": DeletionRef(object="d", section=segment.id, count=count)})


@pytest.mark.parametrize(
    ("lives", "settled", "chosen"),
    [
        ((), True, ""),
        ((50,), True, ""),
        ((50, 100, 3), False, ""),
        ((50, 100, 3, 7), False, "0 1 2 3"),
        ((50, 100, 3, 200, 7), False, "0 1 2 4"),
        # 101 to 399 rows are the level above 100, 400 to 1,599 the next.
        ((101, 399, 200, 300), False, "0 1 2 3"),
        ((101, 400, 200, 300), False, ""),
        ((101, 400, 200, 300), True, "0 1 2 3"),
        # A trickle is not merged into what is far larger, but with its like.
        ((10_000, 2_000), True, ""),
        ((10_000, 2_000, 500), True, "0 1 2"),
        ((10_000, 1_000, 999), True, "1 2"),
        # No segment grows beyond the largest allowed.
        ((60_000, 30_000, 20_000), True, "1 2"),
        ((99_000, 98_000, 97_000, 96_000), False, ""),
    ],
)
def test_what_is_merged_next(lives: tuple[int, ...], settled: bool, chosen: str) -> None:
    found = plan(refs(*lives), LIMITS, settled=settled)
    assert sorted(found) == [f"s{number}" for number in chosen.split()]


def test_a_segment_with_many_deleted_rows_is_rewritten() -> None:
    large, small = refs(1_000, 50)
    assert plan([deleted(large, 200), small], LIMITS, settled=False) == ()
    assert plan([deleted(large, 201), small], LIMITS, settled=False) == ("s0",)
    assert plan([large, deleted(small, 40)], LIMITS, settled=False) == ()
    assert plan([large, deleted(small, 40)], LIMITS, settled=True) == ("s1",)


def test_columns_that_would_not_fit_in_memory_are_not_merged() -> None:
    heavy = [one.model_copy(update={"nbytes": COLUMNS_BYTES_MAX}) for one in refs(10, 10, 10, 10)]
    assert plan(heavy, LIMITS, settled=True) == ()
    assert COLUMNS_BYTES_MAX < 1 << 31


@pytest.mark.parametrize("settled", [True, False])
def test_one_of_few_rows_and_much_data_keeps_no_others_from_being_merged(settled: bool) -> None:
    segments = refs(110, 120, 130, 140, 150, 160)
    segments[0] = segments[0].model_copy(update={"nbytes": 2 * COLUMNS_BYTES_MAX})
    assert sorted(plan(segments, LIMITS, settled=settled)) == ["s1", "s2", "s3", "s4", "s5"]


def test_segments_and_bytes_grow_with_the_logarithm() -> None:
    """A thousand equal commits: how many segments there are at any time, and how often a row is written."""
    segments: list[SegmentRef] = []
    written, most = 0, 0
    for number in range(1_000):
        segments.append(SegmentRef(id=f"c{number}", rows=100, nbytes=1))
        written += 100
        while chosen := plan(segments, LIMITS, settled=False):
            rows = sum(one.live for one in segments if one.id in chosen)
            segments = [one for one in segments if one.id not in chosen]
            segments.append(SegmentRef(id=f"m{number}-{rows}", rows=rows, nbytes=1))
            written += rows
        most = max(most, len(segments))
    levels = np.log(1_000) / np.log(LIMITS.fanout)
    assert most <= (LIMITS.fanout - 1) * (levels + 1)
    assert written / 100_000 <= levels + 1


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> Engine:
    # Nothing is folded, so that every commit leaves a segment.
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    return make_engine(tmp_path, clock=clock, compaction_fanout=3, grace_s=100)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine, shards=1)


def commit(engine: Engine, index: Index, *changesets: Changeset) -> list[str]:
    ids = Client(index).append(*changesets)
    drain(engine, index)
    return ids


def segments_of(index: Index) -> list[int]:
    return [live.live for shard in index.newest.get().shards for live in shard]


def test_merged_segments_hold_what_their_sources_held(engine: Engine, index: Index, clock: HandClock) -> None:
    ids = []
    for first in (0, 3, 6):
        rows = [(f"v{n}", (n, -n), "n" if n % 2 else None, {"n": n}) for n in range(first, first + 3)]
        ids += commit(engine, index, upsert(*rows))
    ids += commit(engine, index, delete("v4"))
    before, manifest = contents(index), index.head.refresh()
    assert segments_of(index) == [3, 2, 3] and index.compactor.due() == [0]
    committed_at = manifest.committed_at
    clock.pass_s(1)
    done = engine.compact(index.record.id, 0)
    assert done is not None and (done.segments, done.rows, done.version) == (3, 8, manifest.version + 1)
    assert segments_of(index) == [8] and contents(index) == before
    after = index.head.refresh()
    assert (after.applied_through, after.committed_at) == (manifest.applied_through, committed_at)
    assert after.totals.compacted_bytes == done.nbytes and after.totals.vector_bytes == 9 * 8
    assert after.totals.write_amplification is not None
    assert engine.compact(index.record.id, 0) is None
    # Status knows nothing of it.
    outcomes = [index.outcomes.of(one) for one in ids]
    assert [one.state for one in outcomes] == [State.VISIBLE] * 4
    assert [one.result.inserted for one in outcomes if one.result] == [3, 3, 3, 0]
    assert [one.receipt for one in index.outcomes.recent(9)] == [one.receipt for one in reversed(outcomes)]


def test_an_index_that_rests_is_merged_further(engine: Engine, index: Index, clock: HandClock) -> None:
    for first in (0, 2):
        commit(engine, index, upsert((f"v{first}", (1, 2)), (f"v{first + 1}", (1, 2))))
    assert index.compactor.due() == []
    clock.pass_s(2)
    assert index.compactor.due() == [0]
    assert engine.compact(index.record.id, 0) is not None
    assert segments_of(index) == [4]
    # What rests and is one, rests for ever.
    clock.pass_s(1_000)
    assert index.compactor.due() == []


def overtaken(index: Index, *works: object) -> None:
    """Before the next commits of the index, each of ``works`` is done once."""
    chain, left = index.head.chain, list(works)
    original = chain.commit

    def late(*what: object) -> None:
        chain.commit = original  # type: ignore[method-assign]
        left.pop(0)()  # type: ignore[operator]
        if left:
            chain.commit = late  # type: ignore[method-assign, assignment]
        original(*what)  # type: ignore[arg-type]

    chain.commit = late  # type: ignore[method-assign, assignment]


def test_what_changes_while_it_is_merged_stays_changed(engine: Engine, index: Index) -> None:
    for first in (0, 3, 6):
        commit(engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))
    overtaken(
        index,
        lambda: commit(engine, index, delete("v0", "v8"), upsert(("v4", (40, 4)), ("new", (1, 1)))),
        lambda: commit(engine, index, upsert(("v0", (100, 0))), delete("v1")),
    )
    done = engine.compact(index.record.id, 0)
    assert done is not None and done.rows == 9
    expected = {f"v{n}": [float(n), 0.0] for n in (2, 3, 5, 6, 7)}
    expected |= {"v4": [40.0, 4.0], "new": [1.0, 1.0], "v0": [100.0, 0.0]}
    assert {name: values for (_, name), (values, _) in contents(index).items()} == expected
    assert segments_of(index)[0] == 5
    hits = search(index.newest.get(), np.zeros(2, np.float32), 20)
    assert {hit.found.id for hit in hits} == expected.keys()


def test_a_source_that_was_folded_or_emptied_meanwhile_stays_so(
    engine: Engine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (0, 3, 6):
        commit(engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))

    def fold_and_empty() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merge, "FOLDED_BYTES_MAX", 1 << 20)
            commit(engine, index, upsert(("x", (1, 1)), ("y", (1, 1))), delete("v0", "v1", "v2"))

    overtaken(index, fold_and_empty)
    engine.compact(index.record.id, 0)
    names = {name for _, name in contents(index)}
    assert names == {"v3", "v4", "v5", "v6", "v7", "v8", "x", "y"}


def test_of_two_that_merge_the_same_one_is_void(engine: Engine, index: Index) -> None:
    for first in (0, 3, 6):
        commit(engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))
    other = make_engine(engine.settings.data, clock=HandClock(), store=engine.store, compaction_fanout=3)
    overtaken(index, lambda: other.compact(index.record.id, 0))
    version = index.head.refresh().version
    assert engine.compact(index.record.id, 0) is None
    assert index.head.refresh().version == version + 1
    assert segments_of(index) == [9] and len(contents(index)) == 9


def test_a_compaction_that_slept_is_not_committed(engine: Engine, index: Index, clock: HandClock) -> None:
    """Its segment may have been taken for garbage; and it may not be committed while it can be."""
    for first in (0, 3, 6):
        commit(engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))
    version = index.head.refresh().version
    overtaken(index, lambda: clock.pass_s(51))
    with pytest.raises(Fenced):
        engine.compact(index.record.id, 0)
    assert index.head.refresh().version == version


def test_a_compaction_that_sleeps_before_its_commit_lands_never_names_what_was_swept(
    engine: Engine, index: Index, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The idle index: no other commit comes between, so that the collector has to make one before it deletes."""
    for first in (0, 3, 6):
        commit(engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))
    collector = (
        make_engine(engine.settings.data, clock=clock, store=engine.store, grace_s=100)
        .find("default", "index")
        .collector
    )
    create = engine.store.create

    def sleep_in_the_create(key: str, *parts: object) -> None:
        if "/manifest/" in key:
            monkeypatch.setattr(engine.store, "create", create)
            for _ in range(12):
                clock.pass_s(20)
                collector.collect()
        create(key, *parts)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.store, "create", sleep_in_the_create)
    with pytest.raises(Fenced):
        engine.compact(index.record.id, 0)
    fresh = make_engine(engine.settings.data, clock=clock, store=engine.store).find("default", "index")
    assert len(contents(fresh)) == 9
    assert len(list(engine.store.list(f"{index.record.folder}/segment"))) == 3


def test_an_idle_index_is_left_with_what_is_live(engine: Engine, index: Index, clock: HandClock) -> None:
    for first in (0, 3, 6):
        commit(
            engine, index, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))), delete(f"v{first}")
        )
    assert engine.compact(index.record.id, 0) is not None
    for _ in range(12):
        clock.pass_s(20)
        index.collector.collect()
    assert len(list(engine.store.list(f"{index.record.folder}/segment"))) == 1
    assert list(engine.store.list(f"{index.record.folder}/deletions")) == []
    assert list(engine.store.list(f"{index.record.folder}/log")) == []
    version = index.head.refresh().version
    for _ in range(12):
        clock.pass_s(20)
        index.collector.collect()
    # With nothing to delete there is nothing to fence.
    assert index.head.refresh().version == version
    assert len(contents(index)) == 6


def test_a_merged_segment_with_lists_takes_over_later_deletions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are put into the order of the lists, so that the rebase has to follow each to its new place."""
    monkeypatch.setattr(ann, "LISTS", ((4_000, 8),))
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    engine = make_engine(tmp_path, compaction_fanout=2)
    index = make_index(engine, dimensions=64, metric=Metric.COSINE, shards=1)
    vectors = np.random.default_rng(1).normal(size=(5_000, 64)).astype(np.float32)
    for first in (0, 2_500):
        chunk = vectors[first : first + 2_500]
        ids = pa.array([f"v{first + n}" for n in range(2_500)])
        commit(engine, index, Changeset(operation=Operation.UPSERT, ids=ids, vectors=chunk, received=2_500))
    gone = [f"v{n}" for n in np.random.default_rng(2).choice(5_000, 700, replace=False).tolist()]
    overtaken(index, lambda: commit(engine, index, delete(*gone)))
    engine.compact(index.record.id, 0)
    ((live,),) = index.newest.get().shards
    assert live.segment._box.meta["index"] == "IVF8,RaBitQfs" and live.live == 4_300
    found = {name: values for (_, name), (values, _) in contents(index).items()}
    assert found == {f"v{n}": vectors[n].tolist() for n in range(5_000) if f"v{n}" not in set(gone)}


def test_a_sparse_index_of_many_rows_is_merged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no dense vectors to make lists of: FAISS, asked for them, divided by their zero dimensions and killed the process."""
    monkeypatch.setattr(ann, "LISTS", ((100, 8),))
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, compaction_fanout=2)
    index = make_index(engine, shards=1, kind=IndexKind.SPARSE)
    for first in (0, 100):
        ids = pa.array([f"v{first + n}" for n in range(100)])
        sparse = Sparse.of([([n, first + 1_000], [1, n]) for n in range(100)])
        commit(engine, index, Changeset(operation=Operation.UPSERT, ids=ids, sparse=sparse, received=100))
    before = contents(index)
    clock.pass_s(2)
    assert index.compactor.due() == [0] and engine.compact(index.record.id, 0) is not None
    assert segments_of(index) == [200] and contents(index) == before
    # Without lists there are none that it lacks.
    clock.pass_s(1_000)
    assert index.compactor.due() == [] and engine.compact(index.record.id, 0) is None


def test_one_damaged_index_keeps_no_other_from_being_merged(engine: Engine, index: Index) -> None:
    other = make_index(engine, "other", shards=1)
    for one in (index, other):
        for first in (0, 3, 6):
            commit(engine, one, upsert(*((f"v{n}", (n, 0)) for n in range(first, first + 3))))
    assert sorted(engine.compactions_due()) == sorted([(index.record.id, 0), (other.record.id, 0)])
    version = index.head.refresh().version
    path = engine.settings.data / "store" / index.record.folder / "manifest" / f"{version:020d}"
    path.write_bytes(path.read_bytes()[:70])
    fresh = make_engine(engine.settings.data, clock=HandClock(), store=engine.store, compaction_fanout=3)
    assert list(fresh.compactions_due()) == [(other.record.id, 0)]
