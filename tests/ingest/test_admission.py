"""Who is let in: the limits hold for what is known, looking is rare while all is well, and nobody is refused by an old look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.admission import ADMITTED_S, PACE_S, REFUSED_S, Admission
from tests.making import Client, HandClock, drain, make_engine, make_index, prepared, upsert
from upwell.engine import Engine, Index, Load
from upwell.errors import Behind, Unavailable

ONE = prepared(upsert(("a", (1, 2)))).nbytes


class Front:
    """An admission on an engine of its own, whose looks are counted, and may be held or fail."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.clock = HandClock()
        self.engine: Engine = make_engine(folder, clock=self.clock, store=None, **settings)
        self.index: Index = make_index(self.engine)
        self.client = Client(self.index)
        self.looks = 0
        self.gate: asyncio.Event | None = None
        self.away = False
        self.admission = Admission(self.engine.settings, self.clock, self.look)

    async def look(self, load: Callable[[], Load]) -> Load:
        self.looks += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable("the store is away")
        return load()

    def others_append(self, count: int = 1) -> None:
        for _ in range(count):
            self.client.append(upsert(("a", (1, 2))))

    def we_append(self) -> None:
        position = self.client.writer.append([change := prepared(upsert(("a", (1, 2))))])
        self.index.backlog.appended(position, [change.mutation])

    async def admits(self, *, adds_rows: bool = True) -> bool:
        try:
            await self.admission.check(self.index, adds_rows=adds_rows)
        except Behind:
            return False
        return True

    async def refusal(self) -> Behind:
        with pytest.raises(Behind) as refused:
            await self.admission.check(self.index, adds_rows=True)
        return refused.value


async def test_at_a_limit_of_mutations_nothing_more_is_taken_until_some_are_applied(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3, batch_mutations_max=1)
    for _ in range(3):
        assert await front.admits()
        front.we_append()
    error = await front.refusal()
    assert str(error) == (
        f"the index has a backlog of 3 mutations and {3 * ONE:,} bytes, at most 3 and 8,589,934,592 are allowed"
    )
    assert not await front.admits(adds_rows=False)
    front.engine.apply_batch(front.index.record.id, lambda: True)
    front.clock.pass_s(2 * REFUSED_S)
    assert await front.admits()


async def test_at_a_limit_of_bytes_too(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_bytes_max=2 * ONE)
    assert await front.admits()
    front.we_append()
    assert await front.admits()
    front.we_append()
    assert not await front.admits()


async def test_what_others_append_is_seen_after_a_moment(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3)
    assert await front.admits()
    front.others_append(3)
    assert await front.admits(), "believed for a moment"
    front.clock.pass_s(ADMITTED_S)
    assert not await front.admits()


async def test_a_backlog_from_before_we_started_counts(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3)
    front.others_append(3)
    assert not await front.admits()


async def test_looking_is_rare_while_all_is_well_and_while_all_are_refused(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3)
    for _ in range(50):
        assert await front.admits()
    assert front.looks == 1
    front.others_append(3)
    front.clock.pass_s(ADMITTED_S)
    for _ in range(50):
        assert not await front.admits()
    assert front.looks == 2


async def test_our_own_count_does_not_refuse_what_was_applied_meanwhile(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3)
    assert await front.admits()
    for _ in range(3):
        front.we_append()
    drain(front.engine, front.index)
    front.clock.pass_s(2 * REFUSED_S)
    assert await front.admits(), "refused by a look that is older than it need be"


async def test_many_who_come_at_once_share_a_look(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=3)
    front.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(front.admits()) for _ in range(20)]
    await asyncio.sleep(0)
    assert front.looks == 1
    front.gate.set()
    assert all(await asyncio.gather(*waiting))
    assert front.looks == 1


async def test_a_look_that_fails_is_made_again_by_the_next(tmp_path: Path) -> None:
    front = Front(tmp_path)
    front.away = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await front.admits()
    front.away = False
    assert await front.admits()


async def test_only_what_adds_rows_waits_for_compaction(tmp_path: Path) -> None:
    front = Front(tmp_path, stall_segments=8)
    view = front.index.load()

    async def many_segments(_load: Callable[[], Load]) -> Load:
        return Load(view.backlog, 9)

    front.admission = Admission(front.engine.settings, front.clock, many_segments)
    assert await front.admits(adds_rows=False)
    assert str(await front.refusal()) == "compaction is behind: a shard has 9 segments, at most 8 are allowed"


async def test_who_is_refused_is_told_when_a_tenth_is_free_at_the_workers_pace(tmp_path: Path) -> None:
    front = Front(tmp_path, backlog_mutations_max=20, batch_mutations_max=2)
    assert await front.admits()
    front.others_append(24)
    front.clock.pass_s(PACE_S)
    assert (await front.refusal()).retry_after_s == 5, "nothing is known of the workers yet"
    front.clock.pass_s(PACE_S)
    front.engine.apply_batch(front.index.record.id, lambda: True)
    # 22 wait, and two a second are applied: 18 in two seconds.
    assert (await front.refusal()).retry_after_s == pytest.approx(2)
    front.clock.pass_s(1_000)
    front.others_append(2)
    front.engine.apply_batch(front.index.record.id, lambda: True)
    assert (await front.refusal()).retry_after_s == 60, (
        "a thousandth of a mutation a second is no time to wait for"
    )


async def test_a_backlog_that_is_still_being_counted_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upwell.log.backlog.ENTRIES_READ_MAX", 2)
    front = Front(tmp_path, backlog_mutations_max=5)
    front.others_append(6)
    assert [await front.admits() for _ in range(3)] == [True, True, False]
