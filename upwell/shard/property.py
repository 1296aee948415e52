"""One property of many rows as typed columns, so that a filter is a few vectorised comparisons and parses no JSON.

Strings are numbers into a sorted dictionary: equality is one comparison of integers, and a range of strings a range of numbers. They
are ordered by their UTF-8 bytes, which is the order of their code points. Numbers are exact (``numbers.py``): doubles, and where one is
2^53 or more a second column with what integers have beyond theirs.

    Arrow IPC stream: kind uint8, number float64?, rest int16?, string dictionary?

A column of before there were rests has none, whatever its numbers: then it is ``rounded``, and the metadata says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from upwell.columns import decode_batch, encode_batch
from upwell.properties import ABSENT, PropertyType, value_at
from upwell.shard.deletions import Mask
from upwell.shard.numbers import ROUNDED_FROM, Doubles, Number, Numbers, Rests
from upwell.shard.worded import WordedBy


class ValueKind(IntEnum):
    """What a row has at a property. Numbers are on disk: never reuse one."""

    ABSENT = 0
    NULL = 1
    FALSE = 2
    TRUE = 3
    NUMBER = 4
    STRING = 5
    #: An array or an object: no filter compares these.
    OTHER = 6


#: Rows whose metadata is decoded at a time: all of it at once would take many times its size.
READ_AT_ONCE = 16_384

Kinds = npt.NDArray[np.uint8]

#: The kinds of values that an index of a type covers.
COVERED = {
    PropertyType.STRING: frozenset({ValueKind.NULL, ValueKind.STRING}),
    PropertyType.NUMBER: frozenset({ValueKind.NULL, ValueKind.NUMBER}),
    PropertyType.BOOLEAN: frozenset({ValueKind.NULL, ValueKind.FALSE, ValueKind.TRUE}),
}


@dataclass(frozen=True, eq=False)
class PropertyColumn:
    """A property's values, one per row.

    ``kinds``    uint8 (rows,): ValueKind
    ``present``  the kinds that count: others are as good as absent, and no row need have one
    ``numbers``  float64 (rows,), meaningless where the kind is not NUMBER; None if no row has one
    ``rests``    int16 (rows,): what integers have beyond their doubles; None if no number is as large as 2^53
    ``codes``    int32 (rows,): places in ``words``, meaningless where the kind is not STRING; None if no row has one
    ``words``    Arrow utf8, ascending by bytes, each once; None if no row has one
    ``since``    bool (rows,): rows that count; None for all
    ``worded``   what is known of the terms that are in ``words``; it grows as it is asked for
    """

    kinds: Kinds
    present: frozenset[ValueKind]
    numbers: Doubles | None = None
    codes: npt.NDArray[np.int32] | None = None
    words: pa.Array | None = None
    since: Mask | None = None
    rests: Rests | None = None
    worded: WordedBy = field(default_factory=WordedBy)

    def __len__(self) -> int:
        return len(self.kinds)

    def is_kind(self, *kinds: ValueKind) -> Mask:
        """Which rows have a value of one of these kinds, as far as it is covered."""
        there = [kind for kind in kinds if kind in self.present]
        if not there:
            return np.zeros(len(self), dtype=bool)
        mask = np.asarray(self.kinds == there[0])
        for kind in there[1:]:
            mask |= self.kinds == kind
        return mask if self.since is None else mask & self.since

    @property
    def exact(self) -> Numbers | None:
        """The numbers, meaningless where the kind is not NUMBER; None if no row has one."""
        return None if self.numbers is None else Numbers(self.numbers, self.rests)

    @property
    def rounded(self) -> bool:
        """May it have integers of which only the nearest double is known?"""
        return self.rests is None and self.numbers is not None and _has_large(self.numbers)

    def place_of(self, word: str, *, after: bool = False) -> int:
        """Where ``word`` is among the words or would be; with ``after``, the place past it."""
        assert self.words is not None
        low, high, wanted = 0, len(self.words), word.encode()
        while low < high:
            middle = (low + high) // 2
            here = self.words[middle].as_py().encode()
            if here < wanted or (after and here == wanted):
                low = middle + 1
            else:
                high = middle
        return low

    def covered_by(self, kind: PropertyType, since: Mask | None = None) -> PropertyColumn:
        """The column as an index sees it: values of another type, and rows that are not in ``since``, are absent."""
        return replace(self, present=self.present & COVERED[kind], since=since)


@dataclass(frozen=True, eq=False)
class ElementsColumn:
    """What is in the arrays that rows have at a property: the elements of all rows, one after the other.

    ``rows``    how many rows there are; one whose value is no array has no elements
    ``owners``  int64 (elements,): the row of each element, ascending
    ``values``  the elements, as if each were a row
    ``arrays``  bool (rows,): which rows have an array, if only an empty one
    """

    rows: int
    owners: npt.NDArray[np.int64]
    values: PropertyColumn
    arrays: Mask

    def __len__(self) -> int:
        return self.rows

    def lengths(self) -> PropertyColumn:
        """How many elements each array has, as a column of numbers; rows without one have nothing."""
        counts = np.bincount(self.owners, minlength=self.rows).astype(np.float64)
        return numbers_column(Numbers(counts), self.arrays)

    def having(self, elements: Mask) -> Mask:
        """Which rows have one of these elements; ``elements``: bool (elements,)."""
        mask = np.zeros(self.rows, dtype=bool)
        mask[self.owners[elements]] = True
        return mask


def _column(
    kinds: Kinds,
    numbers: npt.NDArray[np.float64] | None = None,
    codes: npt.NDArray[np.int32] | None = None,
    words: pa.Array | None = None,
    rests: Rests | None = None,
) -> PropertyColumn:
    present = frozenset(kind for kind in ValueKind if kind is not ValueKind.ABSENT and (kinds == kind).any())
    return PropertyColumn(kinds, present, numbers, codes, words, rests=rests)


def numbers_column(numbers: Numbers, there: Mask) -> PropertyColumn:
    """A column of numbers alone, where ``there`` says that there is one."""
    kinds = np.where(there, np.uint8(ValueKind.NUMBER), np.uint8(ValueKind.ABSENT))
    return PropertyColumn(kinds, frozenset({ValueKind.NUMBER}), numbers.doubles, rests=numbers.rests)


def _has_large(numbers: Doubles) -> bool:
    return bool((np.abs(numbers) >= ROUNDED_FROM).any())


def columns_of(metadata: pa.Array | None, rows: int, paths: Sequence[str]) -> list[PropertyColumn]:
    """The properties at ``paths`` of rows with this metadata: Arrow ``binary`` holding JSON objects, with nulls, or None."""
    if metadata is None:
        return [_column(np.zeros(rows, np.uint8)) for _ in paths]
    pieces: list[list[_Piece]] = [[] for _ in paths]
    for _, documents in _documents(metadata, rows):
        for place, path in enumerate(paths):
            pieces[place].append(_piece([value_at(document, path) for document in documents]))
    return [_joined(one) for one in pieces]


def elements_of(metadata: pa.Array | None, rows: int, path: str) -> ElementsColumn:
    """What is in the arrays at ``path`` of rows with this metadata (as of ``columns_of``)."""
    pieces: list[_Piece] = []
    owners = [np.zeros(0, np.int64)]
    there = np.zeros(rows, dtype=bool)
    for start, documents in () if metadata is None else _documents(metadata, rows):
        values = [value_at(one, path) for one in documents]
        end = start + len(values)
        there[start:end] = [isinstance(value, list) for value in values]
        arrays = [value if isinstance(value, list) else [] for value in values]
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        owners.append(np.repeat(np.arange(start, end), lengths))
        pieces.append(_piece([element for array in arrays for element in array]))
    return ElementsColumn(rows, np.concatenate(owners), _joined(pieces), there)


def _documents(metadata: pa.Array, rows: int) -> Iterator[tuple[int, list[Any]]]:
    """The decoded metadata of so many rows at a time, and which row is the first of them."""
    for start in range(0, rows, READ_AT_ONCE):
        texts = metadata.slice(start, READ_AT_ONCE).to_pylist()
        yield start, [None if text is None else orjson.loads(text) for text in texts]


class _Piece(NamedTuple):
    """Some rows: kinds of all; numbers and strings of those that have one, in order. Arrays only: decoded values take many times as much."""

    kinds: Kinds
    doubles: Doubles
    rests: Rests | None
    texts: pa.Array


def _piece(values: Sequence[Any]) -> _Piece:
    kinds = np.fromiter(map(_kind, values), np.uint8, len(values))
    numbers = [values[place] for place in np.flatnonzero(kinds == ValueKind.NUMBER).tolist()]
    doubles = np.array([float(number) for number in numbers], np.float64)
    rests = None
    if _has_large(doubles):
        rests = np.array([Number.of(number).rest or 0 for number in numbers], np.int16)
    texts = [values[place] for place in np.flatnonzero(kinds == ValueKind.STRING).tolist()]
    return _Piece(kinds, doubles, rests, pa.array(texts, pa.utf8()))


def _joined(pieces: Sequence[_Piece]) -> PropertyColumn:
    kinds = np.concatenate([np.zeros(0, np.uint8), *(piece.kinds for piece in pieces)])
    numbers = rests = codes = words = None
    if any(len(piece.doubles) for piece in pieces):
        numbers = np.zeros(len(kinds), np.float64)
        numbers[kinds == ValueKind.NUMBER] = np.concatenate([piece.doubles for piece in pieces])
    if any(piece.rests is not None for piece in pieces):
        rests = np.zeros(len(kinds), np.int16)
        rests[kinds == ValueKind.NUMBER] = np.concatenate(
            [np.zeros(len(one.doubles), np.int16) if one.rests is None else one.rests for one in pieces]
        )
    if any(len(piece.texts) for piece in pieces):
        # Arrow orders utf8 by its bytes, which is the order of code points; and other threads go on meanwhile.
        found = pa.concat_arrays([piece.texts for piece in pieces]).dictionary_encode()
        order = pc.sort_indices(found.dictionary)
        words = found.dictionary.take(order)
        place = np.empty(len(words), np.int32)
        place[order.to_numpy()] = np.arange(len(words), dtype=np.int32)
        codes = np.zeros(len(kinds), np.int32)
        codes[kinds == ValueKind.STRING] = place[found.indices.to_numpy()]
    return _column(kinds, numbers, codes, words, rests)


def _kind(value: Any) -> ValueKind:
    if value is ABSENT:
        return ValueKind.ABSENT
    if isinstance(value, str):
        return ValueKind.STRING
    if isinstance(value, bool):
        return ValueKind.TRUE if value else ValueKind.FALSE
    if isinstance(value, int | float):
        return ValueKind.NUMBER
    return ValueKind.NULL if value is None else ValueKind.OTHER


def encode_property(column: PropertyColumn) -> pa.Buffer:
    """A column's bytes."""
    arrays: dict[str, pa.Array] = {"kind": pa.array(column.kinds)}
    if column.numbers is not None:
        arrays["number"] = pa.array(column.numbers)
    if column.rests is not None:
        arrays["rest"] = pa.array(column.rests)
    if column.codes is not None:
        arrays["string"] = pa.DictionaryArray.from_arrays(pa.array(column.codes), column.words)
    return encode_batch(arrays)


def decode_property(data: memoryview) -> PropertyColumn:
    """The column over ``data``, not copied. Raises Corrupt."""
    arrays = decode_batch(data, "a property")
    number, rest, string = arrays.get("number"), arrays.get("rest"), arrays.get("string")
    return _column(
        arrays["kind"].to_numpy(),
        None if number is None else number.to_numpy(),
        None if string is None else string.indices.to_numpy(),
        None if string is None else string.dictionary,
        None if rest is None else rest.to_numpy(),
    )
