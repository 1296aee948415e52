"""Each check of the Milvus door finds what it is for; and the other door's checks, what reads by words tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.crash.door_check import DOOR_CHECKS
from tests.crash.door_history import DoorHistory, DoorLogged, DoorRead, DoorWrite
from tests.crash.history import Applied, Counts, History
from tests.crash.milvus_check import (
    what_was_changed_is_as_it_was_answered,
    what_was_inserted_again_is_there_once,
)
from tests.crash.milvus_history import AutoInsert, AutoRead, Kept
from tests.crash.milvus_load import shown_of
from tests.plain_full_text import bm25_scores, counted
from tests.plain_index import PlainMutation, PlainRow
from upwell.changeset import KeyScope, Operation


def good() -> History:
    history = History()
    history.milvus.inserts += [
        AutoInsert(1, 2, 0.0, 2.0, [(("10", "11"), "m1"), (("10", "11"), "m1")]),
        AutoInsert(2, 1, 0.5, 3.0, [(("12",), "m2")]),
        # Nobody answered.
        AutoInsert(3, 2, 1.0),
    ]
    history.milvus.reads += [
        AutoRead("a", 2.5, 1, ((1, "10"), (1, "11"))),
        AutoRead("b", 2.5, None, ((1, "11"), (1, "10"), (3, "13"), (3, "14"))),
        AutoRead("b", 4.0, None, ((1, "11"), (1, "10"), (2, "12"))),
    ]
    history.milvus.kept += [Kept("rename", (True,), True, 0), Kept("rename", (True, False), False, -1)]
    return history


def test_a_good_history_is_good() -> None:
    for check in (what_was_inserted_again_is_there_once, what_was_changed_is_as_it_was_answered):
        verdict = check(good())
        assert verdict.looked_at > 0 and verdict.wrong == []


def other_ids(bad: History) -> None:
    bad.milvus.inserts[0].answers[1] = (("10", "15"), "m1")


def another_mutation(bad: History) -> None:
    bad.milvus.inserts[0].answers[1] = (("10", "11"), "m5")


def ids_of_another(bad: History) -> None:
    bad.milvus.inserts[1].answers[0] = (("10",), "m2")


def too_few_ids(bad: History) -> None:
    bad.milvus.inserts[0].answers[:] = [(("10",), "m1")]


def lost(bad: History) -> None:
    bad.milvus.reads[0] = AutoRead("a", 2.5, 1, ())


def lost_from_all(bad: History) -> None:
    bad.milvus.reads[2] = AutoRead("b", 4.0, None, ((1, "11"), (1, "10")))


def twice(bad: History) -> None:
    bad.milvus.reads[0] = AutoRead("a", 2.5, 1, ((1, "10"), (1, "11"), (1, "16"), (1, "17")))


def half_of_what_nobody_answered_for(bad: History) -> None:
    bad.milvus.reads[1] = AutoRead("b", 2.5, None, ((1, "11"), (1, "10"), (3, "13")))


def half_done(bad: History) -> None:
    bad.milvus.kept[0] = Kept("rename", (True,), False, 0)


@pytest.mark.parametrize(
    "spoil",
    [other_ids, another_mutation, ids_of_another, too_few_ids, lost, lost_from_all, twice, half_of_what_nobody_answered_for, half_done],
)  # fmt: skip
def test_a_bad_one_is_found(spoil: Callable[[History], None]) -> None:
    bad = good()
    spoil(bad)
    checks = (what_was_inserted_again_is_there_once, what_was_changed_is_as_it_was_answered)
    assert [wrong for check in checks for wrong in check(bad).wrong]


#: Texts as they are after one mutation each: written, changed in its partition alone, and deleted by a word.
BEFORE = {"1": "log log", "2": "a queue", "3": "door"}
AFTER = {"1": "log queue", "3": "door"}


def texts(given: dict[str, str], *, whole: bool = True) -> tuple[PlainRow, ...]:
    vector = (1.0,) if whole else None
    return tuple(
        PlainRow(id, "p", vector, counted(text), metadata={"text": text}) for id, text in given.items()
    )


PARTIAL: dict[str, Any] = {"patch": True, "shallow": True, "inside": True}
WORDED: list[tuple[PlainMutation, Counts]] = [
    (PlainMutation(Operation.UPSERT, texts(BEFORE)), Counts(inserted=3)),
    (PlainMutation(Operation.UPDATE, texts({"1": "log queue"}, whole=False), **PARTIAL), Counts(updated=1)),
    (PlainMutation(Operation.DELETE_MATCHING, namespace="p", words=("a",)), Counts(deleted=1)),
]


def worded(at: float, *rows: tuple[str, Any], **more: Any) -> DoorRead:
    return DoorRead(index="i", front_end="f", namespace="p", started=at, ended=at + 1, rows=rows, **more)


def row(id: str, texts: dict[str, str]) -> tuple[str, Any]:
    return id, shown_of({"id": id, "vector": [1.0], "text": texts[id]})


def scores(query: str, texts: dict[str, str]) -> list[tuple[str, Any]]:
    found = bm25_scores(query, texts)
    return [(id, {"score": found[id]}) for id in sorted(found, key=lambda id: -found[id])]


def good_words() -> History:
    door = DoorHistory(indexes={"i": False}, scopes={"i": KeyScope.INDEX})
    applied = []
    for number, (mutation, counts) in enumerate(WORDED, 1):
        receipt = (number, 0)
        door.writes.append(
            DoorWrite(
                index="i", mutation=mutation, started=10 * number, ended=10 * number + 1, front_end="f", receipt=receipt
            )
        )  # fmt: skip
        door.logged.append(DoorLogged(index="i", receipt=receipt, mutation=mutation))
        applied.append(Applied(index="i", version=number + 1, receipt=receipt, counts=counts))
    door.reads += [
        worded(12, row("1", BEFORE), words="log"),
        worded(12, *scores("queue log", BEFORE), words="queue log", scored=True),
        worded(40, row("1", AFTER), words="queue", last=True),
        worded(40, *scores("queue door", AFTER), words="queue door", scored=True, last=True),
        worded(40, words="a", last=True),
    ]
    return History(door=door, applied=applied)


def wrong_words(history: History) -> set[str]:
    return {check.__name__ for check in DOOR_CHECKS if check(history).wrong}


def test_a_good_history_of_words_is_good() -> None:
    assert wrong_words(good_words()) == set()


@pytest.mark.parametrize(
    ("place", "spoilt"),
    [
        (0, worded(12, words="log")),
        (0, worded(12, row("1", BEFORE), row("3", BEFORE), words="log")),
        (0, worded(32, row("1", BEFORE), words="log")),
        (1, worded(12, *scores("queue log", AFTER), words="queue log", scored=True)),
        (1, worded(12, *scores("queue log", BEFORE)[::-1], words="queue log", scored=True)),
        (1, worded(12, *scores("queue log", BEFORE)[:1], words="queue log", scored=True)),
        (3, worded(40, *scores("queue door", AFTER | {"2": "a queue"}), words="queue door", scored=True, last=True)),
        (4, worded(40, row("2", BEFORE), words="a", last=True)),
    ],
    ids=["not found", "found without it", "old", "other scores", "worst first", "one lacks", "counts what is gone", "not deleted"],
)  # fmt: skip
def test_a_bad_answer_to_words_is_found(place: int, spoilt: DoorRead) -> None:
    bad = good_words()
    bad.door.reads[place] = spoilt
    assert wrong_words(bad)


def test_a_sparse_vector_that_is_not_its_texts_is_found() -> None:
    bad = good_words()
    other = replace(WORDED[0][0], rows=tuple(replace(one, sparse=((1, 1.0),)) for one in WORDED[0][0].rows))
    bad.door.logged[0] = replace(bad.door.logged[0], mutation=other)
    bad.door.writes[0] = replace(bad.door.writes[0], mutation=other)
    assert wrong_words(bad)
