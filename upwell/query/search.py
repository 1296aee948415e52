"""The nearest vectors of one view: candidates from each segment's FAISS index, exact closeness from the raw vectors.

Deleted rows, other namespaces and what a filter leaves out are kept out by a bitmap that FAISS honours inside its scan. Where
few rows are left to look at they are compared one by one, which is exact and cheaper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from upwell.changeset import Matrix
from upwell.query.lookup import Found
from upwell.query.rescore import Closeness, Rescorer, exact_closeness
from upwell.query.scope import Names, RowFilter, identities_of, selected
from upwell.shard.ann import COMPONENT_MAX, NEIGHBOURS, Coding, largest
from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.metric import Metric, searchable
from upwell.shard.view import LiveSegment, View

#: The share of the true neighbours that a search may be expected to find, unless it is told otherwise.
RECALL = 0.98
#: FAISS is asked for this many more than wanted: it orders near-equals by float32 and equals by row, we by float64 and who was first.
#: Beyond this many equals at the last place, which of them are answered is up to their rows.
SPARE = 64
#: With no more rows left than this, they are compared one by one: of a segment with codes, and of one without.
SCANNED_ROWS = 1_024
SCANNED_FLAT_ROWS = 256
#: How many candidates are asked for first, beside twice those wanted, and by how much more if they may not be enough.
CODED_FIRST = 256
CODED_LEAST = 32
#: Within these bounds float32 sums of products tell rows apart as well as float32 can.
FLOAT32_MOST = 1e37
FLOAT32_LEAST = 1e-30
CODED_GROWTH = 4
#: Of so many rows for each one wanted it costs less to compare every one, in their order, than to find candidates first.
EXACT_SHARE = 16
#: The closest 0.5 % of all rows may lie in any lists, fewer in as many as this power says: of 100,000 rows, made in several ways, the share of
#: the closest 20 to 5,000 that is found is then 98 % and more, where the lists that hold the closest few had 80 % of some.
ALL_LISTS_SHARE = 0.005
LISTS_POWER = 0.3
#: Matches that are put in order one by one. More than a few thousand keep all other threads waiting.
SORTED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A vector and how close it is: larger is closer, by the index's metric (see upwell.shard.metric)."""

    found: Found
    closeness: float


def in_order(matches: list[Match]) -> list[Match]:
    """The closest first; of equals who was written into its namespace first, so that the same question gets the same answer."""
    if len(matches) > SORTED_AT_ONCE:
        return _many_in_order(matches)
    places = [(-match.closeness, match.found.sequence) for match in matches]
    counts = Counter(places)
    # Reading an id takes longer than all the rest, and hardly any decides.
    keys = [
        (place, match.found.id if counts[place] > 1 else "")
        for match, place in zip(matches, places, strict=True)
    ]
    return [matches[number] for number in sorted(range(len(matches)), key=keys.__getitem__)]


def _many_in_order(matches: list[Match]) -> list[Match]:
    """The same, by columns: Python holds its lock for as long as it sorts."""
    further = np.array([-match.closeness for match in matches], np.float64)
    sequence = np.array([match.found.sequence for match in matches], np.int64)
    order = np.lexsort((sequence, further))
    further, sequence = further[order], sequence[order]
    level = (further[1:] == further[:-1]) & (sequence[1:] == sequence[:-1])
    ordered = [matches[number] for number in order.tolist()]
    # Where equals begin, and where they end.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], level, [False]])))
    for start, end in edges.reshape(-1, 2).tolist():
        ordered[start : end + 1] = sorted(ordered[start : end + 1], key=lambda match: match.found.id)
    return ordered


