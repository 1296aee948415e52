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
from upwell.shard.vectors import CHUNK_BYTES, Vectors

#: From this many rows on a segment has codes; fewer are compared one by one as fast.
CODED_ROWS_MIN = 2_048
#: Below this many dimensions a one-bit code says little, and comparing costs little: vectors are kept in the lists instead.
CODED_DIMENSIONS_MIN = 64
#: Lists for at least so many rows. More lists cost more to train than they spare in a scan (tests/bench/README.md).
LISTS = ((4_000_000, 2048), (1_000_000, 1024), (256_000, 512), (64_000, 256), (16_000, 128))
TRAINED_ON_PER_LIST = 64
TRAINING_ROUNDS = 10
#: Segments whose largest component lies outside are not coded: float32 sums of squares would overflow, or vanish beside the
#: epsilons that FAISS adds when it codes.
COMPONENT_MAX = 1e15
COMPONENT_MIN = 1e-6

#: Of vectors coded for inner products.
LENGTH = 128.0

NEIGHBOURS = 10
#: How many of its rows a segment is measured with: one of a single list, which is made in a hurry, and one of several.
SAMPLE_ROWS = 24
SAMPLE_ROWS_LISTED = 128
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)
#: Of what may be missed, this share may be missed for want of probes, the rest for the margin.
PROBES_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Coding:
    """How vectors are put before FAISS's RaBitQ, whose estimates of an inner product carry an absolute error of some hundredths:
    for unit vectors that triples the candidates one has to look at. Squared distances have no such error, nor have long vectors.

    cosine        unit vectors, by squared distance: closeness = 1 - distance / 2
    dot-product   rows times ``scale``, so that they are about LENGTH long; queries of that very length: closeness of a unit query
    euclidean     as they are
    """

    metric: Metric
    scale: float = 1.0

    @classmethod
    def for_rows(cls, metric: Metric, sample: Matrix) -> Self:
        """The coding that suits rows like these."""
        if metric is not Metric.DOT_PRODUCT:
            return cls(metric)
        length = float(np.median(np.linalg.norm(sample.astype(np.float64), axis=1)))
        # A power of two changes no bit of a mantissa.
        return cls(metric, float(2.0 ** np.round(np.log2(LENGTH / length))) if length else 1.0)

    @property
    def faiss_metric(self) -> int:
        return int(faiss.METRIC_INNER_PRODUCT if self.metric is Metric.DOT_PRODUCT else faiss.METRIC_L2)

    def rows(self, vectors: Matrix) -> Matrix:
        """Rows as they are coded, float32 of the same shape."""
        if self.metric is Metric.DOT_PRODUCT:
            return np.asarray(vectors * np.float32(self.scale))
        return np.ascontiguousarray(searchable(self.metric, vectors))

    def queries(self, vectors: Matrix) -> Matrix:
        """Queries (n, dimensions) as the codes are asked."""
        if self.metric is Metric.DOT_PRODUCT:
            return np.asarray(searchable(Metric.COSINE, vectors) * np.float32(LENGTH))
        return np.ascontiguousarray(searchable(self.metric, vectors))

    def closeness(self, distances: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What FAISS answers, as closeness (of a unit query, where the metric is a dot product)."""
        exact = distances.astype(np.float64)
        match self.metric:
            case Metric.COSINE:
                return np.asarray(1 - exact / 2)
            case Metric.EUCLIDEAN:
                return -exact
            case Metric.DOT_PRODUCT:
                return np.asarray(exact / (self.scale * LENGTH))


@dataclass(frozen=True, slots=True)
class Trust:
    """What a segment's index was measured to need: per quantile in QUANTILES, the margin and the probes.

    Margins hold for queries of length one (dot product), or no further from the nearest list's centre than ``reach`` (the others):
    the error of an estimate grows in proportion to either.
    """

    margins: tuple[float, ...]
    probes: tuple[int, ...]
    reach: float
    #: See Coding.
    scale: float = 1.0

    def margin(self, recall: float) -> float:
        """The margin at which at most its share of ``1 - recall`` is missed: all of it where there is one list."""
        share = 1 if self.probes[-1] == 1 else 1 - PROBES_SHARE
        return self.margins[_at_least(1 - (1 - recall) * share)]

    def probes_for(self, recall: float) -> int:
        """The same for the number of lists."""
        return self.probes[_at_least(1 - (1 - recall) * PROBES_SHARE)]

    def to_json(self) -> dict[str, Any]:
        return {"margins": self.margins, "probes": self.probes, "reach": self.reach, "scale": self.scale}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(tuple(fields["margins"]), tuple(fields["probes"]), fields["reach"], fields["scale"])


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
    """An index over ``vectors``; None if their components are too large for one. Takes seconds per million.

    ``alive`` is called now and then, and may raise to have it stopped.
    """
    # FAISS's own threads wait busily for one another, which costs dearly where others want the cores.
    faiss.omp_set_num_threads(1)
    if vectors.nbytes <= CHUNK_BYTES:
        vectors = Vectors.of(vectors.read())
    if not _is_tame(vectors):
        return None
    lists = lists_for(len(vectors))
    sample = vectors.take(_sample(len(vectors), max(CODED_ROWS_MIN, lists * TRAINED_ON_PER_LIST))).read()
    coding = Coding.for_rows(metric, sample)
    codes = "RaBitQfs" if vectors.dimensions >= CODED_DIMENSIONS_MIN else "Flat"
    kind = f"IVF{lists},{codes}"
    index = faiss.index_factory(vectors.dimensions, kind, coding.faiss_metric)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINED_ON_PER_LIST
    index.cp.niter = TRAINING_ROUNDS
    index.train(coding.rows(sample))
    for chunk in vectors.chunks():
        alive()
        index.add(coding.rows(chunk))
    order, ends = _put_lists_in_order(index)
    trust = _measure(index, vectors.take(order), coding, ends, alive)
    return Built(kind, index, order, trust)


def largest(vectors: Matrix) -> float:
    """The largest component, without its sign; 0 for none."""
    return max(float(vectors.max()), -float(vectors.min())) if vectors.size else 0.0


def _is_tame(vectors: Vectors) -> bool:
    """Is the largest component of all such that codes can be trusted? None but zeros will do as well."""
    found = max(map(largest, vectors.chunks()), default=0.0)
    return found == 0 or COMPONENT_MIN <= found <= COMPONENT_MAX


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


def _measure(index: Any, vectors: Vectors, coding: Coding, ends: Rows, alive: Callable[[], None]) -> Trust:
    """Ask the index for the neighbours of some of its own rows, and note what it would have taken to find them."""
    chosen = _sample(len(vectors), SAMPLE_ROWS if index.nlist == 1 else SAMPLE_ROWS_LISTED)
    asked = coding.queries(vectors.take(chosen).read())
    close, rows = _exact_neighbours(asked, vectors, coding, chosen, alive)
    short: list[float] = []
    for place, one in enumerate(asked):
        its = rows[place][rows[place] >= 0]
        parameters = faiss.SearchParametersIVF(sel=faiss.IDSelectorBatch(its), nprobe=index.nlist)
        found, names = index.search(one[None, :], len(its), params=parameters)
        truth = dict(zip(rows[place].tolist(), close[place].tolist(), strict=True))
        estimates = coding.closeness(found[0]).tolist()
        short += [
            truth[name] - one for name, one in zip(names[0].tolist(), estimates, strict=True) if name >= 0
        ]
    margins = np.quantile(np.maximum(short, 0), QUANTILES, method="higher")
    reach = 0.0
    if coding.metric is not Metric.DOT_PRODUCT:
        nearest, _ = index.quantizer.search(asked, 1)
        reach = float(np.sqrt(max(np.median(nearest), 0)))
    return Trust(tuple(margins.tolist()), _probes(index, asked, rows, ends), reach, coding.scale)


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
    asked: Matrix, vectors: Vectors, coding: Coding, own: Rows, alive: Callable[[], None]
) -> tuple[npt.NDArray[np.float64], Rows]:
    """The NEIGHBOURS closest rows of each of ``asked``, itself left out: closeness and row, (n, NEIGHBOURS), -1 for none."""
    count = NEIGHBOURS + 1
    close = np.full((len(asked), 0), -np.inf)
    rows = np.full((len(asked), 0), -1, np.int64)
    start = 0
    for chunk in vectors.chunks():
        alive()
        distances, found = faiss.knn(
            asked, coding.rows(chunk), min(count, len(chunk)), metric=coding.faiss_metric
        )
        found = np.where(found >= 0, found + start, -1)
        here = np.where((found < 0) | (found == own[:, None]), -np.inf, coding.closeness(distances))
        close, rows = np.concatenate([close, here], axis=1), np.concatenate([rows, found], axis=1)
        best = np.argsort(-close, axis=1, kind="stable")[:, :count]
        close, rows = np.take_along_axis(close, best, axis=1), np.take_along_axis(rows, best, axis=1)
        start += len(chunk)
    rows = np.where(np.isfinite(close), rows, -1)
    return close[:, :NEIGHBOURS], rows[:, :NEIGHBOURS]
