"""Searches for many rows at once: as much of them is found as of few, although the nearest few say little of where the others lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.making import Client, drain, make_engine, make_index
from upwell.changeset import Changeset, Operation
from upwell.query import search as searching
from upwell.query.search import search
from upwell.shard import ann
from upwell.shard.metric import Metric
from upwell.shard.view import View

DIMENSIONS, ROWS, CLUSTERS, LISTS = 64, 10_000, 500, 64


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, npt.NDArray[np.float32]]:
    """A segment of many lists, whose rows have their nearest few in one or two of these, and the next ones in many others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "LISTS", ((1_000, LISTS),))
        return made(tmp_path_factory.mktemp("clustered"))


def made(folder: Path) -> tuple[View, npt.NDArray[np.float32]]:
    random = np.random.default_rng(3)
    centres = random.normal(size=(CLUSTERS, DIMENSIONS))
    points = centres[random.integers(0, CLUSTERS, ROWS)] + 0.3 * random.normal(size=(ROWS, DIMENSIONS))
    vectors = points.astype(np.float32)
    engine = make_engine(folder, compaction_settle_s=0)
    index = make_index(engine, dimensions=DIMENSIONS, metric=Metric.EUCLIDEAN, shards=1)
    ids = pa.array([f"v{n}" for n in range(ROWS)])
    Client(index).append(Changeset(operation=Operation.UPSERT, ids=ids, vectors=vectors, received=ROWS))
    drain(engine, index)
    engine.compact(index.record.id, 0)
    view = index.newest.get()
    (live,) = view.segments()
    assert live.segment.trust is not None and live.segment.index.nlist == LISTS
    assert live.segment.trust.probes_for(0.98) <= 2
    return view, vectors


def recalled(view: View, vectors: npt.NDArray[np.float32], count: int) -> float:
    """The share of the closest that is found."""
    shares = []
    for query in vectors[:: ROWS // 20]:
        away = ((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
        closest = {f"v{n}" for n in np.argsort(away)[:count].tolist()}
        found = {match.found.id for match in search(view, query, count)}
        assert len(found) == count
        shares.append(len(found & closest) / count)
    return float(np.mean(shares))


@pytest.mark.parametrize("count", [10, 30, 60, 120])
def test_of_many_rows_as_much_is_found_as_of_few(
    clustered: tuple[View, npt.NDArray[np.float32]], count: int
) -> None:
    assert count * searching.EXACT_SHARE < ROWS
    assert recalled(*clustered, count) >= 0.95


def test_where_most_rows_are_wanted_all_are_compared(
    clustered: tuple[View, npt.NDArray[np.float32]],
) -> None:
    for count in (ROWS // searching.EXACT_SHARE, 1_000, ROWS):
        assert recalled(*clustered, count) == 1