def search(
    view: View,
    query: npt.NDArray[np.float32],
    count: int,
    namespace: Names = None,
    *,
    within: RowFilter | None = None,
    recall: float = RECALL,
) -> list[Match]:
    """The ``count`` vectors closest to ``query`` (float32 (dimensions,)), closest first, equals as ``in_order`` says.

    ``namespace`` is a name or several (``scope.Names``), "" for what is in none; None searches everything. A ``recall`` of 1 compares every row. Blocking; run it in a thread.
    """
    if query.shape != (view.record.dimensions,):
        raise ValueError(f"query has shape {query.shape}, expected ({view.record.dimensions},)")
    # Threads belong to the caller's executor: FAISS must not start more of its own under each of them.
    faiss.omp_set_num_threads(1)
    metric = view.record.metric
    asked = _Asked(metric, query)
    segments = list(view.segments())
    identities = identities_of(view, namespace)
    rescorer = Rescorer(segments, metric, query, count)
    coded = []
    for place, live in enumerate(segments):
        part = _Part(live, asked, selected(live, identities, within))
        if part.left == 0:
            continue
        if asked.says_nothing:
            rescorer.compare(place, part.first(count))
        elif part.left <= SCANNED_ROWS or live.segment.trust is None or recall >= 1:
            rescorer.keep(place, *part.exact(count))
        else:
            coded.append((place, part))
    if coded:
        _search_coded(coded, rescorer, count, recall)
    return kept_by(rescorer, view, segments)[:count]


def kept_by(rescorer: Rescorer, view: View, segments: Sequence[LiveSegment]) -> list[Match]:
    """The rows that a rescorer over these segments of a view has kept, closest first."""
    nearest = rescorer.nearest()
    matches = [
        Match(Found(segments[place].segment, row, view.namespaces), close)
        for close, place, row in zip(
            nearest.close.tolist(), nearest.place.tolist(), nearest.row.tolist(), strict=True
        )
    ]
    return in_order(matches)


