"""The four promises as questions to a history. Each check is a pure function: how much it looked at, and what is wrong.

Order is that of the log, as a witness read it: replaying it says what every group held after every entry, and so which
answers there could have been, and when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from tests.crash.history import (
    SOME,
    Applied,
    Counts,
    History,
    Logged,
    Read,
    Receipt,
    Status,
    Write,
)

#: From this entry on (inclusive) to that one (exclusive).
Span = tuple[float, float]
EVER: list[Span] = [(0, inf)]


@dataclass(slots=True)
class Verdict:
    """How many things a check looked at, and what was wrong with them."""

    looked_at: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Look at one thing."""
        self.looked_at += 1
        if not holds:
            self.wrong.append(otherwise)


def every_acknowledged_mutation_is_logged_once(history: History) -> Verdict:
    """Promise 1: what was acknowledged lies where its id says; what was not lies there once at most, or never."""
    verdict = Verdict()
    found: dict[tuple[str, int], list[Logged]] = defaultdict(list)
    for one in history.logged:
        found[one.index, one.generation].append(one)
    duplicates = _duplicates(history)
    for write in history.writes:
        copies = found.pop((write.index, write.generation), [])
        counting = [one for one in copies if (one.index, one.receipt) not in duplicates]
        same = all((one.operation, one.group) == (write.operation, write.group) for one in copies)
        verdict.expect(same, f"the log has something else than was sent: {write} {copies}")
        verdict.expect(write.key is not None or len(copies) <= 1, f"logged twice: {write} {copies}")
        verdict.expect(len(counting) <= 1, f"counts more than once: {write} {counting}")
        verdict.expect(len(write.receipts) <= 1, f"acknowledged as several mutations: {write}")
        for receipt in write.receipts:
            verdict.expect(
                [one.receipt for one in counting] == [receipt], f"lost: {write}, in the log: {copies}"
            )
        if all(one.refused for one in write.attempts):
            verdict.expect(not copies, f"refused, and logged all the same: {write}")
    verdict.expect(not found, f"nobody sent {list(found.values())[:3]}")
    return verdict


def every_logged_mutation_is_whole(history: History) -> Verdict:
    """Promise 2: a mutation is in the log with all of its rows, and positions have no gaps."""
    verdict = Verdict()
    for one in history.logged:
        verdict.expect(one.whole, f"half of it: {one}")
    for index in history.members:
        positions = sorted({one.receipt[0] for one in history.logged if one.index == index})
        verdict.expect(positions == list(range(1, len(positions) + 1)), f"{index}: the log has gaps")
    return verdict


def what_was_sent_later_lies_behind(history: History) -> Verdict:
    """Promise 2: a mutation that was sent after another had been acknowledged comes after it."""
    verdict = Verdict()
    places = {(one.index, one.generation): one.receipt for one in history.logged}
    for index in history.members:
        acknowledged: list[tuple[float, Receipt]] = []
        newest: Receipt = (0, 0)
        for write in sorted((one for one in history.writes if one.index == index), key=_started):
            while acknowledged and acknowledged[0][0] < write.started:
                newest = max(newest, heappop(acknowledged)[1])
            # Of one that was never acknowledged, where it was found; if the log has it twice, either will do.
            place = min(write.receipts, default=places.get((index, write.generation)))
            if place is not None:
                verdict.expect(place > newest, f"{write} was sent after {newest} was acknowledged")
            at = write.acknowledged_at
            if at is not None:
                heappush(acknowledged, (at, min(write.receipts)))
    return verdict


def everything_logged_is_applied_once_and_in_order(history: History) -> Verdict:
    """Promise 2: commits apply the log from its first mutation to its last, each once, and count what a replay counts."""
    verdict = Verdict()
    for index, members in history.members.items():
        applied = sorted((one for one in history.applied if one.index == index), key=_version)
        logged = sorted((one for one in history.logged if one.index == index), key=_receipt)
        receipts = [one.receipt for one in applied]
        verdict.expect(receipts == [one.receipt for one in logged], f"{index}: applied is not what is logged: "
                       f"{len(applied)} and {len(logged)} mutations, first difference at "
                       f"{_first_difference(receipts, [one.receipt for one in logged])}")  # fmt: skip
        expected = dict(_replayed_counts(logged, _duplicates(history), members))
        for one in applied:
            verdict.expect(one.error is None, f"failed: {one}")
            counts = Counts() if one.duplicate else expected.get(one.receipt)
            verdict.expect(one.counts == counts, f"a replay counts {counts}: {one}")
    return verdict


