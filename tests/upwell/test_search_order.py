"""The order of matches is one and the same, however many they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.query import search
from upwell.query.search import Match, in_order


@dataclass(frozen=True)
class Row:
    """As much of a row as its place in an order takes."""

    id: str
    sequence: int


def matches(rows: list[tuple[float, int, str]]) -> list[Match]:
    found: Any = Row
    return [Match(found(id, sequence), closeness) for closeness, sequence, id in rows]


CLOSE = st.sampled_from([0.0, -0.0, 0.5, -1.0, 1e300, math.inf, -math.inf])


@given(st.lists(st.tuples(CLOSE, st.integers(0, 3), st.sampled_from(["a", "b", "ä", ""]))))
def test_many_are_in_the_order_of_few(rows: list[tuple[float, int, str]]) -> None:
    given = matches(rows)
    few = in_order(given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "SORTED_AT_ONCE", 0)
        assert in_order(given) == few
