"""No wake-up is lost: every interleaving of the doorbell's protocol, run to its end.

Front ends and drains are generators whose every ``yield`` is the boundary of one atomic step (a Redis command or script, an append,
a look at the log), as they are written in upwell/doorbell/lease.py. A search over all schedules, with the states seen before
remembered, takes each at each step. At the end, when nobody has anything left to do, every append must be applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest


@dataclass(frozen=True)
class World:
    """Redis, the log, and who is at which step. A value: each step makes another."""

    appended: int = 0
    applied: int = 0
    generation: int = 0
    tokens: int = 0
    queued: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    lease: int | None = None
    knock: bool = False
    #: Each actor: (kind, step, its own memory).
    actors: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    #: Crashes and wipes that may still happen.
    crashes: int = 0
    wipes: int = 0
    disturbed: bool = False


@dataclass
class Protocol:
    """How a drain behaves; the naive one is what arq invites one to write."""

    fresh_generations: bool = True
    knocks: bool = True
    seen: set[World] = field(default_factory=set)
    ends: int = 0
    stranded: list[World] = field(default_factory=list)

    # One front end: append, read the generation, enqueue; ``memory`` is (appends left, generation read).

    def front_end(self, world: World, me: int) -> Iterator[World]:
        kind, step, memory = world.actors[me]
        left, generation = memory
        match step:
            case 0 if left:
                yield self._at(replace(world, appended=world.appended + 1), me, (kind, 1, (left - 1, 0)))
            case 1 if world.generation == 0 and self.fresh_generations:
                first = replace(world, tokens=world.tokens + 1, generation=world.tokens + 1)
                yield self._at(first, me, (kind, 2, (left, first.generation)))
            case 1:
                yield self._at(world, me, (kind, 2, (left, world.generation)))
            case 2:
                taken = generation in world.queued or generation in world.running
                queued = world.queued if taken else world.queued | {generation}
                yield self._at(replace(world, queued=queued), me, (kind, 0, (left, 0)))

    # One drain slot of a worker; ``memory`` is (job, lease token, how far it read the log).

    def worker(self, world: World, me: int) -> Iterator[World]:  # noqa: C901  one case a step
        kind, step, memory = world.actors[me]
        job, token, read = memory
        match step:
            case 0:
                for taken in world.queued:
                    after = replace(
                        world,
                        queued=world.queued - {taken},
                        running=world.running | {taken},
                        tokens=world.tokens + 1,
                    )
                    yield self._at(after, me, (kind, 1, (taken, world.tokens + 1, 0)))
            case 1:
                fresh = replace(world, generation=token) if self.fresh_generations else world
                yield self._at(fresh, me, (kind, 2, memory))
            case 2 if world.lease is None:
                yield self._at(replace(world, lease=token), me, (kind, 3, memory))
            case 2:
                yield self._at(replace(world, knock=world.knock or self.knocks), me, (kind, 5, memory))
            case 3 if world.appended == world.applied:
                yield self._at(world, me, (kind, 4, memory))
            case 3:
                yield self._at(world, me, (kind, 6, (job, token, world.appended)))
            case 6:
                # The commit; one that comes after another's is fenced, and its drain looks again.
                yield self._at(
                    replace(world, applied=max(world.applied, read)), me, (kind, 3, (job, token, 0))
                )
            case 4 if world.lease != token:
                yield self._at(world, me, (kind, 5, memory))
            case 4 if world.knock:
                yield self._at(replace(world, knock=False), me, (kind, 3, memory))
            case 4:
                yield self._at(replace(world, lease=None), me, (kind, 5, memory))
            case 5:
                yield self._at(replace(world, running=world.running - {job}), me, (kind, 0, (0, 0, 0)))

    def misfortunes(self, world: World) -> Iterator[World]:
        """A worker killed with what it held, or Redis wiped."""
        for me, (kind, step, memory) in enumerate(world.actors):
            if world.crashes and kind == "worker" and step > 0:
                # Its lease ends by time; its job stays in progress for far longer, as arq has it.
                after = replace(world, crashes=world.crashes - 1, disturbed=True)
                if world.lease == memory[1]:
                    after = replace(after, lease=None)
                yield self._at(after, me, (kind, 0, (0, 0, 0)))
        if world.wipes:
            yield replace(
                world,
                wipes=world.wipes - 1,
                generation=0,
                queued=frozenset(),
                running=frozenset(),
                lease=None,
                knock=False,
                disturbed=True,
            )

    def sweep(self, world: World) -> World | None:
        """What a sweep does once all is quiet: find a backlog without a holder, and ring under a fresh generation."""
        if world.applied == world.appended or world.lease is not None:
            return None
        fresh = world.tokens + 1
        return replace(world, tokens=fresh, generation=fresh, queued=world.queued | {fresh})

    @staticmethod
    def check(world: World) -> None:
        """An id is never queued while a job of that id runs: arq breaks on that. (Unless Redis is wiped between a front end's
        GET and its enqueue; workers survive it.)
        """
        jobs = {memory[0] for kind, step, memory in world.actors if kind == "worker" and step > 0}
        assert not world.queued & jobs

    def explore(self, start: World) -> None:
        """Visit every state that any schedule can reach."""
        pending = [start]
        while pending:
            world = pending.pop()
            if world in self.seen:
                continue
            self.seen.add(world)
            if self.fresh_generations and world.wipes == start.wipes:
                self.check(world)
            following = [after for me in range(len(world.actors)) for after in self._steps(world, me)]
            if not following:
                self.ends += 1
                self._judge(world, pending)
            pending += following
            pending += self.misfortunes(world)

    def _judge(self, world: World, pending: list[World]) -> None:
        if world.applied == world.appended:
            return
        swept = self.sweep(world) if world.disturbed else None
        if swept is None:
            self.stranded.append(world)
        else:
            pending.append(swept)

    def _steps(self, world: World, me: int) -> Iterator[World]:
        step: Callable[[World, int], Iterator[World]] = (
            self.front_end if world.actors[me][0] == "front end" else self.worker
        )
        return step(world, me)

    @staticmethod
    def _at(world: World, me: int, actor: tuple[str, int, tuple[int, ...]]) -> World:
        return replace(world, actors=(*world.actors[:me], actor, *world.actors[me + 1 :]))


def world(front_ends: int, appends: int, workers: int, **more: int) -> World:
    actors = (("front end", 0, (appends, 0)),) * front_ends + (("worker", 0, (0, 0, 0)),) * workers
    return replace(World(actors=actors), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("front_ends", "appends", "workers"),
    [
        (1, 3, 2),
        (2, 2, 2),
        (2, 1, 3),
        pytest.param(2, 3, 2, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_undisturbed_nothing_is_ever_stranded_even_without_a_sweep(
    front_ends: int, appends: int, workers: int, record_property: Callable[[str, object], None]
) -> None:
    protocol = Protocol()
    protocol.explore(world(front_ends, appends, workers))
    record_property("states", len(protocol.seen))
    assert protocol.stranded == []
    assert protocol.ends > 0


@pytest.mark.parametrize("misfortune", [{"crashes": 1}, {"wipes": 1}, {"crashes": 1, "wipes": 1}])
def test_after_a_crash_or_a_wipe_at_any_step_the_sweep_finds_what_is_left(misfortune: dict[str, int]) -> None:
    protocol = Protocol()
    protocol.explore(world(2, 1, 2, **misfortune))
    assert protocol.stranded == []
    assert protocol.ends > 0


@pytest.mark.parametrize(
    "naive",
    [
        Protocol(fresh_generations=False),
        Protocol(knocks=False),
        Protocol(fresh_generations=False, knocks=False),
    ],
)
def test_without_either_half_of_the_protocol_wake_ups_are_lost(naive: Protocol) -> None:
    """So that this model is known to be able to fail: arq's own unique job id, and a lease that nobody knocks at."""
    naive.explore(world(2, 2, 2))
    assert naive.stranded != []
