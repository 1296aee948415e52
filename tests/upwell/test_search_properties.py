"""Whatever an index went through and whatever its segments are made of: an answer is what comparing every live row gives.

Sizes are made small, so that a few hundred rows have codes, lists, or both, and a query is answered by them.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from tests.making import Client, delete, drain, make_engine, make_index
from tests.querying import small_tiers
from tests.thorough import examples
from upwell.changeset import Changeset, KeyScope, Operation
from upwell.engine import Engine, Index
from upwell.query import search as searching
from upwell.query.search import Match, search
from upwell.shard import ann, merge
from upwell.shard.deletions import Mask
from upwell.shard.metric import COSINE_STEP, Metric
from upwell.shard.segment import Segment
from upwell.shard.view import View

Vector = npt.NDArray[np.float32]
NAMESPACES = (None, "one", "two", "rare")
#: Dimensions below this are kept in the lists instead of coded.
CODED_DIMENSIONS = 16
SEEN_KINDS: set[str] = set()


@pytest.fixture(autouse=True, scope="module")
def _everything_is_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        small_tiers(patch, CODED_DIMENSIONS)
        patch.setattr(ann, "LISTS", ((240, 12), (120, 4)))
        patch.setattr(searching, "SCANNED_FLAT_ROWS", 3)
        patch.setattr(searching, "CODED_FIRST", 4)
        patch.setattr(searching, "CODED_LEAST", 2)
        patch.setattr(os, "fsync", lambda fd: None)
        yield


class Story:
    """An index and a dict that went through the same. Everything is drawn from one seed."""

    def __init__(
        self, folder: Path, seed: int, *, dimensions: int, metric: Metric, shards: int, scope: KeyScope
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.engine: Engine = make_engine(folder, compaction_fanout=2, compaction_settle_s=0)
        self.index: Index = make_index(
            self.engine, dimensions=dimensions, metric=metric, shards=shards, key_scope=scope
        )
        self.scope = scope
        self.client = Client(self.index)
        self.held: dict[tuple[str | None, str], tuple[Vector, str | None]] = {}
        self.centres = self.random.integers(-12, 13, size=(9, dimensions))

    def vectors(self, count: int) -> Vector:
        """Around centres; multiples of 1/8, so that sums of products are exact; a few are equal, a few are zero."""
        points = self.centres[self.random.integers(len(self.centres), size=count)]
        made = points + np.round(self.random.normal(size=points.shape) * 16) / 8
        made[self.random.random(count) < 0.05] = made[0]
        made[self.random.random(count) < 0.02] = 0
        return made.astype(np.float32)

    def key(self, name: str, namespace: str | None) -> tuple[str | None, str]:
        return (namespace if self.scope is KeyScope.NAMESPACE else None, name)

    def upsert(self, count: int) -> None:
        chosen = self.random.choice(600, count, replace=False)
        names = [f"v{n}" for n in chosen.tolist()]
        spaces = [NAMESPACES[n] for n in self.random.choice(4, count, p=[0.5, 0.3, 0.18, 0.02]).tolist()]
        vectors = self.vectors(count)
        namespaces = pa.array(spaces, pa.utf8())
        self.client.append(
            Changeset(
                operation=Operation.UPSERT,
                ids=pa.array(names),
                vectors=vectors,
                namespaces=namespaces,
                received=count,
            )
        )
        for name, space, vector in zip(names, spaces, vectors, strict=True):
            self.held[self.key(name, space)] = (vector, space)

    def delete(self, share: float) -> None:
        gone = [key for key in self.held if self.random.random() < share]
        if gone:
            self.client.append(delete(*(name for _, name in gone), namespaces=[space for space, _ in gone]))
        for key in gone:
            del self.held[key]

    def drain(self) -> None:
        drain(self.engine, self.index)

    def compact(self) -> None:
        for shard in range(self.index.record.shards):
            self.engine.compact(self.index.record.id, shard)

    def view(self) -> View:
        view = self.index.newest.get()
        SEEN_KINDS.update(live.segment._box.meta["index"] for shard in view.shards for live in shard)
        return view

    def sequences(self) -> dict[tuple[str | None, str], int]:
        """Which row of its namespace each is, by what the index says; whether that is true is tests/upwell/test_query_ordered.py's."""
        found = {}
        for live in self.view().segments():
            rows = live.segment.take(live.live_rows())
            spaces = [None] * len(rows) if rows.namespaces is None else rows.namespaces.to_pylist()
            for name, space, number in zip(rows.ids.to_pylist(), spaces, rows.sequence.tolist(), strict=True):
                found[self.key(name, space)] = number
        return found

    def truth(self, query: Vector, namespace: str | None, *, even: bool) -> list[tuple[float, str]]:
        """Closeness and id of every row that counts, closest first; of equals who was written first."""
        rows = [
            (name, vector, sequence)
            for key, sequence in self.sequences().items()
            for name, (vector, space) in [(key[1], self.held[key])]
            if (namespace is None or space == namespace) and not (even and int(name[1:]) % 2)
        ]
        one = query.astype(np.float64)
        found = []
        for name, vector, sequence in rows:
            row = vector.astype(np.float64)
            match self.index.record.metric:
                case Metric.EUCLIDEAN:
                    close = -float(((row - one) ** 2).sum())
                case Metric.DOT_PRODUCT:
                    close = float((row * one).sum())
                case _:
                    length = float(np.sqrt((row * row).sum()) * np.sqrt((one * one).sum()))
                    close = float((row * one).sum()) / length if length else 0.0
                    close = round(close / COSINE_STEP) * COSINE_STEP
            found.append((-close, sequence, name))
        return [(-away, name) for away, _, name in sorted(found)]


