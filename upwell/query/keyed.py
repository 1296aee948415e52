"""The rows of a view in the order of their ids, page by page, and how many there are.

Ids are ordered as texts, by code points, or as the integers that they are written as; those that are none (``identified.py``) come
after all that are, as texts. Where ids are unique within a namespace only, equal ones are in the order of their namespaces' identities. So
the order is the same whatever segments the rows lie in, and pages of one version fit together.

Each segment gives no more rows than the page needs, and no Python object is made of a row that is not answered: a page costs what the
filter does and some ten milliseconds for a million rows, more the further on it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import KeyScope
from upwell.query.lookup import Found
from upwell.query.scope import Identities, Names, RowFilter, identities_of, selected
from upwell.shard.keys import Rows
from upwell.shard.view import LiveSegment, View


def keyed_rows(
    view: View,
    *,
    namespaces: Names = None,
    within: RowFilter | None = None,
    as_integers: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> list[Found]:
    """The rows that ``within`` leaves, in the order of their ids: after the first ``offset`` of them the next ``limit``, or (None) all.

    ``namespaces``: the name of one ("": what is in none), a tuple of names, or None for any. Blocking.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError("a page of less than nothing")
    end = None if limit is None else offset + limit
    parts = [_Part(live, rows) for live, rows in _chosen(view, identities_of(view, namespaces), within)]
    found = []
    if as_integers:
        found.append(_first([part.with_integers(there=True) for part in parts], end, view, as_integers=True))
        parts = [part.with_integers(there=False) for part in parts]
    left = None if end is None else end - sum(len(rows) for _, rows in found)
    found.append(_first(parts, left, view, as_integers=False))
    numbers, rows = (np.concatenate(column)[offset:end].tolist() for column in zip(*found, strict=True))
    return [
        Found(parts[number].live.segment, row, view.namespaces)
        for number, row in zip(numbers, rows, strict=True)
    ]


def count_rows(view: View, namespaces: Names = None, within: RowFilter | None = None) -> int:
    """How many rows of these namespaces (as of ``keyed_rows``) ``within`` leaves. Blocking."""
    identities = identities_of(view, namespaces)
    if within is None:
        return sum(
            rows for identity, rows in view.counts.items() if identities is None or identity in identities
        )
    return sum(len(rows) for _, rows in _chosen(view, identities, within))


def _chosen(view: View, identities: Identities, within: RowFilter | None) -> list[tuple[LiveSegment, Rows]]:
    """The rows of each segment that count."""
    chosen = []
    for live in view.segments():
        mask = selected(live, identities, within)
        chosen.append((live, live.live_rows() if mask is None else np.flatnonzero(mask)))
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some rows of one segment, ascending."""

    live: LiveSegment
    rows: Rows

    def with_integers(self, *, there: bool) -> _Part:
        """Only those whose ids are integers, or whose are not."""
        if not len(self.rows):
            return self
        return _Part(self.live, self.rows[self.live.segment.integer_ids.there[self.rows] == there])

    def keys(self, *, as_integers: bool) -> pa.Array:
        """What they are ordered by."""
        if as_integers:
            return pa.array(self.live.segment.integer_ids.values[self.rows])
        ids = self.live.segment.ids
        return ids if len(self.rows) == len(ids) else ids.take(pa.array(self.rows))

    def spaces(self) -> pa.Array:
        """The identities of their namespaces."""
        column = self.live.segment.namespaces
        if column is None:
            return pa.array([""], pa.utf8()).take(pa.array(np.zeros(len(self.rows), np.int64)))
        return pc.fill_null(column.take(pa.array(self.rows)), "")


def _first(parts: list[_Part], count: int | None, view: View, *, as_integers: bool) -> tuple[Rows, Rows]:
    """The first ``count`` rows of all parts, in order: which part each is in, and which row of its segment it is."""
    keys, spaces, numbers, rows = [], [], [], []
    for number, part in enumerate(parts if count != 0 else ()):
        its_keys = part.keys(as_integers=as_integers)
        first = _least(its_keys, count)
        chosen = _Part(part.live, part.rows[first])
        keys.append(its_keys.take(pa.array(first)))
        rows.append(chosen.rows)
        numbers.append(np.full(len(first), number))
        if view.key_scope is KeyScope.NAMESPACE:
            spaces.append(chosen.spaces())
    if not keys:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    columns = {"key": pa.concat_arrays(keys)}
    if spaces:
        columns["space"] = pa.concat_arrays(spaces)
    order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
    first = order.to_numpy()[:count]
    return np.concatenate(numbers)[first], np.concatenate(rows)[first]


def _least(keys: pa.Array, count: int | None) -> Rows:
    """The places of the ``count`` smallest keys, and of all that equal the last of them."""
    if count is None or len(keys) <= count:
        return np.arange(len(keys))
    chosen = pc.select_k_unstable(keys, k=count, sort_keys=[("", "ascending")])
    last = keys[chosen[count - 1].as_py()]
    return np.flatnonzero(pc.less_equal(keys, last).to_numpy(zero_copy_only=False))
