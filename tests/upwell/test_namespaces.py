"""Namespaces: a table of names that rows know nothing of, rows of before there was one, and what is decided in a batch's order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.making import Client, delete, drain_of, insert, make_engine, make_index, upsert
from upwell.changeset import Details, KeyScope, Operation, Rename, Selection, without_rows
from upwell.engine import Index
from upwell.manifest import Namespaces, NamespacesDraft
from upwell.outcome import State
from upwell.shard.spaces import decode_spaces, encode_spaces, spaces_of

GOLDEN = Path(__file__).parent / "golden"
NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.tuples(st.just("add"), NAMES)
    | st.tuples(st.just("remove"), NAMES)
    | st.tuples(st.just("rename"), NAMES, NAMES)
)


@given(before=st.integers(0, 4), steps=STEPS)
def test_a_namespace_keeps_its_identity_and_no_two_share_one(
    before: int, steps: list[tuple[str, ...]]
) -> None:
    """``expected``: which making of a namespace a name means; each has an identity of its own while it is there."""
    table, draft = Namespaces(), NamespacesDraft(Namespaces())
    told: dict[str, str] = {}
    expected: dict[str, int] = {}
    identity_of: dict[int, str] = {}
    for number, (what, name, *more) in enumerate(steps):
        if number == before:
            draft = NamespacesDraft(table := draft.done())
            told = dict(table.identities)
        match what:
            case "add":
                draft.add(name, f"{number}")
                if name not in expected:
                    expected[name] = number
                    identity_of[number] = draft.called(name)
            case "remove":
                draft.remove(name)
                expected.pop(name, None)
            case _ if name in expected and more[0] not in expected:
                draft.rename(name, more[0])
                expected[more[0]] = expected.pop(name)
        for one in "abc":
            assert (one in draft) == (one in expected)
    done = draft.done()
    assert dict(done.identities) == {name: identity_of[number] for name, number in expected.items()}
    assert len(set(done.identities.values())) == len(expected)
    for name in "abc":
        # Of a name that is not there no row is ever found, whatever the others are called in their rows.
        assert (name in expected) or done.called(name) not in done.identities.values()
        assert done.called(name) == draft.called(name)
        assert name not in expected or done.name(done.called(name)) == name
    if len(steps) > before:
        assert dict(table.identities) == told


def test_what_changes_nothing_makes_no_new_table() -> None:
    table = Namespaces({"a": "a"})
    draft = NamespacesDraft(table)
    draft.add("a", "1")
    draft.add("", "1")
    draft.remove("b")
    assert draft.done() is table


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return make_index(make_engine(tmp_path), key_scope=KeyScope.OPEN)


def names(index: Index) -> set[str]:
    return set(index.newest.get().namespaces.identities)


@pytest.mark.parametrize("operation", [Operation.RESET, Operation.DELETE_NAMESPACE])
def test_namespaces_of_before_there_was_a_table_are_in_it_from_the_next_batch_on(
    tmp_path: Path, operation: Operation
) -> None:
    """So they are there when their last row is gone, until they are deleted themselves."""
    shutil.copytree(GOLDEN / "format-4", tmp_path / "old")
    index = make_engine(tmp_path / "old").find("default", "codes")
    before = index.newest.get()
    assert before.manifest.namespaces is None and before.has_namespace("n") and set(before.counts) == {"n"}
    client = Client(index)
    client.append(upsert(("x", [1.0] * 64), dimensions=64))
    drain_of(index)
    assert names(index) == {"n"}
    client.append(without_rows(operation, Details(selection=Selection(namespace="n"))))
    drain_of(index)
    assert names(index) == ({"n"} if operation is Operation.RESET else set())
    assert index.newest.get().counts == {"": 1}


def test_while_it_is_open_a_delete_by_id_alone_means_the_row_whatever_is_decided_behind_it(
    index: Index,
) -> None:
    """In one batch: the delete is decided by keys as they are once ids are unique per namespace."""
    client = Client(index)
    client.append(insert(("a", (1, 1))))
    drain_of(index)
    deciding = replace(upsert(("a", (2, 2), "n")), details=Details(scope=KeyScope.NAMESPACE))
    gone, _ = client.append(delete("a", namespaces=["n"]), deciding)
    assert drain_of(index) == 1
    assert index.newest.get().key_scope is KeyScope.NAMESPACE
    result = index.outcomes.of(gone).result
    assert result is not None and result.deleted == 1
    assert index.newest.get().counts == {"n": 1}


@pytest.mark.parametrize(("old", "new"), [("", "n"), ("n", ""), ("", "")])
def test_rows_without_a_namespace_are_none_that_can_be_renamed(index: Index, old: str, new: str) -> None:
    client = Client(index)
    client.append(upsert(("a", (1, 1), "n"), ("b", (1, 1))))
    rename = Rename(namespace=old, new_namespace=new, delete_existing=True)
    (mutation,) = client.append(without_rows(Operation.RENAME_NAMESPACE, Details(rename=rename)))
    drain_of(index)
    outcome = index.outcomes.of(mutation)
    assert outcome.state is State.FAILED and "without a namespace" in str(outcome.error)
    assert names(index) == {"n"} and index.newest.get().counts == {"": 1, "n": 1}


def test_a_segment_tells_of_its_namespaces_what_its_rows_say() -> None:
    spaces = pa.array(["n", None, "n", "m", None], pa.utf8())
    told = spaces_of(spaces, np.array([3, 9, 4, 1, 2], np.uint64))
    assert told == {"n": (2, 2), "": (2, 1), "m": (1, 3)}
    assert decode_spaces(memoryview(encode_spaces(told))) == told
    # A column of nulls is not written; so it must tell the same as none, also where no row has a number.
    zeros = np.zeros(3, np.uint64)
    assert spaces_of(pa.nulls(3, pa.utf8()), zeros) == spaces_of(None, zeros)
    assert spaces_of(None, zeros[:0]) == {}
