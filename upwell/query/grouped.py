"""The best rows of each of the best groups: rows that have one value at a property are a group.

It is a search that goes on: what the groups that are full have besides is left out of it, so each time it finds rows that are needed, or
there are none left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upwell.query.scope import RowFilter
from upwell.query.search import Match, in_order
from upwell.shard.deletions import Mask
from upwell.shard.numbers import Number, among
from upwell.shard.property import PropertyColumn, ValueKind
from upwell.shard.segment import Segment

#: The best so many of the rows that a filter leaves (None: of all), best first, equals as ``in_order`` says; fewer only if there are no more.
Ask = Callable[[int, RowFilter | None], list[Match]]

#: How many rows are asked for at first, at least and at most, and by how much more each time.
FIRST = 64
FIRST_MOST = 32_768
GROWTH = 4

#: What rows have that have no string, number or boolean there.
NOTHING = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """At most ``size`` rows of each of the best ``groups`` groups by the property at ``path``.

    A group is as good as its best row. Strings, exact numbers and booleans are values; rows that have nothing there, null, an array or an
    object are one group together, or are in that of the value ``nothing``. ``strict``: each group has as many rows as there are, up to
    ``size``; else a group need not have rows that are worse than the best one of the last group.
    """

    path: str
    groups: int
    size: int = 1
    strict: bool = False
    nothing: bool | int | float | str | None = None

    @property
    def of_nothing(self) -> Hashable:
        """The value of the group that rows are in which have nothing there."""
        given = self.nothing
        return Number.of(given) if isinstance(given, int | float) and not isinstance(given, bool) else given

    def __post_init__(self) -> None:
        if self.groups < 1 or self.size < 1:
            raise ValueError("a grouping without rows")


def search_grouped(ask: Ask, grouping: Grouping, within: RowFilter | None = None) -> list[list[Match]]:
    """The groups, best first, each with its rows, best first; fewer than asked for if there are no more. ``ask`` may be asked several times,
    of one view; ``within`` says which rows count. Blocking.

    Which groups are best is exactly as true as what ``ask`` answers.
    """
    groups, left = _Groups(grouping), _Left(grouping, within)
    first = count = max(FIRST, min(FIRST_MOST, 2 * grouping.groups * grouping.size))
    there_are_more = groups.add(ask(count, within)) == count
    while there_are_more and len(groups) < grouping.groups:
        count *= GROWTH
        there_are_more = groups.add(ask(count, left.but(groups.full()))) == count
    groups.keep_best()
    count = first
    while there_are_more and grouping.strict and (wanting := groups.wanting()):
        there_are_more = groups.add(ask(count, left.of(wanting))) == count
        count *= GROWTH
    return groups.ranked()


def grouped(matches: Sequence[Match], grouping: Grouping) -> list[list[Match]]:
    """The same of a ranking that is there already, best first."""
    groups = _Groups(grouping)
    groups.add(matches)
    return groups.ranked()


class _Groups:
    """The groups found so far."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._rows: dict[Hashable, list[Match]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, matches: Sequence[Match]) -> int:
        """Some more rows, or the same ones again. Returns how many that were."""
        touched: dict[Hashable, list[Match]] = {}
        of_nothing = self._grouping.of_nothing
        for match in matches:
            column = match.found.segment.property_column(self._grouping.path)
            value = _value(column, match.found.row)
            touched.setdefault(of_nothing if value is NOTHING else value, []).append(match)
        for value, rows in touched.items():
            every = {
                (one.found.segment.id, one.found.row): one for one in [*self._rows.get(value, ()), *rows]
            }
            self._rows[value] = in_order(list(every.values()))[: self._grouping.size]
        return len(matches)

    def full(self) -> list[Hashable]:
        """The values of groups that need no more rows."""
        return [value for value, rows in self._rows.items() if len(rows) == self._grouping.size]

    def wanting(self) -> list[Hashable]:
        """The values of groups that do."""
        return [value for value, rows in self._rows.items() if len(rows) < self._grouping.size]

    def keep_best(self) -> None:
        """Forget the groups that are too many."""
        firsts = {id(rows[0]): value for value, rows in self._rows.items()}
        best = in_order([rows[0] for rows in self._rows.values()])[: self._grouping.groups]
        self._rows = {firsts[id(one)]: self._rows[firsts[id(one)]] for one in best}

    def ranked(self) -> list[list[Match]]:
        """The best groups, best first."""
        self.keep_best()
        return list(self._rows.values())


class _Left:
    """Filters that leave the rows of some groups, or those of all others. What ``within`` says of a segment is found out once."""

    def __init__(self, grouping: Grouping, within: RowFilter | None) -> None:
        self._path, self._of_nothing = grouping.path, grouping.of_nothing
        self._within = within
        self._masks: dict[str, Mask] = {}

    def but(self, values: Iterable[Hashable]) -> RowFilter:
        """All rows but those of the groups of these values."""
        gone = list(values)
        return lambda segment: self._base(segment) & ~self._with(segment, gone)

    def of(self, values: Iterable[Hashable]) -> RowFilter:
        """The rows of these groups."""
        wanted = list(values)
        return lambda segment: self._base(segment) & self._with(segment, wanted)

    def _base(self, segment: Segment) -> Mask:
        mask = self._masks.get(segment.id)
        if mask is None:
            mask = np.ones(segment.rows, dtype=bool) if self._within is None else self._within(segment)
            self._masks[segment.id] = mask
        return mask

    def _with(self, segment: Segment, values: list[Hashable]) -> Mask:
        """Which rows of a segment have one of these values."""
        column = segment.property_column(self._path)
        mask = np.zeros(len(column), dtype=bool)
        numbers = [value for value in values if isinstance(value, Number)]
        if column.exact is not None and numbers:
            mask |= column.is_kind(ValueKind.NUMBER) & among(column.exact, numbers)
        if column.words is not None and column.codes is not None:
            texts = pa.array([value for value in values if isinstance(value, str)], pa.utf8())
            codes = pc.index_in(texts, value_set=column.words).drop_null().to_numpy()
            mask |= column.is_kind(ValueKind.STRING) & np.isin(column.codes, codes)
        for value, kind in ((True, ValueKind.TRUE), (False, ValueKind.FALSE)):
            if any(value is one for one in values):
                mask |= column.is_kind(kind)
        if self._of_nothing in values:
            mask |= ~column.is_kind(ValueKind.STRING, ValueKind.NUMBER, ValueKind.TRUE, ValueKind.FALSE)
        return mask


def _value(column: PropertyColumn, row: int) -> Hashable:
    """A row's value: a string, an exact number, a boolean, or NOTHING."""
    match ValueKind(int(column.kinds[row])):
        case ValueKind.STRING:
            assert column.words is not None
            assert column.codes is not None
            return str(column.words[int(column.codes[row])].as_py())
        case ValueKind.NUMBER:
            assert column.numbers is not None
            rest = 0 if column.rests is None else int(column.rests[row])
            return Number(float(column.numbers[row]), rest)
        case ValueKind.TRUE:
            return True
        case ValueKind.FALSE:
            return False
        case _:
            return NOTHING
