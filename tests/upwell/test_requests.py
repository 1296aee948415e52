"""A request that is sent again counts once: whoever crashes where, whoever is first, and however late the worker comes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import (
    Client,
    HandClock,
    contents,
    drain,
    insert,
    make_engine,
    make_index,
    prepared,
    upsert,
)
from upwell import garbage
from upwell.changeset import Changeset
from upwell.engine import Engine, Index
from upwell.log import writer as writer_module
from upwell.log.entry import PreparedMutation, request_of
from upwell.log.receipt import Receipt, mint
from upwell.log.request import Request
from upwell.outcome import State

WINDOW_S = 1000.0
GRACE_S = 100.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock) -> Engine:
    return make_engine(tmp_path, clock=clock, grace_s=GRACE_S, results_s=GRACE_S, idempotency_s=WINDOW_S)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def keyed(changeset: Changeset, key: str = "k", token: str = "t") -> PreparedMutation:
    one = prepared(changeset)
    return replace(one, mutation=replace(one.mutation, by=token, request=request_of(one, token, key)))


def append(index: Index, one: PreparedMutation) -> Receipt:
    """As far as a front end comes that crashes before it can say which mutation the request became."""
    return Receipt(index.log_writer().append([one]), 0)


def settle(index: Index, one: PreparedMutation, receipt: Receipt) -> Receipt:
    assert one.mutation.request is not None
    return index.requests.settle(one.mutation.request, receipt).receipt


def state(index: Index, receipt: Receipt) -> tuple[State, int]:
    outcome = index.outcomes.of(mint(index.record.receipt_key, receipt))
    assert outcome.result is not None
    return outcome.state, outcome.result.inserted + outcome.result.replaced


def test_the_same_request_has_one_name_and_one_digest() -> None:
    one, other = keyed(insert(("a", (1, 2)))), keyed(insert(("a", (1, 3))))
    assert one.mutation.request == keyed(insert(("a", (1, 2)))).mutation.request
    assert one.mutation.request is not None and other.mutation.request is not None
    assert one.mutation.request.name == other.mutation.request.name
    assert one.mutation.request.digest != other.mutation.request.digest
    digests = {keyed(made).mutation.request for made in (insert(("a", (1, 2))), upsert(("a", (1, 2))))}
    assert len(digests) == 2
    names = {keyed(insert(("a", (1, 2))), key, token).mutation.request for key, token in ("kt", "kx", "xt")}
    assert len(names) == 3


def test_a_front_end_that_crashed_before_it_could_say_is_spoken_for_by_the_worker(
    engine: Engine, index: Index
) -> None:
    one = keyed(insert(("a", (1, 2))))
    first = append(index, one)
    drain(engine, index)
    assert one.mutation.request is not None
    found = index.requests.find(one.mutation.request.name)
    assert found is not None and found.receipt == first and found.digest == one.mutation.request.digest
    assert state(index, first) == (State.VISIBLE, 1)


def test_of_two_in_the_log_the_one_that_was_answered_is_applied(engine: Engine, index: Index) -> None:
    one = keyed(upsert(("a", (1, 2))))
    first = append(index, one)
    between = append(index, prepared(upsert(("a", (9, 9)))))
    second = append(index, one)
    assert settle(index, one, second) == second
    drain(engine, index)
    assert state(index, first) == (State.VISIBLE, 0) and state(index, between) == (State.VISIBLE, 1)
    assert state(index, second) == (State.VISIBLE, 1)
    assert contents(index) == {(None, "a"): ([1, 2], None)}
    # The one that was left out says nothing of the request any more.
    assert settle(index, one, first) == second


def test_a_request_is_forgotten_after_its_window_and_not_before(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    one = keyed(insert(("a", (1, 2))))
    settle(index, one, append(index, one))
    drain(engine, index)
    assert one.mutation.request is not None
    name = one.mutation.request.name
    for _ in range(int(WINDOW_S / 10) - 1):
        engine.collect_garbage(index.record.id)
        clock.pass_s(10)
    assert index.requests.find(name) is not None
    clock.pass_s(10)
    assert engine.collect_garbage(index.record.id).requests == 1
    assert index.requests.find(name) is None


def test_a_request_is_kept_while_the_log_is_not_applied(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    one = keyed(insert(("a", (1, 2))))
    settle(index, one, append(index, one))
    # A second copy of a front end that was slow, which nobody applies for a day.
    append(index, one)
    for _ in range(3):
        clock.pass_s(2 * WINDOW_S)
        assert engine.collect_garbage(index.record.id).requests == 0
    drain(engine, index)
    assert contents(index) == {(None, "a"): ([1, 2], None)}
    assert engine.collect_garbage(index.record.id).requests == 1


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["go on", "go on", "go on", "crash"])) | st.just("drain"),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_however_three_senders_and_a_worker_take_turns(steps: list[object]) -> None:
    """Each sender looks, appends, decides and answers, one step a turn; one that crashes sends the same again from the start."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(Path(folder))
        index = make_index(engine)
        one = keyed(upsert(("a", (1, 2))))
        assert one.mutation.request is not None
        request = one.mutation.request
        at: list[object] = ["look"] * 3
        answers: set[Receipt] = set()
        appended: list[Receipt] = []
        for step in steps:
            if step == "drain":
                drain(engine, index)
                continue
            assert isinstance(step, tuple)
            sender, happens = step
            if happens == "crash":
                at[sender] = "look"
            elif at[sender] == "look":
                found = index.requests.find(request.name)
                if found is not None:
                    answers.add(found.receipt)
                else:
                    at[sender] = "append"
            elif at[sender] == "append":
                appended.append(append(index, one))
                at[sender] = appended[-1]
            else:
                receipt = at[sender]
                assert isinstance(receipt, Receipt)
                answers.add(settle(index, one, receipt))
                at[sender] = "look"
        drain(engine, index)
        applied = [receipt for receipt in appended if state(index, receipt)[1]]
        assert len(applied) == min(1, len(appended))
        assert answers <= set(applied)


