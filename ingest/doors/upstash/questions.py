"""What a query asks: its vectors or its text, and what is wanted of the rows that are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.body import Rules
from ingest.doors.upstash.context import Asked
from ingest.doors.upstash.errors import DENSE_REQUIRED, NO_MODEL, SPARSE_REQUIRED
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.filters import parse_filter
from ingest.doors.upstash.rows import check_no_others, read_data, read_dense, read_sparse
from ingest.doors.upstash.shown import Include, score
from ingest.doors.upstash.strict import items_of
from upwell.catalog.record import IndexRecord
from upwell.errors import Invalid
from upwell.kinds import IndexKind
from upwell.query.fusion import Fusion
from upwell.query.hybrid import Question
from upwell.query.scope import RowFilter
from upwell.settings import Settings
from upwell.shard.filter import Filter
from upwell.sparse import Sparse

TOP_K_DEFAULT: Final = 10
QUERIES_MAX: Final = 1_000
#: Of a body of queries.
QUERIES_BYTES_MAX: Final = 32 << 20
#: How many different filters of the longest kind the queries of one request may have.
FILTERS_MAX: Final = 16
FUSIONS: Final = tuple(fusion.name for fusion in Fusion)
MODES: Final = ("HYBRID", "DENSE", "SPARSE")

Dense = npt.NDArray[np.float32]
SparseVector = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One query. ``text`` None: it has its vectors itself."""

    top_k: int
    include: Include
    filter: Filter | None
    idf: bool
    fusion: Fusion
    dense: Dense | None = None
    sparse: SparseVector | None = None
    text: str | None = None
    #: Which vectors are to be made of the text.
    by_dense: bool = False
    by_sparse: bool = False

    def question(
        self,
        namespace: str,
        recall: float,
        within: RowFilter | None,
        made: tuple[Dense | None, SparseVector | None] = (None, None),
    ) -> Question:
        """The question that it puts. ``within``: what its filter leaves. ``made``: vectors of its text."""
        return Question(
            dense=made[0] if self.by_dense else self.dense,
            sparse=made[1] if self.by_sparse else self.sparse,
            namespace=namespace,
            dense_score=score,
            fusion=self.fusion,
            within=within,
            idf=self.idf,
            recall=recall,
        )


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of one request. ``is_single``: they are answered by one list, not by a list of lists."""

    queries: list[Query]
    is_single: bool


class Filters:
    """Reads the filters of one request, each text once: a long one takes fifty milliseconds, in which others wait."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._all_bytes_max = FILTERS_MAX * bytes_max
        self._bytes = 0
        self._known: dict[str, Filter | None] = {}

    def read(self, text: str) -> Filter | None:
        """As ``parse_filter``. Raises Invalid also if this is too much for one request."""
        if text not in self._known:
            self._bytes += len(text)
            if self._bytes > self._all_bytes_max:
                raise Invalid(
                    f"filter: expected at most {self._all_bytes_max} characters in all queries together, got more"
                )
            self._known[text] = parse_filter(text, self._bytes_max)
        return self._known[text]


def read_queries(asked: Asked, text: bytes) -> Queries:
    """What a body of ``query`` or ``query-data`` asks. Raises InvalidLine, UpstashError or Invalid; blocks."""
    record, settings = asked.index.record, asked.settings
    by_text = asked.command == "query-data"
    rules = query_rules(record, settings, by_text=by_text)
    queries, filters = [], Filters(settings.upstash_filter_bytes_max)
    items = items_of(text, rules)
    for place, item in enumerate(items, 1):
        try:
            queries.append(read_query(Fields(item), record, settings, filters, by_text=by_text))
        except Invalid as error:
            raise items.blamed(error, place, None) from None
    if not queries:
        raise Invalid("expected at least one query, got an empty array")
    wanted = sum(query.top_k for query in queries)
    if len(queries) > 1 and wanted > settings.upstash_matches_max:
        raise Invalid(
            f"topK: expected at most {settings.upstash_matches_max} in all queries together, got {wanted}"
        )
    return Queries(queries, is_single=len(queries) == 1)


def query_rules(record: IndexRecord, settings: Settings, *, by_text: bool) -> Rules:
    """How large a query may be, and how many there may be in one request."""
    return Rules(
        dimensions=record.dimensions,
        vectors_max=QUERIES_MAX,
        bytes_max=min(QUERIES_BYTES_MAX, settings.request_bytes_max),
        metadata_bytes_max=settings.upstash_filter_bytes_max,
        data_bytes_max=settings.upstash_data_bytes_max if by_text else 0,
    )


def read_query(
    fields: Fields, record: IndexRecord, settings: Settings, filters: Filters, *, by_text: bool
) -> Query:
    """One query. Raises Invalid."""
    plain: dict[str, Any] = {
        "top_k": fields.number("topK", TOP_K_DEFAULT, 1, settings.upstash_top_k_max),
        "include": Include.of(fields),
        "filter": filters.read(fields.text("filter")),
        "idf": fields.one_of("weightingStrategy", ("IDF",)) is not None,
        "fusion": Fusion[fields.one_of("fusionAlgorithm", FUSIONS) or Fusion.RRF.name],
    }
    if by_text:
        by_dense, by_sparse = _models(fields, record)
        text = read_data(fields, settings.upstash_data_bytes_max)
        if text is None:
            raise Invalid("data: expected a string, got nothing")
        return Query(**plain, text=text, by_dense=by_dense, by_sparse=by_sparse)
    check_no_others(record.kind, dense=fields.has("vector"), sparse=fields.has("sparseVector"))
    dense = read_dense(fields, record.dimensions)
    sparse = read_sparse(fields, settings.upstash_sparse_max)
    if dense is None and sparse is None:
        says = DENSE_REQUIRED if record.kind.has_dense else SPARSE_REQUIRED
        raise Invalid(f"{says}; expected vector or sparseVector" if record.kind is IndexKind.HYBRID else says)
    return Query(
        **plain,
        dense=dense,
        sparse=None
        if sparse is None
        else (np.array(sparse[0], np.int32), np.array(sparse[1], np.float64).astype(np.float32)),
    )


def _models(fields: Fields, record: IndexRecord) -> tuple[bool, bool]:
    """Whether dense vectors, and sparse ones, are to be made of a query's text."""
    mode = fields.one_of("queryMode", MODES) or "HYBRID"
    if not record.embeds:
        raise Invalid(NO_MODEL)
    dense, sparse = record.kind.has_dense and mode != "SPARSE", record.kind.has_sparse and mode != "DENSE"
    if not dense and not sparse:
        raise Invalid(f"queryMode: this index has no {mode.lower()} vectors")
    return dense, sparse


def one_of_each(
    dense: npt.NDArray[np.float32] | None, sparse: Sparse | None, place: int
) -> tuple[Dense | None, SparseVector | None]:
    """The vectors of one text among several."""
    return None if dense is None else dense[place], None if sparse is None else sparse.row(place)
