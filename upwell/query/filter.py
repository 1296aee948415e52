"""Filters on metadata: one small tree that every door's language is turned into, and what it says of a column of rows.

A row that lacks a property is in no answer about it: neither equal to anything, nor within any range, and not "not equal" either unless
a language says so by ``Not``. Values of different types are never equal and have no order; true and 1 are different values. Strings
are ordered by code points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from upwell.manifest.state import DeclaredIndex
from upwell.shard.deletions import Mask
from upwell.shard.property import PropertyColumn, ValueKind
from upwell.shard.rows import written_by
from upwell.shard.segment import Segment

Scalar = str | float | bool | None


@dataclass(frozen=True, slots=True)
class Present:
    """The row has the property, if only as null."""

    path: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The row's value is one of these."""

    path: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """The row's value is a number, or a string, between two bounds of that type; None: no bound on that side."""

    path: str
    low: str | float | None = None
    high: str | float | None = None
    low_included: bool = True
    high_included: bool = True


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; so does none at all."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Present | OneOf | Within | Every | Some | Not


class Covered:
    """A filter with what is declared of the properties that it asks for, to be asked of segments one by one.

    A property with a metadata index is seen as that covers it: values of its type, and, unless ``backfill``, of rows written after it
    was created. A property without one is seen whole, as far as it takes reading every row's metadata once.
    """

    def __init__(self, asked: Filter, declared: Sequence[DeclaredIndex], *, backfill: bool) -> None:
        self._asked = asked
        self._declared = {one.index.property: one for one in declared}
        self._backfill = backfill

    def __call__(self, segment: Segment) -> Mask:
        """Which rows of a segment count: bool (rows,)."""
        return matching(self._asked, segment.rows, lambda path: self._column(segment, path))

    def _column(self, segment: Segment, path: str) -> PropertyColumn:
        column, declared = segment.property_column(path), self._declared.get(path)
        if declared is None:
            return column
        since = None
        if not self._backfill:
            since = segment.written > np.uint64(written_by(declared.position, declared.place))
        return column.covered_by(declared.index.type, since)


def paths(asked: Filter) -> Iterator[str]:
    """The properties that a filter asks for, in order, as often as it does."""
    match asked:
        case Every(parts) | Some(parts):
            for part in parts:
                yield from paths(part)
        case Not(part):
            yield from paths(part)
        case _:
            yield asked.path


def matching(asked: Filter, rows: int, column: Callable[[str], PropertyColumn]) -> Mask:
    """Which rows a filter lets through: bool (rows,). ``column`` gives a property's values."""
    match asked:
        case Every(parts):
            mask = np.ones(rows, dtype=bool)
            for part in parts:
                mask &= matching(part, rows, column)
            return mask
        case Some(parts):
            mask = np.zeros(rows, dtype=bool)
            for part in parts:
                mask |= matching(part, rows, column)
            return mask
        case Not(part):
            return ~matching(part, rows, column)
        case Present(path):
            return column(path).is_kind(*ValueKind)
        case OneOf(path, values):
            return _one_of(column(path), values)
        case Within(path):
            return _within(column(path), asked)


def _one_of(column: PropertyColumn, values: tuple[Scalar, ...]) -> Mask:
    plain = [
        ValueKind.NULL if value is None else ValueKind.TRUE if value else ValueKind.FALSE
        for value in values
        if value is None or isinstance(value, bool)
    ]
    mask = column.is_kind(*plain)
    numbers = [
        float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if numbers and column.numbers is not None:
        mask |= column.is_kind(ValueKind.NUMBER) & np.isin(column.numbers, numbers)
    words = [value for value in values if isinstance(value, str)]
    if words and column.codes is not None:
        codes = [
            code for word in words if (code := column.place_of(word)) != column.place_of(word, after=True)
        ]
        if codes:
            same = column.codes == codes[0] if len(codes) == 1 else np.isin(column.codes, codes)
            mask |= column.is_kind(ValueKind.STRING) & same
    return mask


def _within(column: PropertyColumn, asked: Within) -> Mask:
    low, high = asked.low, asked.high
    if isinstance(low, str) or isinstance(high, str):
        if column.codes is None or isinstance(low, float) or isinstance(high, float):
            return np.zeros(len(column), dtype=bool)
        mask = column.is_kind(ValueKind.STRING)
        if isinstance(low, str):
            mask &= column.codes >= column.place_of(low, after=not asked.low_included)
        if isinstance(high, str):
            mask &= column.codes < column.place_of(high, after=asked.high_included)
        return mask
    if column.numbers is None:
        return np.zeros(len(column), dtype=bool)
    mask = column.is_kind(ValueKind.NUMBER)
    if low is not None:
        mask &= column.numbers >= low if asked.low_included else column.numbers > low
    if high is not None:
        mask &= column.numbers <= high if asked.high_included else column.numbers < high
    return mask
