"""Texts whose vectors are made by whoever applies them: in order, whole or not at all, and through a model's absence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from tests.making import Client, HandClock, contents, drain, make_engine, upsert
from upwell.catalog.names import NewIndex
from upwell.changeset import Changeset, Details, KeyScope, Matrix, Operation, Rename, without_rows
from upwell.engine import Engine, Index
from upwell.errors import Fenced, ModelAway, TextRefused, Unavailable
from upwell.kinds import IndexKind
from upwell.log.embedded import EmbeddedEntries, Made
from upwell.outcome import State
from upwell.shard import embedding
from upwell.shard.metric import Metric

PATIENCE_S = 60.0


@dataclass
class FakeModel:
    """Makes of a text its length and its first character; refuses texts with "bad" in them; is away when told to be."""

    name: str = "FAKE"
    dimensions: int = 2
    texts_at_once: int = 3
    away: bool = False
    calls: list[list[str]] = field(default_factory=list)
    #: What happens while it is at it.
    meanwhile: Callable[[], object] = lambda: None

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        self.meanwhile()
        if self.away:
            raise ModelAway("the model is away")
        if any("bad" in text for text in texts):
            raise TextRefused("too bad")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32).reshape(-1, 2)


class Models:
    """Stands for the models of a process."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model

    def dense(self, name: str) -> FakeModel:
        assert name == "FAKE"
        return self.model


@dataclass
class House:
    engine: Engine
    index: Index
    client: Client
    model: FakeModel
    clock: HandClock

    def state(self, mutation_id: str) -> tuple[State, str | None]:
        outcome = self.index.outcomes.of(mutation_id)
        return outcome.state, outcome.error


@pytest.fixture
def house(tmp_path: Path) -> House:
    clock, model = HandClock(), FakeModel()
    engine = make_engine(tmp_path, clock=clock, embedding_patience_s=PATIENCE_S)
    engine.__dict__["models"] = Models(model)
    new = NewIndex(
        name="texts",
        description=None,
        dimensions=2,
        metric=Metric.EUCLIDEAN,
        shards=2,
        kind=IndexKind.DENSE,
        key_scope=KeyScope.NAMESPACE,
        embedding_model="FAKE",
    )
    engine.catalog.create("default", new)
    index = engine.find("default", "texts")
    return House(engine, index, Client(index), model, clock)


def texts(*rows: tuple[str, str], operation: Operation = Operation.UPSERT) -> Changeset:
    """An upsert, or update, of texts."""
    return Changeset(
        operation=operation,
        ids=pa.array([name for name, _ in rows], pa.utf8()),
        data=pa.array([text for _, text in rows], pa.utf8()),
        received=len(rows),
        details=Details(scope=KeyScope.NAMESPACE, embed=True, namespace=""),
    )


def values(house: House) -> dict[str, list[float]]:
    return {name: held[0] for (_, name), held in contents(house.index).items()}


def test_texts_become_vectors_and_keep_their_place_among_others(house: House) -> None:
    house.client.append(texts(("a", "one"), ("b", "three")), upsert(("a", (9, 9))))
    house.client.append(texts(("b", "xx")), texts(("c", "yyyy")))
    drain(house.engine, house.index)
    assert values(house) == {"a": [9, 9], "b": [2, ord("x")], "c": [4, ord("y")]}
    live = list(house.index.newest.get().segments())
    found = {
        name: text
        for one in live
        for name, text in zip(
            one.segment.ids.to_pylist(), (one.segment.data or pa.nulls(9)).to_pylist(), strict=False
        )
    }
    assert found == {"a": None, "b": "xx", "c": "yyyy"}
    assert all(len(call) <= 3 for call in house.model.calls)


def test_an_updates_text_is_embedded_again(house: House) -> None:
    house.client.append(texts(("a", "one")))
    (ids,) = [house.client.append(texts(("a", "longer"), ("nobody", "x"), operation=Operation.UPDATE))]
    drain(house.engine, house.index)
    assert values(house) == {"a": [6, ord("l")]}
    result = house.index.outcomes.of(ids[0]).result
    assert result is not None and result.updated == 1


def test_a_refused_text_fails_its_whole_mutation_and_no_other(house: House) -> None:
    fine, bad, after = house.client.append(
        texts(("a", "one")), texts(("b", "good"), ("c", "a bad one")), texts(("d", "good"))
    )
    drain(house.engine, house.index)
    assert sorted(values(house)) == ["a", "d"]
    assert house.state(fine)[0] is house.state(after)[0] is State.VISIBLE
    assert house.state(bad) == (State.FAILED, "the text of item 1 was refused: too bad")


