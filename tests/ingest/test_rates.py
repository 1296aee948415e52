"""A token's window: never more than its rate in any period, nearly as much as it, and told truly when to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.rates import STEPS, TokenRates, Window
from tests.making import HandClock
from upwell.catalog.tokens import Grant
from upwell.errors import TooOften
from upwell.rate import Rate

GAPS = st.lists(st.floats(0, 30, allow_nan=False), max_size=60)


@given(gaps=GAPS, amount=st.integers(1, 8), period_s=st.sampled_from([1, 10, 60]))
def test_a_window_holds_in_every_period_and_gives_nearly_all_of_it(
    gaps: list[float], amount: int, period_s: int
) -> None:
    window, now, entered = Window(Rate(amount, period_s)), 1000.0, list[float]()
    for gap in gaps:
        now += gap
        wait_s = window.enter(now)
        recent = [at for at in entered if at > now - period_s]
        if wait_s is None:
            assert len(recent) < amount
            entered.append(now)
        else:
            # Refused: then there was no room, or there will be within the step that is counted too long.
            step_s = period_s / STEPS
            assert len([at for at in entered if at > now - period_s - step_s - 1e-6]) >= amount
            assert 0 < wait_s <= period_s + step_s + 1e-6


def test_who_waits_as_told_is_let_in_and_who_comes_sooner_is_not() -> None:
    window = Window(Rate(2, 10))
    assert window.enter(100.0) is None
    assert window.enter(103.0) is None
    wait_s = window.enter(104.0)
    assert wait_s is not None and 6.0 <= wait_s <= 6.02
    assert window.enter(104.0 + wait_s - 0.02) is not None
    assert window.enter(104.0 + wait_s + 0.001) is None
    assert window.enter(104.0 + wait_s + 0.002) is not None


def test_nothing_is_forgotten_before_its_time() -> None:
    window = Window(Rate(1, 10))
    assert window.enter(100.009) is None
    assert window.enter(110.005) is not None


def test_what_is_refused_does_not_count() -> None:
    window = Window(Rate(1, 10))
    assert window.enter(0.0) is None
    for second in range(1, 10):
        assert window.enter(float(second)) is not None
    assert window.enter(10.5) is None


def test_a_large_rate_costs_no_more_memory_than_its_steps() -> None:
    window = Window(Rate(1_000_000, 1_000))
    for tick in range(20_000):
        assert window.enter(tick / 20) is None
    assert len(window._steps) <= STEPS + 1


def grant(token: str, rate: str | None = None) -> Grant:
    return Grant(id=token, rate=rate)


def test_each_token_has_a_window_of_its_own_and_its_own_rate_counts() -> None:
    clock = HandClock()
    rates = TokenRates("2/minute", clock)
    for _ in range(2):
        rates.count(grant("a"))
        rates.count(grant("b"))
    with pytest.raises(TooOften, match="limit of 2/minute is reached") as refused:
        rates.count(grant("a"))
    assert refused.value.retry_after_s is not None
    assert 60 <= refused.value.retry_after_s <= 60.1
    for _ in range(3):
        rates.count(grant("quick", "3/second"))
    with pytest.raises(TooOften, match="3/second"):
        rates.count(grant("quick", "3/second"))
    clock.pass_s(refused.value.retry_after_s)
    rates.count(grant("a"))


def test_without_a_rate_nothing_is_counted() -> None:
    rates = TokenRates(None, HandClock())
    for _ in range(10_000):
        rates.count(grant("a"))
    assert not rates._windows


def test_tokens_that_are_not_used_are_forgotten() -> None:
    clock = HandClock()
    rates = TokenRates("2/minute", clock)
    rates.count(grant("a"))
    clock.pass_s(30)
    rates.count(grant("b"))
    rates.forget_idle()
    assert set(rates._windows) == {"a", "b"}
    clock.pass_s(31)
    rates.forget_idle()
    assert set(rates._windows) == {"b"}
