"""The FAISS index of a large segment: one-bit RaBitQ codes in inverted lists, and how far its answers can be trusted.

A code estimates closeness; whoever searches ranks by the raw vectors afterwards (query/rescore.py). Two things decide whether a
true neighbour is found, and both are *measured* on the segment itself when it is built, with some of its own rows as
queries and their exact neighbours as truth:

    margin    by how much a code underestimates the closeness of a true neighbour. Rows whose estimate plus the margin does not
              reach the closest ones found so far need not be looked at.
    probes    how many lists, nearest first, have to be read to come across a true neighbour.

Both are kept as quantiles, so that recall is a choice of the one who asks. Codes are built at about 4 us a vector of 384
dimensions, and take 64 bytes of it (an index of HNSW takes fifty times both).

RaBitQ: Gao and Long, SIGMOD 2024 (arXiv 2405.12497); FAISS's IndexIVFRaBitQFastScan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from upwell.changeset import Matrix
from upwell.shard.keys import Rows
from upwell.shard.metric import Metric, searchable
from upwell.shard.vectors import Vectors

#: From this many rows on a segment has codes; fewer are compared one by one as fast.
CODED_ROWS_MIN = 2_048
#: Below this many dimensions a one-bit code says little, and comparing costs little: vectors are kept in the lists instead.
CODED_DIMENSIONS_MIN = 64
#: Lists for at least so many rows. More lists cost more to train than they spare in a scan (tests/bench/README.md).
LISTS = ((4_000_000, 2048), (1_000_000, 1024), (256_000, 512), (64_000, 256))
TRAINED_ON_PER_LIST = 64
TRAINING_ROUNDS = 10
#: A component beyond this may overflow the float32 sums of squares in training and coding.
COMPONENT_MAX = 1e15

NEIGHBOURS = 10
#: How many of its rows a segment is measured with: one of a single list, which is made in a hurry, and one of several.
SAMPLE_ROWS = 32
SAMPLE_ROWS_LISTED = 96
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)
#: Of what may be missed, this share may be missed for want of probes; the rest for the margin, which costs less to widen.
PROBES_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Trust:
    """What a segment's index was measured to need: per quantile in QUANTILES, the margin and the probes."""

    margins: tuple[float, ...]
    probes: tuple[int, ...]

    def margin(self, recall: float) -> float:
        """The margin at which at most its share of ``1 - recall`` is missed: all of it where there is one list."""
        share = 1 if self.probes[-1] == 1 else 1 - PROBES_SHARE
        return self.margins[_at_least(1 - (1 - recall) * share)]

    def probes_for(self, recall: float) -> int:
        """The same for the number of lists."""
        return self.probes[_at_least(1 - (1 - recall) * PROBES_SHARE)]

    def to_json(self) -> dict[str, Any]:
        return {"margins": self.margins, "probes": self.probes}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(tuple(fields["margins"]), tuple(fields["probes"]))


def _at_least(quantile: float) -> int:
    return next(place for place, one in enumerate(QUANTILES) if one >= min(quantile, 1.0) - 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """An index, and the order in which the segment's rows have to lie for it: its row i is row ``order[i]`` of those given."""

    kind: str
    index: Any
    order: Rows
    trust: Trust

    def serialised(self) -> npt.NDArray[np.uint8]:
        """The index as FAISS writes it."""
        return np.asarray(faiss.serialize_index(self.index))


def lists_for(rows: int) -> int:
    """How many inverted lists a segment of so many rows has."""
    return next((lists for least, lists in LISTS if rows >= least), 1)


def wants_codes(rows: int, dimensions: int) -> bool:
    """Is a segment of this size searched by codes or lists, or compared one by one?"""
    if dimensions < CODED_DIMENSIONS_MIN:
        return lists_for(rows) > 1
    return rows >= CODED_ROWS_MIN


def build(vectors: Vectors, metric: Metric, alive: Callable[[], None] = lambda: None) -> Built | None:
    """An index over ``searchable`` vectors; None if their components are too large for one. Takes seconds per million.

    ``alive`` is called now and then, and may raise to have it stopped.
    """
    lists = lists_for(len(vectors))
    codes = "RaBitQfs" if vectors.dimensions >= CODED_DIMENSIONS_MIN else "Flat"
    kind = f"IVF{lists},{codes}"
    index = faiss.index_factory(vectors.dimensions, kind, metric.faiss_metric)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINED_ON_PER_LIST
    index.cp.niter = TRAINING_ROUNDS
    sample = _sample(len(vectors), max(CODED_ROWS_MIN, lists * TRAINED_ON_PER_LIST))
    training = searchable(metric, vectors.take(sample).read())
    if not is_tame(training):
        return None
    index.train(training)
    for chunk in vectors.chunks():
        alive()
        ready = searchable(metric, chunk)
        if not is_tame(ready):
            return None
        index.add(ready)
    order, ends = _put_lists_in_order(index)
    trust = _measure(index, vectors.take(order), metric, ends, alive)
    return Built(kind, index, order, trust)


def is_tame(vectors: Matrix) -> bool:
    """Are all components small enough for codes?"""
    return bool(vectors.size == 0 or max(float(vectors.max()), -float(vectors.min())) <= COMPONENT_MAX)


def _sample(rows: int, count: int) -> Rows:
    """``count`` row numbers, ascending; the same for the same arguments, so that a segment built twice is the same."""
    if count >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(rows).choice(rows, count, replace=False))


