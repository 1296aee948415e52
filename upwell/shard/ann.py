"""The FAISS index of a large segment: one-bit RaBitQ codes in inverted lists, and how far its answers can be trusted.

A code estimates closeness; whoever searches ranks by the raw vectors afterwards (query/rescore.py). Two things decide whether a
true neighbour is found, and both are *measured* on the segment itself when it is built, with exact neighbours as truth:

    margin    how wrong an estimate is. It grows in proportion to the row's distance from the centre of its list (``spread``, kept
              for each row) and to the query's; what is measured is the factor. Rows whose estimate and margin together do not
              reach the closest ones found so far need not be looked at.
    probes    how many lists, nearest first, have to be read to come across a true neighbour.

Both are kept as quantiles, so that recall is a choice of the one who asks. Codes are built at about 4 us a vector of 384
dimensions, and take 64 bytes of it (an index of HNSW takes fifty times both).

RaBitQ: Gao and Long, SIGMOD 2024 (arXiv 2405.12497), whose error bound has that form; FAISS's IndexIVFRaBitQFastScan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
LISTS = ((4_000_000, 2048), (1_000_000, 1024), (256_000, 512), (32_000, 256), (16_000, 128))
TRAINED_ON_PER_LIST = 64
TRAINING_ROUNDS = 10
#: Segments whose largest component lies outside are not coded: float32 sums of squares would overflow, or vanish beside the
#: epsilons that FAISS adds when it codes.
COMPONENT_MAX = 1e15
COMPONENT_MIN = 1e-6

#: Rows further from their list's centre than this share of all are taken for being as far.
REACH_QUANTILE = 0.999
#: Of vectors coded for inner products.
LENGTH = 128.0

NEIGHBOURS = 10
#: How many of its rows a segment is measured with: one of a single list, which is made in a hurry, and one of several.
SAMPLE_ROWS = 24
SAMPLE_ROWS_LISTED = 128
QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 1.0)
#: A margin may be too small for so many times the share that may be missed: half of those errors are to the good, and most true
#: neighbours are closer than the last one wanted, so that they bear an error.
MARGIN_LENIENCE = 2.5


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
    """What a segment's index was measured to need: per quantile in QUANTILES, the margin's factor and the probes."""

    margins: tuple[float, ...]
    probes: tuple[int, ...]
    #: The spread that hardly any row exceeds.
    reach: float
    #: See Coding.
    scale: float = 1.0

    def margin(self, recall: float) -> float:
        """The margin's factor for a recall."""
        return self.margins[_at_least(1 - MARGIN_LENIENCE * (1 - recall))]

    def probes_for(self, recall: float) -> int:
        """The number of lists for a recall."""
        return self.probes[_at_least(recall)]

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
    #: Each row's distance from the centre of its list, as coded: float32 (rows,), in the index's order.
    spread: npt.NDArray[np.float32]

    def serialised(self) -> npt.NDArray[np.uint8]:
        """The index as FAISS writes it."""
        return np.asarray(faiss.serialize_index(self.index))


def lists_for(rows: int) -> int:
    """How many inverted lists a segment of so many rows has."""
    return next((lists for least, lists in LISTS if rows >= least), 1)


def wants_index(rows: int, dimensions: int, lists: int) -> bool:
    """Is a segment of this size, with so many lists, searched by codes or lists? Else it is compared one by one, or has no dense vectors."""
    if dimensions == 0:
        return False
    return lists > 1 or (dimensions >= CODED_DIMENSIONS_MIN and rows >= CODED_ROWS_MIN)


