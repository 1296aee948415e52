"""The promises at the Milvus door, as far as ``door_check.py`` does not hold it to them. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tests.crash.check import Verdict
from tests.crash.history import History


def what_was_inserted_again_is_there_once(history: History) -> Verdict:
    """Promise 1: every answer to a request told the same ids of the same mutation; a Strong read on any front end has those rows, once,
    if they were acknowledged before it; of a request that nobody answered it has all, or none; and no id is given twice."""
    verdict = Verdict()
    given: set[str] = set()
    acknowledged, rows = {}, {}
    for one in history.milvus.inserts:
        rows[one.number] = one.rows
        verdict.expect(len(set(one.answers)) <= 1, f"answered in two ways: {one}")
        if one.answers:
            ids = one.answers[0][0]
            acknowledged[one.number] = one.ended, set(ids)
            verdict.expect(len(set(ids)) == one.rows and not given & set(ids), f"ids of others: {one}")
            given |= set(ids)
    for read in history.milvus.reads:
        found: dict[int, list[str]] = defaultdict(list)
        for number, id in read.found:
            found[number].append(id)
        for number, has in found.items():
            wanted = acknowledged[number][1] if number in acknowledged else set(has)
            is_whole = len(has) == rows[number] and set(has) == wanted
            verdict.expect(is_whole, f"{read.front_end} has {has} of {number}, {wanted} was acknowledged")
        for number, (ended, _) in acknowledged.items():
            if read.number in (None, number) and ended < read.started:
                verdict.expect(number in found, f"{read.front_end} lacks {number}")
    return verdict


def what_was_changed_is_as_it_was_answered(history: History) -> Verdict:
    """Promise 1 for all that is no row: a change that was acknowledged is seen by the next look at any front end, and one that nobody
    answered for is made whole or not at all."""
    verdict = Verdict()
    for one in history.milvus.kept:
        verdict.expect(one.seen in one.allowed, f"{one}")
    return verdict


MILVUS_CHECKS: tuple[Callable[[History], Verdict], ...] = (
    what_was_inserted_again_is_there_once,
    what_was_changed_is_as_it_was_answered,
)