def statuses_are_true_and_go_forward(history: History) -> Verdict:
    """Promises 2 and 3: no mutation fails, counts are those of the commit, and nobody hears of less than was said before."""
    verdict = Verdict()
    counts = {(one.index, one.receipt): one.counts for one in history.applied}
    for index in history.members:
        through, said = 0, list[tuple[float, int]]()
        for status in sorted((one for one in history.statuses if one.index == index), key=_status_started):
            while said and said[0][0] < status.started:
                through = max(through, heappop(said)[1])
            position = status.receipt[0]
            verdict.expect(status.state != "failed", f"failed: {status}")
            verdict.expect(
                status.visible_through >= through, f"visibleThrough was {through} before: {status}"
            )
            verdict.expect(
                (status.state == "visible") == (position <= status.visible_through),
                f"in itself wrong: {status}",
            )
            if status.counts is not None and status.state == "visible":
                is_right = status.counts == counts.get((index, status.receipt))
                verdict.expect(
                    is_right, f"the commit counted {counts.get((index, status.receipt))}: {status}"
                )
            heappush(said, (status.ended, status.visible_through))
    return verdict


def no_read_sees_half_a_mutation(history: History) -> Verdict:
    """Promise 2: of a group an answer has all members or none, and all of one generation."""
    verdict = Verdict()
    for read in history.reads:
        members = read.asked or history.members[read.index]
        for group, seen in read.seen.items():
            whole = len(seen) in (0, members) and len(set(seen)) <= 1
            verdict.expect(
                whole, f"{group}: {len(seen)} of {members}, generations {sorted(set(seen))}: {read}"
            )
    return verdict


def reads_are_of_one_moment_and_never_old(history: History) -> Verdict:
    """Promises 2 and 3: what a read saw was so after some entry, in all groups at once, and not before what it had to
    reflect: what any status said to be visible, and any read had seen, before it began."""
    verdict = Verdict()
    times = _Times(history)
    for index in history.members:
        known, floor = list[tuple[float, float]](), 0.0
        events: list[Read | Status] = [one for one in history.reads if one.index == index]
        events += [one for one in history.statuses if one.index == index]
        for event in sorted(events, key=lambda one: one.started):
            while known and known[0][0] < event.started:
                floor = max(floor, heappop(known)[1])
            if isinstance(event, Status):
                heappush(known, (event.ended, event.visible_through))
                continue
            spans, problem = times.of(event)
            verdict.expect(problem is None, f"{problem}: {event}")
            least = max(floor, event.after[0] if event.after else 0)
            late = [(max(begin, least), end) for begin, end in spans if end > least]
            verdict.expect(
                not spans or bool(late), f"old: entry {least} was visible before, this is {spans}: {event}"
            )
            if late:
                heappush(known, (event.ended, late[0][0]))
    return verdict


def in_the_end_everything_is_there(history: History) -> Verdict:
    """Promises 1 and 2: once all is quiet every front end shows what a replay of the log comes to, in every group."""
    verdict = Verdict()
    times = _Times(history)
    last = [read for read in history.reads if read.last]
    for read in last:
        for group, seen in read.seen.items():
            holds = times.newest(read.index, group)
            verdict.expect(set(seen) == ({holds} - {None}), f"{group} should hold {holds}: {read}")
    shown = {read.index for read in last}
    verdict.expect(shown == set(history.members), f"not looked at in the end: {set(history.members) - shown}")
    return verdict


def webhooks_tell_everything_in_order(history: History) -> Verdict:
    """At least once, and first tellings in the log's order; where a gap was told, what was told is still in order."""
    verdict = Verdict()
    duplicates = _duplicates(history)
    for index, told in history.told.items():
        firsts = list(dict.fromkeys(told))
        verdict.expect(firsts == sorted(firsts), f"{index}: told out of order")
        expected = {one.receipt for one in history.logged if one.index == index}
        expected -= {receipt for its, receipt in duplicates if its == index}
        verdict.expect(
            set(firsts) <= expected, f"{index}: told of what there is not: {set(firsts) - expected}"
        )
        missing = expected - set(firsts)
        verdict.expect(
            not missing or history.gaps.get(index, 0) > 0, f"{index}: not told: {sorted(missing)[:5]}"
        )
        verdict.looked_at += len(firsts)
    return verdict


def nothing_broke(history: History) -> Verdict:
    """Nothing swept was named, nothing was corrupt, nobody hung: no answer and no line in a log says so."""
    verdict = Verdict(looked_at=len(history.reads) + len(history.statuses))
    verdict.wrong += [str(one) for one in history.answers] + history.printed
    return verdict


