"""The filters that are asked, in a form of their own that every store's language is written from, and what they let through.

Rows have four properties: ``n``, every whole number below the number of rows once, shuffled; ``cat``, one of a hundred strings;
``flag``, true or false; and ``cluster``, which tells where the vector lies: a filter on it and the vectors know of one another,
which is what an index of a graph likes least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

#: A property's values, one a row: int64, str or bool.
Columns = Mapping[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]
Operator = Literal["range", "=", "!=", "in"]

CATEGORIES = 100
LISTED = 10


@dataclass(frozen=True, slots=True)
class Condition:
    """What a property must be. ``values``: one, or those of a list, or of a range its low end and the one past its high end."""

    column: str
    operator: Operator
    values: tuple[Any, ...]

    def holds(self, columns: Columns) -> Mask:
        """Which rows it lets through."""
        column, values = columns[self.column], self.values
        match self.operator:
            case "range":
                return np.asarray((column >= values[0]) & (column < values[1]))
            case "=":
                return np.asarray(column == values[0])
            case "!=":
                return np.asarray(column != values[0])
            case "in":
                return np.isin(column, values)


#: Conditions that all hold; none: everything counts.
Where = tuple[Condition, ...]


def holds(where: Where, columns: Columns, rows: int) -> Mask:
    """Which of the rows a filter lets through."""
    mask = np.ones(rows, dtype=bool)
    for condition in where:
        mask &= condition.holds(columns)
    return mask


def category(number: int) -> str:
    """A value of ``cat``."""
    return f"c{number:02d}"


def cluster(number: int) -> str:
    """A value of ``cluster``."""
    return f"k{number:02d}"


def make_columns(generator: np.random.Generator, clusters: npt.NDArray[np.int64]) -> Columns:
    """The properties of rows whose vectors lie around these centres."""
    rows = len(clusters)
    return {
        "n": generator.permutation(rows),
        "cat": np.array([category(one) for one in generator.integers(CATEGORIES, size=rows).tolist()]),
        "flag": generator.integers(2, size=rows).astype(bool),
        "cluster": np.array([cluster(one) for one in clusters.tolist()]),
    }


class Draw:
    """Makes a filter for each query: its numbers and words are drawn, so that no two queries ask for the same rows."""

    def __init__(self, generator: np.random.Generator, rows: int, clusters: int) -> None:
        self._generator = generator
        self._rows = rows
        self._clusters = clusters

    def within(self, share: float) -> Condition:
        """A range of ``n`` that lets this share of rows through."""
        width = max(1, round(self._rows * share))
        low = int(self._generator.integers(self._rows - width + 1))
        return Condition("n", "range", (low, low + width))

    def is_category(self) -> Condition:
        """One of a hundred strings."""
        return Condition("cat", "=", (category(int(self._generator.integers(CATEGORIES))),))

    def in_categories(self) -> Condition:
        """One of ten of a hundred strings."""
        drawn = self._generator.choice(CATEGORIES, LISTED, replace=False)
        return Condition("cat", "in", tuple(category(one) for one in drawn.tolist()))

    def another(self, own: int) -> str:
        """A cluster that is not the query's own."""
        return cluster((own + int(self._generator.integers(1, self._clusters))) % self._clusters)


#: By its name, how a case's filter is drawn for a query that lies in the cluster of this number.
CASES: dict[str, Callable[[Draw, int], Where]] = {
    "no filter": lambda draw, own: (),
    "n 50 %": lambda draw, own: (draw.within(0.5),),
    "n 10 %": lambda draw, own: (draw.within(0.1),),
    "n 1 %": lambda draw, own: (draw.within(0.01),),
    "n 0.1 %": lambda draw, own: (draw.within(0.001),),
    "cat = (1 %)": lambda draw, own: (draw.is_category(),),
    "cat in ten (10 %)": lambda draw, own: (draw.in_categories(),),
    "flag (50 %)": lambda draw, own: (Condition("flag", "=", (True,)),),
    "n 50 % and cat = (0.5 %)": lambda draw, own: (draw.within(0.5), draw.is_category()),
    "cluster = own (1.6 %)": lambda draw, own: (Condition("cluster", "=", (cluster(own),)),),
    "cluster != own (98.4 %)": lambda draw, own: (Condition("cluster", "!=", (cluster(own),)),),
    "cluster = another (1.6 %)": lambda draw, own: (Condition("cluster", "=", (draw.another(own),)),),
}
