"""The doorbell's protocol with all that goes on beside it: every interleaving, as test_protocol_model.py does for its core.

Here drains also hand over to a job of their own, sweeps run beside all the others and leave alone what waits its turn, leases of the
dead run out at a step of their own and those of the living are lost, losers of a commit are fenced, and arq, when a job ends, deletes
whatever stands under its id. At the end every append must be applied: without a sweep if nothing went wrong, after one more sweep if
something did. And while nothing goes wrong, two workers never think that an index is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

NONE = 0  # no generation, no lease: tokens count from 1
IDLE = (0, 0, 0, 0)


@dataclass(frozen=True)
class World:
    """Redis, the log, and who is at which step. A value: each step makes another."""

    appended: int = 0
    applied: int = 0
    generation: int = NONE
    tokens: int = 0
    queued: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    lease: int = NONE
    knock: bool = False
    #: Tokens of leases whose workers were killed: they run out by themselves.
    dead: frozenset[int] = frozenset()
    #: Each actor: (kind, step, its own memory).
    actors: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    #: Handovers to a job of its own, crashes, leases lost by a living worker, and wipes that may still happen.
    slices: int = 0
    crashes: int = 0
    expiries: int = 0
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
    #: Undisturbed worlds in which two workers thought the index theirs.
    overlaps: int = 0

    # Ringing is two steps, wherever it happens: read the generation (or make one), enqueue unless arq has that id.

    def read_generation(self, world: World) -> World:
        if world.generation != NONE:
            return world
        return replace(world, generation=world.tokens + 1, tokens=world.tokens + 1)

    def enqueue(self, world: World, generation: int) -> World:
        taken = generation in world.queued or generation in world.running
        return world if taken else replace(world, queued=world.queued | {generation})

    def begin_generation(self, world: World) -> World:
        if not self.fresh_generations:
            return world
        return replace(world, generation=world.tokens + 1, tokens=world.tokens + 1)

    # One front end: append, ring; ``memory`` is (appends left, generation read).

    def front_end(self, world: World, me: int) -> Iterator[World]:
        kind, step, (left, generation) = world.actors[me]
        match step:
            case 0 if left:
                yield self._at(replace(world, appended=world.appended + 1), me, (kind, 1, (left - 1, 0)))
            case 1:
                after = self.read_generation(world)
                yield self._at(after, me, (kind, 2, (left, after.generation)))
            case 2:
                yield self._at(self.enqueue(world, generation), me, (kind, 0, (left, 0)))

    # A sweep beside all the others; ``memory`` is (looks left, generation read).

    def sweep(self, world: World, me: int) -> Iterator[World]:
        kind, step, (left, generation) = world.actors[me]
        match step:
            case 0 if left:
                yield self._at(world, me, (kind, int(self._unattended(world)), (left - 1, 0)))
            case 1:
                yield self._at(self.begin_generation(world), me, (kind, 2, (left, 0)))
            case 2:
                after = self.read_generation(world)
                yield self._at(after, me, (kind, 3, (left, after.generation)))
            case 3:
                yield self._at(self.enqueue(world, generation), me, (kind, 0, (left, 0)))

    @staticmethod
    def _unattended(world: World) -> bool:
        waits = world.generation in world.queued
        return world.applied < world.appended and world.lease == NONE and not waits

    # One drain slot of a worker; ``memory`` is (job, lease token, how far it read the log, what was applied then).

    def worker(self, world: World, me: int) -> Iterator[World]:
        kind, step, memory = world.actors[me]
        job, token = memory[:2]
        if step == 0:
            for taken in world.queued:
                after = replace(
                    world,
                    queued=world.queued - {taken},
                    running=world.running | {taken},
                    tokens=world.tokens + 1,
                )
                yield self._at(after, me, (kind, 1, (taken, world.tokens + 1, 0, 0)))
        elif step == 1:
            yield self._at(self.begin_generation(world), me, (kind, 2, memory))
        elif step == 2 and world.lease == NONE:
            yield self._at(replace(world, lease=token), me, (kind, 3, memory))
        elif step == 2:
            yield self._at(replace(world, knock=world.knock or self.knocks), me, (kind, 9, memory))
        elif step == 9:
            # arq deletes what stands under the id, even if that was enqueued after a wipe.
            ended = replace(world, running=world.running - {job}, queued=world.queued - {job})
            yield self._at(ended, me, (kind, 0, IDLE))
        else:
            yield from self._holding(world, me)
            if step in {3, 4} and world.lease != token:
                yield self._at(world, me, (kind, 9, memory))  # told by the task that renews it

    def _holding(self, world: World, me: int) -> Iterator[World]:
        kind, step, memory = world.actors[me]
        job, token, read, base = memory
        again = (kind, 3, (job, token, 0, 0))
        match step:
            case 3 if world.appended == world.applied:
                yield self._at(world, me, (kind, 5, memory))
            case 3:
                yield self._at(world, me, (kind, 4, (job, token, world.appended, world.applied)))
            case 4 if world.applied != base:
                yield self._at(world, me, again)  # fenced: somebody else committed
            case 4:
                committed = replace(world, applied=read)
                yield self._at(committed, me, again)
                if world.slices:
                    yield self._at(
                        replace(committed, slices=world.slices - 1), me, (kind, 6, (job, token, 0, 0))
                    )
            case 5 if world.lease != token:
                yield self._at(world, me, (kind, 9, memory))
            case 5 if world.knock:
                yield self._at(replace(world, knock=False), me, again)
            case 5:
                yield self._at(replace(world, lease=NONE), me, (kind, 9, memory))
            case 6:
                dropped = replace(world, lease=NONE) if world.lease == token else world
                yield self._at(dropped, me, (kind, 7, memory))
            case 7:
                after = self.read_generation(world)
                yield self._at(after, me, (kind, 8, (job, token, after.generation, 0)))
            case 8:
                yield self._at(self.enqueue(world, read), me, (kind, 9, (job, token, 0, 0)))

    def misfortunes(self, world: World) -> Iterator[World]:
        """A worker killed with what it held, a living one's lease run out, or Redis wiped."""
        for me, (kind, step, memory) in enumerate(world.actors):
            if world.crashes and kind == "worker" and step > 0:
                # Its job stays in progress for longer than anybody here waits, as arq has it.
                after = replace(
                    world, crashes=world.crashes - 1, dead=world.dead | {memory[1]}, disturbed=True
                )
                yield self._at(after, me, (kind, 0, IDLE))
        if world.expiries and world.lease not in world.dead | {NONE}:
            yield replace(world, expiries=world.expiries - 1, lease=NONE, disturbed=True)
        if world.wipes:
            nothing: frozenset[int] = frozenset()
            yield replace(
                world,
                wipes=world.wipes - 1,
                generation=NONE,
                queued=nothing,
                running=nothing,
                lease=NONE,
                knock=False,
                disturbed=True,
            )

    def explore(self, start: World) -> None:
        """Visit every state that any schedule can reach."""
        pending = [start]
        while pending:
            world = pending.pop()
            if world in self.seen:
                continue
            self.seen.add(world)
            holders = sum(kind == "worker" and 3 <= step <= 6 for kind, step, _ in world.actors)
            self.overlaps += holders > 1 and not world.disturbed
            following = [after for me in range(len(world.actors)) for after in self._steps(world, me)]
            if world.lease in world.dead:
                following.append(replace(world, lease=NONE))
            if not following:
                self.ends += 1
                self._judge(world, pending)
            pending += following
            pending += self.misfortunes(world)

    def _judge(self, world: World, pending: list[World]) -> None:
        if world.applied == world.appended:
            return
        if world.disturbed and self._unattended(world):
            fresh = self.begin_generation(world)
            pending.append(self.enqueue(fresh, fresh.generation))
        else:
            self.stranded.append(world)

    def _steps(self, world: World, me: int) -> Iterator[World]:
        actors: dict[str, Callable[[World, int], Iterator[World]]] = {
            "front end": self.front_end,
            "sweep": self.sweep,
            "worker": self.worker,
        }
        return actors[world.actors[me][0]](world, me)

    @staticmethod
    def _at(world: World, me: int, actor: tuple[str, int, tuple[int, ...]]) -> World:
        return replace(world, actors=(*world.actors[:me], actor, *world.actors[me + 1 :]))


