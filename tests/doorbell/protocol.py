"""The doorbell's protocol as a model that can be explored to its end: every interleaving of front ends, drains, sweeps and a merge.

An actor's every step is one atomic act: a command or script of Redis, an append, a look at the log, a commit, as they stand in
upwell/doorbell/lease.py, workers/drain.py, sweep.py and compaction.py. A search over all schedules, with the states seen before remembered,
takes each actor's next step from each state, and each misfortune that may still happen. When nobody has anything left to do, every append
must be applied: by itself if nothing went wrong, after one more sweep if something did.

Steps      front end   0 append  1 read generation (or make it)  2 enqueue
           worker      0 arq takes a job  1 replace the generation  2 acquire, or knock  3 look at the log  4 commit  5 release
                       6 drop (of a slice that is over)  7 read generation  8 enqueue  9 arq ends the job
           sweep       0 look  1 replace the generation  2 read it  3 enqueue
           merge       0 claim  1 commit, release  2 drop (it was knocked at)  3 read generation  4 enqueue

Misfortunes  crashes     a worker, a merge, or a front end with a ring in hand is gone; its lease runs out some time, its job stays in progress
             expiries    a living worker's lease runs out, or cannot be renewed
             wipes       Redis is empty
             failovers   Redis is as it was at some moment before
             twice       arq gives a job that runs to a second worker
             late        a command whose sender has given it up is executed, at any time after
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

NONE = 0  # no generation, no lease: tokens count from 1
IDLE = (0, 0, 0, 0)
#: What an actor is, its step, and its own memory.
Actor = tuple[str, int, tuple[int, ...]]
_NOBODY: frozenset[int] = frozenset()


class Redis(NamedTuple):
    """What Redis holds: all that a wipe takes and a failover turns back."""

    generation: int = NONE
    queued: frozenset[int] = _NOBODY
    running: frozenset[int] = _NOBODY
    lease: int = NONE
    knock: bool = False


class World(NamedTuple):
    """Redis, the log, and who is at which step. A value: each step makes another."""

    actors: tuple[Actor, ...]
    redis: Redis = Redis()
    appended: int = 0
    applied: int = 0
    tokens: int = 0
    #: What a replica that is behind holds.
    older: Redis | None = None
    #: Commands on their way whose senders have given them up: (what, with which token).
    late_commands: frozenset[tuple[str, int]] = frozenset()
    #: Handovers to a job of its own, and misfortunes, that may still happen.
    slices: int = 0
    crashes: int = 0
    expiries: int = 0
    wipes: int = 0
    failovers: int = 0
    twice: int = 0
    late: int = 0
    disturbed: bool = False


def world(
    front_ends: int, appends: int, workers: int, *, sweeps: int = 0, merges: int = 0, **more: int
) -> World:
    """So many front ends with so many appends each, workers, a sweep that looks so often, a merge that commits so often."""
    actors: list[Actor] = [("front end", 0, (appends, 0))] * front_ends + [("worker", 0, IDLE)] * workers
    if sweeps:
        actors.append(("sweep", 0, (sweeps, 0)))
    if merges:
        actors.append(("merge", 0, (merges, 0)))
    return World(tuple(actors))._replace(**more)  # type: ignore[arg-type]


@dataclass
class Protocol:
    """How drains and merges behave. With a part left out it is what arq invites one to write."""

    #: A drain replaces the generation before all else.
    fresh_generations: bool = True
    #: Who finds the lease taken knocks.
    knocks: bool = True
    #: Who releases the lease looks whether somebody knocked, in one step.
    looks_for_knocks: bool = True
    #: A merge that was knocked at rings for a drain.
    merges_ring: bool = True
    #: A drain whose slice is over drops its lease before it rings, and not after.
    drops_first: bool = True
    seen: set[World] = field(default_factory=set)
    #: States in which nobody has anything left to do.
    ends: int = 0
    stranded: list[World] = field(default_factory=list)
    #: Undisturbed worlds in which two thought the index theirs, or in which an id was queued while a job of that id ran.
    overlaps: int = 0
    doubled_ids: int = 0

    def explore(self, start: World, *, until_stranded: bool = False) -> None:
        """Visit every state that any schedule can reach, or only until one of them strands something."""
        pending = [start]
        while pending and not (until_stranded and self.stranded):
            now = pending.pop()
            if now in self.seen:
                continue
            self.seen.add(now)
            if not now.disturbed:
                self._look_at(now)
            following = [after for me in range(len(now.actors)) for after in self._steps(now, me)]
            if now.redis.lease not in _holders(now) | {NONE}:
                following.append(_with(now, lease=NONE))  # nobody renews it: its time runs out
            following += self._arrivals(now)
            if not following:
                self.ends += 1
                self._judge(now, pending)
            pending += following
            pending += self._misfortunes(now)

    def _look_at(self, now: World) -> None:
        self.overlaps += len(_holders(now)) > 1
        jobs = {memory[0] for kind, step, memory in now.actors if kind == "worker" and step > 0}
        self.doubled_ids += bool(now.redis.queued & jobs)

    def _judge(self, now: World, pending: list[World]) -> None:
        if now.applied == now.appended:
            return
        if now.disturbed and _unattended(now):
            # The sweep, which looks for ever.
            fresh = _with(now, generation=now.tokens + 1)._replace(tokens=now.tokens + 1)
            pending.append(_enqueue(fresh, fresh.redis.generation))
        else:
            self.stranded.append(now)

    def _steps(self, now: World, me: int) -> Iterator[World]:
        kinds: dict[str, Callable[[World, int], Iterator[World]]] = {
            "front end": self._front_end,
            "sweep": self._sweep,
            "worker": self._worker,
            "merge": self._merge,
        }
        return kinds[now.actors[me][0]](now, me)

    def _begin_generation(self, now: World) -> World:
        if not self.fresh_generations:
            return now
        return _with(now, generation=now.tokens + 1)._replace(tokens=now.tokens + 1)

    # memory: (appends left, generation read)

    def _front_end(self, now: World, me: int) -> Iterator[World]:
        kind, step, (left, generation) = now.actors[me]
        match step:
            case 0 if left:
                yield _at(now._replace(appended=now.appended + 1), me, (kind, 1, (left - 1, 0)))
            case 1:
                after = _read_generation(now)
                yield _at(after, me, (kind, 2, (left, after.redis.generation)))
            case 2:
                yield _at(_enqueue(now, generation), me, (kind, 0, (left, 0)))

    # memory: (looks left, generation read)

    def _sweep(self, now: World, me: int) -> Iterator[World]:
        kind, step, (left, generation) = now.actors[me]
        match step:
            case 0 if left:
                yield _at(now, me, (kind, int(_unattended(now)), (left - 1, 0)))
            case 1:
                yield _at(self._begin_generation(now), me, (kind, 2, (left, 0)))
            case 2:
                after = _read_generation(now)
                yield _at(after, me, (kind, 3, (left, after.redis.generation)))
            case 3:
                yield _at(_enqueue(now, generation), me, (kind, 0, (left, 0)))

    # memory: (commits left, lease token, or the generation read)

    def _merge(self, now: World, me: int) -> Iterator[World]:
        kind, step, (left, token) = now.actors[me]
        match step:
            case 0 if left and now.redis.lease == NONE:
                mine = now.tokens + 1
                yield _at(_with(now, lease=mine)._replace(tokens=mine), me, (kind, 1, (left - 1, mine)))
            case 1 if now.redis.lease == token and now.redis.knock and self.looks_for_knocks:
                yield _at(_with(now, knock=False), me, (kind, 2, (left, token)))
            case 1:
                yield _at(_dropped(now, token), me, (kind, 0, (left, 0)))
            case 2:
                yield _at(_dropped(now, token), me, (kind, 3 if self.merges_ring else 0, (left, 0)))
            case 3:
                after = _read_generation(now)
                yield _at(after, me, (kind, 4, (left, after.redis.generation)))
            case 4:
                yield _at(_enqueue(now, token), me, (kind, 0, (left, 0)))

    # memory: (job, lease token, how far it read the log or the generation read, what was applied then)

    def _worker(self, now: World, me: int) -> Iterator[World]:
        kind, step, memory = now.actors[me]
        job, token = memory[:2]
        if step == 0:
            yield from self._taken(now, me)
        elif step == 1:
            yield _at(self._begin_generation(now), me, (kind, 2, memory))
        elif step == 2 and now.redis.lease == NONE:
            yield _at(_with(now, lease=token), me, (kind, 3, memory))
        elif step == 2:
            yield _at(_with(now, knock=now.redis.knock or self.knocks), me, (kind, 9, memory))
        elif step == 9:
            # arq deletes what stands under the id, even if that was enqueued after a wipe.
            ended = _with(now, running=now.redis.running - {job}, queued=now.redis.queued - {job})
            yield _at(ended, me, (kind, 0, IDLE))
        else:
            yield from self._holding(now, me)
            if step in {3, 4} and now.redis.lease != token:
                yield _at(now, me, (kind, 9, memory))  # told by the task that renews it

    def _taken(self, now: World, me: int) -> Iterator[World]:
        token = now.tokens + 1
        for job in now.redis.queued:
            after = _with(now, queued=now.redis.queued - {job}, running=now.redis.running | {job})
            yield _at(after._replace(tokens=token), me, ("worker", 1, (job, token, 0, 0)))

    def _holding(self, now: World, me: int) -> Iterator[World]:
        kind, step, memory = now.actors[me]
        job, token, read, base = memory
        again = (kind, 3, (job, token, 0, 0))
        over = (6, 7, 8, 9) if self.drops_first else (7, 9, 8, 6)
        match step:
            case 3 if now.appended == now.applied:
                yield _at(now, me, (kind, 5, memory))
            case 3:
                yield _at(now, me, (kind, 4, (job, token, now.appended, now.applied)))
            case 4 if now.applied != base:
                yield _at(now, me, again)  # fenced: somebody else committed
            case 4:
                committed = now._replace(applied=read)
                yield _at(committed, me, again)
                if now.slices:
                    yield _at(
                        committed._replace(slices=now.slices - 1), me, (kind, over[0], (job, token, 0, 0))
                    )
            case 5 if now.redis.lease != token:
                yield _at(now, me, (kind, 9, memory))
            case 5 if now.redis.knock and self.looks_for_knocks:
                yield _at(_with(now, knock=False), me, again)
            case 5:
                yield _at(_with(now, lease=NONE), me, (kind, 9, memory))
            case 6:
                yield _at(_dropped(now, token), me, (kind, over[1], memory))
            case 7:
                after = _read_generation(now)
                yield _at(after, me, (kind, 8, (job, token, after.redis.generation, 0)))
            case 8:
                yield _at(_enqueue(now, read), me, (kind, over[3], (job, token, 0, 0)))

    def _arrivals(self, now: World) -> Iterator[World]:
        for what, token in now.late_commands:
            rest = now._replace(late_commands=now.late_commands - {(what, token)})
            yield _enqueue(rest, token) if what == "enqueue" else _with(rest, generation=token)

    def _misfortunes(self, now: World) -> Iterator[World]:
        for me, actor in enumerate(now.actors):
            yield from self._misfortunes_of(now, me, actor)
        if now.expiries and now.redis.lease in _holders(now):
            yield _with(now, lease=NONE)._replace(expiries=now.expiries - 1, disturbed=True)
        if now.wipes:
            yield now._replace(redis=Redis(), wipes=now.wipes - 1, disturbed=True)
        if now.failovers and now.older is None:
            yield now._replace(older=now.redis)
        elif now.failovers and now.older is not None:
            yield now._replace(redis=now.older, older=None, failovers=now.failovers - 1, disturbed=True)

    def _misfortunes_of(self, now: World, me: int, actor: Actor) -> Iterator[World]:
        kind, step, memory = actor
        crashed = now._replace(crashes=now.crashes - 1, disturbed=True)
        late = now._replace(late=now.late - 1, disturbed=True)
        if kind == "worker":
            if now.crashes and step > 0:
                # Its job stays in progress for longer than anybody here waits, as arq has it.
                yield _at(crashed, me, (kind, 0, IDLE))
            if now.twice and step == 0:
                for job in now.redis.running:
                    again = now._replace(tokens=now.tokens + 1, twice=now.twice - 1, disturbed=True)
                    yield _at(again, me, (kind, 1, (job, again.tokens, 0, 0)))
            if now.late and step == 1:
                commands = now.late_commands | {("generation", now.tokens + 1)}
                gone = late._replace(late_commands=commands, tokens=now.tokens + 1)
                yield _at(gone, me, (kind, 0, IDLE))
        elif kind == "merge" and now.crashes and step > 0:
            yield _at(crashed, me, (kind, 0, (memory[0], 0)))
        elif kind == "front end" and step > 0:
            if now.crashes:
                yield _at(crashed, me, (kind, 0, (memory[0], 0)))
            if now.late and step == 2:
                # It hears nothing of its command, and rings again.
                commands = now.late_commands | {("enqueue", memory[1])}
                yield _at(late._replace(late_commands=commands), me, (kind, 1, (memory[0], 0)))


def _at(now: World, me: int, actor: Actor) -> World:
    return now._replace(actors=(*now.actors[:me], actor, *now.actors[me + 1 :]))


def _with(now: World, **changes: object) -> World:
    return now._replace(redis=now.redis._replace(**changes))  # type: ignore[arg-type]


def _read_generation(now: World) -> World:
    if now.redis.generation != NONE:
        return now
    return _with(now, generation=now.tokens + 1)._replace(tokens=now.tokens + 1)


def _enqueue(now: World, generation: int) -> World:
    if generation in now.redis.queued or generation in now.redis.running:
        return now
    return _with(now, queued=now.redis.queued | {generation})


def _dropped(now: World, token: int) -> World:
    return _with(now, lease=NONE) if now.redis.lease == token else now


def _holders(now: World) -> set[int]:
    """Tokens of those who believe that the index is theirs, and renew their lease as long as they do."""
    held = {"worker": range(3, 7), "merge": range(1, 3)}
    return {memory[1] for kind, step, memory in now.actors if step in held.get(kind, ())}


def _unattended(now: World) -> bool:
    """Does a sweep find a backlog that nobody is at, and no job that waits its turn?"""
    waits = now.redis.generation in now.redis.queued and now.redis.generation not in now.redis.running
    return now.applied < now.appended and now.redis.lease == NONE and not waits
