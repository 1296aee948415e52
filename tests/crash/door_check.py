"""The four promises at the Upstash door: everything that was found in the log is replayed on a plain dict (``tests/plain_index.py``), and
every answer, count and status is held to that. Pure functions, as in ``check.py``."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import pairwise
from math import inf, isclose
from typing import Any

from tests.crash.check import Verdict
from tests.crash.door_history import DoorLogged, DoorRead, DoorWrite, Receipt, Shown
from tests.crash.door_load import REFUSED
from tests.crash.history import Applied, History, Status
from tests.embedding_server import vector_of
from tests.plain_full_text import bm25_scores
from tests.plain_index import TEXTED, PlainHeld, PlainIndex, PlainMutation, says
from upwell.changeset import KeyScope, Operation

#: What became of a mutation: how many of each it counted, or how what it failed for begins.
Outcome = Mapping[str, int] | str
#: How it ends what a renaming failed for.
NAMES = ("does not exist", "exists already")
#: How far apart scores may be that are the same, which are reckoned in other orders.
SCORES = 1e-5


@dataclass(frozen=True, slots=True)
class _Space:
    """What a namespace held after a commit: its rows in the order of writing. ``exists``: it has a name."""

    rows: Mapping[str, Shown]
    exists: bool


class _Told:
    """One index, as a replay of its log tells it."""

    def __init__(self, history: History, index: str) -> None:
        door = history.door
        self.index = index
        self.has_model = door.indexes[index]
        self.scope = door.scopes.get(index, KeyScope.OPEN)
        self.writes = sorted((one for one in door.writes if one.index == index), key=_started)
        self.logged = sorted((one for one in door.logged if one.index == index), key=_receipt)
        self.reads = [one for one in door.reads if one.index == index]
        self.statuses = [one for one in history.statuses if one.index == index]
        self.applied = sorted(
            (one for one in history.applied if one.index == index), key=lambda one: one.receipt
        )
        #: Positions through which a version had applied the log: only such states were ever to be seen.
        ends: dict[int, int] = {}
        for one in self.applied:
            ends[one.version] = max(ends.get(one.version, 0), one.receipt[0])
        self._ends = set(ends.values())
        self.outcomes: dict[Receipt, Outcome] = {}
        #: By namespace: after which position it was how.
        self._spaces: dict[str, list[tuple[int, _Space]]] = defaultdict(lambda: [(0, _Space({}, False))])
        self._replay()

    def _replay(self) -> None:
        plain = PlainIndex(self.scope)
        spaces: set[str] = set()
        for place, one in enumerate(self.logged):
            self.outcomes[one.receipt] = self._apply(plain, one)
            last = place + 1 == len(self.logged) or self.logged[place + 1].receipt[0] != one.receipt[0]
            if last and one.receipt[0] in self._ends:
                spaces |= plain.namespaces | {held.namespace for held in plain.rows.values()}
                self._remember(plain, one.receipt[0], spaces)

    def _apply(self, plain: PlainIndex, one: DoorLogged) -> Outcome:
        mutation = one.mutation
        if embeds(mutation, has_model=self.has_model):
            refused = [place for place, row in enumerate(mutation.rows) if REFUSED in (row.data or "")]
            if refused:
                return f"the text of item {refused[0]} was refused"
            rows = (replace(row, values=tuple(vector_of(row.data or ""))) for row in mutation.rows)
            mutation = replace(mutation, rows=tuple(rows))
        return plain.apply(mutation, one.receipt)

    def _remember(self, plain: PlainIndex, position: int, spaces: set[str]) -> None:
        held: dict[str, list[PlainHeld]] = defaultdict(list)
        for row in plain.rows.values():
            held[row.namespace].append(row)
        for name in spaces:
            ordered = sorted(held[name], key=lambda row: row.sequence)
            space = _Space({row.id: shown(row) for row in ordered}, name in plain.namespaces)
            before = self._spaces[name][-1][1]
            if (before, list(before.rows)) != (space, list(space.rows)):
                self._spaces[name].append((position, space))

    def first_fitting(self, read: DoorRead, least: float) -> tuple[float, str | None]:
        """The first position at or behind ``least`` at which all that a read told was so; or what is wrong."""
        states = self._spaces[read.namespace]
        begin = bisect_left(states, least + 1, key=lambda one: one[0]) - 1
        for position, space in states[begin:]:
            if fits(read, space):
                sent = self._sent.get(position, 0.0)
                too_early = sent > read.ended
                return max(position, least), "nobody had sent that yet" if too_early else None
        old = any(fits(read, space) for _, space in states[:begin])
        why = f"old: it was otherwise at {least} already" if old else "never so at one moment"
        return inf, why

    @cached_property
    def _sent(self) -> dict[int, float]:
        """By position: when the earliest of its acknowledged mutations was sent."""
        found: dict[int, float] = {}
        for one in self.writes:
            if one.receipt is not None:
                position = one.receipt[0]
                found[position] = min(found.get(position, inf), one.started)
        return found

    def finally_(self, namespace: str) -> _Space:
        """What a namespace holds in the end."""
        return self._spaces[namespace][-1][1]


def embeds(mutation: PlainMutation, *, has_model: bool) -> bool:
    """Are a mutation's vectors made of its texts?"""
    if not has_model or mutation.operation not in (Operation.UPSERT, Operation.UPDATE):
        return False
    return mutation.rows[0].values is None and mutation.rows[0].data is not None