def build(
    vectors: Vectors, metric: Metric, lists: int, alive: Callable[[], None] = lambda: None
) -> Built | None:
    """An index over ``vectors``; None if their components are too large for one. Takes seconds per million.

    ``alive`` is called now and then, and may raise to have it stopped.
    """
    # FAISS's own threads wait busily for one another, which costs dearly where others want the cores.
    faiss.omp_set_num_threads(1)
    if vectors.nbytes <= CHUNK_BYTES:
        vectors = Vectors.of(vectors.read())
    sample = vectors.take(_sample(len(vectors), max(CODED_ROWS_MIN, lists * TRAINED_ON_PER_LIST))).read()
    coding = Coding.for_rows(metric, sample)
    if not _is_tame(vectors, coding):
        return None
    codes = "RaBitQfs" if vectors.dimensions >= CODED_DIMENSIONS_MIN else "Flat"
    kind = f"IVF{lists},{codes}"
    index = faiss.index_factory(vectors.dimensions, kind, coding.faiss_metric)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINED_ON_PER_LIST
    index.cp.niter = TRAINING_ROUNDS
    index.train(coding.rows(sample))
    for _, coded in _coded_chunks(vectors, coding, alive):
        index.add(coded)
    lists_of = Lists(index)
    order = _put_in_order(index)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    spread = _spread(lists_of, vectors, coding, place, alive)
    trust = _measure(index, lists_of, vectors, coding, place=place, spread=spread, alive=alive)
    return None if trust is None else Built(kind, index, order, trust, spread)


class Lists:
    """The lists of an index: where each ends in the order of rows, and how far their centres are from something."""

    def __init__(self, index: Any) -> None:
        sizes = [index.invlists.list_size(number) for number in range(index.nlist)]
        self._ends = np.cumsum(sizes)
        self._centres = index.quantizer.reconstruct_n(0, index.nlist)
        self._squares = np.einsum("ij,ij->i", self._centres, self._centres)

    def of(self, places: Rows) -> Rows:
        """The list of each row, by its place in the order of rows."""
        return np.searchsorted(self._ends, places, side="right")

    def centres(self, lists: Rows) -> Matrix:
        """The centres of the given lists."""
        return np.asarray(self._centres[lists])

    def distances(self, query: Matrix) -> npt.NDArray[np.float32]:
        """How far the centre of each list is from a query (1, dimensions): float32 (lists,)."""
        squares = self._squares - 2 * (self._centres @ query[0]) + query[0] @ query[0]
        return np.asarray(np.sqrt(np.maximum(squares, 0)))


def largest(vectors: Matrix) -> float:
    """The largest component, without its sign; 0 for none."""
    return max(float(vectors.max()), -float(vectors.min())) if vectors.size else 0.0


def _is_tame(vectors: Vectors, coding: Coding) -> bool:
    """Is the largest component of all, as coded, such that codes can be trusted? None but zeros will do as well."""
    if coding.metric is Metric.COSINE:
        return True
    found = max(map(largest, vectors.chunks()), default=0.0) * coding.scale
    return found == 0 or COMPONENT_MIN <= found <= COMPONENT_MAX


def _sample(rows: int, count: int) -> Rows:
    """``count`` row numbers, ascending; the same for the same arguments, so that a segment built twice is the same."""
    if count >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(rows).choice(rows, count, replace=False))


def _coded_chunks(
    vectors: Vectors, coding: Coding, alive: Callable[[], None]
) -> Iterator[tuple[int, Matrix]]:
    """All rows as they are coded, a chunk at a time, and the number of its first row."""
    start = 0
    for chunk in vectors.chunks():
        alive()
        yield start, coding.rows(chunk)
        start += len(chunk)


def _put_in_order(index: Any) -> Rows:
    """Number the rows list by list, so that what is read together lies together; returns their order.

    FAISS finds a row's code and factors by its place in its list, so that a number is only a name.
    """
    order, end = [], 0
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
            order.append(ids.copy())
            ids[:] = np.arange(end, end + size)
        end += size
    return np.concatenate(order)


def _spread(
    lists: Lists, vectors: Vectors, coding: Coding, place: Rows, alive: Callable[[], None]
) -> npt.NDArray[np.float32]:
    """Each row's distance from the centre of its list, by place."""
    spread = np.empty(len(vectors), np.float32)
    for start, coded in _coded_chunks(vectors, coding, alive):
        its = place[start : start + len(coded)]
        away = coded - lists.centres(lists.of(its))
        spread[its] = np.sqrt(np.einsum("ij,ij->i", away, away))
    return spread


