"""The best rows whose closeness lies between two bounds: further away than one of them, or closer than the other, and they do not count.

Closer is larger, as everywhere inside (shard/metric.py): a door that speaks of distances puts a minus before its bounds. Rows and bounds are
compared as float32, which is what doors show: so a row that was shown with a score lies where a bound of that very score says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from upwell.query.rescore import Closeness, Rescorer, exact_closeness
from upwell.query.scope import Identities, Names, RowFilter, identities_of, selected
from upwell.query.search import RECALL, Match, kept_by, search
from upwell.query.sparse import Bm25, SparseVector, search_sparse
from upwell.shard.deletions import Mask
from upwell.shard.view import View

#: Rows that are too close are looked past this many times what was asked for, and so many more; where that is not enough, every row is
#: compared.
PASSED = 4
PASSED_MORE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """``closest``: no row may be closer, one that is as close may be; ``furthest``: each must be closer than that. None: no bound."""

    closest: float | None = None
    furthest: float | None = None

    def hold(self, close: Closeness) -> Mask:
        """Of which of these they are true: bool of the same shape."""
        mask = np.ones(close.shape, dtype=bool)
        with np.errstate(over="ignore"):
            shown = close.astype(np.float32)
            if self.closest is not None:
                mask &= shown <= np.float32(self.closest)
            if self.furthest is not None:
                mask &= shown > np.float32(self.furthest)
        return mask

    def among(self, matches: list[Match]) -> list[Match]:
        """Those that lie between them, in order."""
        mask = self.hold(np.array([match.closeness for match in matches], np.float64))
        return [match for match, holds in zip(matches, mask.tolist(), strict=True) if holds]


def search_within(
    view: View,
    query: npt.NDArray[np.float32],
    count: int,
    namespace: Names = None,
    *,
    bounds: Bounds,
    within: RowFilter | None = None,
    recall: float = RECALL,
) -> list[Match]:
    """The ``count`` closest rows of those between the bounds, closest first, equals as ``in_order`` says; all else is as of ``search``.
    Blocking.
    """
    if bounds.closest is None:
        return bounds.among(search(view, query, count, namespace, within=within, recall=recall))
    looked_at = PASSED * count + PASSED_MORE
    near = search(view, query, looked_at, namespace, within=within, recall=recall)
    found = bounds.among(near)[:count]
    beyond = bool(near) and not Bounds(furthest=bounds.furthest).among(near[-1:])
    if len(found) == count or len(near) < looked_at or beyond:
        return found
    return _compared(view, query, count, identities_of(view, namespace), bounds=bounds, within=within)


def search_sparse_within(
    view: View,
    query: SparseVector,
    count: int,
    namespace: Names = None,
    *,
    bounds: Bounds,
    within: RowFilter | None = None,
    bm25: Bm25 | None = None,
) -> list[Match]:
    """The best ``count`` rows by a sparse vector, of those whose score lies between the bounds; all else is as of ``search_sparse``.
    Blocking.
    """
    return search_sparse(view, query, count, namespace, within=within, bm25=bm25, among=bounds.hold)


def _compared(
    view: View,
    query: npt.NDArray[np.float32],
    count: int,
    identities: Identities,
    *,
    bounds: Bounds,
    within: RowFilter | None,
) -> list[Match]:
    """The same of every row, one by one."""
    segments = list(view.segments())
    rescorer = Rescorer(segments, view.record.metric, query, count)
    for place, live in enumerate(segments):
        chosen = selected(live, identities, within)
        rows = live.live_rows() if chosen is None else np.flatnonzero(chosen)
        if len(rows):
            close = exact_closeness(live, view.record.metric, query, rows)
            holds = bounds.hold(close)
            rescorer.keep(place, rows[holds], close[holds])
    return kept_by(rescorer, view, segments)[:count]
