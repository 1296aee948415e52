"""Time, as a part that is passed in, so that a test can hold it still or turn it back.

``now`` is wall time and is only ever shown to people; every decision uses ``monotonic``.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where wall time and elapsed time come from."""

    def now(self) -> datetime:
        """Wall time in UTC: for timestamps that people read, never for ordering."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards: for every deadline, lease and grace period."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
