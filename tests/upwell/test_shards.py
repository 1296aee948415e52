"""Shards: segments as sent, batches as a dict would have them, search as brute force would have it; keys that collide too."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import (
    Client,
    HandClock,
    contents,
    delete,
    drain,
    drain_of,
    insert,
    make_engine,
    make_index,
    upsert,
    writes,
)
from tests.thorough import examples
from upwell.changeset import Changeset, KeyScope, Operation
from upwell.engine import Index
from upwell.errors import Corrupt, Fenced
from upwell.manifest import SegmentRef
from upwell.outcome import State
from upwell.query.lookup import lookup
from upwell.query.search import SCANNED_ROWS, search
from upwell.shard import keys as keys_module
from upwell.shard.deletions import decode_deletions, encode_deletions
from upwell.shard.keys import find_hashes, hash_keys, keys_of, shard_of
from upwell.shard.merge import FOLDED_BYTES_MAX, to_fold
from upwell.shard.metric import Metric, closeness, searchable
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import Segment, encode_segment
from upwell.shard.vectors import Vectors
from upwell.streamed import joined

SMALL = settings(max_examples=examples(60), deadline=None)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return make_index(make_engine(tmp_path))


# Keys.


@given(hashes=st.lists(st.integers(0, 20), max_size=40), wanted=st.lists(st.integers(0, 25), max_size=20))
def test_every_equal_hash_is_a_candidate(hashes: list[int], wanted: list[int]) -> None:
    rows = np.array(hashes, np.uint64)
    order = np.argsort(rows, kind="stable").astype(np.uint32)
    asked, found = find_hashes(rows[order], order, np.array(wanted, np.uint64))
    expected = {(a, r) for a, w in enumerate(wanted) for r, h in enumerate(hashes) if w == h}
    assert set(zip(asked.tolist(), found.tolist(), strict=True)) == expected
    assert len(asked) == len(expected)


def test_keys_of_namespaces_never_run_into_one_another() -> None:
    ids = pa.array(["a", "ab", "a", "b"], pa.utf8())
    spaces = pa.array([None, "", "b", "ba"], pa.utf8())
    assert len(set(keys_of(ids, spaces, KeyScope.NAMESPACE).to_pylist())) == 4
    assert keys_of(ids, None, KeyScope.NAMESPACE)[0] == keys_of(ids, spaces, KeyScope.NAMESPACE)[0]
    assert keys_of(ids, spaces, KeyScope.INDEX).to_pylist() == [b"a", b"ab", b"a", b"b"]


def test_shards_get_about_the_same() -> None:
    shards = shard_of(hash_keys(pa.array([f"id-{n}".encode() for n in range(8000)])), 4)
    assert np.bincount(shards, minlength=4).min() > 1800


# Segments.


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("unit", [True, False])
def test_a_segment_gives_back_what_was_sent_to_the_bit(metric: Metric, unit: bool) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0 if not unit else vectors[7]
    sent = writes(
        Operation.UPSERT,
        *((f"v{n}", v, "n" if n % 3 else None, {"n": n} if n % 2 else None) for n, v in enumerate(vectors)),
        dimensions=5,
    )
    assert sent.vectors is not None
    rows = SegmentRows(
        sent.ids,
        Vectors.of(sent.vectors),
        sent.namespaces,
        sent.metadata,
        np.zeros(len(sent), np.uint64),
        np.arange(1, len(sent) + 1, dtype=np.uint64),
    )
    data = joined(encode_segment("s", rows, metric, KeyScope.INDEX).parts)
    segment = Segment(memoryview(data))
    assert segment.vectors.tobytes() == vectors.tobytes()
    assert not segment.vectors.flags.writeable
    assert segment.ids.equals(sent.ids)
    assert segment.namespaces is not None and segment.namespaces.equals(sent.namespaces)
    assert segment.metadata is not None and segment.metadata.equals(sent.metadata)
    assert segment.index.ntotal == 300
    assert np.array_equal(segment.in_namespace("n"), np.arange(300) % 3 > 0)
    keys = pa.array([b"v5", b"nobody", b"v299"])
    asked, found = segment.find(keys, hash_keys(keys), KeyScope.INDEX)
    assert (asked.tolist(), found.tolist()) == ([0, 2], [5, 299])
    # Unit vectors, and metrics other than cosine, are stored once.
    assert (len(data) < 1.5 * vectors.nbytes + 30_000) and (
        segment._shared is (unit or metric is not Metric.COSINE)
    )


def test_a_damaged_segment_is_never_searched() -> None:
    sent = upsert(("a", (1, 2)), ("b", (3, 4)))
    assert sent.vectors is not None
    numbers = np.arange(1, len(sent) + 1, dtype=np.uint64)
    rows = SegmentRows(sent.ids, Vectors.of(sent.vectors), None, None, numbers, numbers)
    data = bytearray(joined(encode_segment("s", rows, Metric.EUCLIDEAN, KeyScope.INDEX).parts))
    place = bytes(data).index(sent.vectors.tobytes())
    data[place] ^= 1
    with pytest.raises(Corrupt):
        _ = Segment(memoryview(bytes(data))).index


@given(deleted=st.sets(st.integers(0, 99)))
def test_deletion_vectors_come_back(deleted: set[int]) -> None:
    mask = np.zeros(100, dtype=bool)
    mask[list(deleted)] = True
    data = memoryview(joined(encode_deletions({"s": mask, "other": ~mask})))
    assert np.array_equal(decode_deletions(data, "s", 100, len(deleted)), mask)
    with pytest.raises(Corrupt):
        decode_deletions(data, "s", 100, len(deleted) + 1)


def test_small_segments_do_not_pile_up(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.shard.merge.FOLDED_BYTES_MAX", 8 * 64)
    client = Client(index)
    most = 0
    for number in range(300):
        client.append(upsert((f"v{number}", (number, 1))))
        drain_of(index)
        sizes = [[live.segment.rows for live in shard] for shard in index.newest.get().shards]
        assert all(size <= 64 for shard in sizes for size in shard)
        most = max(most, *(sum(size < 32 for size in shard) for shard in sizes))
    assert most <= 8
    assert len(contents(index)) == 300


def test_folding_takes_only_the_newest_that_are_not_much_larger() -> None:
    class Fake:
        def __init__(self, live: int, row_bytes: int = 60, rows: int | None = None) -> None:
            self.live = live
            self.ref = SegmentRef(id="s", rows=rows or live, nbytes=2000 + (rows or live) * row_bytes)

    def folded(segments: Any, rows: int, dimensions: int = 1) -> list[int]:
        numbers = np.zeros(rows, np.uint64)
        vectors = Vectors((np.empty((0, dimensions), np.float32),), dimensions, np.zeros(rows, np.int64))
        added = SegmentRows(pa.array(["x"] * rows), vectors, None, None, numbers, numbers)
        return [one.live for one in to_fold(segments, added)]

    segments = [Fake(100), Fake(4), Fake(40), Fake(10), Fake(6)]
    assert folded(segments, 3) == [10, 6]
    assert folded(segments, 4) == [100, 4, 40, 10, 6]
    assert folded(segments, 1) == []
    # Too much of vectors; or of metadata, data and the like, also where there are no vectors at all: of the rows that are alive.
    assert folded(segments, 3, FOLDED_BYTES_MAX // 4) == []
    large = FOLDED_BYTES_MAX // 10 + 1000
    for dimensions in (0, 1):
        assert folded([Fake(10, large), Fake(6)], 3, dimensions) == [6]
        assert folded([Fake(9, large // 2, rows=18), Fake(6)], 4, dimensions) == [9, 6]


# Batches against a dict.

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
SPACES = st.sampled_from([None, "n"])
VALUES = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
MUTATION = st.one_of(
    st.tuples(
        st.sampled_from([Operation.INSERT, Operation.UPSERT]),
        st.lists(st.tuples(NAMES, VALUES, SPACES), min_size=1, max_size=5),
    ),
    st.tuples(
        st.just(Operation.DELETE), st.lists(st.tuples(NAMES, st.just((0, 0)), SPACES), min_size=1, max_size=3)
    ),
)


def made(operation: Operation, rows: list[Any]) -> Changeset:
    if operation is Operation.DELETE:
        return delete(*(row[0] for row in rows), namespaces=[row[2] for row in rows])
    return writes(operation, *rows)


def replayed(mutations: list[Any], scope: KeyScope) -> tuple[dict[Any, Any], list[dict[str, int]]]:
    """The plain meaning of mutations: what a dict holds after them, and what each counted."""
    held: dict[Any, Any] = {}
    counted = []
    for operation, rows in mutations:
        counts = dict.fromkeys(("inserted", "replaced", "skipped", "deleted"), 0)
        for name, values, space in rows:
            # Where that is open, these mutations decide that ids are unique in the index, as they take them to be.
            key = (space, name) if scope is KeyScope.NAMESPACE else name
            row = ((space, name), list(values))
            if operation is Operation.DELETE:
                counts["deleted"] += held.pop(key, None) is not None
            elif key not in held:
                counts["inserted"] += 1
                held[key] = row
            elif operation is Operation.INSERT:
                counts["skipped"] += 1
            else:
                counts["replaced"] += 1
                held[key] = row
        counted.append(counts)
    return dict(held.values()), counted


@pytest.fixture(params=["hashes as they are", "hashes that collide"])
def hashing(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "hashes that collide":
            patch.setattr(keys_module, "xxh3_64_intdigest", lambda key: (sum(key) % 2) << 32 | sum(key) % 3)
        yield


@pytest.mark.parametrize("scope", KeyScope)
@pytest.mark.usefixtures("hashing")
def test_any_batches_come_to_what_a_dict_holds(scope: KeyScope) -> None:
    @SMALL
    @given(
        entries=st.lists(st.lists(MUTATION, min_size=1, max_size=4), max_size=8),
        commits=st.integers(1, 6),
        shards=st.integers(1, 3),
    )
    def check(entries: list[list[Any]], commits: int, shards: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            engine = make_engine(Path(folder), batch_mutations_max=commits)
            index = make_index(engine, shards=shards, key_scope=scope)
            client = Client(index)
            ids = [client.append(*(made(*one) for one in entry)) for entry in entries]
            drain(engine, index)
            held, counted = replayed(list(itertools.chain(*entries)), scope)
            assert {key: values for key, (values, _) in contents(index).items()} == held
            for mutation, counts in zip(itertools.chain(*ids), counted, strict=True):
                result = index.outcomes.of(mutation).result
                assert result is not None
                assert {name: getattr(result, name) for name in counts} == counts

    check()


def test_two_workers_race_and_each_mutation_is_applied_once(tmp_path: Path) -> None:
    first = make_engine(tmp_path, batch_mutations_max=3)
    index = make_index(first)
    client = Client(index)
    mutations = [client.append(insert((f"v{n % 50}", (n, n))))[0] for n in range(120)]
    engines = [
        first,
        make_engine(tmp_path, batch_mutations_max=3),
        make_engine(tmp_path, batch_mutations_max=3),
    ]
    fenced: list[int] = []

    def work(number: int) -> None:
        while True:
            try:
                if engines[number].apply_batch(index.record.id, lambda: True) is None:
                    return
            except Fenced:
                fenced.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [index.outcomes.of(mutation).result for mutation in mutations]
    assert [result.inserted for result in results if result] == [1] * 50 + [0] * 70
    assert {name: values for (_, name), (values, _) in contents(index).items()} == {
        f"v{n}": [n, n] for n in range(50)
    }


def test_a_lost_lease_commits_nothing(index: Index) -> None:
    (mutation,) = Client(index).append(upsert(("a", (1, 1))))
    with pytest.raises(Fenced):
        index.applier.apply_batch(lambda: False)
    assert index.outcomes.of(mutation).state is State.QUEUED
    assert contents(index) == {}
    told: list[int] = []
    assert index.applier.apply_batch(lambda: True, told.append) is not None
    assert told == [1]


def test_what_cannot_be_applied_fails_alone_and_for_ever(tmp_path: Path) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock)
    index = make_index(engine, dimensions=1024)
    rows = [(f"v{n}", [float(n)] * 1024) for n in range(300)]
    client = Client(index)
    good = client.append(upsert(("before", [1.0] * 1024), dimensions=1024))
    bad = client.append(upsert(*rows, dimensions=1024))
    after = client.append(upsert(("after", [2.0] * 1024), dimensions=1024))
    payload = index.log.read(2).mutations[0].payload
    assert payload is not None
    path = engine.settings.data / "store" / payload
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    drain(engine, index)
    states = [index.outcomes.of(one).state for one in (*good, *bad, *after)]
    assert states == [State.VISIBLE, State.FAILED, State.VISIBLE]
    assert "checksum" in str(index.outcomes.of(bad[0]).error)
    assert {name for _, name in contents(index)} == {"before", "after"}
    for name in list(engine.store.list(f"{index.record.folder}/manifest"))[:-1]:
        engine.store.delete(f"{index.record.folder}/manifest/{name}")
    client.append(upsert(("more", [2.0] * 1024), dimensions=1024))
    drain(engine, index)
    assert make_engine(tmp_path).find("default", "index").outcomes.of(bad[0]).state is State.FAILED


def test_a_batch_keeps_its_limits(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, batch_vectors_max=5, batch_mutations_max=4)
    index = make_index(engine)
    client = Client(index)
    for size in (3, 2, 1, 1, 1, 1, 1, 9, 1):
        client.append(upsert(*[(f"v{n}", (n, n)) for n in range(size)]))
    taken = []
    while (applied := engine.apply_batch(index.record.id, lambda: True)) is not None:
        taken.append((applied.mutations, applied.vectors))
    assert taken == [(2, 5), (4, 4), (1, 1), (1, 9), (1, 1)]


# Search.


def brute_force(metric: Metric, query: Any, vectors: Any, count: int) -> list[float]:
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        near = -((x - q) ** 2).sum(axis=1)
    else:
        near = x @ q
        if metric is Metric.COSINE:
            near = near / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))
    return sorted(near.tolist(), reverse=True)[:count]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_search_is_exact_over_any_mix_of_segments_deletions_and_namespaces(
    tmp_path: Path, metric: Metric, scale: float
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, dimensions=8, metric=metric, shards=3)
    client, generator = Client(index), np.random.default_rng(5)
    held: dict[str, tuple[Any, str | None]] = {}
    for size in (2500, 900, 40, 3, 1, 700):
        rows = []
        for _ in range(size):
            name, space = f"v{generator.integers(3000)}", "even" if generator.integers(2) else None
            values = (generator.normal(size=8) * scale).astype(np.float32).tolist()
            rows.append((name, values, space))
        client.append(upsert(*rows, dimensions=8))
        held |= {name: (values, space) for name, values, space in rows}
        gone = [f"v{generator.integers(3000)}" for _ in range(size // 3)]
        client.append(delete(*gone))
        for name in gone:
            held.pop(name, None)
        drain(engine, index)
    view = index.newest.get()
    assert view.manifest.vectors == len(held)
    for namespace, count in itertools.product((None, "even", "nobody's"), (1, 10, SCANNED_ROWS + 50)):
        query = generator.normal(size=8).astype(np.float32)
        mine = {n: v for n, (v, space) in held.items() if namespace in (None, space)}
        found = search(view, query, count, namespace)
        expected = brute_force(metric, query, np.array(list(mine.values())), count) if mine else []
        assert [match.closeness for match in found] == pytest.approx(expected, abs=1e-4 * scale**2)
        assert {match.found.id for match in found} <= mine.keys()
        assert len({match.found.id for match in found}) == len(found)


def test_equals_come_in_the_order_of_writing(index: Index) -> None:
    Client(index).append(upsert(*[(f"v{n:02}", (1, 1)) for n in reversed(range(15, 30))]))
    drain_of(index)
    Client(index).append(upsert(*[(f"v{n:02}", (1, 1)) for n in range(15)]), upsert(("v29", (1, 1))))
    drain_of(index)
    for query in ([1, 1], [0, 0]):
        found = search(index.newest.get(), np.array(query, np.float32), 16)
        expected = [*(f"v{n:02}" for n in reversed(range(15, 29))), "v00", "v01"]
        assert [match.found.id for match in found] == expected


def test_by_angle_a_vector_at_other_lengths_is_the_same_again(tmp_path: Path) -> None:
    """What rounding leaves of their cosines decides nothing: Upstash's clients ask for the nearest of (0.1, 0.1), (1, 1) and (2, 2)."""
    index = make_index(make_engine(tmp_path), metric=Metric.COSINE)
    lengths = [0.1, 1, 2, 3, 0.7, 1e-12, 1e12, 0.3]
    Client(index).append(upsert(*[(f"v{n}", (length, length)) for n, length in enumerate(lengths)]))
    Client(index).append(upsert(*[(f"w{n}", (length, 3 * length)) for n, length in enumerate(lengths)]))
    drain_of(index)
    view = index.newest.get()
    for count, length in itertools.product((1, 3, 8), (0.1, 1, 1.1)):
        for letter, slope in (("v", 1), ("w", 3)):
            found = search(view, np.array([length, slope * length], np.float32), count)
            assert [match.found.id for match in found] == [f"{letter}{n}" for n in range(count)]
            assert {match.closeness for match in found} == {1.0}
    (nearest,) = search(view, np.array([1, 1.00001], np.float32), 1)
    assert nearest.closeness < 1, "a vector that is merely close"


