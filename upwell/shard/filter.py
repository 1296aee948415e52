"""Filters on metadata: one small tree that every door's language is turned into, and what it says of rows.

A row that lacks a property is in no answer about it: neither equal to anything, nor within any range, and not "not equal" either unless
a language says so by ``Not``. Values of different types are never equal and have no order; true and 1 are different values. Strings
are ordered by code points. What a path may be is told in ``upwell/properties.py``.

A delete by filter travels in the log, so the tree has a form as JSON, which must never change its meaning: a list that begins with a word.

    ["has", path]                                 Present
    ["in", path, value, …]                        OneOf
    ["contains", path, value, …]                  Contains
    ["within", path, low, high, low_included, high_included]    Within; null: no bound
    ["glob", path, pattern]                       Glob
    ["and", part, …]  ["or", part, …]             Every, Some
    ["not", part]                                 Not
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from upwell.errors import Corrupt
from upwell.format import blaming
from upwell.manifest.state import DeclaredIndex
from upwell.shard.deletions import Mask
from upwell.shard.glob import GLOB_CHARACTERS_MAX, matches
from upwell.shard.property import ElementsColumn, PropertyColumn, ValueKind, columns_of, elements_of
from upwell.shard.rows import written_by
from upwell.shard.segment import Segment

#: How deep filters may lie within filters: a plain one is 1 deep. As JSON they stay well within what parsers take.
FILTER_DEPTH_MAX: Final = 100

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
class Contains:
    """The row's value is an array with one of these in it."""

    path: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Glob:
    """The row's value is a string that the pattern matches whole (``glob.py``)."""

    path: str
    pattern: str


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


@dataclass(frozen=True, slots=True)
class OfId:
    """The comparison holds of the row's id. To numbers it is the integer that it is written as, if it is one of 64 bits."""

    part: OneOf | Within | Glob


@dataclass(frozen=True, slots=True)
class Length:
    """The comparison holds of how many elements the row's array has."""

    path: str
    part: OneOf | Within


@dataclass(frozen=True, slots=True)
class Calculated:
    """The comparison holds of what ``operator`` (one of + - * / %) makes of the row's number and ``operand``."""

    path: str
    operator: str
    operand: float
    part: OneOf | Within


@dataclass(frozen=True, slots=True)
class Compared:
    """Two of the row's own values, both numbers or both strings, are so to one another: ``order`` is one of == != < <= > >=."""

    path: str
    order: str
    other: str


Leaf = Present | OneOf | Contains | Glob | Within | Length | Calculated | Compared
Filter = Leaf | OfId | Every | Some | Not


class Columns(Protocol):
    """Rows that can be asked what they have at a property."""

    def column(self, path: str) -> PropertyColumn:
        """The values at ``path``, one per row."""

    def elements(self, path: str) -> ElementsColumn:
        """What is in the arrays at ``path``."""


class MetadataColumns:
    """The columns of rows that are in no segment: read from their metadata, each property once. Raises Corrupt if that is no JSON."""

    def __init__(self, metadata: pa.Array | None, rows: int) -> None:
        """``metadata``: JSON as Arrow binary with nulls, or None when no row has any."""
        self._metadata = metadata
        self._rows = rows
        self._columns: dict[str, PropertyColumn] = {}
        self._elements: dict[str, ElementsColumn] = {}

    def column(self, path: str) -> PropertyColumn:
        """The values at ``path``, one per row."""
        if path not in self._columns:
            with blaming(""):
                (self._columns[path],) = columns_of(self._metadata, self._rows, [path])
        return self._columns[path]

    def elements(self, path: str) -> ElementsColumn:
        """What is in the arrays at ``path``."""
        if path not in self._elements:
            with blaming(""):
                self._elements[path] = elements_of(self._metadata, self._rows, path)
        return self._elements[path]


