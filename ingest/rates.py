"""How often each token asked of late, and whether it may again: an exact moving window, counted by this front end alone.

Not a library's: those looked at count by wall time, keep a timer or a task running, or grow with every request. Here requests are
counted in steps of a thousandth of the period, so that a token costs at most a hundred KiB whatever its rate, and a request
counts until its whole step has left the window: never more than the rate in any period, and a thousandth of it longer at most.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from upwell.catalog.tokens import Grant
from upwell.clock import Clock
from upwell.errors import TooOften
from upwell.rate import Rate

STEPS = 1_000

_rate_of = lru_cache(maxsize=1_024)(Rate.parse)


class Window:
    """Counts what happens in a moving window. Times are monotonic seconds."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._step_s = rate.period_s / STEPS
        #: Of each step in which anything happened, oldest first: [its number, how often].
        self._steps: deque[list[int]] = deque()
        self._count = 0

    def enter(self, now: float) -> float | None:
        """Count one more, and return None; or count nothing, and return in how many seconds there is room."""
        self.move(now)
        if self._count >= self.rate.amount:
            return (self._steps[0][0] + STEPS + 1) * self._step_s - now
        step = int(now / self._step_s)
        if not self._steps or self._steps[-1][0] != step:
            self._steps.append([step, 0])
        self._steps[-1][1] += 1
        self._count += 1
        return None

    def move(self, now: float) -> bool:
        """Forget what is past; returns whether anything is left."""
        oldest_kept = int(now / self._step_s) - STEPS
        while self._steps and self._steps[0][0] < oldest_kept:
            self._count -= self._steps.popleft()[1]
        return bool(self._steps)


class TokenRates:
    """The windows of the tokens in use. Used from one event loop."""

    def __init__(self, default: str | None, clock: Clock) -> None:
        #: The rate of tokens without one of their own; None: as often as they like.
        self._default = default
        self._clock = clock
        self._windows: dict[str, Window] = {}

    def count(self, grant: Grant) -> None:
        """Count a request of a token's. Raises TooOften, and does not count it, if that is one too many."""
        text = grant.rate or self._default
        if text is None:
            return
        window = self._windows.get(grant.id)
        if window is None:
            window = self._windows[grant.id] = Window(_rate_of(text))
        wait_s = window.enter(self._clock.monotonic())
        if wait_s is not None:
            raise TooOften(f"this token's limit of {text} is reached", retry_after_s=wait_s)

    def forget_idle(self) -> None:
        """Let go of tokens that have not been used for as long as their period."""
        now = self._clock.monotonic()
        self._windows = {token: window for token, window in self._windows.items() if window.move(now)}
