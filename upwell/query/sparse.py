"""The best sparse vectors of one view: inner products over the dimensions that a vector shares with the query, exactly.

A row is found by sharing a dimension, whatever the product comes to: nothing and less than nothing too. A value of zero is no dimension,
of a row or of a query. Each segment's postings are read for the query's dimensions alone. Products are numbers of float32, as values are,
and are added up row by row in float64: so scores have the very digits that others' do, where there are few of them to add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """How counts of terms are compared: Okapi BM25 with these parameters."""

    k1: float = 1.2
    b: float = 0.75


Scores = npt.NDArray[np.float64]
Terms = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]

#: With this many rows for each posting it costs less to sort the postings than to have a sum for every row.
ROWS_PER_POSTING = 16


def search_sparse(
    view: View,
    query: SparseVector,
    count: int,
    namespace: Names = None,
    *,
    within: RowFilter | None = None,
    idf: bool = False,
    among: Callable[[Scores], Mask] | None = None,
) -> list[Match]:
    """The ``count`` rows with the largest inner product, best first, equals as ``in_order`` says; ``closeness`` is that product.

    ``namespace`` is a name or several (``scope.Names``), "" for what is in none; None searches everything. ``idf``: the query's values are
    first multiplied by how rare their dimensions are. ``among`` says which products count at all. Blocking; run it in a thread.
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
    if idf:
        weights = (weights * _rarity(segments, identities, terms)).astype(np.float32)
    found = [
        (scores, np.full(len(rows), place), rows)
        for place, live in enumerate(segments)
        for scores, rows in [_best_of(live, identities, within, (terms, weights), count, among=among)]
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


def _rarity(segments: list[LiveSegment], identities: Identities, terms: Terms) -> Scores:
    """How rare each dimension is among the rows of the namespaces: their inverse document frequencies.

    It is asked of whole namespaces and not of what a filter leaves, so that a row has one score, whatever else is left out.
    """
    rows, holding = 0, np.zeros(len(terms))
    for live in segments:
        counted = _counted(live, identities, None)
        rows += live.live if counted is None else int(np.count_nonzero(counted))
        for place, those, _ in live.segment.postings.of(terms):
            holding[place] += len(those) if counted is None else np.count_nonzero(counted[those])
    return np.asarray(np.log((rows - holding + 0.5) / (holding + 0.5) + 1))


def _best_of(
    live: LiveSegment,
    identities: Identities,
    within: RowFilter | None,
    query: tuple[Terms, Weights],
    count: int,
    *,
    among: Callable[[Scores], Mask] | None,
) -> tuple[Scores, Rows]:
    """The scores and rows of the best of one segment, in no order."""
    terms, weights = query
    postings = list(live.segment.postings.of(terms))
    if not postings:
        return np.empty(0), np.empty(0, np.int64)
    rows = np.concatenate([those for _, those, _ in postings]).astype(np.int64)
    with np.errstate(over="ignore"):
        products = np.concatenate([weights[place] * values for place, _, values in postings])
    counted = _counted(live, identities, within)
    if counted is not None:
        kept = counted[rows]
        rows, products = rows[kept], products[kept]
    if not np.isfinite(products).all():
        products = np.clip(products, -LARGEST, LARGEST)
    # Either way a row's products are added up in order of their dimensions, so equals are equal in whatever segments they lie.
    if len(rows) * ROWS_PER_POSTING < live.segment.rows:
        found, place = np.unique(rows, return_inverse=True)
        scores = _sums(place, products, len(found))
    else:
        found = np.flatnonzero(np.bincount(rows, minlength=live.segment.rows))
        scores = _sums(rows, products, live.segment.rows)[found]
    if among is not None:
        counting = among(scores)
        found, scores = found[counting], scores[counting]
    near = _at_least_the(count, scores)
    found, scores = found[near], scores[near]
    first = np.lexsort((live.segment.sequence[found], -scores))[:count]
    return scores[first], found[first]


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