def test_an_operator_is_told_of_what_he_should_look_at_and_not_of_a_name_that_is_taken(house: House) -> None:
    rename = Rename(namespace="nobody", new_namespace="a")
    wrong = without_rows(Operation.RENAME_NAMESPACE, Details(scope=KeyScope.NAMESPACE, rename=rename))
    house.client.append(wrong)
    with capture_logs() as logs:
        drain(house.engine, house.index)
    assert [one["log_level"] for one in logs if one["event"] == "mutations failed"] == ["info"]
    house.client.append(wrong, texts(("b", "bad")))
    with capture_logs() as logs:
        drain(house.engine, house.index)
    (told,) = [one for one in logs if one["event"] == "mutations failed"]
    assert (told["log_level"], told["count"], told["first"]) == ("error", 2, (2, 1))
    assert told["error"] == "the text of item 0 was refused: too bad"


def test_what_comes_before_a_text_is_applied_while_the_model_is_away(house: House) -> None:
    house.model.away = True
    (plain,) = house.client.append(upsert(("p", (1, 2))))
    (text,) = house.client.append(texts(("a", "one")))
    (behind,) = house.client.append(upsert(("q", (1, 2))))
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    assert [house.state(one)[0] for one in (plain, text, behind)] == [
        State.VISIBLE,
        State.QUEUED,
        State.QUEUED,
    ]
    house.model.away = False
    drain(house.engine, house.index)
    assert sorted(values(house)) == ["a", "p", "q"]


def test_who_has_waited_long_for_a_model_fails_and_the_next_go_on(house: House) -> None:
    house.model.away = True
    (old,) = house.client.append(texts(("a", "one")), upsert(("b", (1, 2))))[:1]
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    house.clock.pass_s(PATIENCE_S - 1)
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    house.clock.pass_s(1)
    drain(house.engine, house.index)
    state, error = house.state(old)
    assert state is State.FAILED and error is not None
    assert "no vectors could be made of its text for 60 s: the model is away" in error
    assert values(house) == {"b": [1, 2]}


def test_one_that_came_late_has_its_own_time_to_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.model.away = True
    house.client.append(texts(("a", "one")))
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    house.clock.pass_s(PATIENCE_S)
    late = texts(("b", "two"))
    # Clients of tests accept at one time always: this one at another.
    monkeypatch.setattr("tests.making.HandClock", lambda: house.clock)
    (later,) = house.client.append(late)
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    assert house.state(later)[0] is State.QUEUED
    house.model.away = False
    drain(house.engine, house.index)
    assert sorted(values(house)) == ["b"]


def test_a_short_absence_is_forgotten(house: House) -> None:
    house.client.append(texts(("a", "one")))
    house.model.away = True
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    house.model.away = False
    drain(house.engine, house.index)
    house.clock.pass_s(10 * PATIENCE_S)
    house.model.away = True
    house.client.append(texts(("b", "one")))
    with pytest.raises(ModelAway):
        drain(house.engine, house.index)
    assert sorted(values(house)) == ["a"]


class OneOther:
    """Claims of a house in which somebody else has the first entries."""

    def __init__(self, *others: int) -> None:
        self.others = set(others)
        self.claimed: list[int] = []
        self.asked = self.signs = 0

    def claim_texts(self, position: int) -> bool:
        if position in self.others:
            return False
        self.claimed.append(position)
        return True

    def ask_for_embedding(self) -> None:
        self.asked += 1

    def went_on(self) -> None:
        self.signs += 1


def test_texts_are_embedded_ahead_once_and_then_only_read(house: House) -> None:
    for number in range(4):
        house.client.append(texts((f"v{number}", "x" * (number + 1))))
    ahead = OneOther(1, 3)
    assert house.engine.embed_ahead(house.index.record.id, ahead) == 2
    assert ahead.claimed == [2, 4]
    assert house.engine.embed_ahead(house.index.record.id, OneOther(1, 3)) == 0
    assert house.index.head.refresh().applied_through == 0
    drain(house.engine, house.index)
    assert values(house) == {f"v{n}": [n + 1, ord("x")] for n in range(4)}
    assert sorted(text for call in house.model.calls for text in call) == ["x", "xx", "xxx", "xxxx"]


def test_others_are_asked_for_what_lies_behind_a_batch(house: House) -> None:
    """A batch takes on so many texts and no more: those behind are what others are wanted for."""
    large = [(f"v{number}", "x") for number in range(embedding.RUN_TEXTS)]
    house.client.append(texts(*large))
    alone = OneOther()
    house.engine.apply_batch(house.index.record.id, lambda: True, claims=alone)
    assert (alone.claimed, alone.asked) == ([1], 0)
    for _ in range(2):
        house.client.append(texts(*large))
    several = OneOther()
    house.engine.apply_batch(house.index.record.id, lambda: True, claims=several)
    assert (several.claimed, several.asked) == ([2], 1)
    drain(house.engine, house.index)
    assert len(values(house)) == len(large)


