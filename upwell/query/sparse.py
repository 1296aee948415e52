"""The best sparse vectors of one view: inner products over the dimensions that a vector shares with the query, exactly.

A row is found by sharing a dimension, whatever the product comes to: nothing and less than nothing too. A value of zero is no dimension,
of a row or of a query. Each segment's postings are read for the query's dimensions alone. Products are numbers of float32, as values are,
and are added up row by row in float64: so scores have the very digits that others' do, where there are few of them to add.

Where values are counts of terms, rows can be compared by BM25 instead, which is reckoned in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from upwell.query.lookup import Found
from upwell.query.scope import Identities, Names, RowFilter, identities_of, selected
from upwell.query.search import Match, in_order
from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.postings import LARGEST
from upwell.shard.view import LiveSegment, View

#: Indices and values of one sparse vector, as sent: in any order, and an index that is there twice counts with the sum.
SparseVector = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25:
    """How counts of terms are compared: Okapi BM25 with these parameters.

        score = sum over the query's terms of  its count in the query * idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))
        idf   = ln((N - n + 0.5) / (n + 0.5) + 1)

    tf: the term's count in the row, length: the sum of all counts of the row, average: that of the N rows, n: how many of them have the term.
    With k1 = 0 it only matters which terms a row has, with b = 0 not how long it is. A value below zero is no count, and no term.
    """

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.k1 <= LARGEST:
            raise ValueError(f"k1 is {self.k1}; expected a number from 0 to {LARGEST:.6g}")
        if not 0 <= self.b <= 1:
            raise ValueError(f"b is {self.b}; expected a number from 0 to 1")


Scores = npt.NDArray[np.float64]
Terms = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Values = npt.NDArray[np.float32]

N = TypeVar("N", int, float)

#: With this many rows for each posting it costs less to sort the postings than to have a sum for every row.
ROWS_PER_POSTING = 16
#: Postings whose products are remembered together before they are added up: with them a search takes some thirty megabytes, whatever it asks.
ADDED_AT_ONCE = 1 << 20


def search_sparse(
    view: View,
    query: SparseVector,
    count: int,
    namespace: Names = None,
    *,
    within: RowFilter | None = None,
    idf: bool = False,
    bm25: Bm25 | None = None,
    among: Callable[[Scores], Mask] | None = None,
) -> list[Match]:
    """The ``count`` rows with the largest inner product, best first, equals as ``in_order`` says; ``closeness`` is that product.

    ``namespace`` is a name or several (``scope.Names``), "" for what is in none; None searches everything. ``idf``: the query's values are
    first multiplied by how rare their dimensions are. ``bm25``: values are counts of terms, and a row's score is by BM25 (``idf`` is part of
    it) among all rows of the namespaces, whatever ``within`` leaves. ``among`` says which products count at all. Blocking; run it in a thread.
    """
    if not view.record.kind.has_sparse:
        raise ValueError("the index has no sparse vectors")
    terms, weights = _added_up(query)
    identities = identities_of(view, namespace)
    segments = [
        live
        for live in view.segments()
        if live.live and (identities is None or not live.segment.spaces.keys().isdisjoint(identities))
    ]
    asked = _Asked(terms, weights)
    if bm25 is not None:
        asked = _by_bm25(bm25, segments, identities, asked)
    elif idf:
        rarity = _rarity(segments, identities, asked)
        asked = replace(asked, weights=(weights * rarity).astype(np.float32))
    found = [
        (scores, np.full(len(rows), place), rows)
        for place, live in enumerate(segments)
        for scores, rows in [_best_of(live, identities, within, asked, count, among=among)]
    ]
    if not found:
        return []
    scores, places, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    best = _at_least_the(count, scores)
    matches = [
        Match(Found(segments[place].segment, row, view.namespaces), score)
        for score, place, row in zip(
            scores[best].tolist(), places[best].tolist(), rows[best].tolist(), strict=True
        )
    ]
    return in_order(matches)[:count]


def _added_up(query: SparseVector) -> tuple[Terms, Weights]:
    """The dimensions of a query, ascending, each once, and its value in each."""
    terms, place = np.unique(query[0], return_inverse=True)
    sums = _sums(place, query[1].astype(np.float64), len(terms))
    weights = np.clip(sums, -LARGEST, LARGEST).astype(np.float32)
    return terms[weights != 0], weights[weights != 0]


def _sums(places: Rows, values: npt.NDArray[np.floating[Any]], count: int) -> Scores:
    """The sum of the values at each of ``count`` places."""
    return np.asarray(np.bincount(places, weights=values, minlength=count), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Damping:
    """How little more each more count of a term says in a row: what a count is compared with is ``base + slope * length``."""

    base: float
    slope: float

    def of(self, most: float, live: LiveSegment, rows: Rows, counts: Values) -> Scores:
        """What rows' counts of a term come to: the more the larger, and never more than ``most``."""
        # The usual fraction, with both parts divided by the count.
        halved_at = self.base + self.slope * live.segment.lengths[rows] if self.slope else self.base
        share = np.asarray(halved_at / counts.astype(np.float64))
        share += 1
        return np.divide(most, share, out=share)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A query: dimensions, ascending, a weight for each, and what comes of the rows' values; None: they are what they are."""

    terms: Terms
    weights: Weights | Scores
    damping: _Damping | None = None

    def postings_of(
        self, live: LiveSegment, counted: Mask | None
    ) -> Iterator[tuple[int, npt.NDArray[np.uint32], Values, Mask | None]]:
        """The postings of each dimension that a segment has: its place in ``terms``, rows, their values, and which count; None: all."""
        postings = live.segment.postings
        for place, rows, values in postings.of(self.terms):
            kept = None if counted is None else counted[rows]
            if self.damping is not None and postings.has_negative:
                kept = values > 0 if kept is None else kept & (values > 0)
            yield place, rows, values, kept

    def products(self, live: LiveSegment, place: int, rows: Rows, values: Values) -> Scores | Values:
        """What rows' values of a dimension come to."""
        if self.damping is not None:
            return self.damping.of(float(self.weights[place]), live, rows, values)
        return np.asarray(self.weights[place] * values)


