"""The nearest vectors of one view: candidates from each segment's FAISS index, exact closeness from the raw vectors.

Deleted rows and other namespaces are kept out by a bitmap that FAISS honours inside its scan. Where few rows are left to
look at, they are compared one by one, which is exact and cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from upwell.query.lookup import Found
from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.metric import Metric, closeness, searchable
from upwell.shard.view import LiveSegment, View

#: FAISS is asked for this many more than wanted: it orders near-equals by float32 and equals by row, we by float64 and id.
#: Beyond this many equals at the last place, which of them are answered is up to their rows.
SPARE = 64
#: With fewer rows left than this, or a smaller share of the segment than SCANNED_SHARE, rows are compared one by one.
SCANNED_ROWS = 256
SCANNED_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A vector and how close it is: larger is closer, by the index's metric (see upwell.shard.metric)."""

    found: Found
    closeness: float


def search(
    view: View, query: npt.NDArray[np.float32], count: int, namespace: str | None = None
) -> list[Match]:
    """The ``count`` vectors closest to ``query`` (float32 (dimensions,)), closest first; equals by id.

    ``namespace`` None searches everything. Blocking; run it in a thread.
    """
    if query.shape != (view.record.dimensions,):
        raise ValueError(f"query has shape {query.shape}, expected ({view.record.dimensions},)")
    # Threads belong to the caller's executor: FAISS must not start more of its own under each of them.
    faiss.omp_set_num_threads(1)
    metric = view.record.metric
    matches: list[Match] = []
    for segments in view.shards:
        for live in segments:
            rows = _candidates(live, metric, query, count, namespace)
            near = closeness(metric, query, live.segment.vectors[rows])
            matches += [
                Match(Found(live.segment, row), near_one)
                for row, near_one in zip(rows.tolist(), near.tolist(), strict=True)
            ]
    matches.sort(key=lambda match: -match.closeness)
    return _stable(matches, count)


def _stable(matches: list[Match], count: int) -> list[Match]:
    """The first ``count``, with equals ordered by id: so that the same question gets the same answer."""
    if len(matches) > count:
        least = matches[count - 1].closeness
        matches = [match for match in matches if match.closeness >= least]
    matches.sort(key=lambda match: (-match.closeness, match.found.id))
    return matches[:count]


def _candidates(
    live: LiveSegment, metric: Metric, query: npt.NDArray[np.float32], count: int, namespace: str | None
) -> Rows:
    """Rows of a segment among which its ``count`` closest surely are (exact index) or very likely are."""
    segment = live.segment
    selected = _selected(live, namespace)
    left = segment.rows if selected is None else int(selected.sum())
    if left == 0:
        return np.empty(0, np.int64)
    if selected is not None and (left <= max(count, SCANNED_ROWS) or left < SCANNED_SHARE * segment.rows):
        return _scanned(live, metric, query, count, np.flatnonzero(selected))
    parameters = None
    if selected is not None:
        bits = np.packbits(selected, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParameters(sel=selector)
    wanted = searchable(metric, query[None, :])
    distances, rows = segment.index.search(wanted, min(count + SPARE, left), params=parameters)
    if (rows[0] < 0).any() or not np.isfinite(distances[0]).all():
        # Values so large that float32 overflows, for which FAISS leaves rows out.
        every = np.arange(segment.rows) if selected is None else np.flatnonzero(selected)
        return _scanned(live, metric, query, count, every)
    return np.asarray(rows[0], dtype=np.int64)


def _scanned(
    live: LiveSegment, metric: Metric, query: npt.NDArray[np.float32], count: int, rows: Rows
) -> Rows:
    """The ``count`` closest of ``rows``, compared one by one, and SPARE more."""
    near = closeness(metric, query, live.segment.vectors[rows])
    return rows[np.argsort(-near, kind="stable")[: count + SPARE]]


def _selected(live: LiveSegment, namespace: str | None) -> Mask | None:
    """The rows to be searched, or None for all."""
    if namespace is None:
        return None if live.deleted is None else ~live.deleted
    inside = live.segment.in_namespace(namespace)
    return inside if live.deleted is None else inside & ~live.deleted
