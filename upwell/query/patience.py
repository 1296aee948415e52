"""How long a question may take: nobody else is served by the thread that looks for its answer."""

from __future__ import annotations

from typing import Final

from upwell.clock import Clock
from upwell.errors import Invalid

#: What is said of a filter that takes too long, after how long that is.
FILTER: Final = "filter: it takes more than {} s here; expected one with less to compare"


class Patience:
    """For one question, which may be asked again and again."""

    def __init__(self, clock: Clock, most_s: float, says: str = FILTER) -> None:
        """``says``: of a question that takes too long; the seconds are put into it."""
        self._clock = clock
        self._most_s = most_s
        self._says = says
        self.begin()

    def begin(self) -> None:
        """It is asked, from now on."""
        self._until = self._clock.monotonic() + self._most_s

    def check(self) -> None:
        """Raise Invalid if it has taken too long."""
        if self._clock.monotonic() > self._until:
            raise Invalid(self._says.format(f"{self._most_s:g}"))