def _measure(
    index: Any,
    lists: Lists,
    vectors: Vectors,
    coding: Coding,
    *,
    place: Rows,
    spread: npt.NDArray[np.float32],
    alive: Callable[[], None],
) -> Trust | None:
    """Ask for the neighbours of some rows, and of queries that are like none, and note what it would have taken to find them.

    None if that cannot be told: then the segment had better be searched without codes.
    """
    chosen = _sample(len(vectors), SAMPLE_ROWS if index.nlist == 1 else SAMPLE_ROWS_LISTED)
    own = vectors.take(chosen).read()
    strange = np.random.default_rng(len(vectors)).normal(size=own.shape) * np.abs(own).mean()
    asked = np.concatenate([coding.queries(own), coding.queries(strange.astype(np.float32))])
    names = np.concatenate([chosen, np.full(len(own), -1)])
    close, rows = _exact_neighbours(asked, vectors, coding, names, alive)
    wrong: list[npt.NDArray[np.float64]] = []
    for number, query in enumerate(asked):
        there = rows[number] >= 0
        its = place[rows[number][there]]
        if len(its) == 0:
            continue
        parameters = faiss.SearchParametersIVF(sel=faiss.IDSelectorBatch(its), nprobe=index.nlist)
        found, found_at = index.search(query[None, :], len(its), params=parameters)
        told = found_at[0] >= 0
        by_place = dict(zip(its.tolist(), close[number][there].tolist(), strict=True))
        truth = np.array([by_place[one] for one in found_at[0][told].tolist()])
        unit = spread[found_at[0][told]] * lists.distances(query[None, :])[lists.of(found_at[0][told])]
        error = np.abs(truth - coding.closeness(found[0][told]))
        wrong.append(error[unit > 0] / unit[unit > 0])
    errors = np.concatenate(wrong) if wrong else np.empty(0)
    if not np.isfinite(errors).all():
        return None
    margins = np.quantile(errors, QUANTILES, method="higher") if len(errors) else np.zeros(len(QUANTILES))
    reach = float(np.quantile(spread, REACH_QUANTILE))
    return Trust(
        tuple(margins.tolist()),
        _probes(index, lists, asked[: len(own)], place, rows[: len(own)]),
        reach,
        coding.scale,
    )


def _probes(index: Any, lists: Lists, asked: Matrix, place: Rows, rows: Rows) -> tuple[int, ...]:
    if index.nlist == 1:
        return (1,) * len(QUANTILES)
    _, nearest = index.quantizer.search(asked, index.nlist)
    rank = np.empty_like(nearest)
    np.put_along_axis(rank, nearest, np.arange(index.nlist)[None, :], axis=1)
    needed = np.take_along_axis(rank, lists.of(place[rows]), axis=1)[rows >= 0] + 1
    return tuple(np.quantile(needed, QUANTILES, method="higher").astype(int).tolist())


def _exact_neighbours(
    asked: Matrix, vectors: Vectors, coding: Coding, own: Rows, alive: Callable[[], None]
) -> tuple[npt.NDArray[np.float64], Rows]:
    """The NEIGHBOURS closest rows of each of ``asked``, itself left out: closeness and row, (n, NEIGHBOURS), -1 for none."""
    count = NEIGHBOURS + 1
    close = np.full((len(asked), 0), -np.inf)
    rows = np.full((len(asked), 0), -1, np.int64)
    for start, coded in _coded_chunks(vectors, coding, alive):
        distances, found = faiss.knn(asked, coded, min(count, len(coded)), metric=coding.faiss_metric)
        found = np.where(found >= 0, found + start, -1)
        here = np.where((found < 0) | (found == own[:, None]), -np.inf, coding.closeness(distances))
        close, rows = np.concatenate([close, here], axis=1), np.concatenate([rows, found], axis=1)
        best = np.argsort(-close, axis=1, kind="stable")[:, :count]
        close, rows = np.take_along_axis(close, best, axis=1), np.take_along_axis(rows, best, axis=1)
    rows = np.where(np.isfinite(close), rows, -1)
    return close[:, :NEIGHBOURS], rows[:, :NEIGHBOURS]
