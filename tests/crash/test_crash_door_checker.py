"""The checker of the Upstash door can fail: one good history, and others bad in one way that its check must find. And: every step at which a
process can be killed is somebody's to be killed at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.crash.check import Verdict
from tests.crash.door_check import DOOR_CHECKS
from tests.crash.door_history import DoorHistory, DoorLogged, DoorRead, DoorWrite, Receipt
from tests.crash.door_load import REFUSED
from tests.crash.history import Applied, Counts, History, Status
from tests.crash.killer import FRONT_END, KEEPER, WORKER
from tests.embedding_server import vector_of
from tests.plain_index import PlainMutation, PlainRow
from upwell.changeset import KeyScope, Operation
from upwell.failpoint import Step

TEXT = {"vector": vector_of("text 1"), "data": "text 1"}


def of(operation: Operation, *rows: PlainRow, **more: Any) -> PlainMutation:
    return PlainMutation(operation, rows, KeyScope.NAMESPACE, **more)


UPSERT = of(Operation.UPSERT, PlainRow("x", "a", data="text 1"), PlainRow("y", "a", data="text 1"))
UPDATE = of(Operation.UPDATE, PlainRow("x", "a", metadata={"k": 1}), patch=True)
RENAME = of(Operation.RENAME_NAMESPACE, namespace="a", new_namespace="b")
AGAIN = of(Operation.RENAME_NAMESPACE, namespace="a", new_namespace="c")
DELETE = of(Operation.DELETE_MATCHING, namespace="b", equal=1.0)
BAD = of(Operation.UPSERT, PlainRow("z", "b", data="text"), PlainRow("z", "b", data=REFUSED))
#: In this order, a second after another, each applied by a commit of its own.
SCRIPT: list[tuple[PlainMutation, dict[str, int] | str]] = [
    (UPSERT, {"inserted": 2}),
    (UPDATE, {"updated": 1}),
    (RENAME, {}),
    (AGAIN, "Namespace a does not exist"),
    (BAD, "the text of item 1 was refused: no"),
    (DELETE, {"deleted": 1}),
]
CHANGED = TEXT | {"metadata": {"k": 1}}


def write(number: int, **more: Any) -> DoorWrite:
    mutation, outcome = SCRIPT[number - 1]
    told: dict[str, Any] = {}
    if isinstance(outcome, str):
        told = {"failed": outcome}
    elif mutation.operation in (Operation.UPDATE, Operation.DELETE_MATCHING):
        told = {"counted": sum(outcome.values())}
    return DoorWrite(
        index="i", mutation=mutation, started=10 * number, ended=10 * number + 1, front_end="f",
        receipt=(number, 0), **(told | more),
    )  # fmt: skip


def read(at: float, namespace: str, *rows: tuple[str, Any], **more: Any) -> DoorRead:
    return DoorRead(
        index="i", front_end="f", namespace=namespace, started=at, ended=at + 1, rows=rows, **more
    )


def result(number: int) -> Applied:
    outcome = SCRIPT[number - 1][1]
    failed = isinstance(outcome, str)
    return Applied(
        index="i", version=number + 1, receipt=(number, 0), error=str(outcome) if failed else None,
        counts=Counts() if isinstance(outcome, str) else Counts(**outcome),
    )  # fmt: skip


def status(at: float, receipt: Receipt, **more: Any) -> Status:
    return Status(
        index="i", front_end="f", started=at, ended=at + 1, receipt=receipt, visible_through=6, **more
    )


def good() -> History:
    numbers = range(1, len(SCRIPT) + 1)
    door = DoorHistory(
        indexes={"i": True},
        writes=[write(number) for number in numbers],
        logged=[DoorLogged(index="i", receipt=(n, 0), mutation=SCRIPT[n - 1][0]) for n in numbers],
        reads=[
            read(5, "a", ("x", None), ("y", None)),
            read(12, "a", ("x", TEXT), ("y", TEXT), ordered=True),
            read(22, "a", ("x", CHANGED), ("z", None)),
            read(32, "a", exists=False),
            read(33, "b", ("x", CHANGED), ("y", TEXT), ordered=True),
            read(90, "b", ("y", TEXT), ordered=True, last=True),
        ],
    )
    statuses = [
        status(70, (2, 0), state="visible", counts=Counts(updated=1)),
        status(70, (4, 0), state="failed", error="Namespace a does not exist"),
    ]
    return History(door=door, applied=[result(number) for number in numbers], statuses=statuses)


def violations(history: History) -> set[str]:
    verdicts: dict[str, Verdict] = {check.__name__: check(history) for check in DOOR_CHECKS}
    return {name for name, verdict in verdicts.items() if verdict.wrong}


def test_a_good_history_is_found_good() -> None:
    history = good()
    assert violations(history) == set()
    assert all(check(history).looked_at for check in DOOR_CHECKS)


LOGGED, COUNTS, MOMENT, END = (check.__name__ for check in DOOR_CHECKS)
Spoil = Callable[[History], object]


def spoiled(what: str, place: int, **fields: Any) -> Spoil:
    """One of the things in a history is otherwise."""

    def spoil(history: History) -> None:
        owner = history if what in ("applied", "statuses") else history.door
        things = getattr(owner, what)
        things[place] = replace(things[place], **fields)

    return spoil


BAD_HISTORIES: dict[str, tuple[str, Spoil]] = {
    "acknowledged and lost": (LOGGED, lambda history: history.door.logged.pop()),
    "logged as another": (LOGGED, spoiled("logged", 2, mutation=AGAIN)),
    "logged twice": (
        LOGGED,
        lambda history: history.door.logged.append(replace(history.door.logged[-1], receipt=(7, 0))),
    ),
    "refused and logged": (LOGGED, spoiled("writes", 1, receipt=None, counted=None, refused=True)),
    "sent later and logged before": (LOGGED, spoiled("writes", 3, started=60, ended=61)),
    "never applied": (COUNTS, lambda history: history.applied.pop()),
    "an answer counts wrong": (COUNTS, spoiled("writes", 1, counted=0)),
    "deleted more than there was": (COUNTS, spoiled("writes", 5, counted=2)),
    "a commit counts wrong": (COUNTS, spoiled("applied", 1, counts=Counts(updated=2))),
    "failed for nothing": (COUNTS, spoiled("applied", 0, error="no vectors could be made of its text")),
    "applied, and should have failed": (COUNTS, spoiled("applied", 4, error=None)),
    "an answer fails for another reason": (COUNTS, spoiled("writes", 4, failed="other")),
    "a status counts wrong": (COUNTS, spoiled("statuses", 0, counts=Counts(updated=2))),
    "a status that is not true": (COUNTS, spoiled("statuses", 1, state="visible", error=None)),
    "queued, and through": (COUNTS, spoiled("statuses", 0, state="queued", counts=None)),
    "does not see what was acknowledged": (MOMENT, spoiled("reads", 1, rows=())),
    "sees half of it": (MOMENT, spoiled("reads", 1, rows=(("x", TEXT),))),
    "sees it in another order": (MOMENT, spoiled("reads", 1, rows=(("y", TEXT), ("x", TEXT)))),
    "another vector than the model's": (
        MOMENT,
        spoiled("reads", 2, rows=(("x", CHANGED | {"vector": [1.0] * 4}),)),
    ),
    "an update that is forgotten": (MOMENT, spoiled("reads", 4, rows=(("x", TEXT), ("y", TEXT)))),
    "a name that was given up": (MOMENT, spoiled("reads", 3, exists=True)),
    "what nobody has sent yet": (MOMENT, spoiled("reads", 0, rows=(("x", TEXT),))),
    "not there in the end": (END, spoiled("reads", 5, rows=())),
    "nobody looked in the end": (END, lambda history: history.door.reads.pop()),
}


@pytest.mark.parametrize("name", BAD_HISTORIES)
def test_a_bad_history_is_found_out(name: str) -> None:
    check, spoil = BAD_HISTORIES[name]
    history = good()
    spoil(history)
    assert check in violations(history)


def test_a_state_between_two_commits_is_never_to_be_seen() -> None:
    """Two entries that one commit applied are there at once."""
    history = good()
    history.applied[0] = replace(history.applied[0], version=3)
    assert violations(history) == {MOMENT}, "the second read saw the first entry without the second"


def test_whoever_reaches_a_step_can_be_killed_there() -> None:
    assert [step for step in Step if not step.startswith(FRONT_END + WORKER + KEEPER)] == []