def test_a_damaged_record_fails_its_mutation_and_not_the_index(engine: Engine, index: Index) -> None:
    one = keyed(insert(("a", (1, 2))))
    assert one.mutation.request is not None
    engine.store.create(f"{index.record.folder}/request/{one.mutation.request.name}", b"not ours")
    first = append(index, one)
    second = append(index, prepared(insert(("b", (1, 2)))))
    drain(engine, index)
    assert state(index, first) == (State.FAILED, 0) and state(index, second) == (State.VISIBLE, 1)
    assert engine.collect_garbage(index.record.id).requests == 0


def test_a_new_request_under_an_old_key_outlives_a_collector_that_remembers_the_old_one(
    engine: Engine, index: Index, clock: HandClock
) -> None:
    other = make_engine(engine.settings.data, clock=clock, grace_s=GRACE_S, idempotency_s=WINDOW_S)
    one = keyed(upsert(("a", (1, 2))))
    settle(index, one, append(index, one))
    drain(engine, index)
    clock.pass_s(WINDOW_S - 5)
    assert engine.collect_garbage(index.record.id).requests == 0
    clock.pass_s(10)
    assert other.collect_garbage(index.record.id).requests == 1
    again = keyed(upsert(("a", (3, 4))))
    receipt = append(index, again)
    assert settle(index, again, receipt) == receipt
    drain(engine, index)
    clock.pass_s(10)
    assert engine.collect_garbage(index.record.id).requests == 0
    assert settle(index, again, Receipt(99, 0)) == receipt


def test_a_copy_whose_bytes_are_gone_is_not_the_one_that_counts(
    engine: Engine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "INLINE_BYTES_MAX", 0)
    one = keyed(upsert(("a", (1, 2))))
    lost = append(index, one)
    payload = index.log.read(lost.position).mutations[0].payload
    assert payload is not None
    engine.store.delete(payload)
    whole = append(index, one)
    drain(engine, index)
    assert settle(index, one, whole) == whole
    assert state(index, lost)[0] is State.FAILED and state(index, whole) == (State.VISIBLE, 1)


def test_a_pass_reads_only_so_many_records(
    engine: Engine, index: Index, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "REQUESTS_READ_MAX", 3)
    for number in range(8):
        one = keyed(upsert(("a", (1, 2))), key=str(number))
        settle(index, one, append(index, one))
    drain(engine, index)
    clock.pass_s(2 * WINDOW_S)
    assert [engine.collect_garbage(index.record.id).requests for _ in range(4)] == [3, 3, 2, 0]


def test_that_a_mutation_was_tried_again_is_known_for_as_long_as_it_is_kept(tmp_path: Path) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, grace_s=10, idempotency_s=20, failed_s=200)
    index = make_index(engine)
    (mutation,) = Client(index).append(upsert(("v", (1, 2))))
    drain(engine, index)
    retried, other = Request.of_retry(mutation), Request.of("token", "key", b"said")
    for request in (retried, other):
        index.requests.settle(request, Receipt(1, 0))
    for _ in range(8):
        clock.pass_s(10)
        index.collector.collect()
    assert index.requests.find(retried.name) is not None and index.requests.find(other.name) is None
    for _ in range(16):
        clock.pass_s(10)
        index.collector.collect()
    assert index.requests.find(retried.name) is None
