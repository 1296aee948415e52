"""Making an index in the place of one that was never written to: whoever else does what, and whoever dies where, nothing that was
acknowledged is lost, and the name stands for one whole index."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import Client, HandClock, contents, drain, make_index, upsert
from tests.simulated_disk import SimulatedDisk
from tests.thorough import THOROUGH, examples
from tests.turns import TurnsStore
from upwell.catalog import replacing
from upwell.catalog.names import NewIndex
from upwell.changeset import KeyScope
from upwell.custody.backup import take_backup
from upwell.custody.check import check_store
from upwell.custody.findings import Severity
from upwell.custody.restore import restore_backup
from upwell.engine import Engine, Index
from upwell.errors import Conflict, Gone, Invalid, Unavailable, UpwellError
from upwell.failpoint import Step
from upwell.schema import OPEN_SCHEMA
from upwell.settings import Settings
from upwell.shard.metric import Metric
from upwell.store import DirectoryStore
from upwell.webhook.model import Event

GRACE_S = 100.0
SETTINGS = Settings.model_validate({"data": Path(), "grace_s": GRACE_S})


@dataclass
class World:
    """Processes on one store, with an empty index ``a`` that has notes and an alias. What they acknowledge is remembered."""

    objects: dict[str, bytes] | None = None
    rows: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = TurnsStore(self.objects)
        engine = self.process()
        if self.objects is None:
            made = make_index(engine, "a", row_schema=OPEN_SCHEMA)
            made.notes.change(lambda _: {"said": "before"})
            engine.databases.set_alias("default", "alias", "a", new=True)
        self.old_id = engine.find("default", "a").record.id

    def process(self) -> Engine:
        return Engine(self.store, SETTINGS, HandClock())

    def index(self, name: str = "a") -> Index:
        return self.process().find("default", name)

    def writes(self, id: str, name: str = "a") -> Callable[[], object]:
        """As a front end: it found the index before."""
        index = self.index(name)
        client = Client(index)

        def write() -> None:
            client.append(upsert((id, (1, 1))))
            index.hold()
            self.rows.append(id)

        return write

    def writes_to_the_newer_name(self, id: str) -> Callable[[], object]:
        """The same, and it finds the index by its new name, if it has one by then."""

        def write() -> None:
            self.writes(id, next(iter(sorted(self.living(), reverse=True))))()

        return write

    def notes(self, what: str) -> Callable[[], object]:
        index = self.index()

        def note() -> None:
            index.notes.change(lambda now: now | {what: 1})
            index.hold()
            self.noted.append(what)

        return note

    def replaces(self, metric: Metric = Metric.COSINE) -> Callable[[], object]:
        engine = self.process()
        index = engine.find("default", "a")
        return lambda: engine.replace(index, made_like(metric)).record.id

    def drains(self) -> Callable[[], object]:
        engine = self.process()
        index = engine.find("default", "a")
        return lambda: drain(engine, index)

    def renames(self, old: str = "a", new: str = "b") -> Callable[[], object]:
        engine = self.process()
        return lambda: engine.catalog.rename("default", old, new)

    def deletes(self) -> Callable[[], object]:
        engine = self.process()
        return lambda: engine.catalog.delete("default", "a")

    def living(self) -> dict[str, str]:
        catalog = self.process().catalog
        return {name: catalog.find("default", name).id for name in catalog.names("default")}

    def check(self, *, thoroughly: bool = False) -> str | None:
        """What was acknowledged is there, once; returns the identity that has the name. No more than one index is left."""
        engine, living = self.process(), self.living()
        engine.collect_dead_indexes()
        assert isinstance(engine.clock, HandClock)
        engine.clock.pass_s(2 * GRACE_S)
        engine.collect_dead_indexes()
        assert set(self.store.list("index")) == set(living.values()) and len(set(living.values())) <= 1
        if thoroughly:
            found = check_store(self.store).findings
            assert [one for one in found if one.severity is not Severity.NOTE] == []
        if not living:
            return None
        name, identity = next(iter(living.items()))
        index = engine.find("default", name)
        assert engine.databases.meant_by("default", "alias") in living
        assert {"said", *self.noted} <= set(index.notes.read())
        drain(engine, index)
        assert set(self.rows) <= {id for _, id in contents(index)}
        return identity


def made_like(metric: Metric, name: str = "a") -> NewIndex:
    return NewIndex(
        name=name,
        description=None,
        dimensions=2,
        metric=metric,
        shards=1,
        key_scope=KeyScope.INDEX,
        row_schema=OPEN_SCHEMA,
    )


MADE = World().store.objects


def world() -> World:
    return World(dict(MADE))


def steps_of_a_replacing() -> list[int]:
    """Numbers of its calls: the first, and all from the one on that writes the first event."""
    one = world()
    calls = one.store.calls_of(one.replaces())
    for step in range(calls):
        other = world()
        events = len(list(other.store.list("catalog/default/a")))
        other.store.play([other.replaces()], [(0, step)], dies=0)
        if len(list(other.store.list("catalog/default/a"))) > events:
            return [0, *range(step - 1, calls)]
    raise AssertionError("it writes no event")


STEPS = steps_of_a_replacing()
#: Of the other's calls each so many-th is tried.
EACH = 1 if THOROUGH else 3


def test_it_has_its_name_notes_and_aliases_and_another_metric() -> None:
    one = world()
    engine = one.process()
    found = engine.find("default", "a")
    made = engine.replace(found, made_like(Metric.COSINE))
    assert made.record.id != one.old_id and made.record.metric is Metric.COSINE
    assert made.record.replaces == (one.old_id,)
    assert made.notes.read() == {"said": "before"}
    assert engine.databases.aliases("default") == {"alias": "a"}
    with pytest.raises(Gone):
        found.check_live()
    with pytest.raises(Gone):
        found.hold()
    again = engine.replace(made, made_like(Metric.DOT_PRODUCT))
    assert again.record.replaces == (one.old_id, made.record.id)
    engine.databases.set_alias("default", "alias", "a", new=True)
    assert one.process().databases.meant_by("default", "alias") == "a"
    engine.rename("default", "a", "b")
    assert one.process().databases.meant_by("default", "alias") == "b"
    Client(again).append(upsert(("row", (1, 1))))
    assert one.check(thoroughly=True) == again.record.id


def test_one_that_is_used_is_not_replaced() -> None:
    one = world()
    engine = one.process()
    index = engine.find("default", "a")
    with pytest.raises(Invalid):
        engine.catalog.replace("default", "a", one.old_id, made_like(Metric.COSINE, "b"))
    with pytest.raises(Gone):
        engine.catalog.replace("default", "a", make_index(engine, "z").record.id, made_like(Metric.COSINE))
    engine.catalog.delete("default", "z")
    index.webhooks.create("http://192.0.2.1/", tuple(Event), None)
    with pytest.raises(Conflict, match="webhooks"):
        engine.replace(index, made_like(Metric.COSINE))
    index.webhooks.delete(index.webhooks.everything()[0][0].id)
    Client(index).append(upsert(("row", (1, 1))))
    with pytest.raises(Conflict, match="written to"):
        engine.replace(index, made_like(Metric.COSINE))
    drain(engine, index)
    for key in list(one.store.list(f"{index.record.folder}/log")):
        one.store.delete(f"{index.record.folder}/log/{key}")
    with pytest.raises(Conflict, match="written to"):
        one.process().replace(index, made_like(Metric.COSINE))
    one.rows.append("row")
    assert one.check() == one.old_id


def outcomes_at(
    steps: int, other: Callable[[World], Callable[[], object]], calls: int
) -> tuple[World, list[object]]:
    """A replacing goes so many steps, the other so many calls, then the replacing on to its end, then the other."""
    one = world()
    return one, one.store.play([one.replaces(), other(one)], [(0, steps), (1, calls)])


@pytest.mark.parametrize("what", ["writes", "notes"])
def test_what_is_acknowledged_meanwhile_is_in_the_index_that_has_the_name(what: str) -> None:
    came = set()
    for steps in STEPS:
        for calls in range(0, 12, EACH):
            one = world()
            other = getattr(one, what)("new")
            replaced, written = one.store.play([one.replaces(), other], [(0, steps), (1, calls)])
            identity = one.check()
            acknowledged = bool(one.rows or one.noted)
            assert acknowledged is (written is None) and (acknowledged or isinstance(written, Gone))
            assert identity == (replaced if isinstance(replaced, str) else one.old_id)
            if what == "writes":
                assert acknowledged is isinstance(replaced, Conflict)
            came.add((acknowledged, isinstance(replaced, str)))
    assert came >= {(True, what == "notes"), (False, True)}


def test_nor_if_it_dies_at_any_step() -> None:
    left = set()
    for steps in STEPS:
        one = world()
        one.store.play([one.replaces()], [(0, steps)], dies=0)
        one.store.play([one.writes("new")], [])
        assert one.rows == ["new"]
        left.add(one.check() == one.old_id)
        again = world()
        again.store.play([again.replaces()], [(0, steps)], dies=0)
        again.store.play([again.replaces(Metric.DOT_PRODUCT)], [])
        identity = again.check()
        assert identity != again.old_id and again.index().record.metric is Metric.DOT_PRODUCT
    assert left == {True}


def test_a_drain_applies_nothing_of_an_index_that_is_lost_with_it() -> None:
    """What somebody wrote who died before he could hold it, another may read before the index is replaced: so it is not, any more."""
    for steps in STEPS:
        one = world()
        index = one.index()
        client = Client(index)
        engine = one.process()

        def applied(engine: Engine = engine, client: Client = client) -> int:
            client.append(upsert(("seen", (1, 1))))
            return drain(engine, engine.find("default", "a"))

        replaced, commits = one.store.play([one.replaces(), applied], [(0, steps), (1, 1_000)])
        if commits == 1:
            assert isinstance(replaced, Conflict) and index.head.refresh().applied_through == 1
            one.rows.append("seen")
        else:
            assert isinstance(replaced, str) and isinstance(commits, Gone | int)
        one.check()


def test_a_drain_applies_nothing_that_came_after_it_had_looked_whether_anything_waits() -> None:
    """Whoever sees that a first entry is applied holds the index no more, and acknowledges it."""
    replacings = set()
    for steps in STEPS:
        for calls in range(1, 10):
            one = world()
            client, index = Client(one.index()), one.index()
            write = lambda client=client: client.append(upsert(("late", (1, 1))))  # noqa: E731
            actors = [one.replaces(), write, one.drains()]
            replaced, *_ = one.store.play(actors, [(0, steps), (2, calls), (1, 1_000), (2, 1_000)])
            is_applied = index.head.refresh().applied_through > 0
            assert is_applied == (not index.may_be_replaced)
            assert not is_applied or isinstance(replaced, Conflict)
            replacings.add(isinstance(replaced, str))
            one.check()
    assert replacings == {True, False}


def test_renamed_meanwhile_it_is_one_index_of_one_name() -> None:
    came, one = set(), world()
    for steps in STEPS:
        for calls in range(0, 24, EACH):
            one, (replaced, renamed) = outcomes_at(steps, lambda one: one.renames(), calls)
            living = one.living()
            assert list(living) == (["b"] if not isinstance(renamed, UpwellError) else ["a"])
            assert (living.popitem()[1] == one.old_id) is isinstance(replaced, UpwellError)
            assert not isinstance(replaced, UpwellError) or isinstance(
                replaced, Conflict | Gone | Unavailable
            )
            one.check()
            came.add((isinstance(replaced, str), not isinstance(renamed, UpwellError)))
    assert one.check(thoroughly=True)
    assert came >= {(True, True), (False, True)}


@pytest.mark.parametrize("begins", [0, 1])
def test_what_is_acknowledged_while_it_has_two_names_is_not_lost_with_one(begins: int) -> None:
    for steps in STEPS:
        for calls in range(6 + begins, 22, EACH):
            one = world()
            schedule = [(0, steps), (1, calls)] if begins == 0 else [(1, calls), (0, steps), (1, 2)]
            writing = one.writes_to_the_newer_name("new")
            one.store.play([one.replaces(), one.renames(), writing], [*schedule, (2, 1_000)])
            one.check()


def test_deleted_meanwhile_it_is_deleted() -> None:
    for steps in STEPS:
        for calls in range(0, 6, EACH):
            one, (replaced, deleted) = outcomes_at(steps, lambda one: one.deletes(), calls)
            assert deleted is None and one.living() == {} and one.check() is None
            assert isinstance(replaced, str | Gone)


def test_of_two_who_replace_it_at_once_one_does_or_both_in_turn() -> None:
    for steps in STEPS:
        for calls in range(0, STEPS[-1], 2 * EACH):
            one, (first, second) = outcomes_at(steps, lambda one: one.replaces(Metric.DOT_PRODUCT), calls)
            assert isinstance(first, str) or isinstance(second, str)
            assert isinstance(first, str | Gone) and isinstance(second, str | Gone)
            assert one.check() in (first, second)


def test_a_collector_takes_no_index_that_may_have_the_name_and_one_who_slept_names_nothing() -> None:
    for steps in STEPS:
        one = world()
        sleeper, collecting = one.process(), one.process()

        def collect(sleeper: Engine = sleeper, collecting: Engine = collecting) -> None:
            for _ in range(4):
                collecting.collect_dead_indexes()
                for engine in (sleeper, collecting):
                    assert isinstance(engine.clock, HandClock)
                    engine.clock.pass_s(GRACE_S)

        index = sleeper.find("default", "a")
        replaced, _ = one.store.play(
            [lambda: sleeper.replace(index, made_like(Metric.COSINE)).record.id, collect],  # noqa: B023
            [(0, steps), (1, 1_000)],
        )
        assert isinstance(replaced, str | Unavailable)
        assert one.check() == (replaced if isinstance(replaced, str) else one.old_id)


def test_whenever_the_power_fails_one_has_the_name_and_what_was_acknowledged_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for writes_meanwhile in (False, True):
        disk, root = SimulatedDisk(), Path("/disk/store")
        engine, other = (Engine(DirectoryStore(root, disk), SETTINGS, HandClock()) for _ in range(2))
        old = make_index(engine, "a", row_schema=OPEN_SCHEMA)
        old.notes.change(lambda _: {"said": "before"})
        began, acknowledged_at, replaced_at = len(disk.journal), inf, inf

        def write(step: Step, disk: SimulatedDisk = disk, other: Engine = other) -> None:
            nonlocal acknowledged_at
            if step is Step.CATALOG_YIELDING and acknowledged_at == inf:
                index = other.find("default", "a")
                Client(index).append(upsert(("row", (1, 1))))
                index.hold()
                acknowledged_at = len(disk.journal)

        if writes_meanwhile:
            monkeypatch.setattr(replacing, "reached", write)
            with pytest.raises(Conflict):
                engine.replace(old, made_like(Metric.COSINE))
        else:
            engine.replace(old, made_like(Metric.COSINE))
            replaced_at = len(disk.journal)
        for at in range(began, len(disk.journal) + 1):
            for survive in (0.0, 0.5, 1.0):
                left = disk.after_power_loss(at, random.Random(f"{at} {survive}"), survive)
                after = Engine(DirectoryStore(root, left), SETTINGS, HandClock())
                index = after.find("default", "a")
                assert index.notes.read() == {"said": "before"}
                assert index.record.id == old.record.id or not writes_meanwhile
                assert index.record.id != old.record.id or at < replaced_at
                drain(after, index)
                assert ("row" in {id for _, id in contents(index)}) or at < acknowledged_at


@settings(deadline=None, max_examples=examples(100))
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=12),
    st.sampled_from([None, 0, 1]),
)
def test_whatever_the_order_in_which_many_do_all_that(
    schedule: list[tuple[int, int]], dies: int | None
) -> None:
    one = world()
    actors = [
        one.replaces(),
        one.replaces(Metric.DOT_PRODUCT),
        one.writes("one"),
        one.notes("two"),
        one.renames(),
        one.drains(),
    ]
    one.store.play(actors, schedule, dies=dies)
    one.check(thoroughly=True)


def test_what_is_restored_of_a_backup_of_the_new_one_took_nobodys_place(tmp_path: Path) -> None:
    one = world()
    engine = one.process()
    made = engine.replace(engine.find("default", "a"), made_like(Metric.COSINE))
    path, _ = take_backup(one.store, made.record, tmp_path, engine.clock)
    engine.rename("default", "a", "z")
    restored = restore_backup(path, one.store, engine.catalog, engine.clock, GRACE_S, account=None, name="a")
    assert restored.replaces == () and restored.metric is Metric.COSINE
    assert one.process().databases.aliases("default") == {"alias": "z"}