class Covered:
    """A filter with what is declared of the properties that it asks for, to be asked of segments one by one.

    A property with a metadata index is seen as that covers it: values of its type, and, unless ``backfill``, of rows written after it
    was created. A property without one is seen whole, as far as it takes reading every row's metadata once.
    """

    def __init__(
        self,
        asked: Filter,
        declared: Sequence[DeclaredIndex],
        *,
        backfill: bool,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """``go_on`` is called before each comparison, and may raise to end it."""
        self._asked = asked
        self._go_on = go_on
        self._declared = {one.index.property: one for one in declared}
        self._backfill = backfill

    def __call__(self, segment: Segment) -> Mask:
        """Which rows of a segment count: bool (rows,)."""
        columns = _CoveredColumns(segment, self._declared, self._backfill, self._go_on)
        return matching(self._asked, segment.rows, columns)


@dataclass(frozen=True, slots=True)
class _CoveredColumns:
    """A segment's columns as indexes see them."""

    segment: Segment
    declared: Mapping[str, DeclaredIndex]
    backfill: bool
    go_on: Callable[[], None]

    def column(self, path: str) -> PropertyColumn:
        self.go_on()
        column, declared = self.segment.property_column(path), self.declared.get(path)
        if declared is None:
            return column
        since = None
        if not self.backfill:
            since = self.segment.written > np.uint64(written_by(declared.position, declared.place))
        return column.covered_by(declared.index.type, since)

    def elements(self, path: str) -> ElementsColumn:
        self.go_on()
        # No index covers arrays, so none can hide any.
        return self.segment.elements_column(path)


def leaves(asked: Filter) -> Iterator[Leaf]:
    """What a filter compares, in order, as often as it does."""
    match asked:
        case Every(parts) | Some(parts):
            for part in parts:
                yield from leaves(part)
        case Not(part):
            yield from leaves(part)
        case _:
            yield asked


def paths(asked: Filter) -> Iterator[str]:
    """The properties that a filter asks for, in order, as often as it does."""
    return (leaf.path for leaf in leaves(asked))


def depth(asked: Filter) -> int:
    """How deep filters lie within this one; any depth can be asked for."""
    deepest, waiting = 0, [(asked, 1)]
    while waiting:
        one, level = waiting.pop()
        deepest = max(deepest, level)
        match one:
            case Every(parts) | Some(parts):
                waiting += [(part, level + 1) for part in parts]
            case Not(part):
                waiting.append((part, level + 1))
    return deepest


def matching(asked: Filter, rows: int, columns: Columns) -> Mask:
    """Which of so many rows a filter lets through: bool (rows,). ``columns`` says what they have."""
    match asked:
        case Every(parts):
            mask = np.ones(rows, dtype=bool)
            for part in parts:
                mask &= matching(part, rows, columns)
            return mask
        case Some(parts):
            mask = np.zeros(rows, dtype=bool)
            for part in parts:
                mask |= matching(part, rows, columns)
            return mask
        case Not(part):
            return ~matching(part, rows, columns)
        case Present(path):
            return columns.column(path).is_kind(*ValueKind)
        case OneOf(path, values):
            return _one_of(columns.column(path), values)
        case Contains(path, values):
            elements = columns.elements(path)
            return elements.having(_one_of(elements.values, values))
        case Glob(path, pattern):
            return _glob(columns.column(path), pattern)
        case Within(path):
            return _within(columns.column(path), asked)


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


def _glob(column: PropertyColumn, pattern: str) -> Mask:
    if column.codes is None or column.words is None:
        return np.zeros(len(column), dtype=bool)
    # Codes of rows without a string mean nothing, and may lie anywhere among the words.
    return column.is_kind(ValueKind.STRING) & matches(column.words, pattern)[column.codes]


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


def filter_to_json(asked: Filter) -> list[Any]:
    """The filter's form as JSON."""
    match asked:
        case Present(path):
            return ["has", path]
        case OneOf(path, values):
            return ["in", path, *values]
        case Contains(path, values):
            return ["contains", path, *values]
        case Glob(path, pattern):
            return ["glob", path, pattern]
        case Within(path, low, high, low_included, high_included):
            return ["within", path, low, high, low_included, high_included]
        case Every(parts):
            return ["and", *map(filter_to_json, parts)]
        case Some(parts):
            return ["or", *map(filter_to_json, parts)]
        case Not(part):
            return ["not", filter_to_json(part)]


def filter_from_json(data: Any) -> Filter:
    """The filter that was written as ``data``. Raises Corrupt if it is none, or deeper than FILTER_DEPTH_MAX."""
    return _from_json(data, FILTER_DEPTH_MAX)


def _from_json(data: Any, depth_left: int) -> Filter:
    if depth_left == 0:
        raise Corrupt("a filter is too deep", max=FILTER_DEPTH_MAX)
    match data:
        case ["has", str(path)]:
            return Present(path)
        case ["in", str(path), *values]:
            return OneOf(path, tuple(_scalar(value) for value in values))
        case ["contains", str(path), *values]:
            return Contains(path, tuple(_scalar(value) for value in values))
        case ["glob", str(path), str(pattern)] if len(pattern) <= GLOB_CHARACTERS_MAX:
            return Glob(path, pattern)
        case ["within", str(path), low, high, bool(low_included), bool(high_included)]:
            return _within_from_json(path, _scalar(low), _scalar(high), low_included, high_included)
        case ["and", *parts]:
            return Every(tuple(_from_json(part, depth_left - 1) for part in parts))
        case ["or", *parts]:
            return Some(tuple(_from_json(part, depth_left - 1) for part in parts))
        case ["not", part]:
            return Not(_from_json(part, depth_left - 1))
    raise Corrupt("expected a filter", got=repr(data)[:64])


def _scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = inf
        if isfinite(number):
            return number
    raise Corrupt("expected a value that a filter can compare", got=repr(value)[:64])


def _within_from_json(
    path: str, low: Scalar, high: Scalar, low_included: bool, high_included: bool
) -> Within:
    if isinstance(low, bool) or isinstance(high, bool):
        raise Corrupt("expected bounds of a filter", got=repr([low, high])[:64])
    return Within(path, low, high, low_included, high_included)
