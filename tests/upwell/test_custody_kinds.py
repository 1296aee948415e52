"""Checks, backups and exports of an index that has everything: sparse vectors, data, and namespaces with other names than their rows say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.custody_house import engine_on, holds
from tests.dict_store import DictStore
from tests.house_mutations import MODEL, FakeModel, as_texts, vector_of
from tests.making import Client, contents, delete, drain
from upwell.catalog.names import NewIndex
from upwell.catalog.record import write_record
from upwell.changeset import (
    Changeset,
    Details,
    KeyScope,
    Operation,
    Rename,
    Selection,
    without_rows,
)
from upwell.custody.archive import check_archive
from upwell.custody.backup import take_backup
from upwell.custody.check import check_store
from upwell.custody.findings import Finding, Severity
from upwell.custody.restore import restore_backup
from upwell.engine import Engine, Index
from upwell.errors import ModelAway, Unavailable
from upwell.format import Kind, pack
from upwell.kinds import IndexKind
from upwell.outcome import State
from upwell.query.scan import Scan
from upwell.shard.embedding import NoClaims
from upwell.shard.filter import Glob
from upwell.shard.filter_json import filter_to_json
from upwell.shard.metric import Metric
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import encode_segment
from upwell.shard.view import segment_key
from upwell.sparse import Sparse
from upwell.streamed import joined


@pytest.fixture
def engine() -> Engine:
    return engine_on({})


def made(engine: Engine, kind: IndexKind, name: str = "all") -> Index:
    new = NewIndex(
        name=name,
        description="everything",
        dimensions=2 if kind.has_dense else 0,
        metric=Metric.DOT_PRODUCT,
        shards=2,
        kind=kind,
        key_scope=KeyScope.NAMESPACE,
        sparse_embedding_model="BM25" if kind.has_sparse else None,
    )
    engine.catalog.create("default", new)
    return engine.find("default", name)


def rows(index: Index, ids: Sequence[str], namespace: str | None, first: int = 0) -> Changeset:
    """An upsert of rows that have whatever such an index may have."""
    count, kind = len(ids), index.record.kind
    numbers = np.arange(first, first + 2 * count, dtype=np.float32).reshape(count, 2)
    return Changeset(
        operation=Operation.UPSERT,
        ids=pa.array(ids, pa.utf8()),
        vectors=numbers if kind.has_dense else None,
        sparse=Sparse.of([([7, n, 7], [1.5, 0.1, n]) for n in range(count)]) if kind.has_sparse else None,
        namespaces=None if namespace is None else pa.array([namespace] * count),
        metadata=pa.array([b'{"n":"x%d"}' % n if n % 2 else None for n in range(count)], pa.binary()),
        data=pa.array([f"text {n}" if n % 3 else None for n in range(count)]),
        received=count,
        details=Details(scope=KeyScope.NAMESPACE, namespace=namespace or ""),
    )


def renamed(old: str, new: str) -> Changeset:
    rename = Rename(namespace=old, new_namespace=new)
    return without_rows(Operation.RENAME_NAMESPACE, Details(scope=KeyScope.NAMESPACE, rename=rename))


def removed(operation: Operation = Operation.DELETE_MATCHING, **what: object) -> Changeset:
    selection = Selection.model_validate(what)
    return without_rows(operation, Details(scope=KeyScope.NAMESPACE, selection=selection))


def filled(engine: Engine, kind: IndexKind) -> tuple[Index, list[str]]:
    """An index with the same ids in three namespaces, one of which had another name; and mutations that wait in its log."""
    index = made(engine, kind)
    client, ids = Client(index), [f"v{n}" for n in range(10)]
    for place, namespace in enumerate((None, "a", "b")):
        client.append(rows(index, ids, namespace, 100 * place))
    client.append(renamed("a", "was-a"), rows(index, ids[:2], "a", 1000))
    drain(engine, index)
    client.append(delete("v3", namespaces=["was-a"]))
    drain(engine, index)
    # What a client says may look like a name of ours.
    folder = index.record.folder
    waiting = [
        *client.append(rows(index, ids[5:], f"{folder}/segment/0")),
        *client.append(
            removed(namespace="was-a", prefix="v", filter=filter_to_json(Glob("n", "x[1-5]"))),
            removed(Operation.DELETE_NAMESPACE, namespace="b"),
            renamed(f"{folder}/segment/0", "b"),
        ),
    ]
    return index, waiting


def names_of(index: Index) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in holds(index):
        counts[row[2] or ""] = counts.get(row[2] or "", 0) + 1
    return counts


def problems(engine: Engine) -> list[Finding]:
    return [one for one in check_store(engine.store).findings if one.severity is not Severity.NOTE]


@pytest.mark.parametrize("kind", IndexKind)
def test_a_backup_of_everything_is_restored_with_all_names_and_waiting_mutations(
    engine: Engine, tmp_path: Path, kind: IndexKind
) -> None:
    index, waiting = filled(engine, kind)
    assert names_of(index) == {"": 10, "was-a": 9, "b": 10, "a": 2}
    assert problems(engine) == []
    path, contents = take_backup(engine.store, index.record, tmp_path, engine.clock)
    assert contents.vectors == 31 and check_archive(path).clean
    other = engine_on({})
    record = restore_backup(
        path, other.store, other.catalog, other.clock, other.settings.grace_s, account=None, name="again"
    )
    again = other.find("default", "again")
    kept = {"id", "secret", "name", "created_at"}
    assert record.model_dump(exclude=kept) == index.record.model_dump(exclude=kept)
    table = again.head.refresh().namespaces
    assert table is not None and table.startswith(f"{record.folder}/namespaces/")
    assert holds(again) == holds(index) and problems(other) == []
    assert drain(engine, index) > 0 < drain(other, again)
    assert [index.outcomes.of(one).state for one in waiting] == [State.VISIBLE] * 4
    assert holds(again) == holds(index) and problems(other) == problems(engine) == []
    assert names_of(again) == {"": 10, "was-a": 7, "b": 5, "a": 2}


@pytest.mark.parametrize("kind", IndexKind)
def test_a_scan_gives_back_what_was_sent_under_the_names_of_now(engine: Engine, kind: IndexKind) -> None:
    index, _ = filled(engine, kind)
    scan = Scan(index.newest.get(), "was-a")
    found = {id: some for some in scan.some(1) for id in some.ids}
    assert scan.vectors == len(found) == 9
    some = found["v4"]
    assert (some.namespaces, some.metadata, some.data) == (["was-a"], [None], ["text 4"])
    assert some.vectors.tolist() == ([[108.0, 109.0]] if kind.has_dense else [[]])
    assert (some.sparse is not None) == kind.has_sparse
    if some.sparse is not None:
        indices, values = some.sparse.row(0)
        assert indices.tolist() == [7, 4, 7] and values.tolist() == [1.5, np.float32(0.1), 4.0]
    assert Scan(index.newest.get(), "a").vectors == 2
    assert Scan(index.newest.get(), "nobody").vectors == 0
    assert Scan(index.newest.get(), "").vectors == 10


@pytest.mark.parametrize("kind", IndexKind)
def test_what_is_merged_stays_what_it_was(engine: Engine, kind: IndexKind) -> None:
    index, _ = filled(engine, kind)
    drain(engine, index)
    Client(index).append(removed(Operation.RESET, namespace=""))
    drain(engine, index)
    before, merged = holds(index), 0
    assert index.compactor.due()
    for shard in (0, 1):
        while engine.compact(index.record.id, shard) is not None:
            merged += 1
    assert merged and holds(index) == before and problems(engine) == []
    assert all(live.deleted is None for live in index.newest.get().segments())


def test_texts_that_wait_in_a_backup_get_their_vectors_where_it_is_restored(
    engine: Engine, tmp_path: Path
) -> None:
    """What is made of them already is left behind: it can be made again, and names a log that is another's."""
    new = NewIndex(
        name="texts", description=None, dimensions=2, metric=Metric.DOT_PRODUCT, shards=2,
        key_scope=KeyScope.NAMESPACE, embedding_model=MODEL,
    )  # fmt: skip
    engine.catalog.create("default", new)
    index, ids = engine.find("default", "texts"), ["v0", "v1"]
    engine.__dict__["models"] = FakeModel()
    client = Client(index)
    client.append(rows(index, ids, "a"), renamed("a", "was-a"))
    drain(engine, index)
    given = replace(rows(index, ids, "was-a"), data=pa.array(["one", "three"]))
    for namespaces in (given.namespaces, None):
        client.append(as_texts(replace(given, namespaces=namespaces)))
    assert engine.embed_ahead(index.record.id, NoClaims()) == 2
    assert problems(engine) == []
    path, _ = take_backup(engine.store, index.record, tmp_path, engine.clock)
    assert check_archive(path).clean
    other = engine_on({})
    other.__dict__["models"] = model = FakeModel()
    record = restore_backup(
        path, other.store, other.catalog, other.clock, other.settings.grace_s, account=None, name="again"
    )
    again = other.find("default", "again")
    assert record.embedding_model == MODEL and problems(other) == []
    model.away = lambda: True
    with pytest.raises(ModelAway):
        drain(other, again)
    model.away = lambda: False
    drain(other, again)
    drain(engine, index)
    assert holds(again) == holds(index) and problems(other) == problems(engine) == []
    assert names_of(again) == {"was-a": 2, "": 2}
    assert {tuple(values) for values, _ in contents(again).values()} == {vector_of("one"), vector_of("three")}


