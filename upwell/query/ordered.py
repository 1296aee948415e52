"""The rows of a namespace in the order of writing, page by page; and those whose ids begin alike, and any one of them.

A row's place in that order is its sequence, which stays its own for as long as the row does: an upsert makes a new row, last of all, and
an update keeps the old one's. So a cursor is the sequence of the last row that was shown, no version need be kept for a reader, and
one who reads on while others write and delete sees each row that stays exactly once. Rows of before there were sequences come first, by
the hashes of their keys, which stay too.

    cursor  "" or "0"     the beginning
            "0-" and hex  after the row without a sequence whose key has this hash
            a number      after the row with this sequence

A page costs a look at the sequences of all rows of the namespace's segments, about 5 ms for a million.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from upwell.errors import Invalid
from upwell.query.lookup import Found
from upwell.query.scope import rows_in
from upwell.shard.keys import Hashes, Rows
from upwell.shard.segment import Segment
from upwell.shard.view import LiveSegment, View

_CURSOR = re.compile(r"0-(?P<hash>[0-9a-f]{16})|(?P<sequence>[0-9]{1,20})")
_MOST = 2**64 - 1

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Place:
    """After which row a page begins. ``after`` None: at the first one, of those with a sequence or of those without."""

    numbered: bool
    after: int | None

    @classmethod
    def of(cls, cursor: str) -> _Place:
        """Raises Invalid for what is no cursor."""
        if cursor in ("", "0"):
            return cls(False, None)
        matched = _CURSOR.fullmatch(cursor)
        if matched is not None and matched["hash"] is not None:
            return cls(False, int(matched["hash"], 16))
        if matched is not None and 0 < int(matched["sequence"]) <= _MOST:
            return cls(True, int(matched["sequence"]))
        raise Invalid("cursor: expected one that a page ended with, or 0 to begin")

    def cursor(self) -> str:
        """As a client has it; of a place after some row."""
        return str(self.after) if self.numbered else f"0-{self.after:016x}"


def range_rows(
    view: View, namespace: str, cursor: str, limit: int, prefix: str | None = None
) -> tuple[list[Found], str]:
    """The next ``limit`` rows of a namespace ("" for those in none), and the cursor of the page after them, "" if there is none.

    With a ``prefix``, only rows whose ids begin with it. Rows without a sequence whose keys have one hash, rare beyond measure, are never
    parted: then a page has more of them. Raises Invalid for what is no cursor. Blocking.
    """
    if limit < 1:
        raise ValueError("a page without rows")
    identity = view.namespaces.called(namespace)
    found = _from(view, identity, prefix, _Place.of(cursor), limit + 1)
    end = limit
    while end < len(found) and found[end][0] == found[end - 1][0]:
        end += 1
    if end > limit and end == len(found):
        found += _from(view, identity, prefix, found[-1][0], 1)
    following = found[end - 1][0].cursor() if end < len(found) else ""
    return [one for _, one in found[:end]], following


def with_prefix(view: View, namespace: str, prefix: str, limit: int) -> list[Found]:
    """The first ``limit`` rows of a namespace whose ids begin with ``prefix``, in the order of writing. Blocking."""
    return range_rows(view, namespace, "", limit, prefix)[0]


def random_row(view: View, namespace: str, rng: random.Random | np.random.Generator) -> Found | None:
    """Any row of a namespace, each as likely as every other; None if it has none. Blocking."""
    identity = view.namespaces.called(namespace)
    rows = view.counts.get(identity, 0)
    if rows == 0:
        return None
    left = rng.randrange(rows) if isinstance(rng, random.Random) else int(rng.integers(rows))
    for live in view.segments():
        its = live.counts.get(identity, 0)
        if left < its:
            return Found(live.segment, int(rows_in(live, (identity,))[left]), view.namespaces)
        left -= its
    raise AssertionError("a view counts rows that it does not have")


def _from(
    view: View, identity: str, prefix: str | None, place: _Place, count: int
) -> list[tuple[_Place, Found]]:
    """The first ``count`` rows from a place on, in order, and all that are level with the last of them."""
    found = list(_of_kind(view, identity, prefix, place, count))
    if len(found) < count and not place.numbered:
        found += _of_kind(view, identity, prefix, _Place(True, None), count - len(found))
    return found


def _of_kind(
    view: View, identity: str, prefix: str | None, place: _Place, count: int
) -> Iterator[tuple[_Place, Found]]:
    """The same, but only of those with a sequence or only of those without."""
    segments = list(view.segments())
    keys, places, rows = [], [], []
    for number, live in enumerate(segments):
        if identity not in live.segment.spaces:
            continue
        its_keys, its_rows = _keyed(live, identity, prefix, place)
        its_first = _first(its_keys, count)
        keys.append(its_keys[its_first])
        rows.append(its_rows[its_first])
        places.append(np.full(len(its_first), number))
    if not keys:
        return
    all_keys, all_places, all_rows = np.concatenate(keys), np.concatenate(places), np.concatenate(rows)
    first = _first(all_keys, count)
    first = first[np.argsort(all_keys[first], kind="stable")]
    for key, number, row in zip(
        all_keys[first].tolist(), all_places[first].tolist(), all_rows[first].tolist(), strict=True
    ):
        yield _Place(place.numbered, key), Found(segments[number].segment, row, view.namespaces)


def _keyed(live: LiveSegment, identity: str, prefix: str | None, place: _Place) -> tuple[Keys, Rows]:
    """The rows of one segment from a place on, and what they are ordered by."""
    segment = live.segment
    rows = rows_in(live, (identity,))
    sequence = segment.sequence[rows]
    if place.numbered:
        keys = sequence
        kept = keys > np.uint64(place.after or 0)
    else:
        kept = sequence == 0
        if not kept.any():
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        keys = _hashes_of(segment)[rows]
        if place.after is not None:
            kept &= keys > np.uint64(place.after)
    keys, rows = keys[kept], rows[kept]
    if prefix is not None and len(rows):
        begins = pc.starts_with(segment.ids.take(pa.array(rows)), prefix).to_numpy(zero_copy_only=False)
        keys, rows = keys[begins], rows[begins]
    return keys, rows


def _hashes_of(segment: Segment) -> Hashes:
    """The hash of each row's key: uint64 (rows,)."""
    hashes, order = segment.hashes
    of_rows = np.empty(segment.rows, np.uint64)
    of_rows[order] = hashes
    return of_rows


def _first(keys: Keys, count: int) -> Rows:
    """The places of the ``count`` smallest keys, and of all that equal the last of them."""
    if len(keys) <= count:
        return np.arange(len(keys))
    return np.flatnonzero(keys <= np.partition(keys, count - 1)[count - 1])