def _by_bm25(bm25: Bm25, segments: list[LiveSegment], identities: Identities, asked: _Asked) -> _Asked:
    """The same query, of rows that are compared by BM25 among those of the namespaces."""
    total = sum(_of_spaces(live.totals, identities) for live in segments)
    # Without any terms nothing is found, whatever is said of lengths.
    average = total / _rows(segments, identities) if total else 1.0
    asked = replace(asked, damping=_Damping(bm25.k1 * (1 - bm25.b), bm25.k1 * bm25.b / average))
    rarity = _rarity(segments, identities, asked)
    return replace(asked, weights=asked.weights * rarity * (bm25.k1 + 1))


def _rarity(segments: list[LiveSegment], identities: Identities, asked: _Asked) -> Scores:
    """How rare each dimension is among the rows of the namespaces: their inverse document frequencies.

    It is asked of whole namespaces and not of what a filter leaves, so that a row has one score, whatever else is left out.
    """
    holding = np.zeros(len(asked.terms))
    for live in segments:
        for place, rows, _, kept in asked.postings_of(live, _counted(live, identities, None)):
            holding[place] += len(rows) if kept is None else np.count_nonzero(kept)
    return np.asarray(np.log((_rows(segments, identities) - holding + 0.5) / (holding + 0.5) + 1))


def _rows(segments: list[LiveSegment], identities: Identities) -> int:
    """How many live rows the namespaces have."""
    return sum(live.live if identities is None else _of_spaces(live.counts, identities) for live in segments)


def _of_spaces(numbers: Mapping[str, N], identities: Identities) -> N | int:
    """The sum of what some namespaces have, or (None) all."""
    if identities is None:
        return sum(numbers.values())
    return sum(numbers[one] for one in identities if one in numbers)


def _best_of(
    live: LiveSegment,
    identities: Identities,
    within: RowFilter | None,
    asked: _Asked,
    count: int,
    *,
    among: Callable[[Scores], Mask] | None,
) -> tuple[Scores, Rows]:
    """The scores and rows of the best of one segment, in no order."""
    found, scores = _added(live, identities, within, asked)
    if among is not None:
        counting = among(scores)
        found, scores = found[counting], scores[counting]
    near = _at_least_the(count, scores)
    found, scores = found[near], scores[near]
    first = np.lexsort((live.segment.sequence[found], -scores))[:count]
    return scores[first], found[first]


def _added(
    live: LiveSegment, identities: Identities, within: RowFilter | None, asked: _Asked
) -> tuple[Rows, Scores]:
    """The rows of one segment that share a dimension, ascending, and their scores."""
    pieces = _pieces(live, identities, within, asked)
    first, second = next(pieces, None), next(pieces, None)
    # Each way a row's products are added up in order of their dimensions, so equals are equal in whatever segments they lie.
    count = live.segment.rows
    if first is None:
        return np.empty(0, np.int64), np.empty(0)
    if second is None:
        rows, products = first
        if len(rows) * ROWS_PER_POSTING < count:
            found, place = np.unique(rows, return_inverse=True)
            return found, _sums(place, products, len(found))
        found = np.flatnonzero(np.bincount(rows, minlength=count))
        return found, _sums(rows, products, count)[found]
    scores, there = np.zeros(count), np.zeros(count, dtype=bool)
    for rows, products in chain((first, second), pieces):
        np.add.at(scores, rows, products.astype(np.float64))
        there[rows] = True
    found = np.flatnonzero(there)
    return found, scores[found]


def _pieces(
    live: LiveSegment, identities: Identities, within: RowFilter | None, asked: _Asked
) -> Iterator[tuple[Rows, Scores | Values]]:
    """Rows, and what they have of the query's dimensions in order, some at a time: of a long text all together may be as much as the segment
    has, several times over."""
    all_rows: list[Rows] = []
    all_products: list[Scores | Values] = []
    gathered = 0
    for place, rows, values, kept in asked.postings_of(live, _counted(live, identities, within)):
        its = rows.astype(np.int64) if kept is None else rows[kept].astype(np.int64)
        with np.errstate(over="ignore"):
            products = asked.products(live, place, its, values if kept is None else values[kept])
        all_rows.append(its)
        all_products.append(products)
        gathered += len(its)
        if gathered >= ADDED_AT_ONCE:
            yield _finite(all_rows, all_products)
            all_rows, all_products, gathered = [], [], 0
    if all_rows:
        yield _finite(all_rows, all_products)


def _finite(rows: list[Rows], products: list[Scores | Values]) -> tuple[Rows, Scores | Values]:
    together: Any = np.concatenate(products)
    if not np.isfinite(together).all():
        together = np.clip(together, -LARGEST, LARGEST)
    return np.concatenate(rows), together


def _at_least_the(count: int, scores: Scores) -> Rows:
    """The places of the ``count`` largest scores, and of all that equal the last of them."""
    if len(scores) <= count:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, len(scores) - count)[len(scores) - count])


def _counted(live: LiveSegment, identities: Identities, within: RowFilter | None) -> Mask | None:
    """The rows that count, None for all of the segment."""
    chosen = selected(live, identities, within)
    if chosen is None and live.deleted is not None:
        return ~live.deleted
    return chosen
