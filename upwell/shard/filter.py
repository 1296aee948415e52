"""Filters on metadata: one small tree that every door's language is turned into, and what it says of rows.

A row that lacks a property is in no answer about it: neither equal to anything, nor within any range, and not "not equal" either unless
a language says so by ``Not``. Values of different types are never equal and have no order; true and 1 are different values. Strings
are ordered by code points. What a path may be is told in ``upwell/properties.py``.

An int in the tree means exactly that integer, up to 64 bits; a float means all that is nearest to that double, and beyond 2^53 that is
several integers. 1 and 1.0 say the same. Ids are texts; a comparison with a number sees the integer that one is written as (``identified.py``).

How a tree is written in the log is told in ``filter_json.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from upwell.format import blaming
from upwell.manifest.state import DeclaredIndex
from upwell.shard import glob, numbers
from upwell.shard.comparing import (
    Bound,
    Scalar,
    calculated,
    compared,
    globbed,
    is_number,
    numbers_among,
    one_of,
    within,
    worded,
)
from upwell.shard.deletions import Mask
from upwell.shard.identified import IntegerIds, is_above, is_one_of, written_as
from upwell.shard.property import (
    ElementsColumn,
    PropertyColumn,
    ValueKind,
    columns_of,
    elements_of,
    numbers_column,
)
from upwell.shard.rows import written_by
from upwell.shard.segment import Segment
from upwell.shard.worded import GoOn

#: How deep filters may lie within filters: a plain one is 1 deep. As JSON they stay well within what parsers take.
FILTER_DEPTH_MAX: Final = 100


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
    low: Bound = None
    high: Bound = None
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
    """The comparison, whose path is "", holds of the row's id. To numbers it is the integer that it is written as, if it is one of 64 bits."""

    part: OneOf | Within | Glob


@dataclass(frozen=True, slots=True)
class Length:
    """The comparison, whose path is "", holds of how many elements the row's array has."""

    path: str
    part: OneOf | Within


@dataclass(frozen=True, slots=True)
class Calculated:
    """The comparison, whose path is "", holds of what ``operator`` (one of + - * / %) makes of the row's number and ``operand``.

    An operand that is an int calculates with whole numbers of rows as C does: 7 / 2 is 3, -7 / 2 is -3, -7 % 2 is -1. One that is a
    float, such as 2.0, calculates with doubles: 7 / 2.0 is 3.5. So do numbers that are not whole. Division by zero gives nothing.
    """

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


@dataclass(frozen=True, slots=True)
class HasWords:
    """The row's value is a text that has at least ``least`` of these terms, of which one that is given twice counts twice.

    ``analyzer``: how a text is told apart into terms (``upwell/text/analyzer.py``), as canonical JSON. The terms are its, too.
    """

    path: str
    analyzer: str
    terms: tuple[str, ...]
    least: int = 1


@dataclass(frozen=True, slots=True)
class HasPhrase:
    """The row's value is a text that says a phrase (``worded.py``): terms, each with its position in the phrase."""

    path: str
    analyzer: str
    phrase: tuple[tuple[int, str], ...]
    slop: int = 0


Leaf = (
    Present | OneOf | Contains | Glob | Within | OfId | Length | Calculated | Compared | HasWords | HasPhrase
)
Filter = Leaf | Every | Some | Not


class Columns(Protocol):
    """Rows that can be asked what they have at a property."""

    def column(self, path: str) -> PropertyColumn:
        """The values at ``path``, one per row."""

    def elements(self, path: str) -> ElementsColumn:
        """What is in the arrays at ``path``."""

    @property
    def ids(self) -> pa.Array:
        """The ids: utf8, one per row."""

    @property
    def integer_ids(self) -> IntegerIds:
        """The integers that they are written as."""

    @property
    def go_on(self) -> GoOn:
        """To be called now and then by what takes long; it may raise to end that."""