def test_what_another_is_making_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "OTHERS_WAIT_S", 0.05)
    house.client.append(texts(("a", "one")))
    house.client.append(texts(("b", "two")))
    with pytest.raises(Unavailable, match="being made"):
        house.engine.apply_batch(house.index.record.id, lambda: True, claims=OneOther(1))
    assert house.model.calls == []
    # He lets go of it: the first is ours, and only that, since the second is his still.
    later = OneOther(2)
    house.engine.apply_batch(house.index.record.id, lambda: True, claims=later)
    assert later.asked == 1
    assert sorted(values(house)) == ["a"]


def test_a_model_may_take_longer_than_versions_are_kept(house: House) -> None:
    """What was known of the newest version before is good for nothing then, and the batch must not be made over and over again."""
    house.model.meanwhile = lambda: house.clock.pass_s(house.engine.settings.grace_s)
    house.client.append(texts(("a", "one"), ("b", "two")))
    claims = OneOther()
    assert house.engine.apply_batch(house.index.record.id, lambda: True, claims=claims) is not None
    assert values(house).keys() == {"a", "b"}
    assert claims.signs == 1, "whoever waits for it is told"


def test_what_took_long_outlives_the_batch_that_it_was_made_for(house: House) -> None:
    house.model.meanwhile = lambda: house.clock.pass_s(embedding.KEPT_AFTER_S + 1)
    house.client.append(texts(("a", "one")))
    for _ in range(3):
        with pytest.raises(Fenced):
            house.engine.apply_batch(house.index.record.id, lambda: False)
    drain(house.engine, house.index)
    assert values(house) == {"a": [3, ord("o")]} and house.model.calls == [["one"]]


def test_what_others_commit_meanwhile_costs_no_vectors_unless_it_is_the_same_batch(
    house: House, tmp_path: Path
) -> None:
    other = make_engine(tmp_path, clock=house.clock)
    other.__dict__["models"] = Models(FakeModel())

    def a_version_like_the_last() -> None:
        before = house.index.head.refresh()
        after = before.model_copy(update={"version": before.version + 1, "writer": "0" * 32})
        house.index.head.chain.commit(before, after, (), house.clock.monotonic())

    house.model.meanwhile = a_version_like_the_last
    house.client.append(texts(("a", "one")))
    assert house.engine.apply_batch(house.index.record.id, lambda: True) is not None
    assert house.model.calls == [["one"]]
    house.model.meanwhile = lambda: other.apply_batch(house.index.record.id, lambda: True)
    house.client.append(texts(("b", "two")))
    with pytest.raises(Fenced, match="another worker applied it"):
        house.engine.apply_batch(house.index.record.id, lambda: True)
    assert values(house).keys() == {"a", "b"}


def test_a_damaged_copy_of_vectors_is_made_again(house: House) -> None:
    house.client.append(texts(("a", "one")))
    house.engine.embed_ahead(house.index.record.id, OneOther())
    store = house.engine.store
    key = f"{house.index.record.folder}/embedded/{1:020d}"
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.delete(key)
    store.create(key, bytes(data))
    drain(house.engine, house.index)
    assert values(house) == {"a": [3, ord("o")]}


def test_what_was_kept_without_some_mutations_does_not_do_for_them(house: House) -> None:
    """Whoever applied an entry with a mutation left out, and lost his race, has kept the vectors of the others."""
    house.client.append(texts(("a", "one")), texts(("b", "four")))
    entries = EmbeddedEntries(house.engine.store, house.index.record.folder)
    entries.keep(1, {0: Made(vectors=np.array([[7, 7]], np.float32))})
    drain(house.engine, house.index)
    assert values(house) == {"a": [3, ord("o")], "b": [4, ord("f")]}


def test_vectors_of_texts_are_collected_once_they_are_applied(house: House) -> None:
    house.client.append(texts(("a", "one")))
    house.engine.embed_ahead(house.index.record.id, OneOther())
    drain(house.engine, house.index)
    key, grace_s = f"{house.index.record.folder}/embedded/{1:020d}", house.engine.settings.grace_s
    house.engine.collect_garbage(house.index.record.id)
    assert house.engine.store.exists(key)
    house.clock.pass_s(grace_s + 1)
    assert house.engine.collect_garbage(house.index.record.id).embedded == 1
    assert not house.engine.store.exists(key)


def test_an_index_without_a_model_takes_no_texts(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    engine.catalog.create(
        "default", NewIndex(name="plain", description=None, dimensions=2, metric=Metric.COSINE, shards=1)
    )
    index = engine.find("default", "plain")
    (mutation,) = Client(index).append(texts(("a", "one")))
    drain(engine, index)
    outcome = index.outcomes.of(mutation)
    assert (outcome.state, outcome.error) == (
        State.FAILED,
        "the index has no model that makes vectors of text",
    )
