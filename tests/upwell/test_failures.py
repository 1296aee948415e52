"""Failures: told for ever, found among many, and the manifest stays small whatever there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import Client, drain, make_engine, make_index, upsert
from upwell.changeset import Operation, about_property
from upwell.engine import Index
from upwell.errors import NotFound
from upwell.log.receipt import PLACES_MAX, Receipt, mint
from upwell.manifest import Failure, Failures, Manifest, ShardState
from upwell.manifest.failures import FAILURES_INLINE_MAX
from upwell.manifest.state import failures_are_kept
from upwell.outcome import State
from upwell.properties import MetadataIndex, PropertyType
from upwell.store import DirectoryStore

FIRST = Manifest.model_validate(
    {
        "version": 1,
        "index_id": "i",
        "writer": "w",
        "committed_at": "2026-01-02T03:04:05Z",
        "shards": [ShardState()],
    }
)


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6), st.booleans()), max_size=150),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_any_history_of_failures_is_told_as_it_was(
    batches: list[list[tuple[int, int, bool]]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = DirectoryStore(tmp_path_factory.mktemp("failures"))
    ledger, manifest, position = Failures(store, "index/i"), FIRST, 0
    known: list[Failure] = []
    for batch in batches:
        failures = []
        for gap, place, whole in batch:
            position += gap
            failures.append(
                Failure(
                    position=position,
                    place=0 if whole else place,
                    places=PLACES_MAX if whole else 1,
                    reason=f"r{position}",
                )
            )
        known += failures
        inline, pages = ledger.added(manifest, failures)
        after = manifest.model_copy(update={"failures": inline, "failure_pages": pages})
        assert failures_are_kept(manifest, after)
        assert len(inline) <= FAILURES_INLINE_MAX and after.failed == len(known)
        manifest = after
    fresh = Failures(store, "index/i")
    assert list(fresh.newest_first(manifest)) == known[::-1]
    before = data.draw(st.tuples(st.integers(0, position + 1), st.integers(0, 8)))
    expected = [one for one in reversed(known) if (one.position, one.place) < before]
    assert list(fresh.newest_first(manifest, before)) == expected
    for failure in known:
        assert fresh.at(manifest, failure.position, failure.place) == failure
        other = failure.place + 1
        assert fresh.at(manifest, failure.position, other) == (failure if failure.places > 1 else None)
    assert fresh.at(manifest, position + 1, 0) is None and fresh.at(FIRST, position, 0) is None


def test_a_page_that_is_left_out_or_a_failure_that_is_lost_breaks_the_invariant(tmp_path: Path) -> None:
    many = [Failure(position=n, place=0, reason="r") for n in range(1, FAILURES_INLINE_MAX + 2)]
    inline, pages = Failures(DirectoryStore(tmp_path), "index/i").added(FIRST, many)
    assert (inline, len(pages)) == ((), 1)
    paged = FIRST.model_copy(update={"failure_pages": pages})
    few = FIRST.model_copy(update={"failures": tuple(many[:3])})
    assert not failures_are_kept(paged, FIRST)
    assert not failures_are_kept(few, FIRST.model_copy(update={"failures": tuple(many[1:4])}))
    short = pages[0].model_copy(update={"count": 2})
    assert not failures_are_kept(few, FIRST.model_copy(update={"failure_pages": (short,)}))


def fail(index: Index, times: int) -> list[str]:
    """Mutations that must fail: a second type for one property. Returns their ids."""
    ids = []
    for kind in [PropertyType.STRING] + [PropertyType.NUMBER] * times:
        about = about_property(Operation.CREATE_METADATA_INDEX, MetadataIndex(property="p", type=kind))
        ids += Client(index).append(about)
    return ids[1:]


def test_a_thousand_failures_leave_the_manifest_small_and_are_all_told(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, batch_mutations_max=100)
    index = make_index(engine)
    ids = fail(index, 1_000)
    drain(engine, index)
    manifest = index.head.refresh()
    assert manifest.failed == 1_000 and len(manifest.failures) < FAILURES_INLINE_MAX
    newest = index.outcomes.recent(2_000, state=State.FAILED)
    assert [one.mutation_id for one in newest] == ids[::-1]
    assert {one.state for one in newest} == {State.FAILED}
    assert all("delete it first" in (one.error or "") for one in newest)
    # Its other rows are untouched by what failed, and collectors leave pages alone.
    (fine,) = Client(index).append(upsert(("v", (1, 2))))
    drain(engine, index)
    assert index.outcomes.of(fine).state is State.VISIBLE


def test_pages_are_kept_while_the_manifest_names_them(tmp_path: Path) -> None:
    from tests.making import HandClock

    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, grace_s=10, results_s=10, failed_s=40)
    index = make_index(engine)
    ids = fail(index, FAILURES_INLINE_MAX + 1)
    drain(engine, index)
    stray = Failures(engine.store, index.record.folder).added(
        FIRST, [Failure(position=n, place=0, reason="r") for n in range(1, FAILURES_INLINE_MAX + 2)]
    )[1][0]
    assert engine.store.exists(stray.object)
    kept = list(engine.store.list(f"{index.record.folder}/failed"))
    assert kept
    for _ in range(12):
        clock.pass_s(5)
        index.collector.collect()
    assert not engine.store.exists(stray.object)
    (page,) = index.head.refresh().failure_pages
    assert engine.store.exists(page.object)
    # What they were to do is kept for a while, that they failed for ever.
    assert list(engine.store.list(f"{index.record.folder}/failed")) == []
    fresh = make_engine(tmp_path, clock=clock).find("default", "index")
    assert fresh.outcomes.of(ids[0]).state is State.FAILED
    with pytest.raises(Exception, match="kept no longer"):
        fresh.sent.changeset(ids[0])


def test_an_index_of_an_older_format_moves_its_failures_to_a_page_when_the_next_comes(tmp_path: Path) -> None:
    ledger = Failures(DirectoryStore(tmp_path), "index/i")
    old = FIRST.model_copy(
        update={"failures": tuple(Failure(position=n, place=0, reason="r") for n in range(1, 5_000))}
    )
    assert ledger.at(old, 4_999, 0) is not None
    inline, pages = ledger.added(old, [Failure(position=5_000, place=3, reason="last")])
    after = old.model_copy(update={"failures": inline, "failure_pages": pages})
    assert (len(inline), [page.count for page in pages]) == (0, [5_000])
    assert failures_are_kept(old, after)
    found = ledger.at(after, 5_000, 3)
    assert found is not None and found.reason == "last"
    assert mint(b"k" * 16, Receipt(5_000, 3))


def test_a_damaged_page_hides_nothing_behind_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    many = [Failure(position=n, place=0, reason="r") for n in range(1, FAILURES_INLINE_MAX + 2)]
    _, pages = Failures(store, "index/i").added(FIRST, many)
    paged = FIRST.model_copy(update={"failure_pages": pages})
    (tmp_path / pages[0].object).unlink()
    fresh = Failures(store, "index/i")
    assert fresh.at(paged, FAILURES_INLINE_MAX + 2, 0) is None
    with pytest.raises(NotFound):
        fresh.at(paged, FAILURES_INLINE_MAX + 1, 0)