class MetadataColumns:
    """The columns of rows that are in no segment: read from their metadata, each property once. Raises Corrupt if that is no JSON."""

    def __init__(
        self, metadata: pa.Array | None, rows: int, ids: pa.Array | None = None, go_on: GoOn = lambda: None
    ) -> None:
        """``metadata``: JSON as Arrow binary with nulls, or None when no row has any. ``ids``: utf8, if they may be asked for."""
        self.go_on = go_on
        self._metadata = metadata
        self._ids = ids
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

    @property
    def ids(self) -> pa.Array:
        """The ids: utf8, one per row."""
        if self._ids is None:
            raise ValueError("rows without ids are asked for theirs")
        return self._ids

    @property
    def integer_ids(self) -> IntegerIds:
        """The integers that they are written as."""
        return IntegerIds.of(self.ids)


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
        go_on: GoOn = lambda: None,
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
    go_on: GoOn

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

    @property
    def ids(self) -> pa.Array:
        self.go_on()
        return self.segment.ids

    @property
    def integer_ids(self) -> IntegerIds:
        self.go_on()
        return self.segment.integer_ids


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
        case _:
            return _of_leaf(asked, columns)


def _of_leaf(asked: Leaf, columns: Columns) -> Mask:
    match asked:
        case Present(path):
            return columns.column(path).is_kind(*ValueKind)
        case OfId(part):
            return _of_id(part, columns)
        case Contains(path, values):
            elements = columns.elements(path)
            return elements.having(one_of(elements.values, values))
        case Length(path, part):
            return _comparing(part, columns.elements(path).lengths())
        case Calculated(path, operator, operand, part):
            return _comparing(part, calculated(columns.column(path), operator, operand))
        case Compared(path, order, other):
            return compared(columns.column(path), order, columns.column(other))
        case HasWords(path, analyzer, terms, least):
            return worded(
                columns.column(path),
                analyzer,
                lambda words, kept: kept.having(words, terms, least, columns.go_on),
            )
        case HasPhrase(path, analyzer, phrase, slop):
            return worded(
                columns.column(path),
                analyzer,
                lambda words, kept: kept.saying(words, phrase, slop, columns.go_on),
            )
        case OneOf(path) | Glob(path) | Within(path):
            return _comparing(asked, columns.column(path))


def _comparing(asked: OneOf | Within | Glob, column: PropertyColumn) -> Mask:
    """What a comparison says of a column, whatever its path."""
    match asked:
        case OneOf(_, values):
            return one_of(column, values)
        case Glob(_, pattern):
            return globbed(column, pattern)
        case Within(_, low, high, low_in, high_in):
            return within(column, low, high, low_in=low_in, high_in=high_in)


def _of_id(asked: OneOf | Within | Glob, columns: Columns) -> Mask:
    """What a comparison says of ids. Only ranges of numbers need them as integers."""
    match asked:
        case OneOf(_, values):
            texts = [value for value in values if isinstance(value, str)]
            asked_for = numbers_among(values)
            written = [one for one in map(written_as, asked_for) if one is not None]
            mask = is_one_of(columns.ids, texts + written)
            # A large double stands for many integers.
            large = [one for one in asked_for if isinstance(one, float) and abs(one) >= numbers.ROUNDED_FROM]
            return mask | one_of(_integers(columns), tuple(large)) if large else mask
        case Glob(_, pattern):
            return glob.matches(columns.ids, pattern)
        case Within(_, low, high) if isinstance(low, str) or isinstance(high, str):
            mask = np.full(len(columns.ids), not (is_number(low) or is_number(high)))
            if isinstance(low, str):
                mask &= is_above(columns.ids, low, included=asked.low_included)
            if isinstance(high, str):
                mask &= ~is_above(columns.ids, high, included=not asked.high_included)
            return mask
        case Within():
            return _comparing(asked, _integers(columns))


def _integers(columns: Columns) -> PropertyColumn:
    """Ids as numbers, where they are integers."""
    found = columns.integer_ids
    return numbers_column(numbers.from_integers(found.values), found.there)