def shown(row: PlainHeld) -> Shown:
    """A row as the door should show it."""
    found: dict[str, Any] = {}
    if row.values is not None:
        found["vector"] = list(row.values)
    if row.sparse is not None:
        found["sparseVector"] = {"indices": [i for i, _ in row.sparse], "values": [v for _, v in row.sparse]}
    if row.metadata is not None:
        found["metadata"] = row.metadata
    if row.data is not None:
        found["data"] = row.data
    return found


def fits(read: DoorRead, space: _Space) -> bool:
    """Could a read have told this of a namespace that was so?"""
    if read.exists is not None:
        return read.exists == space.exists
    if read.ordered:
        return list(read.rows) == list(space.rows.items())
    if read.scored:
        return _scores_fit(read, space)
    if read.words:
        words = tuple(read.words.split())
        return dict(read.rows) == {
            name: row for name, row in space.rows.items() if says(row.get("metadata"), words)
        }
    return all(space.rows.get(name) == row for name, row in read.rows)


def _scores_fit(read: DoorRead, space: _Space) -> bool:
    """Are they what BM25 comes to over all texts of the namespace, and best first?"""
    told = [(name, row["score"]) for name, row in read.rows if row is not None]
    texts = {name: row["metadata"][TEXTED] for name, row in space.rows.items()}
    wanted = bm25_scores(read.words, texts)
    is_ranked = all(better >= worse for (_, better), (_, worse) in pairwise(told))
    same = sorted(name for name, _ in told) == sorted(wanted)
    return is_ranked and same and all(isclose(score, wanted[name], rel_tol=SCORES) for name, score in told)


def all_told(history: History) -> Iterator[_Told]:
    """Every index of the door, replayed."""
    for index in history.door.indexes:
        yield _Told(history, index)


def what_the_door_acknowledged_is_logged_once(history: History) -> Verdict:
    """Promise 1: every acknowledged mutation lies where its id says, as it was sent; nothing lies there that nobody sent, or twice; and
    what was sent after another was acknowledged lies behind it (2)."""
    verdict = Verdict()
    for told in all_told(history):
        at = {one.receipt: one.mutation for one in told.logged}
        for write in told.writes:
            if write.receipt is not None:
                found = at.pop(write.receipt, None)
                verdict.expect(found == write.mutation, f"lost, or another: {write}, in the log: {found}")
        unknown = [one.mutation for one in told.writes if one.receipt is None and not one.refused]
        for receipt, mutation in at.items():
            was_sent = mutation in unknown
            verdict.expect(was_sent, f"nobody sent {receipt}: {mutation}")
            if was_sent:
                unknown.remove(mutation)
        _in_order(told.writes, verdict)
    return verdict


def _in_order(writes: Iterable[DoorWrite], verdict: Verdict) -> None:
    acknowledged, newest = list[tuple[float, Receipt]](), (0, 0)
    for write in writes:
        while acknowledged and acknowledged[0][0] < write.started:
            newest = max(newest, heappop(acknowledged)[1])
        if write.receipt is not None:
            verdict.expect(write.receipt > newest, f"{write} was sent after {newest} had been acknowledged")
            heappush(acknowledged, (write.ended, write.receipt))