def _put_lists_in_order(index: Any) -> tuple[Rows, Rows]:
    """Number the rows list by list, so that what is read together lies together; returns their order, and where lists end.

    FAISS finds a row's code and factors by its place in its list, so that a number is only a name.
    """
    order, ends, end = [], [], 0
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
            order.append(ids.copy())
            ids[:] = np.arange(end, end + size)
        end += size
        ends.append(end)
    return np.concatenate(order), np.array(ends)


def _measure(index: Any, vectors: Vectors, metric: Metric, ends: Rows, alive: Callable[[], None]) -> Trust:
    """Ask the index for the neighbours of some of its own rows, and note what it would have taken to find them."""
    chosen = _sample(len(vectors), SAMPLE_ROWS if index.nlist == 1 else SAMPLE_ROWS_LISTED)
    asked = np.ascontiguousarray(searchable(metric, vectors.take(chosen).read()))
    close, rows = _exact_neighbours(asked, vectors, metric, chosen, alive)
    short = []
    for place, one in enumerate(asked):
        its = rows[place][rows[place] >= 0]
        selector = faiss.IDSelectorBatch(its)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist)
        found, names = index.search(one[None, :], len(its), params=parameters)
        truth = dict(zip(rows[place].tolist(), close[place].tolist(), strict=True))
        estimates = found[0] if metric is not Metric.EUCLIDEAN else -found[0]
        short += [
            truth[name] - float(e) for name, e in zip(names[0].tolist(), estimates, strict=True) if name >= 0
        ]
    margins = np.quantile(np.maximum(short, 0), QUANTILES, method="higher")
    return Trust(tuple(margins.tolist()), _probes(index, asked, rows, ends))


def _probes(index: Any, asked: Matrix, rows: Rows, ends: Rows) -> tuple[int, ...]:
    if index.nlist == 1:
        return (1,) * len(QUANTILES)
    _, lists = index.quantizer.search(asked, index.nlist)
    rank = np.empty_like(lists)
    np.put_along_axis(rank, lists, np.arange(index.nlist)[None, :], axis=1)
    its_lists = np.searchsorted(ends, rows, side="right")
    needed = np.take_along_axis(rank, np.minimum(its_lists, index.nlist - 1), axis=1)[rows >= 0] + 1
    return tuple(np.quantile(needed, QUANTILES, method="higher").astype(int).tolist())


def _exact_neighbours(
    asked: Matrix, vectors: Vectors, metric: Metric, own: Rows, alive: Callable[[], None]
) -> tuple[npt.NDArray[np.float32], Rows]:
    """The NEIGHBOURS closest rows of each of ``asked``, itself left out: closeness and row, (n, NEIGHBOURS), -1 for none."""
    count = NEIGHBOURS + 1
    close = np.full((len(asked), 0), -np.inf, np.float32)
    rows = np.full((len(asked), 0), -1, np.int64)
    start = 0
    for chunk in vectors.chunks():
        alive()
        ready = np.ascontiguousarray(searchable(metric, chunk))
        distances, found = faiss.knn(asked, ready, min(count, len(ready)), metric=metric.faiss_metric)
        here = -distances if metric is Metric.EUCLIDEAN else distances
        found = np.where(found >= 0, found + start, -1)
        here = np.where((found < 0) | (found == own[:, None]), -np.inf, here)
        close, rows = np.concatenate([close, here], axis=1), np.concatenate([rows, found], axis=1)
        best = np.argsort(-close, axis=1, kind="stable")[:, :count]
        close, rows = np.take_along_axis(close, best, axis=1), np.take_along_axis(rows, best, axis=1)
        start += len(chunk)
    rows = np.where(np.isfinite(close), rows, -1)
    return close[:, :NEIGHBOURS], rows[:, :NEIGHBOURS]