def test_an_empty_index_and_a_wrong_query(index: Index) -> None:
    view = index.newest.get()
    assert search(view, np.array([1, 1], np.float32), 5) == []
    assert lookup(view, ["a"]) == []
    with pytest.raises(ValueError, match="shape"):
        search(view, np.array([1], np.float32), 5)


def test_a_zero_vector_is_close_to_nothing_by_angle() -> None:
    vectors = np.array([[0, 0], [0, 2], [-3, 0]], np.float32)
    near = closeness(Metric.COSINE, np.array([0, 5], np.float32), vectors)
    assert near.tolist() == [0, 1, 0]
    assert searchable(Metric.COSINE, vectors)[1].tolist() == [0, 1]
    assert closeness(Metric.COSINE, np.zeros(2, np.float32), vectors).tolist() == [0, 0, 0]


def test_lookup_answers_in_the_order_asked_each_once(index: Index) -> None:
    Client(index).append(upsert(("a", (1, 2), "n", {"k": [1]}), ("b", (3, 4))))
    drain_of(index)
    found = lookup(index.newest.get(), ["b", "nobody", "a", "b"])
    assert [one.id for one in found] == ["b", "a"]
    assert (found[1].namespace, found[1].metadata, found[1].values.tolist()) == ("n", b'{"k":[1]}', [1, 2])
    assert (found[0].namespace, found[0].metadata) == (None, None)