def the_door_counts_what_a_replay_counts(history: History) -> Verdict:
    """Promise 2: all that is logged is applied once and in order; commits, answers and statuses count, or fail, as a replay does."""
    verdict = Verdict()
    for told in all_told(history):
        receipts = [one.receipt for one in told.logged]
        verdict.expect(
            [one.receipt for one in told.applied] == receipts, f"{told.index}: applied is not logged"
        )
        versions = [one.version for one in told.applied]
        verdict.expect(versions == sorted(versions), f"{told.index}: applied out of order")
        for one in told.applied:
            verdict.expect(
                _is(one, told.outcomes.get(one.receipt)),
                f"a replay has {told.outcomes.get(one.receipt)}: {one}",
            )
        for write in told.writes:
            _check_answer(told, write, verdict)
        for status in told.statuses:
            _check_status(told, status, verdict)
    return verdict


def _is(one: Applied | Status, outcome: Outcome | None) -> bool:
    if outcome is None or isinstance(outcome, str):
        return outcome is not None and (one.error or "").startswith(outcome)
    return one.error is None and (one.counts is None or one.counts.as_mapping() == outcome)


def _check_answer(told: _Told, write: DoorWrite, verdict: Verdict) -> None:
    if write.receipt is None:
        return
    outcome = told.outcomes.get(write.receipt)
    if write.counted is not None:
        what = "updated" if write.mutation.operation is Operation.UPDATE else "deleted"
        wanted = outcome.get(what) if isinstance(outcome, Mapping) else None
        verdict.expect(write.counted == wanted, f"a replay has {outcome}: {write}")
    if write.failed is not None:
        # Of names that are taken, or are none, the door speaks in its vendor's words.
        known = next((end for end in NAMES if str(outcome).endswith(end)), str(outcome))
        is_so = isinstance(outcome, str) and known in write.failed
        verdict.expect(is_so, f"a replay has {outcome}: {write}")


def _check_status(told: _Told, status: Status, verdict: Verdict) -> None:
    if status.state in ("queued", "applying"):
        verdict.expect(status.receipt[0] > status.visible_through, f"in itself wrong: {status}")
        return
    outcome = told.outcomes.get(status.receipt)
    failed = isinstance(outcome, str)
    verdict.expect(status.state == ("failed" if failed else "visible"), f"a replay has {outcome}: {status}")
    verdict.expect(_is(status, outcome), f"a replay has {outcome}: {status}")


def the_door_shows_one_moment_and_what_was_acknowledged(history: History) -> Verdict:
    """Promises 2 and 3: what a read told was so after one commit, with all that was acknowledged, seen, or called visible before it was
    asked, on whichever front end; vectors of texts are those that the model makes of them."""
    verdict = Verdict()
    for told in all_told(history):
        known, least = list[tuple[float, float]](), 0.0
        events: list[tuple[float, DoorRead | DoorWrite | Status]] = []
        events += [(one.started, one) for one in told.reads]
        events += [(one.started, one) for one in told.writes if one.receipt is not None]
        events += [(one.started, one) for one in told.statuses]
        for started, event in sorted(events, key=lambda pair: pair[0]):
            while known and known[0][0] < started:
                least = max(least, heappop(known)[1])
            match event:
                case DoorWrite():
                    assert event.receipt is not None
                    heappush(known, (event.ended, event.receipt[0]))
                case Status():
                    heappush(known, (event.ended, event.visible_through))
                case DoorRead():
                    position, problem = told.first_fitting(event, least)
                    verdict.expect(problem is None, f"{problem}: {event}")
                    if problem is None:
                        heappush(known, (event.ended, position))
    return verdict


def in_the_end_the_door_shows_everything(history: History) -> Verdict:
    """Promises 1 and 2: once all is quiet every front end shows what a replay comes to."""
    verdict = Verdict()
    for told in all_told(history):
        last = [one for one in told.reads if one.last]
        verdict.expect(bool(last), f"{told.index} was not looked at in the end")
        for read in last:
            space = told.finally_(read.namespace)
            verdict.expect(fits(read, space), f"{read.namespace!r} should hold {space}: {read}")
    return verdict


DOOR_CHECKS: tuple[Callable[[History], Verdict], ...] = (
    what_the_door_acknowledged_is_logged_once,
    the_door_counts_what_a_replay_counts,
    the_door_shows_one_moment_and_what_was_acknowledged,
    in_the_end_the_door_shows_everything,
)


def _started(one: DoorWrite) -> float:
    return one.started


def _receipt(one: DoorLogged) -> Receipt:
    return one.receipt