CHECKS: tuple[Callable[[History], Verdict], ...] = (
    every_acknowledged_mutation_is_logged_once,
    every_logged_mutation_is_whole,
    what_was_sent_later_lies_behind,
    everything_logged_is_applied_once_and_in_order,
    statuses_are_true_and_go_forward,
    no_read_sees_half_a_mutation,
    reads_are_of_one_moment_and_never_old,
    in_the_end_everything_is_there,
    webhooks_tell_everything_in_order,
    nothing_broke,
)


class _Times:
    """When, in entries of the log, each group held what; a generation that another of the same entry replaces is never held."""

    def __init__(self, history: History) -> None:
        duplicates = _duplicates(history)
        self._sent = {(one.index, one.generation): one.started for one in history.writes}
        held: dict[tuple[str, str], list[tuple[int, int | None]]] = defaultdict(lambda: [(0, None)])
        for one in sorted(history.logged, key=_receipt):
            changes = held[one.index, one.group]
            now = _after(changes[-1][1], one)
            if (one.index, one.receipt) in duplicates or now == changes[-1][1]:
                continue
            if changes[-1][0] == one.receipt[0]:
                changes.pop()
            changes.append((one.receipt[0], now))
        self._newest = {about: changes[-1][1] for about, changes in held.items()}
        #: By index, group, and what it held; SOME: anything.
        self._spans: dict[tuple[str, str, int | None], list[Span]] = defaultdict(list)
        for (index, group), changes in held.items():
            for (begin, what), (end, _) in zip(changes, [*changes[1:], (inf, None)], strict=True):
                self._spans[index, group, what].append((begin, end))
                if what is not None:
                    self._spans[index, group, SOME].append((begin, end))

    def newest(self, index: str, group: str) -> int | None:
        """What a group holds in the end."""
        return self._newest.get((index, group))

    def of(self, read: Read) -> tuple[list[Span], str | None]:
        """When all that a read saw was so at once, and what is wrong if that was never, or is told too early."""
        spans = EVER
        for group, seen in read.seen.items():
            for generation in set(seen) - {SOME}:
                if self._sent.get((read.index, generation), inf) > read.ended:
                    return [], f"{group}: nobody had written {generation}"
            if (read.index, group) not in self._newest:
                held = [] if seen else EVER
            else:
                held = self._spans.get((read.index, group, seen[0] if seen else None), [])
            spans = _both(spans, held)
        return spans, None if spans else "never so at one moment"


def _after(before: int | None, one: Logged) -> int | None:
    """What a group holds after a mutation."""
    match one.operation:
        case "upsert":
            return one.generation
        case "insert":
            return one.generation if before is None else before
        case "delete":
            return None
        case "declare":
            return before


def _replayed_counts(
    logged: Iterable[Logged], duplicates: set[tuple[str, Receipt]], members: int
) -> Iterator[tuple[Receipt, Counts]]:
    held: dict[str, int | None] = {}
    for one in logged:
        if (one.index, one.receipt) in duplicates:
            continue
        before = held.get(one.group)
        held[one.group] = _after(before, one)
        match one.operation, before:
            case ("delete", None) | ("declare", _):
                counts = Counts()
            case "delete", _:
                counts = Counts(deleted=members)
            case _, None:
                counts = Counts(inserted=members)
            case "insert", _:
                counts = Counts(skipped=members)
            case _:
                counts = Counts(replaced=members)
        yield one.receipt, counts


def _both(some: list[Span], others: list[Span]) -> list[Span]:
    """Where both lists of spans are; each is in order and without overlaps."""
    found = []
    one = other = 0
    while one < len(some) and other < len(others):
        begin, end = max(some[one][0], others[other][0]), min(some[one][1], others[other][1])
        if begin < end:
            found.append((begin, end))
        if some[one][1] < others[other][1]:
            one += 1
        else:
            other += 1
    return found


def _duplicates(history: History) -> set[tuple[str, Receipt]]:
    return {(one.index, one.receipt) for one in history.applied if one.duplicate}


def _first_difference(some: list[Receipt], others: list[Receipt]) -> tuple[Receipt | None, Receipt | None]:
    for one, other in zip([*some, None], [*others, None], strict=False):
        if one != other:
            return one, other
    return None, None


def _started(write: Write) -> float:
    return write.started


def _status_started(status: Status) -> float:
    return status.started


def _receipt(one: Logged) -> Receipt:
    return one.receipt


def _version(one: Applied) -> tuple[int, Receipt]:
    return one.version, one.receipt
