"""An index with namespaces and a dict that went through the same, to ask both. Everything is drawn from one seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pytest

from tests.making import Client, drain, make_engine, make_index
from upwell.changeset import Changeset, Details, KeyScope, Operation, Rename, without_rows
from upwell.kinds import IndexKind
from upwell.query import search as searching
from upwell.query.fusion import Fusion
from upwell.query.hybrid import DenseScore, Question, depth_of
from upwell.query.scope import Names, RowFilter
from upwell.query.search import RECALL, Match
from upwell.query.sparse import SparseVector
from upwell.shard import ann
from upwell.shard.deletions import Mask
from upwell.shard.metric import Metric
from upwell.shard.segment import Segment
from upwell.shard.view import View
from upwell.sparse import Sparse

NAMESPACES = ("", "one", "two")
DIMENSIONS = 3
#: So few that rows share many, and a row has some of them twice.
TERMS = 12
SCOPE = Details(scope=KeyScope.NAMESPACE)


@dataclass(frozen=True, eq=False)
class Row:
    """What the dict holds of a row. ``order``: the larger the later it was written."""

    namespace: str
    id: str
    dense: list[float]
    indices: list[int]
    values: list[float]
    order: int = 0


class Story:
    """An index, and the rows that it should have by namespace and id."""

    def __init__(self, folder: Path, seed: int, kind: IndexKind, *, shards: int = 2) -> None:
        self.random = np.random.default_rng(seed)
        self.engine = make_engine(folder, compaction_fanout=2, compaction_settle_s=0)
        self.index = make_index(
            self.engine,
            dimensions=DIMENSIONS,
            metric=Metric.COSINE,
            shards=shards,
            key_scope=KeyScope.OPEN,
            kind=kind,
        )
        self.kind = kind
        self.client = Client(self.index)
        self.held: dict[tuple[str, str], Row] = {}
        self._written = itertools.count(1)

    def row(self, namespace: str, name: str) -> Row:
        """Values are multiples of an eighth, so that sums of products are exact; some are zero, and equals are many."""
        count = int(self.random.integers(0, 6))
        return Row(
            namespace,
            name,
            [float(one) for one in self.random.integers(-8, 9, DIMENSIONS) / 8],
            [int(one) for one in self.random.integers(-2, TERMS - 2, count)],
            [float(one) for one in self.random.integers(-3, 4, count) / 8],
        )

    def write(self, rows: Sequence[Row], *, drained: bool = True) -> None:
        """Upsert rows as one mutation."""
        given = [row.namespace or None for row in rows]
        dense = np.array([row.dense for row in rows], np.float32).reshape(-1, DIMENSIONS)
        sparse = Sparse.of([(row.indices, row.values) for row in rows])
        self.client.append(
            Changeset(
                operation=Operation.UPSERT,
                ids=pa.array([row.id for row in rows], pa.utf8()),
                vectors=dense if self.kind.has_dense else None,
                sparse=sparse if self.kind.has_sparse else None,
                namespaces=pa.array(given, pa.utf8()) if any(given) else None,
                metadata=pa.array([orjson.dumps({"id": row.id}) for row in rows], pa.binary()),
                data=pa.array([f"text of {row.id}" for row in rows], pa.utf8()),
                received=len(rows),
                details=SCOPE,
            )
        )
        for row in rows:
            self.held.pop((row.namespace, row.id), None)
            self.held[row.namespace, row.id] = replace(row, order=next(self._written))
        if drained:
            self.drain()

    def write_some(self, count: int, *, names: int = 60) -> None:
        """Upsert rows of any namespace, some of them anew."""
        self.write(
            [
                self.row(NAMESPACES[self.random.integers(3)], f"v{self.random.integers(names)}")
                for _ in range(count)
            ]
        )

    def delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Delete by namespaces and ids."""
        if not keys:
            return
        self.client.append(
            Changeset(
                operation=Operation.DELETE,
                ids=pa.array([name for _, name in keys], pa.utf8()),
                namespaces=pa.array([namespace or None for namespace, _ in keys], pa.utf8()),
                received=len(keys),
                details=SCOPE,
            )
        )
        for key in keys:
            self.held.pop(key, None)
        self.drain()

    def delete_some(self, share: float) -> None:
        """Delete this share of all rows."""
        self.delete([key for key in self.held if self.random.random() < share])

    def rename(self, name: str, new_name: str) -> None:
        """Give a namespace that exists another name, which no other has."""
        details = Details(rename=Rename(namespace=name, new_namespace=new_name), scope=KeyScope.NAMESPACE)
        self.client.append(without_rows(Operation.RENAME_NAMESPACE, details))
        self.drain()
        moved = {key: row for key, row in self.held.items() if row.namespace == name}
        for (_, one), row in moved.items():
            del self.held[name, one]
            self.held[new_name, one] = replace(row, namespace=new_name)

    def compact(self) -> None:
        """Merge what can be merged."""
        for shard in range(self.index.record.shards):
            self.engine.compact(self.index.record.id, shard)

    def drain(self) -> None:
        """Apply everything."""
        drain(self.engine, self.index)

    def view(self) -> View:
        """The newest version."""
        return self.index.newest.get()

    def rows(self, namespace: str) -> list[Row]:
        """What should be there, in the order of writing."""
        its = [row for row in self.held.values() if row.namespace == namespace]
        return sorted(its, key=lambda row: row.order)


def even_ids(segment: Segment) -> Mask:
    """A filter: ids that end in an even digit."""
    return np.array([is_even(name) for name in segment.ids.to_pylist()])


def is_even(name: str) -> bool:
    """The same of one id."""
    return int(name[-1]) % 2 == 0


def sparse_of(
    indices: Sequence[int], values: Sequence[float]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """A sparse vector as queries have it."""
    return np.array(indices, np.int32), np.array(values, np.float32)


def answered(matches: Sequence[Match]) -> list[tuple[str, float]]:
    """Ids and scores."""
    return [(match.found.id, match.closeness) for match in matches]


def floats(matches: Sequence[Match]) -> list[tuple[str, str]]:
    """Ids, and scores as the shortest decimals of float32, which is how clients see them."""
    return [(match.found.id, str(np.float32(match.closeness))) for match in matches]


def search_hybrid(
    view: View,
    dense: npt.NDArray[np.float32] | None,
    sparse: SparseVector | None,
    count: int,
    namespace: Names = None,
    *,
    dense_score: DenseScore,
    fusion: Fusion = Fusion.RRF,
    within: RowFilter | None = None,
    idf: bool = False,
    recall: float = RECALL,
) -> list[Match]:
    """The best ``count`` by a dense vector, a sparse one, or both fused; best first; ``closeness`` is the score. Blocking."""
    question = Question(
        dense=dense,
        sparse=sparse,
        namespace=namespace,
        dense_score=dense_score,
        fusion=fusion,
        within=within,
        idf=idf,
        recall=recall,
    )
    return question.answer(view, count, depth_of(count), within)


def small_tiers(patch: pytest.MonkeyPatch, dimensions: int) -> None:
    """Let segments of a few dozen rows have codes from so many dimensions on, and searches compare few rows one by one."""
    patch.setattr(ann, "CODED_ROWS_MIN", 48)
    patch.setattr(ann, "CODED_DIMENSIONS_MIN", dimensions)
    patch.setattr(ann, "SAMPLE_ROWS_LISTED", 40)
    patch.setattr(searching, "SCANNED_ROWS", 6)
    patch.setattr(searching, "EXACT_SHARE", 1)