def even_ids(segment: Segment) -> Mask:
    return np.array([int(name[1:]) % 2 == 0 for name in segment.ids.to_pylist()])


def answered(matches: list[Match]) -> list[tuple[float, str]]:
    return [(match.closeness, match.found.id) for match in matches]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sampled_from([1, 5, 30, 100, 250, 500])),
        st.tuples(st.just("delete"), st.sampled_from([0.02, 0.3, 0.9])),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    min_size=1,
    max_size=5,
)


@given(
    seed=st.integers(0, 2**32 - 1),
    dimensions=st.sampled_from([3, CODED_DIMENSIONS, 27]),
    metric=st.sampled_from(Metric),
    shards=st.integers(1, 3),
    scope=st.sampled_from(KeyScope),
    folded=st.sampled_from([0, 3_000]),
    steps=STEPS,
    recall=st.sampled_from([0.5, 0.98, 1.0]),
    asked=st.lists(
        st.tuples(st.sampled_from([1, 3, 10, 70, 2_000]), st.sampled_from(NAMESPACES), st.booleans()),
        min_size=3,
        max_size=6,
    ),
)
@settings(
    max_examples=examples(110),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_answer_is_true(
    seed: int,
    dimensions: int,
    metric: Metric,
    shards: int,
    scope: KeyScope,
    folded: int,
    steps: list[tuple[str, float]],
    recall: float,
    asked: list[tuple[int, str | None, bool]],
) -> None:
    """No row that is gone, left out or there twice; as many as there are; each as close as it says; and all, where it is exact."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "FOLDED_BYTES_MAX", folded)
        story = Story(Path(folder), seed, dimensions=dimensions, metric=metric, shards=shards, scope=scope)
        for what, how_much in [("upsert", 300), *steps]:
            match what:
                case "upsert":
                    story.upsert(int(how_much))
                case "delete":
                    story.delete(how_much)
                case _:
                    story.compact()
            if story.random.random() < 0.8:
                story.drain()
        story.drain()
        view = story.view()
        exact = recall == 1 or all(live.segment.trust is None for shard in view.shards for live in shard)
        for count, namespace, even in asked:
            query = story.vectors(2)[1]
            truth = story.truth(query, namespace, even=even)
            found = answered(
                search(view, query, count, namespace, within=even_ids if even else None, recall=recall)
            )
            if exact:
                assert found == truth[:count]
            assert len(found) == min(count, len(truth))
            assert [close for close, _ in found] == sorted((close for close, _ in found), reverse=True)
            # Under one id there may be a row in each namespace.
            left = list(truth)
            for each in found:
                left.remove(each)


def recalled(story: Story, count: int, queries: int, namespace: str | None, *, even: bool) -> float:
    """The share of what is answered that is as close as the last of the true neighbours."""
    view, good, wanted = story.view(), 0, 0
    for query in story.vectors(queries) + story.random.normal(size=story.centres[:1].shape):
        asked = query.astype(np.float32)
        truth = story.truth(asked, namespace, even=even)[:count]
        matches = search(view, asked, count, namespace, within=even_ids if even else None, recall=0.98)
        assert len(matches) == len(truth)
        # Queries are no multiples of an eighth, so that sums differ in their last bits.
        least = truth[-1][0] - 1e-9 * abs(truth[-1][0])
        good += sum(match.closeness >= least for match in matches)
        wanted += len(truth)
    return good / wanted


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [8, CODED_DIMENSIONS, 40])
def test_on_the_average_recall_is_what_was_asked_for(
    tmp_path: Path, metric: Metric, dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of segments flat, coded, in lists, and both, with rows deleted, replaced, and left out by a filter."""
    monkeypatch.setattr(merge, "FOLDED_BYTES_MAX", 0)
    shares = []
    for seed in range(4):
        story = Story(
            tmp_path / str(seed), seed, dimensions=dimensions, metric=metric, shards=1, scope=KeyScope.INDEX
        )
        for count in (500, 60, 130, 20):
            story.upsert(count)
            story.drain()
        story.delete(0.1)
        story.drain()
        if seed % 2:
            story.compact()
        for namespace, even in itertools.product((None, "one"), (False, True)):
            shares += [recalled(story, 10, 8, namespace, even=even)]
    assert np.mean(shares) >= 0.9
    assert min(shares) >= 0.6


def test_every_tier_was_there(tmp_path: Path) -> None:
    """The tests above would say nothing of a tier that no example has."""
    for dimensions in (8, CODED_DIMENSIONS):
        story = Story(
            tmp_path / str(dimensions),
            1,
            dimensions=dimensions,
            metric=Metric.COSINE,
            shards=1,
            scope=KeyScope.INDEX,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merge, "FOLDED_BYTES_MAX", 0)
            for count in (30, 60, 150, 300):
                story.upsert(count)
                story.drain()
                story.view()
                if count > 60:
                    story.compact()
                    story.view()
    assert {
        "Flat",
        "IVF1,RaBitQfs",
        "IVF4,RaBitQfs",
        "IVF12,RaBitQfs",
        "IVF4,Flat",
        "IVF12,Flat",
    } <= SEEN_KINDS


@pytest.mark.parametrize("lists", [4, 32])
def test_lists_that_hold_too_few_of_the_rows_that_count(
    tmp_path: Path, lists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those within the filter all lie in lists far from the query, or a few in each: all of them are answered."""
    monkeypatch.setattr(ann, "LISTS", ((100, lists),))
    engine = make_engine(tmp_path, compaction_settle_s=0)
    index = make_index(engine, dimensions=CODED_DIMENSIONS, metric=Metric.EUCLIDEAN, shards=1)
    random = np.random.default_rng(3)
    centres = random.normal(size=(lists, CODED_DIMENSIONS)) * 100
    vectors = (np.repeat(centres, 40, axis=0) + random.normal(size=(40 * lists, CODED_DIMENSIONS))).astype(
        np.float32
    )
    ids = [f"v{n}" for n in range(len(vectors))]
    Client(index).append(
        Changeset(operation=Operation.UPSERT, ids=pa.array(ids), vectors=vectors, received=len(ids))
    )
    drain(engine, index)
    engine.compact(index.record.id, 0)
    view = index.newest.get()
    assert view.shards[0][0].segment.index.nlist == lists
    row_of = {name: row for row, name in enumerate(view.shards[0][0].segment.ids.to_pylist())}
    last_list = {row_of[f"v{n}"] for n in range(40 * (lists - 1), 40 * lists)}
    thin = {row_of[f"v{n}"] for n in range(0, len(vectors), 10)}
    for rows in (last_list, thin):
        mask = np.isin(np.arange(len(vectors)), list(rows))
        for count in (1, 10, len(rows) - 1, len(rows), 10 * len(rows)):
            matches = search(view, vectors[0], count, within=lambda _, mask=mask: mask)  # type: ignore[misc]
            assert len(matches) == min(count, len(rows))
    for count in (40, 41, 200, len(vectors), 2 * len(vectors)):
        assert len(search(view, vectors[0], count)) == min(count, len(vectors))


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT_PRODUCT])
def test_equal_vectors_are_equally_close_and_in_the_order_of_writing(tmp_path: Path, metric: Metric) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=384, metric=metric, shards=3)
    random = np.random.default_rng(2)
    vector, query = random.normal(size=(2, 384)).astype(np.float32)
    ids = [f"v{n:02}" for n in random.permutation(40).tolist()]
    Client(index).append(
        Changeset(
            operation=Operation.UPSERT, ids=pa.array(ids), vectors=np.tile(vector, (40, 1)), received=40
        )
    )
    drain(engine, index)
    found = answered(search(index.newest.get(), query, 10))
    assert len({close for close, _ in found}) == 1
    assert [name for _, name in found] == ids[:10]


@pytest.mark.parametrize(("most", "few"), [(1e-10, 1e14), (1e-30, 1e10), (1e-40, 1.0)])
def test_vectors_of_very_unequal_lengths_are_applied(tmp_path: Path, most: float, few: float) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=64, metric=Metric.DOT_PRODUCT, shards=1)
    vectors = np.random.default_rng(0).normal(size=(400, 64)) * most
    vectors[::50] *= few / most
    ids = pa.array([f"v{n}" for n in range(400)])
    changeset = Changeset(
        operation=Operation.UPSERT, ids=ids, vectors=vectors.astype(np.float32), received=400
    )
    Client(index).append(changeset)
    drain(engine, index)
    assert len(search(index.newest.get(), np.ones(64, np.float32), 400)) == 400


def test_rows_with_a_mean_are_found_by_queries_without(tmp_path: Path) -> None:
    """Inner products of two different kinds of vectors, as recommenders have them."""
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=64, metric=Metric.DOT_PRODUCT, shards=1)
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(3_000, 64)) + 3 * np.sign(random.normal(size=64))).astype(np.float32)
    ids = pa.array([f"v{n}" for n in range(3_000)])
    with pytest.MonkeyPatch.context() as patch:
        small_tiers(patch, CODED_DIMENSIONS)
        patch.setattr(ann, "LISTS", ())
        Client(index).append(Changeset(operation=Operation.UPSERT, ids=ids, vectors=vectors, received=3_000))
        drain(engine, index)
    found = 0
    for query in random.normal(size=(20, 64)).astype(np.float32):
        truth = {f"v{row}" for row in np.argsort(-(vectors @ query))[:10].tolist()}
        found += len(truth & {name for _, name in answered(search(index.newest.get(), query, 10))})
    assert found / 200 >= 0.9
