"""The rows of a view in the order of their ids, page by page, and how many there are.

Ids are ordered as texts, by code points, or as the integers that they are written as; those that are none (``identified.py``) come
after all that are, as texts. Where ids are unique within a namespace only, equal ones are in the order of their namespaces' identities. So
the order is the same whatever segments the rows lie in, and pages of one version fit together.

Segments are looked at one after the other, and no more rows are remembered than two pages have, and those as numbers: no Python object is made
of a row before somebody looks at it. A page costs what the filter does and some ten milliseconds for a million rows, more the further on
it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import KeyScope
from upwell.query.lookup import Found
from upwell.query.scope import Identities, Names, RowFilter, identities_of, selected
from upwell.shard.keys import Rows
from upwell.shard.segment import Segment
from upwell.shard.view import LiveSegment, View

#: So many rows more than two pages have may be remembered before they are sorted: of small pages that is not worth it for each segment.
SPARE_ROWS: Final = 1 << 16
#: Of millions of rows it matters how they are remembered. No segment has more than two billion of them.
_KIND: Final = np.int32
Places = npt.NDArray[np.int32]


class FoundRows(Sequence[Found]):
    """Rows as eight bytes each, which become objects when they are looked at."""

    def __init__(self, view: View, segments: Sequence[Segment], numbers: Places, rows: Places) -> None:
        """``numbers``: which of the segments each row is in; ``rows``: which of its rows it is."""
        self._view = view
        self._segments = segments
        self._numbers = numbers
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Found: ...

    @overload
    def __getitem__(self, place: slice) -> FoundRows: ...

    def __getitem__(self, place: int | slice) -> Found | FoundRows:
        if isinstance(place, slice):
            return FoundRows(self._view, self._segments, self._numbers[place], self._rows[place])
        return Found(self._segments[self._numbers[place]], int(self._rows[place]), self._view.namespaces)


def keyed_rows(
    view: View,
    *,
    namespaces: Names = None,
    within: RowFilter | None = None,
    as_integers: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> FoundRows:
    """The rows that ``within`` leaves, in the order of their ids: after the first ``offset`` of them the next ``limit``, or (None) all.

    ``namespaces``: the name of one ("": what is in none), a tuple of names, or None for any. Blocking.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError("a page of less than nothing")
    end = None if limit is None else offset + limit
    segments: list[Segment] = []
    integers, texts = _First(view, end), _First(view, end)
    for live, chosen in _chosen(view, identities_of(view, namespaces), within):
        segment, number, rest = live.segment, len(segments), chosen
        segments.append(segment)
        if as_integers and len(chosen):
            ids = segment.integer_ids
            there = ids.there[chosen]
            whole, rest = chosen[there], chosen[~there]
            integers.add(number, segment, whole, pa.array(ids.values[whole]))
        is_all = len(rest) == segment.rows
        texts.add(number, segment, rest, segment.ids if is_all else segment.ids.take(pa.array(rest)))
    numbers, found = (
        np.concatenate(two)[offset:end] for two in zip(integers.rows(), texts.rows(), strict=True)
    )
    return FoundRows(view, segments, numbers, found)


def count_rows(view: View, namespaces: Names = None, within: RowFilter | None = None) -> int:
    """How many rows of these namespaces (as of ``keyed_rows``) ``within`` leaves. Blocking."""
    identities = identities_of(view, namespaces)
    if within is None:
        return sum(
            view.counts.values() if identities is None else (view.counts.get(one, 0) for one in identities)
        )
    return sum(len(rows) for _, rows in _chosen(view, identities, within))


def _chosen(
    view: View, identities: Identities, within: RowFilter | None
) -> Iterator[tuple[LiveSegment, Rows]]:
    """The rows of each segment that count, ascending."""
    for live in view.segments():
        mask = selected(live, identities, within)
        yield live, live.live_rows() if mask is None else np.flatnonzero(mask)


class _First:
    """The first ``count`` rows by their keys, or (None) all, of those that it is told of."""

    def __init__(self, view: View, count: int | None) -> None:
        self._count = count
        # Where equal keys are of different rows these are told apart by their spaces.
        self._by = ["key", "space"] if view.key_scope is KeyScope.NAMESPACE else ["key"]
        self._kept: list[pa.Table] = []
        self._length = 0

    def add(self, number: int, segment: Segment, rows: Rows, keys: pa.Array) -> None:
        """Some rows of a segment, and what they are ordered by."""
        if not len(rows) or self._count == 0:
            return
        first = _least(keys, self._count)
        kept = rows[first]
        columns = {
            "key": keys.take(pa.array(first)),
            "number": np.full(len(kept), number, _KIND),
            "row": kept.astype(_KIND),
        }
        if "space" in self._by:
            columns["space"] = _spaces(segment, kept)
        self._kept.append(pa.table(columns))
        self._length += len(kept)
        if self._count is not None and self._length > 2 * self._count + SPARE_ROWS:
            self._cut()

    def rows(self) -> tuple[Places, Places]:
        """They in order: which number each came with, and which row of its segment it is."""
        if not self._kept:
            return np.empty(0, _KIND), np.empty(0, _KIND)
        order, kept = self._order(), pa.concat_tables(self._kept)
        numbers, rows = (kept[name].take(order).to_numpy() for name in ("number", "row"))
        return numbers, rows

    def _cut(self) -> None:
        """Forget what is not among the first."""
        self._kept = [pa.concat_tables(self._kept).take(self._order())]
        self._length = len(self._kept[0])

    def _order(self) -> pa.Array:
        keys = pa.concat_tables(self._kept).select(self._by)
        return pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in self._by])[: self._count]


def _spaces(segment: Segment, rows: Rows) -> pa.Array:
    """The identities of the namespaces of rows."""
    column = segment.namespaces
    if column is None:
        return pa.array([""], pa.utf8()).take(pa.array(np.zeros(len(rows), np.int64)))
    return pc.fill_null(column.take(pa.array(rows)), "")


def _least(keys: pa.Array, count: int | None) -> Rows:
    """The places of the ``count`` smallest keys, and of all that equal the last of them."""
    if count is None or len(keys) <= count:
        return np.arange(len(keys))
    chosen = pc.select_k_unstable(keys, k=count, sort_keys=[("", "ascending")])
    last = keys[chosen[count - 1].as_py()]
    return np.flatnonzero(pc.less_equal(keys, last).to_numpy(zero_copy_only=False))
