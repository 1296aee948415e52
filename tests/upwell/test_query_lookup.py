"""Fetching by id: within what ids are unique, in which namespace, by its name; and what a scan tells of rows of every kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.making import Client, drain, make_engine, make_index, upsert
from tests.querying import Row, Story
from tests.upwell.test_golden import GOLDEN, TOKEN
from upwell.changeset import KeyScope
from upwell.kinds import IndexKind
from upwell.query.lookup import lookup
from upwell.query.ordered import range_rows
from upwell.query.scan import Scan
from upwell.query.search import search


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


def test_one_id_in_several_namespaces_is_several_rows(tmp_path: Path) -> None:
    story = Story(tmp_path, 0, IndexKind.DENSE)
    story.write([Row(space, "a", [number, 0, 1], [], []) for number, space in enumerate(["", "one", "two"])])
    view = story.view()
    assert view.key_scope is KeyScope.NAMESPACE
    for inside in (False, True):
        for number, space in enumerate(["", "one", "two"]):
            (found,) = lookup(view, ["a", "b", "a"], space, within_namespace=inside)
            assert (found.values.tolist(), found.namespace) == ([number, 0, 1], space or None)
        (found,) = lookup(view, ["a"], within_namespace=inside)
        assert found.namespace is None
        assert lookup(view, ["a"], "nobody's", within_namespace=inside) == []


@pytest.mark.parametrize("scope", [KeyScope.INDEX, KeyScope.OPEN])
def test_where_ids_are_unique_in_the_index_a_door_may_mean_one_namespace_all_the_same(
    tmp_path: Path, scope: KeyScope
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, key_scope=scope)
    Client(index).append(upsert(("a", (1, 2), "one"), ("b", (3, 4)), ("c", (5, 6), "two")))
    Client(index).append(upsert(("d", (7, 8))))
    drain(engine, index)
    view, names = index.newest.get(), ["d", "c", "b", "a"]
    for namespace in (None, "", "one", "nobody's"):
        assert [found.id for found in lookup(view, names, namespace)] == names

    def within(namespace: str | None) -> list[str]:
        return [found.id for found in lookup(view, names, namespace, within_namespace=True)]

    assert within("one") == ["a"]
    assert within("two") == ["c"]
    assert within("") == within(None) == ["d", "b"]
    assert within("nobody's") == []


def test_while_nothing_has_a_namespace_there_is_nothing_in_one(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, key_scope=KeyScope.OPEN)
    Client(index).append(upsert(("a", (1, 2))))
    drain(engine, index)
    view = index.newest.get()
    assert view.key_scope is KeyScope.OPEN
    assert lookup(view, ["a"], "one", within_namespace=True) == []
    (found,) = lookup(view, ["a"], "", within_namespace=True)
    assert (found.id, found.namespace, found.sparse, found.data, found.metadata) == (
        "a",
        None,
        None,
        None,
        None,
    )
    assert found.sequence == 1


def test_a_namespace_is_asked_for_by_the_name_that_it_has_now(tmp_path: Path) -> None:
    story = Story(tmp_path, 0, IndexKind.DENSE)
    story.write([Row("one", "a", [1, 0, 0], [], []), Row("", "b", [1, 0, 0], [], [])])
    story.rename("one", "two")
    story.write([Row("one", "c", [1, 0, 0], [], [])])
    view, query = story.view(), np.array([1, 0, 0], np.float32)
    for name, expected in (("two", ["a"]), ("one", ["c"]), ("", ["b"]), ("three", [])):
        assert [match.found.id for match in search(view, query, 9, name)] == expected
        assert [found.id for found in lookup(view, ["a", "b", "c"], name)] == expected
        assert [some.ids for some in Scan(view, name).some(9)] == [[one] for one in expected]
    everywhere = search(view, query, 9)
    assert {match.found.id: match.found.namespace for match in everywhere} == {
        "a": "two",
        "b": None,
        "c": "one",
    }


@pytest.mark.parametrize("kind", IndexKind)
def test_a_scan_tells_everything_of_rows_of_every_kind(tmp_path: Path, kind: IndexKind) -> None:
    story = Story(tmp_path, 3, kind)
    story.write_some(30)
    story.delete_some(0.3)
    found: dict[tuple[str, str], tuple[list[float], object, bytes | None, str | None]] = {}
    for some in Scan(story.view()).some(4):
        for place, (name, namespace) in enumerate(zip(some.ids, some.namespaces, strict=True)):
            sparse = None if some.sparse is None else [part.tolist() for part in some.sparse.row(place)]
            dense = some.vectors[place].tolist()
            found[namespace or "", name] = (dense, sparse, some.metadata[place], some.data[place])
    assert found == {
        key: (
            row.dense if kind.has_dense else [],
            [row.indices, row.values] if kind.has_sparse else None,
            f'{{"id":"{row.id}"}}'.encode(),
            f"text of {row.id}",
        )
        for key, row in story.held.items()
    }


@pytest.mark.parametrize("name", ["format-1", "format-2", "format-3"])
def test_stores_of_before_there_were_sequences_are_read_through_and_written_on(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    engine = make_engine(folder)
    index = engine._open(engine.catalog.record((folder / TOKEN).read_text().split()[1]))
    for _ in range(2):
        view = index.newest.get()
        rows = [
            (some.ids[place], some.namespaces[place] or "")
            for some in Scan(view).some(99)
            for place in range(len(some))
        ]
        assert rows
        for namespace in view.counts:
            found, cursor = list[str](), ""
            while True:
                page, cursor = range_rows(view, namespace, cursor, 1)
                found += [one.id for one in page]
                if not cursor:
                    break
            assert len(found) == len(set(found)) == view.counts[namespace]
            assert set(found) == {one for one, its in rows if its == namespace}
        # Now with what waited in the log, which gets sequences.
        index.applier.apply_batch(lambda: True)
    view = index.newest.get()
    pages = {namespace: range_rows(view, namespace, "", 99)[0] for namespace in view.counts}
    assert [(found.id, found.sequence) for found in pages[""]] == [("b", 0), ("d", 1)]
    assert [(found.id, found.sequence) for found in pages["n"]] == [("c", 0)]
