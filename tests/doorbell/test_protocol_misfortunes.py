"""Whatever goes wrong, and at whatever step, the sweep finds what is left: every interleaving, with every misfortune (protocol.py).

States visited: 750 to 25,000 a case, up to three million in the slow ones. Each case names how many, and must visit no fewer.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.doorbell.protocol import Protocol, World, world

SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("start", "states"),
    [
        pytest.param(world(2, 1, 2, crashes=1), 750, id="crash"),
        pytest.param(world(2, 2, 2, crashes=1), 119_869, id="crash, two appends each", marks=SLOW),
        pytest.param(world(2, 1, 2, wipes=1), 4_069, id="wipe"),
        pytest.param(world(2, 1, 2, expiries=1), 1_117, id="lease lost"),
        pytest.param(world(1, 2, 2, failovers=1), 20_788, id="failover"),
        pytest.param(world(1, 2, 2, twice=1), 4_421, id="a job twice"),
        pytest.param(world(2, 1, 2, late=1), 4_841, id="a late command"),
        pytest.param(world(1, 1, 2, late=1, wipes=1), 2_927, id="a late command, after a wipe"),
        pytest.param(world(1, 1, 2, crashes=1, failovers=1), 4_323, id="crash and failover"),
        pytest.param(world(1, 2, 1, merges=1, crashes=1, wipes=1), 24_810, id="a merge, crash and wipe"),
        pytest.param(world(1, 1, 2, merges=1, expiries=1), 736, id="a merge, lease lost"),
        pytest.param(world(2, 1, 2, crashes=1, wipes=1), 7_687, id="crash and wipe"),
        pytest.param(
            world(1, 2, 2, crashes=1, expiries=1, slices=1), 9_984, id="crash, lease lost, handover"
        ),
        pytest.param(
            world(1, 1, 2, sweeps=1, crashes=2, wipes=1), 21_881, id="two crashes and a wipe, beside a sweep"
        ),
        pytest.param(
            world(1, 1, 2, late=1, failovers=1, twice=1, crashes=1), 1_160_703, id="the odd ones", marks=SLOW
        ),
        pytest.param(
            world(2, 1, 2, sweeps=1, crashes=1, wipes=1, expiries=1), 2_786_073, id="all", marks=SLOW
        ),
    ],
)
def test_after_misfortunes_at_any_step_the_sweep_finds_what_is_left(
    start: World, states: int, record_property: Callable[[str, object], None]
) -> None:
    protocol = Protocol()
    protocol.explore(start)
    record_property("states", len(protocol.seen))
    assert protocol.stranded == []
    assert (protocol.overlaps, protocol.doubled_ids) == (0, 0)
    assert protocol.ends > 0
    assert len(protocol.seen) >= states


@pytest.mark.parametrize("misfortune", ["crashes", "wipes", "expiries", "failovers", "late"])
def test_each_misfortune_strands_something_that_only_a_sweep_finds(misfortune: str) -> None:
    """So that misfortunes are known to happen in this model, and the sweep to be needed for each."""

    class WithoutSweep(Protocol):
        def _judge(self, now: World, pending: list[World]) -> None:
            if now.applied != now.appended:
                self.stranded.append(now)

    protocol = WithoutSweep()
    protocol.explore(world(1, 2, 2, **{misfortune: 1}), until_stranded=True)
    assert protocol.stranded != []
