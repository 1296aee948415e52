"""What comparisons say of a column's rows: bool (rows,). Values of different types are never equal and have no order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.shard import glob, numbers
from upwell.shard.deletions import Mask
from upwell.shard.numbers import Number
from upwell.shard.property import PropertyColumn, ValueKind, numbers_column
from upwell.shard.worded import Worded

#: An int is exactly that number, a float whatever is nearest to it (``numbers.py``); 1 and true are two values.
Scalar = str | float | bool | None
Bound = str | float | None

#: More words than this are found by hashing all that the column has, and not each by itself, which takes some ten microseconds.
WORDS_LOOKED_UP_MAX: Final = 256
#: How two values of a row may be to one another, and what arithmetic makes of a number and another one.
ORDERS: Final = ("==", "!=", "<", "<=", ">", ">=")
OPERATORS: Final = ("+", "-", "*", "/", "%")


def is_number(value: Scalar) -> bool:
    """Is it a number? To Python, true is one too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_among(values: Iterable[Scalar]) -> list[int | float]:
    """Those of some values that are numbers."""
    return [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]


def one_of(column: PropertyColumn, values: tuple[Scalar, ...]) -> Mask:
    """Which rows have one of these values."""
    plain = [
        ValueKind.NULL if value is None else ValueKind.TRUE if value else ValueKind.FALSE
        for value in values
        if value is None or isinstance(value, bool)
    ]
    mask = column.is_kind(*plain)
    wanted = numbers_among(values)
    if wanted and column.exact is not None:
        mask |= column.is_kind(ValueKind.NUMBER) & numbers.among_values(column.exact, wanted)
    words = [value for value in values if isinstance(value, str)]
    if words and column.codes is not None:
        codes = _codes(column, words)
        if codes:
            same = column.codes == codes[0] if len(codes) == 1 else np.isin(column.codes, codes)
            mask |= column.is_kind(ValueKind.STRING) & same
    return mask


def _codes(column: PropertyColumn, words: list[str]) -> list[int]:
    """The codes of those of some words that the column has."""
    if len(words) <= WORDS_LOOKED_UP_MAX:
        return [
            code for word in words if (code := column.place_of(word)) != column.place_of(word, after=True)
        ]
    found: list[int] = pc.index_in(pa.array(words, pa.utf8()), value_set=column.words).drop_null().to_pylist()
    return found


def globbed(column: PropertyColumn, pattern: str) -> Mask:
    """Which rows have a string that the pattern matches whole."""
    if column.codes is None or column.words is None:
        return np.zeros(len(column), dtype=bool)
    # Codes of rows without a string mean nothing, and may lie anywhere among the words.
    return column.is_kind(ValueKind.STRING) & glob.matches(column.words, pattern)[column.codes]


def worded(column: PropertyColumn, analyzer: str, found: Callable[[pa.Array, Worded], Mask]) -> Mask:
    """Which rows have a string that ``found`` finds among the column's words, which it asks by an analyzer."""
    if column.codes is None or column.words is None:
        return np.zeros(len(column), dtype=bool)
    return column.is_kind(ValueKind.STRING) & found(column.words, column.worded.by(analyzer))[column.codes]


def within(column: PropertyColumn, low: Bound, high: Bound, *, low_in: bool, high_in: bool) -> Mask:
    """Which rows have a value between two bounds of one type, numbers unless told otherwise; bounds of two types have none between them."""
    mask = np.zeros(len(column), dtype=bool)
    if isinstance(low, str) or isinstance(high, str):
        if column.codes is None or is_number(low) or is_number(high):
            return mask
        mask = column.is_kind(ValueKind.STRING)
        if isinstance(low, str):
            mask &= column.codes >= column.place_of(low, after=not low_in)
        if isinstance(high, str):
            mask &= column.codes < column.place_of(high, after=high_in)
        return mask
    if column.exact is None:
        return mask
    mask = column.is_kind(ValueKind.NUMBER)
    if low is not None:
        mask &= numbers.above(column.exact, Number.of(low), included=low_in)
    if high is not None:
        mask &= ~numbers.above(column.exact, Number.of(high), included=not high_in)
    return mask


def calculated(column: PropertyColumn, operator: str, operand: float) -> PropertyColumn:
    """What an operation (``numbers.calculated``) makes of the rows' numbers, as a column of numbers."""
    there = column.is_kind(ValueKind.NUMBER)
    if column.exact is None:
        return numbers_column(numbers.Numbers(np.zeros(len(column))), there)
    results, made = numbers.calculated(column.exact, operator, operand)
    return numbers_column(results, there & made)


def compared(left: PropertyColumn, order: str, right: PropertyColumn) -> Mask:
    """Which rows have two numbers, or two strings, that are so to one another."""
    mask = np.zeros(len(left), dtype=bool)
    if left.exact is not None and right.exact is not None:
        both = left.is_kind(ValueKind.NUMBER) & right.is_kind(ValueKind.NUMBER)
        less, equal = numbers.less(left.exact, right.exact), numbers.equal(left.exact, right.exact)
        mask |= both & _in_order(less, equal, order)
    if left.codes is not None and right.codes is not None:
        both = left.is_kind(ValueKind.STRING) & right.is_kind(ValueKind.STRING)
        mine, theirs = _ranks(left, right)
        mask |= both & _in_order(mine < theirs, mine == theirs, order)
    return mask


def _in_order(less: Mask, equal: Mask, order: str) -> Mask:
    match order:
        case "==":
            return equal
        case "!=":
            return ~equal
        case "<":
            return less
        case "<=":
            return less | equal
        case ">":
            return ~(less | equal)
        case ">=":
            return ~less
    raise ValueError(f"no order: {order}")


def _ranks(
    left: PropertyColumn, right: PropertyColumn
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The rows' strings as places among the words of both columns."""
    words = pc.unique(pa.concat_arrays([left.words, right.words]))
    words = words.take(pc.sort_indices(words))
    mine, theirs = (
        pc.index_in(column.words, value_set=words).to_numpy()[column.codes] for column in (left, right)
    )
    return mine, theirs