def test_a_backup_needs_its_table_of_namespaces(engine: Engine, tmp_path: Path) -> None:
    index, _ = filled(engine, IndexKind.DENSE)
    table, store = index.head.refresh().namespaces, engine.store
    assert isinstance(store, DictStore) and table is not None
    del store.objects[table]
    (found,) = problems(engine)
    assert (found.severity, found.key) == (Severity.ERROR, table) and "namespaces" in found.meaning
    with pytest.raises(Unavailable):
        take_backup(store, index.record, tmp_path, engine.clock)


def test_two_namespaces_that_are_one_are_found(engine: Engine) -> None:
    index, _ = filled(engine, IndexKind.DENSE)
    table, store = index.head.refresh().namespaces, engine.store
    assert isinstance(store, DictStore) and table is not None
    for names in ([["was-a", "a"], ["a"]], [["a"], ["a", "x"]]):
        store.objects[table] = joined(pack(Kind.NAMESPACES, {"names": names}))
        assert [one.key for one in problems(engine) if "two of its namespaces are one" in one.problem] == [
            table
        ]


def test_a_scope_that_nobody_decided_or_that_was_decided_twice_is_found(engine: Engine) -> None:
    index, _ = filled(engine, IndexKind.DENSE)
    chain, before = index.head.chain, index.head.refresh()
    after = before.model_copy(update={"version": before.version + 1, "key_scope": KeyScope.NAMESPACE})
    chain.adopt(after)
    assert any("decides what ids are unique in" in one.problem for one in problems(engine))
    key, store = f"{index.record.folder}/record", engine.store
    assert isinstance(store, DictStore)
    opened = index.record.model_copy(update={"key_scope": KeyScope.OPEN})
    del store.objects[key]
    write_record(store, opened)
    assert not any("decide" in one.problem for one in problems(engine))
    chain.adopt(before.model_copy(update={"version": before.version + 2}))
    assert any("before it is decided" in one.problem for one in problems(engine))


