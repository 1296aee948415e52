"""Updates that add what is not there, and patches that put members in the place of others whole: word by word what they promise.

That any history of them comes to what a dict holds is tests/upwell/test_resolve_model.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.making import Client, contents, make_engine, make_index, prepared, upsert
from tests.plain_index import PlainMutation, PlainRow, plainly_replaced
from upwell.changeset import Changeset, Details, KeyScope, Operation
from upwell.engine import Index
from upwell.kinds import IndexKind
from upwell.log.entry import request_of
from upwell.log.receipt import Receipt
from upwell.log.request import Request
from upwell.manifest import MutationResult
from upwell.outcome import State
from upwell.query.ordered import with_prefix
from upwell.shard.written import shallow_patch

VALUES = st.none() | st.integers(-9, 9) | st.dictionaries(st.sampled_from("ab"), st.none() | st.integers())
DOCUMENTS = st.dictionaries(st.sampled_from("abc"), VALUES)


def partial(*rows: PlainRow, **more: Any) -> Changeset:
    """As Milvus upserts some fields."""
    return PlainMutation(
        Operation.UPDATE, rows, **{"patch": True, "shallow": True, "adds": True} | more
    ).changeset()


def counts(index: Index, mutation_id: str) -> dict[str, int]:
    """What a mutation counted, without zeros."""
    result = index.outcomes.of(mutation_id).result
    assert isinstance(result, MutationResult)
    names = ("inserted", "replaced", "skipped", "updated", "deleted")
    return {name: getattr(result, name) for name in names if getattr(result, name)}


def drained(index: Index) -> None:
    """All that waits is applied."""
    while index.applier.apply_batch(lambda: True) is not None:
        pass


def applied(index: Index, *changesets: Changeset) -> list[dict[str, int]]:
    ids = Client(index).append(*changesets)
    drained(index)
    return [counts(index, one) for one in ids]


@given(
    DOCUMENTS.map(lambda one: {name: value for name, value in one.items() if value is not None}), DOCUMENTS
)
def test_any_shallow_patch_takes_members_whole(target: dict[str, Any], patch: dict[str, Any]) -> None:
    assert shallow_patch(target, patch) == plainly_replaced(target, patch)


def test_members_are_put_in_the_place_of_others_whole_and_null_removes(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    applied(index, upsert(("a", (1, 2), None, {"o": {"p": 1, "q": 2}, "k": 1, "gone": 1})))
    patch = PlainRow("a", metadata={"o": {"r": None}, "gone": None, "never": None, "new": [1]})
    assert applied(index, partial(patch, adds=False)) == [{"updated": 1}]
    assert contents(index) == {(None, "a"): ([1, 2], {"o": {"r": None}, "k": 1, "new": [1]})}


def test_what_is_not_there_is_added_and_what_is_there_is_changed(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path), shards=2)
    applied(index, upsert(("a", (1, 2), None, {"k": 1, "o": {"p": 1}})))
    rows = (
        PlainRow("a", None, (3, 4), None, None, {"o": {"q": 2}}),
        PlainRow("b", None, (5, 6), None, "text", {"k": 2, "gone": None}),
        PlainRow("c", None, (7, 8)),
        PlainRow("b", None, (9, 9), None, None, {"more": 3}),
    )
    assert applied(index, partial(*rows)) == [{"inserted": 2, "updated": 2}]
    assert contents(index) == {
        (None, "a"): ([3, 4], {"k": 1, "o": {"q": 2}}),
        (None, "b"): ([9, 9], {"k": 2, "more": 3}),
        (None, "c"): ([7, 8], None),
    }
    found = {row.id: row for row in with_prefix(index.newest.get(), "", "", 10)}
    assert found["b"].data == "text" and list(found) == ["a", "b", "c"]


def test_without_adding_what_is_not_there_is_skipped(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    rows = (PlainRow("a", None, (3, 4)), PlainRow("b", None, (5, 6)), PlainRow("b", None, (5, 7)))
    assert applied(index, upsert(("a", (1, 2)))) == [{"inserted": 1}]
    assert applied(index, partial(*rows, adds=False)) == [{"updated": 1, "skipped": 2}]


def test_a_row_deleted_before_it_in_the_batch_is_added_with_nothing_of_what_it_was(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    applied(index, upsert(("a", (1, 2), "n", {"k": 1})))
    gone = PlainMutation(Operation.DELETE, (PlainRow("a"),)).changeset()
    assert applied(index, gone, partial(PlainRow("a", None, (3, 4), None, None, {"n": 1}))) == [
        {"deleted": 1},
        {"inserted": 1},
    ]
    assert contents(index) == {(None, "a"): ([3, 4], {"n": 1})}


@pytest.mark.parametrize("scope", [KeyScope.INDEX, KeyScope.NAMESPACE])
def test_it_makes_namespaces_and_decides_what_ids_are_unique_in(tmp_path: Path, scope: KeyScope) -> None:
    index = make_index(make_engine(tmp_path), key_scope=KeyScope.OPEN)
    first = partial(PlainRow("a", "n", (1, 2)), PlainRow("a", "m", (3, 4)), scope=scope)
    wanted = {"inserted": 2} if scope is KeyScope.NAMESPACE else {"inserted": 1, "updated": 1}
    assert applied(index, first) == [wanted]
    view = index.newest.get()
    assert (set(view.namespaces.identities), view.key_scope) == ({"n", "m"}, scope)
    assert ("n", "a") in contents(index)


def test_a_row_that_a_door_of_namespaces_does_not_mean_is_moved_as_by_an_upsert(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    applied(index, upsert(("a", (1, 2), "n", {"k": 1})))
    moved = partial(PlainRow("a", "m", (3, 4)), scope=KeyScope.NAMESPACE)
    assert applied(index, moved) == [{"replaced": 1}]
    assert contents(index) == {("m", "a"): ([3, 4], None)}
    stays = partial(PlainRow("a", "n", (5, 6)), scope=KeyScope.INDEX)
    assert applied(index, stays) == [{"updated": 1}]
    assert contents(index) == {("m", "a"): ([5, 6], None)}


def test_where_only_rows_inside_are_meant_one_that_lies_elsewhere_is_moved_or_skipped(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    applied(index, upsert(("a", (1, 2), "n", {"k": 1}), ("b", (1, 2), None, {"k": 1})))
    patch = [PlainRow(id, "m", metadata={"o": 1}) for id in "ab"]
    assert applied(index, partial(*patch, adds=False, inside=True)) == [{"skipped": 2}]
    moved = partial(PlainRow("a", "m", (3, 4), None, None, {"o": 1}), inside=True)
    assert applied(index, moved) == [{"replaced": 1}]
    inside = [
        partial(PlainRow(id, where, metadata={"p": 1}), adds=False, inside=True)
        for id, where in (("a", "m"), ("b", None))
    ]
    assert applied(index, *inside) == [{"updated": 1}, {"updated": 1}]
    assert contents(index) == {
        ("m", "a"): ([3, 4], {"o": 1, "p": 1}),
        (None, "b"): ([1, 2], {"k": 1, "p": 1}),
    }


def test_rows_that_it_may_add_are_counted_as_rows_that_wait(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    one = partial(PlainRow("a", None, (1, 2)))
    Client(index).append(replace(one, details=one.details.model_copy(update={"namespace": ""})))
    index.load()
    assert index.backlog.rows_by_namespace() == {"": 1}


def empty(**told: Any) -> Changeset:
    given: dict[str, Any] = {"operation": Operation.UPDATE, "vectors": np.empty((0, 2), np.float32)} | told
    return Changeset(ids=pa.array([], pa.utf8()), received=0, **given)


WRONG: list[tuple[str, Callable[[], object]]] = [
    ("only of a patch", lambda: empty(details=Details(shallow=True))),
    ("upsert and rows", lambda: empty(operation=Operation.UPSERT, details=Details(adds=True))),
    ("delete and rows", lambda: empty(operation=Operation.DELETE, vectors=None, details=Details(adds=True))),
    ("vectors that it brings", lambda: empty(vectors=None, details=Details(adds=True))),
    (
        "vectors that it brings",
        lambda: empty(vectors=None, data=pa.array([], pa.utf8()), details=Details(adds=True, embed=True)),
    ),
]


@pytest.mark.parametrize(("why", "made"), WRONG)
def test_what_does_not_go_together_is_refused(why: str, made: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=why):
        made()


@pytest.mark.parametrize(
    ("kind", "row", "why"),
    [
        (IndexKind.HYBRID, PlainRow("a", None, (1, 2)), "not those of a hybrid index"),
        (IndexKind.HYBRID, PlainRow("a", sparse=((1, 1.0),)), "no dense vectors"),
        (IndexKind.DENSE, PlainRow("a", sparse=((1, 1.0),)), "no dense vectors"),
    ],
)
def test_one_that_lacks_a_vector_of_its_index_fails_and_is_fine_if_it_adds_nothing(
    tmp_path: Path, kind: IndexKind, row: PlainRow, why: str
) -> None:
    index = make_index(make_engine(tmp_path), kind=kind)
    (failed,) = Client(index).append(partial(row))
    drained(index)
    outcome = index.outcomes.of(failed)
    assert outcome.state is State.FAILED and why in str(outcome.error)
    if kind is IndexKind.HYBRID:
        assert applied(index, partial(row, adds=False)) == [{"skipped": 1}]


def test_a_request_that_was_kept_before_there_were_these_is_the_same_request() -> None:
    """Its digest is of what an older Upwell said of it, to the letter."""
    one = prepared(PlainMutation(Operation.UPDATE, (PlainRow("a", metadata={}),), patch=True).changeset())
    older = {
        "selection": None,
        "rename": None,
        "patch": True,
        "embed": False,
        "scope": "index",
        "namespace": None,
    }
    said = orjson.dumps(["update", 1, None, 0, [], older])
    assert request_of(one, "token", "key") == Request.of("token", "key", said, memoryview(one.columns))
    newer = prepared(partial(PlainRow("a", metadata={}), adds=False))
    assert request_of(newer, "token", "key") != Request.of("token", "key", said, memoryview(newer.columns))


def test_an_entry_without_these_is_read(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path))
    Client(index).append(
        PlainMutation(Operation.UPDATE, (PlainRow("a", metadata={}),), patch=True).changeset()
    )
    entry = index.log.read(1)
    assert entry.box.meta["mutations"][0]["details"] == {"patch": True}, "as format 3 had it"
    assert entry.mutations[0].details == Details(patch=True)
    assert index.outcomes.at("", Receipt(1, 0), index.head.refresh()).state is State.QUEUED