def world(front_ends: int, appends: int, workers: int, sweeps: int = 0, **more: int) -> World:
    actors = (
        *(("front end", 0, (appends, 0)),) * front_ends,
        *(("worker", 0, IDLE),) * workers,
        *(("sweep", 0, (sweeps, 0)),) * bool(sweeps),
    )
    return replace(World(actors=actors), **more)  # type: ignore[arg-type]


def prove(start: World, record_property: Callable[[str, object], None]) -> None:
    protocol = Protocol()
    protocol.explore(start)
    record_property("states", len(protocol.seen))
    assert protocol.stranded == []
    assert protocol.overlaps == 0
    assert protocol.ends > 0


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(world(2, 2, 3), id="two front ends, three workers"),
        pytest.param(world(2, 1, 2, slices=1), id="handover"),
        pytest.param(world(1, 2, 2, slices=2), id="handovers"),
        pytest.param(world(1, 2, 2, sweeps=1), id="a sweep beside it"),
        pytest.param(world(1, 2, 2, slices=1, sweeps=1), id="handover, and a sweep beside it"),
        pytest.param(
            world(2, 2, 2, slices=1),
            id="two front ends, handover",
            marks=[pytest.mark.slow, pytest.mark.timeout(900)],
        ),
    ],
)
def test_undisturbed_nothing_is_ever_stranded_even_without_a_sweep(
    start: World, record_property: Callable[[str, object], None]
) -> None:
    prove(start, record_property)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(world(2, 1, 2, crashes=1), id="crash"),
        pytest.param(world(2, 2, 2, crashes=1), id="crash, two appends each"),
        pytest.param(world(2, 1, 2, wipes=1), id="wipe"),
        pytest.param(world(2, 1, 2, expiries=1), id="lease lost"),
        pytest.param(world(2, 1, 2, crashes=1, wipes=1), id="crash and wipe"),
        pytest.param(world(1, 2, 2, crashes=1, expiries=1, slices=1), id="crash, lease lost, handover"),
        pytest.param(world(1, 1, 2, sweeps=1, crashes=2, wipes=1), id="all beside a sweep"),
        pytest.param(
            world(2, 1, 2, sweeps=1, crashes=1, wipes=1, expiries=1),
            id="all",  # three million states
            marks=[pytest.mark.slow, pytest.mark.timeout(900)],
        ),
    ],
)
def test_after_misfortunes_at_any_step_the_sweep_finds_what_is_left(
    start: World, record_property: Callable[[str, object], None]
) -> None:
    prove(start, record_property)


@pytest.mark.parametrize(
    "naive",
    [
        pytest.param(Protocol(fresh_generations=False), id="arq's own unique job id"),
        pytest.param(Protocol(knocks=False), id="a lease that nobody knocks at"),
        pytest.param(Protocol(fresh_generations=False, knocks=False), id="both"),
    ],
)
def test_without_either_half_of_the_protocol_wake_ups_are_lost(naive: Protocol) -> None:
    """So that this model is known to be able to fail."""
    naive.explore(world(2, 2, 2))
    assert naive.stranded != []