def _search_coded(coded: list[tuple[int, _Part]], rescorer: Rescorer, count: int, recall: float) -> None:
    """Candidates of segments with codes, asking those again for more whose last candidates may still be among the closest."""
    asked, pending = 2 * count + CODED_FIRST, coded
    total = sum(part.left for _, part in coded)
    share = count / total
    if share * EXACT_SHARE >= 1:
        for place, part in coded:
            rescorer.keep(place, *part.exact(count))
        return
    seen: dict[int, Rows] = {}
    while pending:
        places, rows, bounds, last = [], [], [], {}
        for place, part in pending:
            # A segment with few of the rows has few of the closest; if it has more, it is asked again.
            its_asked = min(part.left, CODED_LEAST + asked * part.left // total)
            found = part.coded(its_asked, recall, share)
            if found is None:
                rescorer.keep(place, *part.exact(count))
                continue
            its_rows, its_bounds = found.rows, found.bounds
            if len(its_rows) == its_asked < part.left:
                last[place] = found.unseen
            if place in seen:
                # Not simply those past the ones had before: equal estimates may come in another order.
                new = np.isin(its_rows, seen[place], invert=True)
                its_rows, its_bounds = its_rows[new], its_bounds[new]
            seen[place] = its_rows if place not in seen else np.concatenate([seen[place], its_rows])
            places.append(np.full(len(its_rows), place))
            rows.append(its_rows)
            bounds.append(its_bounds)
        if rows:
            rescorer.compare_bounded(np.concatenate(places), np.concatenate(rows), np.concatenate(bounds))
        pending = [
            (place, part) for place, part in pending if place in last and last[place] >= rescorer.least
        ]
        asked *= CODED_GROWTH


class _Asked:
    """The query as it was sent, float32 (dimensions,); as a flat index is asked, and one of codes, float32 (1, dimensions).

    Closeness by codes is that of a unit query where the metric is a dot product: ``scale`` times less than the query's own.
    """

    def __init__(self, metric: Metric, query: npt.NDArray[np.float32]) -> None:
        self.metric = metric
        self.query = query
        self.largest = largest(query)
        self.searchable = searchable(metric, query[None, :])
        product = metric is Metric.DOT_PRODUCT
        self.coded = Coding(metric).queries(query[None, :]) if product else self.searchable
        self.scale = float(np.linalg.norm(query.astype(np.float64))) if product else 1.0

    @property
    def says_nothing(self) -> bool:
        """Is it a vector of zeros, to which by this metric all vectors are equally close?"""
        return self.largest == 0 and self.metric is not Metric.EUCLIDEAN

    @property
    def is_tame(self) -> bool:
        """Can the codes of a segment say anything about this query?"""
        return self.metric is not Metric.EUCLIDEAN or self.largest <= COMPONENT_MAX


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Rows by their codes, how close each can be, and how close a row can be that is not among them."""

    rows: Rows
    bounds: npt.NDArray[np.float64]
    unseen: float


class _Part:
    """One segment's part in a search. ``selected``: the rows to be searched, or None for all that are alive."""

    def __init__(self, live: LiveSegment, asked: _Asked, selected: Mask | None) -> None:
        self._live = live
        self._asked = asked
        self._selected = selected
        #: Rows to be searched.
        self.left = live.live if self._selected is None else int(np.count_nonzero(self._selected))

    def exact(self, count: int) -> tuple[Rows, Closeness]:
        """Rows among which the ``count`` closest are for certain, and how close each is."""
        segment = self._live.segment
        many = self._selected is None or self.left > SCANNED_FLAT_ROWS
        if segment.trust is None and many and self._fits_float32():
            _, rows = self._search(self._asked.searchable, min(count + SPARE, self.left), None)
            return rows, exact_closeness(self._live, self._asked.metric, self._asked.query, rows)
        every = self.every()
        near = exact_closeness(self._live, self._asked.metric, self._asked.query, every)
        closest = np.argsort(-near, kind="stable")[: count + SPARE]
        return every[closest], near[closest]

    def coded(self, asked: int, recall: float, share: float) -> Coded | None:
        """At most ``asked`` rows that may be among the closest ``share`` of all. None: the codes say nothing about this query."""
        segment, of = self._live.segment, self._asked
        trust = segment.trust
        assert trust is not None
        if not of.is_tame:
            return None
        coding = Coding(of.metric, trust.scale)
        # Where few rows count, the nearest of them lie in lists further away.
        probes = trust.probes_for(recall) * segment.rows / self.left
        asked = min(asked, self.left)
        lists = segment.index.nlist
        if share * self.left > NEIGHBOURS:
            # So many probes find the closest few, which may all be of one cluster; of as many as these it must not be taken for granted.
            probes = max(probes, lists * (share / ALL_LISTS_SHARE) ** LISTS_POWER)
        read = min(int(np.ceil(probes)), lists)
        found, rows = self._search(of.coded, asked, read)
        if rows[-1] < 0 and read < lists:
            # Those lists hold too few of the rows that count.
            read = lists
            found, rows = self._search(of.coded, asked, read)
        there = rows >= 0
        rows, estimates = rows[there], coding.closeness(found[there]) * of.scale
        away = segment.lists.distances(of.coded).astype(np.float64) * (trust.margin(recall) * of.scale)
        margins = segment.spread[rows] * away[segment.lists.of(rows)]
        furthest = float(np.partition(away, read - 1)[read - 1])
        unseen = estimates[-1] + trust.reach * furthest if len(rows) else -np.inf
        return Coded(rows, estimates + margins, float(unseen))

    def _fits_float32(self) -> bool:
        """Can no float32 sum of a comparison overflow, nor all of them vanish? FAISS would then leave rows out, or mix them up."""
        if self._asked.metric is Metric.COSINE:
            return True
        row, query = self._live.segment.largest, self._asked.largest
        if self._asked.metric is Metric.DOT_PRODUCT:
            least, most = row * query, row * query * len(self._asked.query)
        else:
            least, most = max(row, query) ** 2, (row + query) ** 2 * len(self._asked.query)
        return most == 0 or (least >= FLOAT32_LEAST and most <= FLOAT32_MOST)

    def every(self) -> Rows:
        """All rows to be searched."""
        if self._selected is not None:
            return np.flatnonzero(self._selected)
        return self._live.live_rows()

    def first(self, count: int) -> Rows:
        """The ``count`` rows that were written first, and a few more."""
        every = self.every()
        return every[np.argsort(self._live.segment.sequence[every], kind="stable")[: count + SPARE]]

    def _search(self, query: Matrix, count: int, probes: int | None) -> tuple[npt.NDArray[np.float32], Rows]:
        parameters: dict[str, Any] = {}
        bits = self._bits()
        if bits is not None:
            parameters["sel"] = faiss.IDSelectorBitmap(bits)
        if probes is None:
            how = faiss.SearchParameters(**parameters)
        else:
            how = faiss.SearchParametersIVF(nprobe=probes, **parameters)
        distances, rows = self._live.segment.index.search(query, count, params=how)
        return distances[0], np.asarray(rows[0], dtype=np.int64)

    def _bits(self) -> npt.NDArray[np.uint8] | None:
        if self._selected is None:
            return self._live.alive_bits
        return np.packbits(self._selected, bitorder="little")
