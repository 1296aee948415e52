"""The tiers of a segment: whatever its index is made of, it finds what a comparison with every row finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.making import Client, delete, drain, make_engine, make_index
from upwell.changeset import Changeset, KeyScope, Operation
from upwell.engine import Index
from upwell.errors import Corrupt
from upwell.query.search import search
from upwell.shard import ann
from upwell.shard.ann import CODED_ROWS_MIN, QUANTILES, Trust, build, lists_for, wants_index
from upwell.shard.metric import Metric, closeness
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import Segment, encode_segment
from upwell.shard.vectors import Vectors, concat_vectors
from upwell.streamed import joined

Matrix = npt.NDArray[np.float32]


def clustered(count: int, dimensions: int, seed: int, centres: int = 40) -> Matrix:
    """Points around centres, of lengths between a half and two."""
    shared = np.random.default_rng(99).normal(size=(centres, dimensions))
    generator = np.random.default_rng(seed)
    points = (
        shared[generator.integers(centres, size=count)] + generator.normal(size=(count, dimensions)) * 0.7
    )
    points *= generator.uniform(0.5, 2, size=(count, 1))
    return points.astype(np.float32)


def changeset(vectors: Matrix, first: int = 0, namespaces: list[str | None] | None = None) -> Changeset:
    return Changeset(
        operation=Operation.UPSERT,
        ids=pa.array([f"v{first + n}" for n in range(len(vectors))]),
        vectors=vectors,
        namespaces=None if namespaces is None else pa.array(namespaces, pa.utf8()),
        received=len(vectors),
    )


def made(vectors: Matrix, metric: Metric, lists: int = 1) -> Segment:
    rows = SegmentRows(
        pa.array([f"v{n}" for n in range(len(vectors))]),
        Vectors.of(vectors),
        None,
        None,
        np.zeros(len(vectors), np.uint64),
        np.arange(1, len(vectors) + 1, dtype=np.uint64),
    )
    encoded = encode_segment("s", rows, metric, KeyScope.INDEX, lists=lists)
    return Segment(memoryview(joined(encoded.parts)))


def recall_of(index: Index, vectors: Matrix, asked: Matrix, count: int = 10, **how: object) -> float:
    """The share of the true neighbours among ``vectors`` (id v<row>) that a search finds."""
    view, found = index.newest.get(), 0
    for query in asked:
        near = closeness(view.record.metric, query, vectors)
        truth = {f"v{row}" for row in np.argsort(-near)[:count].tolist()}
        matches = search(view, query, count, **how)  # type: ignore[arg-type]
        got = {match.found.id for match in matches}
        assert len(got) == len(matches) == count
        found += len(got & truth)
    return found / (count * len(asked))


@pytest.mark.parametrize(
    ("rows", "dimensions", "kind"),
    [(2_000, 64, "Flat"), (2_048, 64, "IVF1,RaBitQfs"), (5_000, 63, "Flat"), (3_000, 770, "IVF1,RaBitQfs")],
)
@pytest.mark.parametrize("metric", Metric)
def test_a_segment_of_any_tier_holds_what_it_was_given(
    rows: int, dimensions: int, kind: str, metric: Metric
) -> None:
    vectors = clustered(rows, dimensions, seed=3)
    segment = made(vectors, metric)
    assert segment._box.meta["index"] == kind
    assert (segment.trust is None) is (kind == "Flat")
    for name in segment._box.sections:
        segment._box.section(name, verify=True)
    order = np.array([int(name[1:]) for name in segment.ids.to_pylist()])
    assert np.array_equal(np.sort(order), np.arange(rows))
    chosen = np.array([0, rows - 1, 7, 7])
    assert np.array_equal(segment.take_vectors(chosen), vectors[order[chosen]])
    assert np.array_equal(segment.vectors, vectors[order])
    assert np.array_equal(segment.take(chosen).vectors.read(), vectors[order[chosen]])


def test_rows_lie_in_the_order_of_their_lists() -> None:
    vectors = clustered(3_000, 64, seed=4)
    segment = made(vectors, Metric.EUCLIDEAN, lists=16)
    assert segment._box.meta["index"] == "IVF16,RaBitQfs"
    _, lists = segment.index.quantizer.search(np.ascontiguousarray(segment.vectors), 1)
    assert (np.diff(lists[:, 0]) >= 0).all() and len(np.unique(lists)) == 16


@pytest.mark.parametrize("lists", [1, 16])
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [40, 96])
def test_recall_is_what_was_asked_for(
    tmp_path: Path, metric: Metric, lists: int, dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "LISTS", ((2_048, lists),) if lists > 1 else ())
    engine = make_engine(tmp_path, compaction_settle_s=0)
    index = make_index(engine, dimensions=dimensions, metric=metric)
    vectors, asked = clustered(9_000, dimensions, seed=1), clustered(40, dimensions, seed=2)
    client = Client(index)
    for first in (0, 6_000):
        client.append(changeset(vectors[first : first + 6_000], first))
        drain(engine, index)
    for shard in (0, 1):
        while engine.compact(index.record.id, shard):
            pass
    kinds = {live.segment._box.meta["index"] for shard in index.newest.get().shards for live in shard}
    codes = "RaBitQfs" if dimensions >= 64 else "Flat"
    assert f"IVF{lists},{codes}" in kinds or kinds == {"Flat"}
    # Measured on rows of its own, so a little leeway for queries that are none.
    assert recall_of(index, vectors, asked, recall=0.98) >= 0.96
    assert recall_of(index, vectors, asked, count=50, recall=0.98) >= 0.94
    assert recall_of(index, vectors, asked, recall=1) == 1


def test_deletions_and_namespaces_are_kept_out_and_found_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "LISTS", ((2_048, 16),))
    engine = make_engine(tmp_path, compaction_settle_s=0)
    index = make_index(engine, dimensions=64, metric=Metric.COSINE, shards=1)
    vectors, asked = clustered(12_000, 64, seed=1), clustered(25, 64, seed=2)
    spaces: list[str | None] = [None if n % 3 else "third" for n in range(12_000)]
    client = Client(index)
    client.append(changeset(vectors, 0, spaces))
    drain(engine, index)
    assert engine.compact(index.record.id, 0) is not None
    assert index.newest.get().shards[0][0].segment.index.nlist == 16
    for share in (0.15, 0.9, 0.99):
        gone = np.random.default_rng(5).random(12_000) < share
        client.append(delete(*(f"v{n}" for n in np.flatnonzero(gone).tolist())))
        drain(engine, index)
        if index.newest.get().shards[0][0].segment.rows < 12_000:
            break
        left = vectors.copy()
        left[gone] = 0
        assert recall_of(index, left, asked, recall=0.98) >= 0.95
        third = left.copy()
        third[[n for n, space in enumerate(spaces) if space is None]] = 0
        assert recall_of(index, third, asked, namespace="third", recall=0.98) >= 0.95
        assert recall_of(index, third, asked, count=5, within=lambda s: s.in_namespace("third")) >= 0.95


def test_values_too_large_for_codes_are_compared_one_by_one(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=64, metric=Metric.EUCLIDEAN, shards=1)
    vectors = clustered(2_500, 64, seed=1)
    vectors[77] = 3e37
    Client(index).append(changeset(vectors))
    drain(engine, index)
    ((live,),) = index.newest.get().shards
    assert live.segment.trust is None and live.segment._box.meta["index"] == "Flat"
    assert recall_of(index, vectors, vectors[:10]) == 1


def test_a_query_too_large_for_codes_is_answered_exactly(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=64, metric=Metric.DOT_PRODUCT, shards=1)
    vectors = clustered(2_500, 64, seed=1)
    Client(index).append(changeset(vectors))
    drain(engine, index)
    assert recall_of(index, vectors, np.full((1, 64), 3e38, np.float32)) == 1


def test_rows_all_alike_are_no_trouble(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=64, metric=Metric.COSINE, shards=1)
    vectors = np.ones((2_500, 64), np.float32)
    Client(index).append(changeset(vectors))
    drain(engine, index)
    matches = search(index.newest.get(), vectors[0], 100)
    assert len({match.found.id for match in matches}) == 100
    assert [match.closeness for match in matches] == pytest.approx([1] * 100)


def test_a_block_that_is_damaged_is_never_used(tmp_path: Path) -> None:
    vectors = clustered(3_000, 64, seed=1)
    rows = SegmentRows(
        pa.array([f"v{n}" for n in range(3_000)]),
        Vectors.of(vectors),
        None,
        None,
        np.zeros(len(vectors), np.uint64),
        np.arange(1, len(vectors) + 1, dtype=np.uint64),
    )
    data = bytearray(joined(encode_segment("s", rows, Metric.COSINE, KeyScope.INDEX).parts))
    whole = Segment(memoryview(bytes(data)))
    where = whole._box.sections["vectors"].offset + 2_000 * 256
    data[where] ^= 1
    segment = Segment(memoryview(bytes(data)))
    assert np.array_equal(segment.take_vectors(np.array([5, 100])), whole.vectors[[5, 100]])
    with pytest.raises(Corrupt, match="block"):
        segment.take_vectors(np.array([5, 2_001]))
    with pytest.raises(Corrupt, match="block"):
        _ = segment.vectors


def test_the_same_rows_make_the_same_segment() -> None:
    vectors = clustered(3_000, 64, seed=1)
    rows = SegmentRows(
        pa.array([f"v{n}" for n in range(3_000)]),
        Vectors.of(vectors),
        None,
        None,
        np.zeros(len(vectors), np.uint64),
        np.arange(1, len(vectors) + 1, dtype=np.uint64),
    )
    first, second = (joined(encode_segment("s", rows, Metric.COSINE, KeyScope.INDEX).parts) for _ in range(2))
    assert first == second


def test_building_can_be_called_off() -> None:
    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    with pytest.raises(Enough):
        build(Vectors.of(clustered(2_500, 64, seed=1)), Metric.COSINE, 1, enough)


def test_what_is_trusted_grows_with_the_recall_asked_for() -> None:
    trust = Trust(tuple(float(n) for n in range(len(QUANTILES))), tuple(range(1, len(QUANTILES) + 1)), 2.5)
    asked = (0.5, 0.8, 0.9, 0.97, 0.98, 0.99, 0.999, 1.0)
    margins, probes = [trust.margin(r) for r in asked], [trust.probes_for(r) for r in asked]
    assert margins == sorted(margins) and probes == sorted(probes)
    # 0.98 may miss two in a hundred for want of probes, and be wrong in its margin for five.
    assert (trust.margin(0.98), trust.probes_for(0.98)) == (
        QUANTILES.index(0.95),
        1 + QUANTILES.index(0.98),
    )
    assert Trust.from_json(trust.to_json()) == trust


def test_more_rows_have_more_lists() -> None:
    lists = [lists_for(rows) for rows in (1, 15_999, 16_000, 32_000, 256_000, 1_000_000, 9_000_000)]
    assert lists == [1, 1, 128, 256, 512, 1024, 2048]
    assert not wants_index(CODED_ROWS_MIN - 1, 384, 1) and wants_index(CODED_ROWS_MIN, 384, 1)
    assert not wants_index(60_000, 32, 1) and wants_index(60_000, 32, 128)


def test_vectors_of_several_matrices_read_as_one() -> None:
    generator = np.random.default_rng(1)
    parts = [generator.normal(size=(n, 700)).astype(np.float32) for n in (900, 1, 2_500, 3)]
    whole = np.concatenate(parts)
    joined_up = concat_vectors([Vectors.of(part) for part in parts])
    assert len(joined_up.parts) == 4 and joined_up.nbytes == whole.nbytes
    chosen = generator.permutation(len(whole))[:1_000]
    several = concat_vectors([joined_up.take(chosen), Vectors.of(parts[2]), joined_up])
    expected = np.concatenate([whole[chosen], parts[2], whole])
    assert np.array_equal(several.read(), expected)
    assert np.array_equal(np.concatenate(list(several.chunks(333))), expected)
    assert np.array_equal(several.take(np.array([3, 999, 1_000, 5_000])).read(1, 3), expected[[999, 1_000]])
    view = joined_up.read(901, 1_000)
    assert np.shares_memory(view, parts[2]) and np.array_equal(view, whole[901:1_000])
    few = concat_vectors([Vectors.of(part[:2]) for part in parts])
    assert len(few.parts) == 1 and np.array_equal(few.read(), np.concatenate([part[:2] for part in parts]))
