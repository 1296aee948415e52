"""Stores that earlier versions wrote must stay readable: each folder of golden/ is one, as it lay on disk.

``python -m tests.upwell.test_golden FOLDER`` writes another, for a new format; those that are there are never written again.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.making import (
    Client,
    HandClock,
    contents,
    delete,
    drain,
    insert,
    make_engine,
    make_index,
    prepared,
    upsert,
)
from tests.plain_full_text import bm25_scores, counted
from tests.plain_index import PlainHeld, PlainIndex, PlainMutation, PlainRow
from tests.upwell.test_resolve_model import compare
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, KeyScope, Operation, about_property
from upwell.engine import Engine, Index
from upwell.errors import Gone
from upwell.kinds import IndexKind
from upwell.log import writer as writer_module
from upwell.log.entry import PreparedMutation, request_of
from upwell.log.receipt import Receipt
from upwell.manifest.failures import FAILURES_INLINE_MAX
from upwell.outcome import State
from upwell.properties import MetadataIndex, PropertyType
from upwell.query.search import search
from upwell.query.sparse import Bm25, search_sparse
from upwell.schema import Consistency, FieldType, FullText, IdType, RowSchema, ScalarField
from upwell.shard import ann, merge
from upwell.shard.filter import Covered, OneOf
from upwell.shard.metric import Metric
from upwell.webhook.model import Event

GOLDEN = Path(__file__).parent / "golden"
#: Of the token that the golden stores know.
TOKEN = "golden-token.txt"
EXPECTED = {
    (None, "b"): ([0.0, 2.5], {"k": [1, "é"]}),
    ("n", "c"): ([-1.0, 3.4028234663852886e38], None),
    (None, "d"): ([0.125, 0.25], {}),
}


def write_golden(folder: Path) -> None:
    """A store with an object of every kind in it."""
    engine = make_engine(folder)
    index = make_index(engine, "golden", metric=Metric.COSINE)
    client = Client(index)
    client.append(insert(("a", (1, 0)), ("b", (0, 2.5), None, {"k": [1, "é"]}), ("x", (1, 1)), ("y", (1, 1))))
    drain(engine, index)
    client.append(upsert(("c", (-1, 3.4028234663852886e38), "n")), delete("a"))
    drain(engine, index)
    client.append(delete("x", "y"))
    drain(engine, index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "INLINE_BYTES_MAX", 0)
        client.append(upsert(("d", (0.125, 0.25), None, {})))
    write_codes(engine)
    write_declared(engine)
    write_failed(engine)
    write_spaces(engine)
    write_noted(engine)
    write_worded(engine)
    engine.catalog.delete("default", "golden")
    make_index(engine, "golden")
    engine.catalog.create("default", make_new("gone"))
    engine.catalog.delete("default", "gone")
    token, _ = engine.tokens.issue(name="g", account="*", index="*", access=Access.READ, lasts=None)
    (folder / TOKEN).write_text(f"{token}\n{index.record.id}\n")


def coded_vectors() -> npt.NDArray[np.float32]:
    """What the index "codes" holds of rows v0, v1, …; every seventh is deleted."""
    return np.random.default_rng(3).normal(size=(96, 64)).astype(np.float32)


def write_codes(engine: Engine) -> None:
    """Format 2: a merged segment with codes and lists, and one with one list."""
    index, vectors = (
        make_index(engine, "codes", dimensions=64, metric=Metric.COSINE, shards=1),
        coded_vectors(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "CODED_ROWS_MIN", 16)
        patch.setattr(ann, "LISTS", ((60, 4),))
        patch.setattr(merge, "FOLDED_BYTES_MAX", 0)
        for first in (0, 32, 64):
            rows = [(f"v{n}", vectors[n], "n", {"n": n}) for n in range(first, first + 32)]
            Client(index).append(upsert(*rows, dimensions=64))
            drain(engine, index)
            if first == 32:
                clock = engine.clock
                assert isinstance(clock, HandClock)
                clock.pass_s(10)
                assert engine.compact(index.record.id, 0) is not None
        Client(index).append(delete(*(f"v{n}" for n in range(0, 96, 7))))
        drain(engine, index)


def write_declared(engine: Engine) -> None:
    """Format 3: metadata indexes, rows that know when they were written, a request that counts once, a webhook."""
    index = make_index(engine, "declared")
    wanted = MetadataIndex(property="k.n", type=PropertyType.NUMBER)
    Client(index).append(upsert(("early", (1, 2), None, {"k": {"n": 1}})))
    drain(engine, index)
    Client(index).append(
        about_property(Operation.CREATE_METADATA_INDEX, wanted),
        upsert(("late", (1, 3), None, {"k": {"n": 1}}), ("other", (1, 4), None, {"k": {"n": "1"}})),
    )
    drain(engine, index)
    index.webhooks.create("https://example.com/hook", [Event.VISIBLE], "whsec_" + "Z29sZGVu" * 4)
    for _ in range(2):
        index.log_writer().append([keyed(upsert(("once", (9, 9))))])
    drain(engine, index)


def write_failed(engine: Engine) -> None:
    """Format 4: failures in a page and in the manifest, and what they were to do; prefixes with a checksum of their own."""
    index = make_index(engine, "failed")
    Client(index).append(*(upsert((f"p{n}", (n, n))) for n in range(FAILURES_INLINE_MAX + 1)))
    broken = {Receipt(1, place): "it broke" for place in range(FAILURES_INLINE_MAX + 1)}
    engine.apply_batch(index.record.id, lambda: True, broken=broken)
    Client(index).append(upsert(("fine", (1, 2))), upsert(("last", (3, 4), "n", {"k": 1})))
    engine.apply_batch(index.record.id, lambda: True, broken={Receipt(2, 1): "it broke too"})


#: What the index "spaces" is told: applied, and waiting in its log.
SPACES_APPLIED = (
    PlainMutation(
        Operation.UPSERT,
        (
            PlainRow("a", "n", (1, 2), ((7, 0.5), (3, -1), (7, 2)), "text é", {"k": 1, "o": {"p": 1}}),
            PlainRow("b", "m", (2, 3), (), None, {"k": 2}),
            PlainRow("c", None, (3, 4), ((1, 1),), "more", None),
            PlainRow("a", "o", (4, 5), ((1, 1),), None, {"k": 1}),
        ),
        KeyScope.NAMESPACE,
    ),
    PlainMutation(Operation.RENAME_NAMESPACE, namespace="n", new_namespace="new"),
    PlainMutation(
        Operation.UPSERT, (PlainRow("z", "n", (5, 6), ((2, 2),), "z", {"k": 3}),), KeyScope.NAMESPACE
    ),
)
SPACES_WAITING = (
    PlainMutation(
        Operation.UPDATE,
        (PlainRow("a", "new", metadata={"o": {"p": None, "q": 2}}), PlainRow("b", "m", data="given")),
        KeyScope.NAMESPACE,
        patch=True,
    ),
    PlainMutation(Operation.UPDATE, (PlainRow("c", None, (9, 9)),), KeyScope.NAMESPACE),
    PlainMutation(Operation.DELETE_MATCHING, namespace="o", prefix="a", equal=1.0),
    PlainMutation(Operation.RENAME_NAMESPACE, namespace="new", new_namespace="m", delete_existing=True),
    PlainMutation(Operation.DELETE_NAMESPACE, namespace="n"),
    PlainMutation(Operation.RESET, namespace=""),
    PlainMutation(Operation.INSERT, (PlainRow("d", None, (6, 7), ((4, 4),), "d", {}),), KeyScope.NAMESPACE),
)


def write_spaces(engine: Engine) -> None:
    """Format 5: a hybrid index with namespaces of other names than their rows say, and every operation that came with it waiting."""
    index = make_index(engine, "spaces", key_scope=KeyScope.OPEN, kind=IndexKind.HYBRID)
    Client(index).append(*(one.changeset() for one in SPACES_APPLIED))
    drain(engine, index)
    Client(index).append(*(one.changeset() for one in SPACES_WAITING))


#: What rows of the index "noted" have.
SCHEMA = RowSchema(
    id_field="key",
    ids=IdType.INT64,
    auto_id=True,
    vector_field="v",
    fields=(
        ScalarField(name="price", type=FieldType.DOUBLE, nullable=True, default=1.5),
        ScalarField(name="tags", type=FieldType.ARRAY, element=FieldType.VARCHAR, bytes_max=9, capacity=4),
    ),
    dynamic=False,
    order=("key", "v", "price", "tags"),
    partition_key="price",
    consistency=Consistency.STRONG,
)
#: What it is told: applied, and waiting in its log.
NOTED_APPLIED = (
    PlainMutation(Operation.UPSERT, (PlainRow("1", None, (1, 2), metadata={"o": {"a": 1}, "price": 2}),)),
)
NOTED_WAITING = (
    PlainMutation(
        Operation.UPDATE,
        (PlainRow("1", metadata={"o": {"b": 1}, "price": None}), PlainRow("2", metadata={"price": 1})),
        patch=True,
        shallow=True,
    ),
    PlainMutation(
        Operation.UPDATE,
        (
            PlainRow("1", None, (5, 6), metadata={"new": 1}),
            PlainRow("-3", None, (3, 4), metadata={"price": None, "é": 1}),
        ),
        patch=True,
        shallow=True,
        adds=True,
    ),
)


def write_noted(engine: Engine) -> None:
    """Format 6: an index with a schema of rows and notes, which was made under another name, and updates that came with them waiting; and
    databases."""
    engine.create("default", replace(make_new("unnoted"), row_schema=SCHEMA, key_scope=KeyScope.INDEX))
    engine.rename("default", "unnoted", "noted")
    index = engine.find("default", "noted")
    Client(index).append(*(one.changeset() for one in NOTED_APPLIED))
    drain(engine, index)
    Client(index).append(*(one.changeset() for one in NOTED_WAITING))
    for n in range(3):
        index.notes.change(lambda notes, n=n: notes | {f"é{n}": [n, None]})  # type: ignore[misc]
    engine.databases.create("shop", {"database.resource_groups": "x"})
    engine.databases.set_alias("default", "known", "noted", new=True)


#: What rows of the index "worded" have, of whose texts its sparse vectors are made.
WORDED = RowSchema(
    ids=IdType.INT64,
    fields=(
        ScalarField(name="text", type=FieldType.VARCHAR, bytes_max=99, analyzer={}, matches=True),
        ScalarField(name="name", type=FieldType.VARCHAR, bytes_max=9, analyzer={"type": "english"}),
    ),
    full_text=FullText(name="bm25", description="é", field="text"),
)


def texts(namespace: str | None, **given: str) -> tuple[PlainRow, ...]:
    """Rows with these texts."""
    return tuple(
        PlainRow(id.strip("_"), namespace, None, counted(text), metadata={"text": text})
        for id, text in given.items()
    )


#: What it is told: applied, and waiting in its log. A partial upsert that names a partition means only rows that are there.
WORDED_APPLIED = (
    PlainMutation(
        Operation.UPSERT, texts(None, _1="log log queue", _2="the É of a queue", _3="", _4="a door")
    ),
    PlainMutation(Operation.UPSERT, texts("p", _5="log", _6="shard log", _7="a log of a shard")),
)
IN_P: dict[str, Any] = {"patch": True, "shallow": True, "inside": True}
WORDED_WAITING = (
    PlainMutation(Operation.UPDATE, texts("p", _1="not there", _5="log queue log"), **IN_P),
    PlainMutation(Operation.UPDATE, (PlainRow("4", "p", metadata={"new": 1}),), **IN_P),
    PlainMutation(Operation.UPDATE, texts("p", _2="moved to p", _6="a shard log é"), **IN_P, adds=True),
    PlainMutation(Operation.DELETE_MATCHING, namespace="p", phrase=("shard", "log")),
    PlainMutation(Operation.DELETE_MATCHING, words=("door", "unheard")),
    PlainMutation(Operation.DELETE_MATCHING, words=("shard",), phrase=("log", "of")),
)


def write_worded(engine: Engine) -> None:
    """Format 6: a schema whose function makes sparse vectors, rows of them, and filters of words and updates of one namespace waiting."""
    index = make_index(engine, "worded", kind=IndexKind.SPARSE, row_schema=WORDED)
    Client(index).append(*(one.changeset() for one in WORDED_APPLIED))
    drain(engine, index)
    Client(index).append(*(one.changeset() for one in WORDED_WAITING))


def check_worded(engine: Engine) -> None:
    """As it was written; and BM25 says the same of it as of its texts."""
    index, plain = engine.find("default", "worded"), PlainIndex(KeyScope.INDEX)
    assert index.record.row_schema == WORDED
    for position, mutations in enumerate((WORDED_APPLIED, WORDED_WAITING), 1):
        for place, one in enumerate(mutations):
            assert not isinstance(plain.apply(one, (position, place)), str)
        compare(index.newest.get(), plain)
        for query in ("log", "queue é"):
            check_scores(index, query, plain.rows.values())
        drain(engine, index)
    assert {(row.namespace, row.id) for row in plain.rows.values()} == {
        ("", "1"), ("", "3"), ("p", "2"), ("p", "5"),
    }  # fmt: skip


def check_scores(index: Index, query: str, rows: Iterable[PlainHeld]) -> None:
    """BM25 says of all rows what it says of their texts."""
    indices, counts = zip(*counted(query), strict=True)
    asked = np.array(indices, np.int32), np.array(counts, np.float32)
    found = search_sparse(index.newest.get(), asked, 9, bm25=Bm25())
    expected = bm25_scores(query, {row.id: row.metadata["text"] for row in rows})
    assert {one.found.id: one.closeness for one in found} == pytest.approx(expected)


def check_noted(engine: Engine) -> None:
    """As it was written."""
    index = engine.find("default", "noted")
    assert index.record.row_schema == SCHEMA and index.record.description == "gone"
    assert engine.index(index.record.id).record.name == "noted"
    assert index.notes.read() == {f"é{n}": [n, None] for n in range(3)}
    assert engine.databases.list() == ["default", "shop"]
    assert engine.databases.properties("shop") == {"database.resource_groups": "x"}
    assert engine.databases.aliases("default") == {"known": "noted"}
    plain = PlainIndex(KeyScope.INDEX)
    for position, mutations in enumerate((NOTED_APPLIED, NOTED_WAITING), 1):
        for place, one in enumerate(mutations):
            assert not isinstance(plain.apply(one, (position, place)), str)
        compare(index.newest.get(), plain)
        drain(engine, index)
    with pytest.raises(Gone):
        engine.find("default", "unnoted")
    assert engine.rename("default", "noted", "unnoted").id == index.record.id


def keyed(changeset: Changeset) -> PreparedMutation:
    one = prepared(changeset)
    return replace(one, mutation=replace(one.mutation, by="golden", request=request_of(one, "golden", "key")))


OLDER = {"format-1", "format-2", "format-3"}


@pytest.mark.parametrize(
    "name", sorted({path.name for path in GOLDEN.iterdir()} - OLDER - {"format-4", "format-5"})
)
def test_names_notes_databases_and_texts_of_an_earlier_format_are_what_they_were(
    tmp_path: Path, name: str
) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / name)
    check_noted(engine := make_engine(tmp_path / name))
    check_worded(engine)


@pytest.mark.parametrize("name", sorted({path.name for path in GOLDEN.iterdir()} - OLDER - {"format-4"}))
def test_namespaces_and_operations_of_an_earlier_format_are_what_they_were(tmp_path: Path, name: str) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / name)
    check_spaces(make_engine(tmp_path / name))


def check_spaces(engine: Engine) -> None:
    """As it was written, and once what waits is applied."""
    index, plain = engine.find("default", "spaces"), PlainIndex(KeyScope.OPEN)
    assert (index.record.kind, index.record.key_scope) == (IndexKind.HYBRID, KeyScope.OPEN)
    for position, mutations in enumerate((SPACES_APPLIED, SPACES_WAITING), 1):
        for place, one in enumerate(mutations):
            assert not isinstance(plain.apply(one, (position, place)), str)
        compare(index.newest.get(), plain)
        drain(engine, index)
    assert {(row.namespace, row.id) for row in plain.rows.values()} == {("m", "a"), ("", "d")}


def test_the_golden_store_of_today_is_what_its_tests_expect(tmp_path: Path) -> None:
    """So that one may be written as soon as a format is done."""
    write_spaces(engine := make_engine(tmp_path))
    check_spaces(engine)
    write_noted(engine)
    check_noted(engine)
    write_worded(engine)
    check_worded(engine)


@pytest.mark.parametrize("name", sorted({path.name for path in GOLDEN.iterdir()} - OLDER))
def test_what_failed_in_an_earlier_format_has_failed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    index = make_engine(folder).find("default", "failed")
    manifest = index.head.refresh()
    assert (len(manifest.failures), len(manifest.failure_pages)) == (1, 1)
    failed = index.outcomes.recent(1_000, state=State.FAILED)
    assert len(failed) == manifest.failed == FAILURES_INLINE_MAX + 2
    assert {one.error for one in failed} == {"it broke", "it broke too"}
    kept = index.sent.changeset(failed[0].mutation_id)
    assert kept.ids.to_pylist() == ["last"] and kept.vectors is not None and kept.vectors.tolist() == [[3, 4]]
    assert index.sent.changeset(failed[-1].mutation_id).ids.to_pylist() == ["p0"]


@pytest.mark.parametrize("name", sorted({path.name for path in GOLDEN.iterdir()} - {"format-1", "format-2"}))
def test_what_an_earlier_format_declared_still_holds(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    engine = make_engine(folder)
    index = engine.find("default", "declared")
    view = index.newest.get()
    (declared,) = view.manifest.metadata_indexes
    assert (declared.index.property, declared.index.type) == ("k.n", "number")
    assert any(live.segment.has_column("k.n") for shard in view.shards for live in shard)
    for backfill, names in ((True, ["early", "late"]), (False, ["late"])):
        asked = Covered(OneOf("k.n", (1.0,)), view.manifest.metadata_indexes, backfill=backfill)
        found = search(view, np.array([1, 2], np.float32), 9, within=asked)
        assert [match.found.id for match in found] == names
    request = request_of(prepared(upsert(("once", (9, 9)))), "golden", "key")
    settled = index.requests.find(request.name)
    assert settled is not None and settled.digest == request.digest and settled.receipt.position == 3
    assert index.outcomes.last_applied(view.manifest, "golden") == index.outcomes.last_applied(view.manifest)
    recent = [outcome.result for outcome in index.outcomes.recent(2)]
    # The same request is in the log a second time, which nobody is told of.
    assert view.manifest.applied_through == 4 and [one.inserted for one in recent if one] == [1, 2]
    ((webhook, _),) = index.webhooks.everything()
    assert webhook.url == "https://example.com/hook" and webhook.events == (Event.VISIBLE,)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.name != "format-1"))
def test_codes_of_an_earlier_format_are_searched(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    index = make_engine(folder).find("default", "codes")
    view, vectors = index.newest.get(), coded_vectors()
    kinds = {live.segment._box.meta["index"] for shard in view.shards for live in shard}
    assert kinds == {"IVF4,RaBitQfs", "IVF1,RaBitQfs"}
    left = [n for n in range(96) if n % 7]
    assert contents(index) == {("n", f"v{n}"): (vectors[n].tolist(), {"n": n}) for n in left}
    for n in left[:20]:
        assert search(view, vectors[n], 1, "n")[0].found.id == f"v{n}"
    assert view.manifest.totals.write_amplification is not None


def make_new(name: str) -> NewIndex:
    return NewIndex(name=name, description="gone", dimensions=2, metric=Metric.EUCLIDEAN, shards=1)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_store_of_an_earlier_format_is_read_and_goes_on(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    token, index_id = (folder / TOKEN).read_text().split()
    clock = HandClock()
    clock.pass_s(timedelta(days=365).total_seconds())
    engine = make_engine(folder, clock=clock)
    assert engine.tokens.grant_of(token).access is Access.READ
    assert "golden" in [record.name for record in engine.catalog.list("default")]
    index = engine._open(engine.catalog.record(index_id))
    assert index.head.refresh().applied_through == 3
    assert index.has_backlog()
    waiting = index.log.read(4)
    assert waiting.mutations[0].payload is not None
    while index.applier.apply_batch(lambda: True):
        pass
    assert contents(index) == EXPECTED
    results = [outcome.result for outcome in reversed(index.outcomes.recent(10))]
    assert [(r.inserted, r.replaced, r.deleted) for r in results if r] == [
        (4, 0, 0), (1, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0),
    ]  # fmt: skip
    assert all(outcome.state is State.VISIBLE for outcome in index.outcomes.recent(10))
    assert index.outcomes.last_applied(index.head.refresh()) is not None


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