def test_a_filter_that_is_none_is_found_before_it_is_applied(engine: Engine) -> None:
    index, _ = filled(engine, IndexKind.DENSE)
    Client(index).append(removed(filter=["never", "heard", "of"]))
    (found,) = problems(engine)
    assert "/log/" in found.key and found.severity is Severity.ERROR


def with_sparse(its: SegmentRows) -> SegmentRows:
    return replace(its, sparse=Sparse.of([([1], [1.0])] * len(its)))


def all_the_first(its: SegmentRows) -> SegmentRows:
    return replace(its, sequence=np.ones(len(its), np.uint64))


@pytest.mark.parametrize(
    ("change", "says"),
    [(with_sparse, "it is not of a dense index"), (all_the_first, "a number that another row")],
)
def test_rows_that_cannot_be_of_their_index_are_found(
    engine: Engine, change: Callable[[SegmentRows], SegmentRows], says: str
) -> None:
    index, store = made(engine, IndexKind.DENSE), engine.store
    assert isinstance(store, DictStore)
    Client(index).append(rows(index, [f"v{n}" for n in range(20)], None))
    drain(engine, index)
    assert problems(engine) == []
    live = next(index.newest.get().segments())
    lie = encode_segment(live.ref.id, change(live.segment.take()), index.record.metric, KeyScope.NAMESPACE)
    key = segment_key(index.record.folder, live.ref.id)
    store.objects[key] = joined(lie.parts)
    assert [one.key for one in problems(engine) if says in one.problem] == [key]
