"""How long a question may take: nobody else is served by the thread that looks for its answer."""

from __future__ import annotations

from upwell.clock import Clock
from upwell.errors import Invalid


class Patience:
    """For one question, which may be asked again and again."""

    def __init__(self, clock: Clock, most_s: float) -> None:
        self._clock = clock
        self._most_s = most_s
        self.begin()

    def begin(self) -> None:
        """It is asked, from now on."""
        self._until = self._clock.monotonic() + self._most_s

    def check(self) -> None:
        """Raise Invalid if it has taken too long."""
        if self._clock.monotonic() > self._until:
            raise Invalid(
                f"filter: it takes more than {self._most_s:g} s here; expected one with less to compare"
            )
