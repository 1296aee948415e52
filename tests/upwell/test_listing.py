"""Listing page by page: each id once, as of one version, whatever is written meanwhile; cursors that only their index reads."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.making import Client, HandClock, delete, drain, make_engine, make_index, upsert
from upwell.engine import Engine, Index
from upwell.errors import Gone, Invalid
from upwell.query.listing import Place, decode_cursor, encode_cursor

GRACE_S = 100.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock) -> Engine:
    return make_engine(tmp_path, clock=clock, grace_s=GRACE_S)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def fill(engine: Engine, index: Index, *names: str) -> None:
    Client(index).append(upsert(*((name, (1, 2)) for name in names)))
    drain(engine, index)


def pages(index: Index, count: int, place: Place | None = None) -> list[list[str]]:
    """All pages from ``place`` on."""
    found = []
    place = place or index.pinned.begin()
    while place is not None:
        page = index.pinned.page(place, count)
        assert len(page.ids) == count or page.following is None
        found.append(page.ids)
        place = page.following
    return found


def flat(found: list[list[str]]) -> list[str]:
    return [name for page in found for name in page]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    batches=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=5),
    gone=st.lists(st.integers(0, 30), max_size=10),
    count=st.integers(1, 12),
)
def test_every_id_is_listed_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], gone: list[int], count: int
) -> None:
    engine = make_engine(tmp_path_factory.mktemp("listing"))
    index = make_index(engine, shards=3)
    for batch in batches:
        fill(engine, index, *map(str, batch))
    Client(index).append(delete("nobody", *map(str, gone)))
    drain(engine, index)
    alive = {str(one) for batch in batches for one in batch} - set(map(str, gone))
    listed = pages(index, count)
    assert sorted(flat(listed)) == sorted(alive)
    assert len(listed) == max(1, -(-len(alive) // count))


def test_what_is_written_after_the_first_page_changes_no_other(engine: Engine, index: Index) -> None:
    before = [f"v{number}" for number in range(20)]
    fill(engine, index, *before)
    first = index.pinned.page(index.pinned.begin(), 7)
    Client(index).append(delete(*before), upsert(("new", (1, 1))))
    drain(engine, index)
    assert first.following is not None and first.total == 20
    rest = pages(index, 7, first.following)
    assert sorted(first.ids + flat(rest)) == sorted(before)
    assert pages(index, 7) == [["new"]]
    # Another front end has seen none of it.
    other = make_engine(engine.settings.data, clock=HandClock())
    assert pages(other.find("default", "index"), 7, first.following) == rest


def test_a_cursor_is_good_for_half_a_grace_period_whatever_collectors_do(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    fill(engine, index, *map(str, range(20)))
    place = index.pinned.begin()
    fill(engine, index, *map(str, range(20, 900)))
    Client(index).append(delete(*map(str, range(20))))
    drain(engine, index)
    for _ in range(5):
        engine.collect_garbage(index.record.id)
        clock.pass_s(GRACE_S / 10 - 0.01)
        # A front end that has not opened that version before.
        other = make_engine(engine.settings.data, clock=clock, grace_s=GRACE_S)
        assert len(flat(pages(other.find("default", "index"), 6, place))) == 20
    clock.pass_s(GRACE_S / 10)
    with pytest.raises(Gone, match="expired"):
        index.pinned.page(place, 6)


def test_a_version_is_held_open_until_its_last_reader_must_have_ended(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    fill(engine, index, *map(str, range(9)))
    first = index.pinned.begin()
    index.pinned.page(first, 2)
    clock.pass_s(GRACE_S / 4)
    second = index.pinned.begin()
    index.pinned.page(second, 2)
    index.pinned.page(first, 2)
    assert second.version == first.version and list(index.pinned._views) == [first.version]
    clock.pass_s(GRACE_S / 4 + 1)
    engine.forget_dead()
    assert list(index.pinned._views) == [first.version]
    clock.pass_s(GRACE_S / 4)
    engine.forget_dead()
    assert list(index.pinned._views) == []


def test_a_version_that_is_gone_early_is_told_as_such(engine: Engine, index: Index) -> None:
    fill(engine, index, "a")
    place = replace(index.pinned.begin(), version=77)
    with pytest.raises(Gone, match="list again"):
        index.pinned.page(place, 6)


def test_an_empty_index_has_one_empty_page(index: Index) -> None:
    page = index.pinned.page(index.pinned.begin(), 5)
    assert page.ids == [] and page.total == 0 and page.following is None


def test_a_cursor_reads_back_and_a_changed_one_does_not() -> None:
    secret, place = b"s" * 16, Place(3, 1, 2, 2**40, 1_700_000_000_000_000)
    cursor = encode_cursor(secret, place)
    assert decode_cursor(secret, cursor) == place
    with pytest.raises(Invalid):
        decode_cursor(b"t" * 16, cursor)
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(Invalid):
                decode_cursor(secret, base64.urlsafe_b64encode(changed).decode())
    for wrong in ("", "x", "é", "a" * 1000, cursor[:-1], cursor + "A", " " + cursor):
        with pytest.raises(Invalid):
            decode_cursor(secret, wrong)
