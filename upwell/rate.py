"""How often something may be done, in the notation that rate limits are commonly written in: ``1200/5minutes``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

UNIT_S = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
NOTATION = re.compile(
    r"\s*(?P<amount>[1-9]\d{0,8})\s*(/|\s+per\s+)\s*(?P<units>[1-9]\d{0,5})?\s*(?P<unit>second|minute|hour|day)s?\s*",
    re.ASCII | re.IGNORECASE,
)
PERIOD_S_MAX = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``amount`` times in any ``period_s`` seconds."""

    amount: int
    period_s: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """The rate that ``text`` stands for, such as ``10/second`` or ``1200 per 5 minutes``. Raises ValueError."""
        found = NOTATION.fullmatch(text)
        if found is None:
            raise ValueError(
                f"expected a rate such as 10/second or 1200/5minutes (second, minute, hour or day), got {text[:64]!r}"
            )
        period_s = int(found["units"] or 1) * UNIT_S[found["unit"].lower()]
        if period_s > PERIOD_S_MAX:
            raise ValueError(f"expected a rate over at most {PERIOD_S_MAX // 86_400} days, got {text[:64]!r}")
        return cls(int(found["amount"]), period_s)


def _checked(text: str) -> str:
    Rate.parse(text)
    return text


#: A field of a model that holds a rate as it was written.
RateText = Annotated[str, AfterValidator(_checked)]
