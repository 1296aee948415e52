"""Databases: made, dropped and altered; and aliases, which are of an index and not of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dict_store import DictStore
from tests.making import HandClock, make_engine, make_index
from tests.racing import WatchedStore
from upwell.catalog.names import NewIndex
from upwell.catalog.record import IndexRecord
from upwell.engine import Engine
from upwell.errors import Exists, Invalid, NotFound

GRACE_S = 100.0


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


@pytest.fixture
def engine(tmp_path: Path, store: WatchedStore) -> Engine:
    return make_engine(tmp_path, store=store, grace_s=GRACE_S)


def test_what_there_is_the_default_one_those_that_were_made_and_accounts_with_an_index(
    engine: Engine,
) -> None:
    databases = engine.databases
    assert databases.list() == ["default"]
    make_index(engine, account="shop")
    databases.create("empty", {"a": "1"})
    assert databases.list() == ["default", "empty", "shop"]
    assert [databases.exists(name) for name in ("default", "empty", "shop", "no", "", "a/b", "..")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    engine.catalog.delete("shop", "index")
    assert databases.list() == ["default", "empty"]
    assert databases.properties("empty") == {"a": "1"} and databases.properties("default") == {}
    with pytest.raises(NotFound):
        databases.properties("shop")
    databases.create("shop", {})
    assert databases.exists("shop")


@pytest.mark.parametrize("name", ["default", "made", "account"])
def test_one_that_there_is_cannot_be_made(engine: Engine, name: str) -> None:
    engine.databases.create("made", {})
    make_index(engine, account="account")
    with pytest.raises(Exists):
        engine.databases.create(name, {})


@pytest.mark.parametrize("name", ["", "a/b", ".", "ü", "x" * 256])
def test_what_cannot_be_a_name_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(Invalid):
        engine.databases.create(name, {})
    make_index(engine)
    with pytest.raises(Invalid):
        engine.databases.set_alias("default", name, "index", new=True)
    assert engine.databases.meant_by(name, "x") is None and engine.databases.aliases(name) == {}


def test_of_two_who_make_one_at_once_one_is_told_that_it_exists(
    tmp_path: Path, store: WatchedStore, engine: Engine
) -> None:
    other = make_engine(tmp_path, store=store, grace_s=GRACE_S)

    def hook(when: str, call: str, key: str) -> None:
        if (when, call) == ("before", "create"):
            store.hook = None
            other.databases.create("shop", {"by": "other"})

    store.hook = hook
    with pytest.raises(Exists):
        engine.databases.create("shop", {"by": "us"})
    assert engine.databases.properties("shop") == {"by": "other"}


def test_only_an_empty_one_is_dropped_and_nothing_of_it_comes_back(engine: Engine) -> None:
    databases = engine.databases
    databases.create("shop", {"a": 1})
    make_index(engine, account="shop")
    databases.set_alias("shop", "other", "index", new=True)
    with pytest.raises(Invalid, match="has indexes"):
        databases.drop("shop")
    engine.catalog.delete("shop", "index")
    databases.drop("shop")
    assert databases.list() == ["default"]
    for gone in (lambda: databases.drop("shop"), lambda: databases.alter("shop", dict)):
        with pytest.raises(NotFound):
            gone()
    with pytest.raises(Invalid, match="default"):
        databases.drop("default")
    databases.create("shop", {})
    assert databases.properties("shop") == databases.aliases("shop") == {}


def test_properties_become_what_is_made_of_them(engine: Engine) -> None:
    databases = engine.databases
    assert databases.alter("default", lambda was: was | {"a": [1]}) == {"a": [1]}
    assert databases.alter("default", lambda was: was | {"b": None}) == {"a": [1], "b": None}
    assert databases.properties("default") == {"a": [1], "b": None}

    def refuses(_: dict[str, Any]) -> dict[str, Any]:
        raise Invalid("no")

    with pytest.raises(Invalid, match="no"):
        databases.alter("default", refuses)
    assert databases.properties("default") == {"a": [1], "b": None}


def test_an_alias_stands_for_its_index_whatever_that_is_called_until_it_is_deleted(engine: Engine) -> None:
    databases, one, _ = engine.databases, make_index(engine, "one"), make_index(engine, "two")
    databases.set_alias("default", "a", "one", new=True)
    # Said again: a client may have sent it twice.
    databases.set_alias("default", "a", "one", new=True)
    databases.set_alias("default", "b", "one", new=True)
    assert (
        databases.aliases("default") == {"a": "one", "b": "one"}
        and databases.meant_by("default", "a") == "one"
    )
    engine.rename("default", "one", "uno")
    assert databases.aliases("default") == {"a": "uno", "b": "uno"}
    make_index(engine, "one")
    assert databases.meant_by("default", "a") == "uno"
    databases.set_alias("default", "b", "two", new=False)
    assert databases.aliases("default") == {"a": "uno", "b": "two"}
    engine.catalog.delete("default", "uno")
    make_index(engine, "uno")
    assert databases.aliases("default") == {"b": "two"} and databases.meant_by("default", "a") is None
    assert one.record.name == "one"
    gone: Callable[[], None]
    for gone in (
        lambda: databases.drop_alias("default", "a"),
        lambda: databases.set_alias("default", "a", "two", new=False),
        lambda: databases.drop_alias("default", "never"),
        lambda: databases.drop_alias("nowhere", "b"),
    ):
        with pytest.raises(NotFound, match="alias"):
            gone()
    # Its name is free again.
    databases.set_alias("default", "a", "two", new=True)
    databases.drop_alias("default", "b")
    assert databases.aliases("default") == {"a": "two"}


def test_no_two_things_have_one_name(engine: Engine) -> None:
    databases = engine.databases
    for name in ("one", "two"):
        make_index(engine, name)
    databases.set_alias("default", "a", "one", new=True)
    with pytest.raises(Exists) as caught:
        databases.set_alias("default", "a", "two", new=True)
    assert caught.value.facts == {"index": "one"}
    for new in (True, False):
        with pytest.raises(Exists) as caught:
            databases.set_alias("default", "two", "one", new=new)
        assert caught.value.facts == {"index": "two"}
        with pytest.raises(NotFound) as missing:
            databases.set_alias("default", "c", "nothing", new=new)
        assert missing.value.facts == {"index": "nothing"}
    record = engine.find("default", "one").record
    with pytest.raises(Exists):
        engine.rename("default", "two", "a")
    with pytest.raises(Exists):
        engine.create("default", _like(record, "a"))
    assert databases.aliases("default") == {"a": "one"}
    # In another database it is nobody's.
    assert engine.create("shop", _like(record, "a")).name == "a"


def _like(record: IndexRecord, name: str) -> NewIndex:
    return NewIndex(
        name=name, description=None, dimensions=2, metric=record.metric, shards=1, kind=record.kind
    )


def test_names_that_only_differ_for_us_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """On a file system that does not tell A from a."""

    class Careless(DictStore):
        def create(self, key: str, *parts: Any) -> None:
            super().create(key.lower(), *parts)

        def read(self, key: str) -> memoryview:
            return super().read(key.lower())

        def exists(self, key: str) -> bool:
            return super().exists(key.lower())

        def list(self, folder: str, *, after: str = "") -> Any:
            return super().list(folder.lower(), after=after)

    engine = make_engine(tmp_path, store=Careless(), grace_s=GRACE_S)
    engine.databases.create("shop", {"a": 1})
    assert not engine.databases.exists("SHOP") and engine.databases.exists("shop")
    with pytest.raises(Exists):
        engine.databases.create("SHOP", {})
    assert engine.databases.properties("shop") == {"a": 1}


def test_old_versions_are_collected_with_dead_indexes(tmp_path: Path, store: WatchedStore) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, store=store, clock=clock, grace_s=GRACE_S)
    engine.databases.create("shop", {})
    for n in range(5):
        engine.databases.alter("shop", lambda _, n=n: {"n": n})  # type: ignore[misc]
    for _ in range(2):
        engine.collect_dead_indexes()
        clock.pass_s(GRACE_S)
    engine.collect_dead_indexes()
    assert len(list(store.list("database/shop"))) == 1
    assert make_engine(tmp_path, store=store).databases.properties("shop") == {"n": 4}
    assert engine.databases.list() == ["default", "shop"]


def test_names_that_never_were_do_not_fill_the_memory(engine: Engine) -> None:
    for n in range(50):
        assert not engine.databases.exists(f"x{n}")
    assert engine.databases._notes == {}
