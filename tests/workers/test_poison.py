"""Finding what breaks a batch: the least set of culprits, in few trials, and nobody blamed for what is nobody's fault."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.log.receipt import Receipt
from workers.poison import NobodysFaultError, culprits

MUTATIONS = [Receipt(7, place) for place in range(1_000)]


class Entry:
    """An entry of which some mutations break whoever applies them, and some only together with another."""

    def __init__(self, poison: set[int], pairs: set[tuple[int, int]] = frozenset()) -> None:  # type: ignore[assignment]
        self.poison, self.pairs = poison, pairs
        self.trials = 0

    async def breaks(self, left_out: dict[Receipt, str]) -> str | None:
        self.trials += 1
        gone = {one.place for one in left_out}
        for place in sorted(self.poison - gone):
            return f"broken by {place}"
        for one, other in sorted(self.pairs):
            if one not in gone and other not in gone:
                return f"broken by {one} with {other}"
        return None


@given(size=st.integers(1, 200), data=st.data())
def test_exactly_the_poisonous_ones_are_found_each_with_its_reason(size: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, size - 1), max_size=min(size, 12)))
    entry = Entry(poison)
    found = asyncio.run(culprits(MUTATIONS[:size], entry.breaks))
    assert found == {Receipt(7, place): f"broken by {place}" for place in poison}
    assert entry.trials <= 2 + len(poison) * (math.ceil(math.log2(size)) + 2)


@given(
    pairs=st.sets(
        st.tuples(st.integers(0, 9), st.integers(10, 19)),
        min_size=1,
        max_size=6,
    )
)
def test_of_those_that_break_only_together_enough_are_left_out(pairs: set[tuple[int, int]]) -> None:
    entry = Entry(set(), pairs)
    found = asyncio.run(culprits(MUTATIONS[:20], entry.breaks))
    assert asyncio.run(entry.breaks(found)) is None
    # None of them for nothing: with any one of them back, it breaks again.
    for one in found:
        assert asyncio.run(entry.breaks({other: "" for other in found if other != one})) is not None


def test_a_healthy_entry_costs_one_trial() -> None:
    entry = Entry(set())
    assert asyncio.run(culprits(MUTATIONS, entry.breaks)) == {}
    assert entry.trials == 1


def test_what_breaks_without_any_of_them_is_no_mutations_fault() -> None:
    async def breaks(left_out: dict[Receipt, str]) -> str | None:
        return "the segment cannot be read"

    with pytest.raises(NobodysFaultError, match="segment"):
        asyncio.run(culprits(MUTATIONS[:5], breaks))


def test_all_of_them_may_be_to_blame() -> None:
    entry = Entry({0, 1, 2})
    assert len(asyncio.run(culprits(MUTATIONS[:3], entry.breaks))) == 3


def test_a_trial_that_proves_nothing_ends_the_search() -> None:
    async def breaks(left_out: dict[Receipt, str]) -> str | None:
        raise ConnectionError("store away")

    with pytest.raises(ConnectionError):
        asyncio.run(culprits(MUTATIONS[:5], breaks))


@given(poison=st.sets(st.integers(0, 19), max_size=3), mishap=st.integers(1, 30))
def test_what_happened_in_one_trial_only_blames_nobody(poison: set[int], mishap: int) -> None:
    entry = Entry(poison)

    async def breaks(left_out: dict[Receipt, str]) -> str | None:
        why = await entry.breaks(left_out)
        return "memory was short" if entry.trials == mishap else why

    try:
        found = asyncio.run(culprits(MUTATIONS[:20], breaks))
    except NobodysFaultError:
        return
    assert {one.place for one in found} == poison


def test_a_search_that_was_cut_off_goes_on_where_it_was() -> None:
    entry, suspected = Entry({3, 500, 997}), dict[Receipt, str]()
    left = 20

    async def breaks_while_it_may(left_out: dict[Receipt, str]) -> str | None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("cut off")
        return await entry.breaks(left_out)

    searches = 0
    found: dict[Receipt, str] = {}
    while not found:
        searches, left = searches + 1, 20
        try:
            found = asyncio.run(culprits(MUTATIONS, breaks_while_it_may, suspected))
        except ConnectionError:
            assert len(suspected) >= searches
    assert {one.place for one in found} == {3, 500, 997} and searches > 1


def test_what_was_suspected_of_another_entry_is_forgotten() -> None:
    stale = {Receipt(6, 1): "long applied", MUTATIONS[2]: "a mishap"}
    assert asyncio.run(culprits(MUTATIONS[:5], Entry(set()).breaks, stale)) == {}
    assert asyncio.run(culprits(MUTATIONS[:5], Entry({4}).breaks, {MUTATIONS[2]: "a mishap"})) == {
        MUTATIONS[4]: "broken by 4"
    }
