"""Each check of the Milvus door finds what it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.history import History
from tests.crash.milvus_check import (
    what_was_changed_is_as_it_was_answered,
    what_was_inserted_again_is_there_once,
)
from tests.crash.milvus_history import AutoInsert, AutoRead, Kept


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
