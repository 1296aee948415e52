"""A short run of what ``make crash`` does for longer: the four promises, under load, with processes killed all the while."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.report import table
from tests.crash.run import Plan, run

SEED = 5
KILLS = 40


@pytest.mark.timeout(400)
def test_no_promise_breaks_while_everything_is_killed() -> None:
    print(f"seed {SEED}")
    report = asyncio.run(run(Plan(seed=SEED, kills=KILLS, seconds=200, pace=5)))
    said = table(report)
    assert report.wrong == [], said
    # It was a run worth the name: something was killed, at steps and from outside, and something was done meanwhile.
    assert report.killer.kills >= KILLS, said
    assert 0 < sum(report.killer.by_step.values()) < report.killer.kills, said
    assert sum(bool(one.receipts) for one in report.history.writes) > 20, said
    assert len(report.history.reads) > 20, said
    door = report.history.door
    assert len(door.reads) > 20 and sum(one.receipt is not None for one in door.writes) > 10, said
