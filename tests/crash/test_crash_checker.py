"""The checker can fail: small histories, one good, and each of the others bad in one way that its check must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash import check, run
from tests.crash.check import CHECKS, Verdict
from tests.crash.history import (
    SOME,
    Answer,
    Applied,
    Attempt,
    Counts,
    History,
    Logged,
    Operation,
    Read,
    Receipt,
    State,
    Status,
    Write,
)
from tests.crash.processes import Slot

Check = Callable[[History], Verdict]
#: Vectors of a group.
MEMBERS = 3


def write(
    generation: int, receipt: Receipt | None, at: float, *, operation: Operation = "upsert", group: str = "g",
    key: str | None = None,
) -> Write:  # fmt: skip
    attempt = Attempt(started=at, ended=at + 1, front_end="a", receipt=receipt)
    return Write(
        index="i", group=group, generation=generation, operation=operation, attempts=(attempt,), key=key
    )


def logged(generation: int, receipt: Receipt, operation: Operation = "upsert", group: str = "g") -> Logged:
    return Logged(index="i", receipt=receipt, operation=operation, group=group, generation=generation)


def applied(version: int, receipt: Receipt, *, duplicate: bool = False, **counts: int) -> Applied:
    return Applied(index="i", version=version, receipt=receipt, counts=Counts(**counts), duplicate=duplicate)


def read(at: float, *, last: bool = False, after: Receipt | None = None, **seen: int | None) -> Read:
    generations = {group: () if one is None else (one,) * MEMBERS for group, one in seen.items()}
    return Read(
        index="i", front_end="a", kind="fetch", started=at, ended=at + 1, seen=generations, last=last, after=after
    )  # fmt: skip


def status(
    at: float, receipt: Receipt, through: int, state: State | None = None, counts: Counts | None = None
) -> Status:
    shown: State = state or ("visible" if receipt[0] <= through else "queued")
    return Status(
        index="i", front_end="a", started=at, ended=at + 1, receipt=receipt, state=shown,
        visible_through=through, counts=counts,
    )  # fmt: skip


def good() -> History:
    """Two groups; an upsert, an insert that changes nothing, an upsert nobody answered for, a delete, and a request sent twice."""
    return History(
        members={"i": MEMBERS},
        writes=[
            write(2, (1, 0), 0),
            write(4, (1, 1), 0, operation="insert"),
            write(6, None, 4),
            write(8, (3, 0), 8, operation="delete"),
            write(10, (4, 0), 12, group="h", key="k"),
            write(12, (6, 0), 16),
        ],
        logged=[
            logged(2, (1, 0)),
            logged(4, (1, 1), "insert"),
            logged(6, (2, 0)),
            logged(8, (3, 0), "delete"),
            logged(10, (4, 0), group="h"),
            logged(10, (5, 0), group="h"),
            logged(12, (6, 0)),
        ],
        applied=[
            applied(2, (1, 0), inserted=3),
            applied(2, (1, 1), skipped=3),
            applied(3, (2, 0), replaced=3),
            applied(3, (3, 0), deleted=3),
            applied(4, (4, 0), inserted=3),
            applied(4, (5, 0), duplicate=True),
            applied(5, (6, 0), inserted=3),
        ],
        reads=[
            read(2, g=2, h=None),
            read(6, g=6, h=None),
            read(13, g=None, h=10),
            read(17, g=12, h=10, after=(6, 0)),
            read(20, g=12, h=10, last=True),
        ],
        statuses=[
            status(2, (1, 0), 1, counts=Counts(inserted=3)),
            status(12, (4, 0), 3),
            status(18, (6, 0), 6, counts=Counts(inserted=3)),
        ],
        told={"i": [(1, 0), (1, 1), (2, 0), (3, 0), (3, 0), (4, 0), (6, 0)]},
    )


@pytest.mark.parametrize("one", CHECKS)
def test_a_good_history_passes_every_check_and_is_looked_at(one: Check) -> None:
    verdict = one(good())
    assert verdict.wrong == []
    assert verdict.looked_at > 0


def lost(bad: History) -> None:
    del bad.logged[-1], bad.applied[-1]


def logged_twice(bad: History) -> None:
    bad.logged.append(logged(12, (7, 0)))
    bad.applied.append(applied(6, (7, 0), replaced=3))


def unanswered_and_logged_twice(bad: History) -> None:
    bad.logged.append(logged(6, (7, 0)))
    bad.applied.append(applied(6, (7, 0), replaced=3))


def a_request_counts_twice(bad: History) -> None:
    bad.applied[5] = applied(4, (5, 0), replaced=3)


def the_copy_counts_that_was_not_acknowledged(bad: History) -> None:
    bad.applied[4:6] = [applied(4, (4, 0), duplicate=True), applied(4, (5, 0), inserted=3)]


def acknowledged_as_two(bad: History) -> None:
    again = Attempt(started=13, ended=14, front_end="b", receipt=(5, 0))
    bad.writes[4] = replace(bad.writes[4], attempts=(*bad.writes[4].attempts, again))


def refused_and_logged(bad: History) -> None:
    bad.writes[2] = replace(bad.writes[2], attempts=(replace(bad.writes[2].attempts[0], refused=True),))


def logged_as_something_else(bad: History) -> None:
    bad.logged[2] = replace(bad.logged[2], operation="insert")


def sent_by_nobody(bad: History) -> None:
    del bad.writes[2]


def half_in_the_log(bad: History) -> None:
    bad.logged[2] = replace(bad.logged[2], whole=False)


def a_gap_in_the_log(bad: History) -> None:
    del bad.logged[2]


def acknowledged_before_and_behind(bad: History) -> None:
    bad.writes[0], bad.writes[3] = write(2, (3, 0), 0), write(8, (1, 0), 8, operation="delete")


def unanswered_and_behind_a_later_one(bad: History) -> None:
    bad.writes[2] = write(6, None, 20)


def not_applied(bad: History) -> None:
    del bad.applied[2]


def applied_twice(bad: History) -> None:
    bad.applied.append(replace(bad.applied[2], version=9))


def applied_out_of_order(bad: History) -> None:
    bad.applied[2] = replace(bad.applied[2], version=9)


def counted_wrongly(bad: History) -> None:
    bad.applied[2] = applied(3, (2, 0), replaced=2, inserted=1)


def committed_as_failed(bad: History) -> None:
    bad.applied[2] = replace(bad.applied[2], error="its bytes are damaged")


def said_to_have_failed(bad: History) -> None:
    bad.statuses.append(status(22, (6, 0), 6, "failed"))


def visible_and_then_queued(bad: History) -> None:
    bad.statuses.append(status(22, (6, 0), 5))


def visible_through_goes_back_elsewhere(bad: History) -> None:
    bad.statuses.append(replace(status(22, (1, 0), 4), front_end="b"))


def queued_and_behind_what_is_visible(bad: History) -> None:
    bad.statuses.append(status(22, (6, 0), 6, "applying"))


def told_other_counts(bad: History) -> None:
    bad.statuses[0] = status(2, (1, 0), 1, counts=Counts(inserted=2, replaced=1))


def half_of_a_group(bad: History) -> None:
    bad.reads[0] = replace(bad.reads[0], seen={"g": (2, 2)})


def two_generations_of_a_group(bad: History) -> None:
    bad.reads[1] = replace(bad.reads[1], seen={"g": (2, 6, 6)})


def some_ids_of_a_group(bad: History) -> None:
    bad.reads[1] = replace(bad.reads[1], seen={"g": (SOME,)})


def old_after_visible(bad: History) -> None:
    bad.reads.append(read(22, g=None, h=10))


def old_after_it_was_read_elsewhere(bad: History) -> None:
    bad.reads.insert(2, read(9, g=2))


def old_though_asked_to_wait(bad: History) -> None:
    bad.reads[3] = read(14, g=None, h=10, after=(6, 0))


def groups_of_different_moments(bad: History) -> None:
    bad.reads[2] = read(11, g=6, h=10)


def an_insert_that_replaced(bad: History) -> None:
    bad.reads[1] = read(5, g=4)


def read_before_it_was_written(bad: History) -> None:
    bad.reads[1] = read(5, g=12)


def gone_in_the_end(bad: History) -> None:
    bad.reads[-1] = read(20, g=12, h=None, last=True)


def back_in_the_end(bad: History) -> None:
    bad.reads[-1] = read(20, g=6, h=10, last=True)


def not_looked_at_in_the_end(bad: History) -> None:
    bad.reads.pop()


def not_told(bad: History) -> None:
    bad.told["i"].remove((2, 0))


def told_out_of_order(bad: History) -> None:
    bad.told["i"].insert(0, (3, 0))


def told_of_a_copy(bad: History) -> None:
    bad.told["i"].insert(6, (5, 0))


def an_answer_that_should_not_be(bad: History) -> None:
    bad.answers.append(Answer("a", "POST /i/query", "500"))


def a_line_that_should_not_be(bad: History) -> None:
    bad.printed.append("Corrupt: bytes are not what was written")


BAD: list[tuple[Check, Callable[[History], None]]] = [
    *((check.every_acknowledged_mutation_is_logged_once, one) for one in (
        lost, logged_twice, unanswered_and_logged_twice, a_request_counts_twice, acknowledged_as_two,
        the_copy_counts_that_was_not_acknowledged, refused_and_logged, logged_as_something_else, sent_by_nobody,
    )),
    *((check.every_logged_mutation_is_whole, one) for one in (half_in_the_log, a_gap_in_the_log)),
    *((check.what_was_sent_later_lies_behind, one) for one in (
        acknowledged_before_and_behind, unanswered_and_behind_a_later_one,
    )),
    *((check.everything_logged_is_applied_once_and_in_order, one) for one in (
        not_applied, applied_twice, applied_out_of_order, counted_wrongly, committed_as_failed,
    )),
    *((check.statuses_are_true_and_go_forward, one) for one in (
        said_to_have_failed, visible_and_then_queued, visible_through_goes_back_elsewhere,
        queued_and_behind_what_is_visible, told_other_counts,
    )),
    *((check.no_read_sees_half_a_mutation, one) for one in (
        half_of_a_group, two_generations_of_a_group, some_ids_of_a_group,
    )),
    *((check.reads_are_of_one_moment_and_never_old, one) for one in (
        old_after_visible, old_after_it_was_read_elsewhere, old_though_asked_to_wait, groups_of_different_moments,
        an_insert_that_replaced, read_before_it_was_written,
    )),
    *((check.in_the_end_everything_is_there, one) for one in (
        gone_in_the_end, back_in_the_end, not_looked_at_in_the_end, lost,
    )),
    *((check.webhooks_tell_everything_in_order, one) for one in (not_told, told_out_of_order, told_of_a_copy)),
    *((check.nothing_broke, one) for one in (an_answer_that_should_not_be, a_line_that_should_not_be)),
]  # fmt: skip


@pytest.mark.parametrize(("one", "spoil"), BAD, ids=lambda it: it.__name__)
def test_a_bad_history_is_found(one: Check, spoil: Callable[[History], None]) -> None:
    history = good()
    spoil(history)
    assert one(history).wrong


def test_every_check_is_shown_to_find_something() -> None:
    assert {one for one, _ in BAD} == set(CHECKS)


def test_a_told_gap_excuses_what_was_not_told() -> None:
    history = good()
    not_told(history)
    history.gaps["i"] = 1
    assert check.webhooks_tell_everything_in_order(history).wrong == []


KILLED = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
  File "spawn.py", line 122, in spawn_main
    exitcode = _main(fd, parent_sentinel)
EOFError: Ran out of input
resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 5 leaked semaphore objects
  warnings.warn('resource_tracker: There appear to be %d '
arq.worker: job drain:1:2 expired
asyncio: Unclosed Pipeline client
    client: <redis.asyncio.client.Pipeline(<redis.asyncio.connection.ConnectionPool(<upwell.doorbell.connection._Local(db=0)>)>)>
arq.worker:   0.11s ! drain:1:2:drain failed, KeyError: 'drain:1:2'
    Traceback (most recent call last):
      File "worker.py", line 608, in run_job
        del self.job_tasks[job_id]
            ~~~~~~~~~~~~~~^^^^^^^^
    KeyError: 'drain:1:2'
"""


