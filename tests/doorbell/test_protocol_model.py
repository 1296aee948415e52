"""No wake-up is lost while nothing goes wrong, and without any sweep: every interleaving of the doorbell's protocol (protocol.py).

States visited: 700 to 46,000 a case, up to 320,000 in the slow ones. Each case names how many, and must visit no fewer: a model that
explores nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.doorbell.protocol import Protocol, World, world

SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("start", "states"),
    [
        pytest.param(world(1, 3, 2), 2_785, id="one front end"),
        pytest.param(world(2, 2, 2), 46_298, id="two front ends"),
        pytest.param(world(2, 1, 3), 693, id="three workers"),
        pytest.param(world(2, 1, 2, slices=1), 1_606, id="handover"),
        pytest.param(world(1, 2, 2, slices=2), 2_259, id="handovers"),
        pytest.param(world(1, 2, 2, sweeps=1), 23_805, id="a sweep beside it"),
        pytest.param(world(1, 2, 2, merges=1), 6_567, id="a merge beside it"),
        pytest.param(world(1, 2, 2, merges=2), 58_921, id="merges beside it", marks=SLOW),
        pytest.param(world(2, 1, 2, merges=1), 7_873, id="two front ends, and a merge"),
        pytest.param(world(1, 2, 2, slices=1, merges=1), 29_754, id="handover, and a merge"),
        pytest.param(world(1, 1, 2, slices=1, sweeps=1, merges=1), 115_051, id="everything", marks=SLOW),
        pytest.param(world(2, 2, 2, slices=1), 319_643, id="two front ends, handover", marks=SLOW),
        pytest.param(world(2, 2, 3), 198_477, id="two front ends, three workers", marks=SLOW),
    ],
)
def test_undisturbed_nothing_is_ever_stranded_even_without_a_sweep(
    start: World, states: int, record_property: Callable[[str, object], None]
) -> None:
    protocol = Protocol()
    protocol.explore(start)
    record_property("states", len(protocol.seen))
    assert protocol.stranded == []
    assert (protocol.overlaps, protocol.doubled_ids) == (0, 0)
    assert protocol.ends > 0
    assert len(protocol.seen) >= states


@pytest.mark.parametrize(
    ("weaker", "start"),
    [
        pytest.param(Protocol(fresh_generations=False), world(2, 2, 2), id="arq's own unique job id"),
        pytest.param(Protocol(knocks=False), world(2, 2, 2), id="a lease that nobody knocks at"),
        pytest.param(Protocol(looks_for_knocks=False), world(2, 2, 2), id="a release that asks for no knock"),
        pytest.param(Protocol(merges_ring=False), world(1, 1, 1, merges=1), id="a merge that does not ring"),
        pytest.param(Protocol(drops_first=False), world(1, 2, 2, slices=1), id="a handover that rings first"),
    ],
)
def test_without_any_part_of_the_protocol_wake_ups_are_lost(weaker: Protocol, start: World) -> None:
    """So that this model is known to be able to fail, and each part of the protocol to be needed."""
    weaker.explore(start, until_stranded=True)
    assert weaker.stranded != []