@pytest.mark.parametrize(
    ("printed", "complaints"),
    [
        ("", 0),
        (KILLED, 0),
        ('{"level": "warning", "event": "redis lost while draining"}\n', 0),
        ('{"level": "error", "event": "index cannot be drained"}\n', 1),
        ('{"level": "warning", "event": "commit lost", "reason": "Corrupt"}\n', 1),
        ('{"level": "info", "event": "anything", "exception": "Traceback"}\n', 1),
        (f"{KILLED}Traceback (most recent call last):\n  File ...\nKeyError: 3\n", 1),
        ('a loose line\n{"level": "info"}\nanother\n', 2),
    ],
)
def test_what_processes_print_is_read(tmp_path: Path, printed: str, complaints: int) -> None:
    slot = Slot("worker-0", "worker", tmp_path)
    slot.output.write_text(printed)
    assert len(run.complaints(slot)) == complaints


def test_errors_in_the_log_are_no_complaint_where_disks_are_broken(tmp_path: Path) -> None:
    slot = Slot("worker-0", "worker", tmp_path)
    slot.output.write_text(
        '{"level": "error", "event": "index cannot be drained"}\n{"level": "error", "error": "Corrupt"}\n'
    )
    assert len(run.complaints(slot, errors_expected=True)) == 1
