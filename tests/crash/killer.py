"""Everything that goes wrong: kills at named steps and at any moment, pauses longer than periods of grace, and a Redis that forgets."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from dataclasses import dataclass, field

import redis

from tests.crash.processes import Slot
from tests.crash.world import World, now
from upwell.failpoint import Step, arm

FRONT_END = ("body.", "append.", "log.", "bell.", "request.", "ack.", "disk.", "catalog.")
WORKER = (
    "drain.",
    "batch.",
    "apply.",
    "embed.",
    "segment.",
    "part.",
    "deletions.",
    "manifest.",
    "request.",
    "disk.",
    "webhook.",
)
#: Of workers that are otherwise let live, so that they get old enough to collect, and to merge, and to tell.
KEEPER = ("garbage.", "compact.", "webhook.")
#: Taken so often that a lower chance leaves time for something to happen in between.
FREQUENT = (
    "body.",
    "append.",
    "log.entry",
    "bell.",
    "ack.",
    "disk.",
    "drain.",
    "batch.",
    "apply.",
    "segment.",
    "manifest.",
    "catalog.record",
    "catalog.begun",
    "catalog.named",
    "catalog.unnamed",
    "request.",
)


#: Of every so many seconds the last few are left in peace: a reader sees most of what is wrong where most goes on.
ROUND_S, LULL_S = 9.0, 3.0


@dataclass
class Killer:
    """Breaks the world until ``halt`` is set."""

    world: World
    #: Kills a second that it aims at.
    pace: float = 3.0
    pauses: bool = True
    #: Longest life of the Valkey, on average.
    redis_s: float = 10.0
    halt: bool = False
    by_step: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    from_outside: int = 0
    pauses_made: int = 0
    wipes: int = 0
    redis_kills: int = 0
    _taken: dict[str, int] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        """Processes that died by SIGKILL."""
        return sum(self.by_kind.values())

    def died(self, slot: Slot, status: int) -> None:
        """Count a death; one that was not ours is written down."""
        if status == -signal.SIGKILL:
            self.by_kind[slot.name.partition("-")[0]] += 1
        else:
            self.world.history.printed.append(f"{slot.name} ended by itself, with {status}")
        self.count()

    def count(self) -> None:
        """Count the steps at which processes were killed."""
        for slot in self.world.processes.slots:
            record = slot.plan.with_name(f"{slot.plan.name}.taken")
            if not record.exists():
                continue
            lines = record.read_text().splitlines()
            for line in lines[self._taken.get(slot.name, 0) :]:
                step, action, _pid = line.split()
                self.by_step[step] += action == "kill"
            self._taken[slot.name] = len(lines)

    async def arm(self) -> None:
        """Arm other steps now and then, those first that were taken least."""
        dice = self.world.dice
        while not self.halt:
            if self._lull:
                for slot in self._mortal():
                    arm(slot.plan)
                await asyncio.sleep(LULL_S / 4)
                continue
            for slot in self._mortal():
                prefixes = {"api": FRONT_END, "worker": WORKER, "keeper": KEEPER}[slot.name.partition("-")[0]]
                steps = [step for step in Step if step.startswith(prefixes)]
                weights = [1 / (1 + self.by_step[step]) ** 2 for step in steps]
                chosen = set(dice.choices(steps, weights, k=4))
                arm(slot.plan, *(f"{step} kill {self._chance(step)}" for step in chosen))
            await asyncio.sleep(dice.uniform(0.5, 1.5))
        self.disarm()

    @property
    def _lull(self) -> bool:
        return now() % ROUND_S > ROUND_S - LULL_S

    def _mortal(self) -> list[Slot]:
        return [slot for slot in self.world.processes.slots if not slot.name.startswith("calm")]

    def _chance(self, step: Step) -> float:
        chances = [0.01, 0.05, 0.2] if step.startswith(FREQUENT) else [0.2, 0.5, 1.0]
        return self.world.dice.choice(chances)

    def disarm(self) -> None:
        """Let everybody live, and every disk be whole."""
        for slot in self.world.processes.slots:
            arm(slot.plan)

    async def kill(self) -> None:
        """Kill from outside, at random moments: as often as the pace leaves to do, half at least."""
        dice, began = self.world.dice, now()
        while not self.halt:
            if self._lull:
                await asyncio.sleep(LULL_S / 4)
                continue
            behind = self.pace * (now() - began) > self.kills
            await asyncio.sleep(dice.expovariate(self.pace if behind else self.pace / 2))
            names = [
                one for one in self._mortal() if not one.name.startswith("keeper") or dice.random() < 0.05
            ]
            if names and self.world.processes.signal(dice.choice(names), signal.SIGKILL):
                self.from_outside += 1

    async def pause(self) -> None:
        """Stop processes for a while: most for a moment, some for longer than anything is trusted; some never wake."""
        dice = self.world.dice
        while self.pauses and not self.halt:
            await asyncio.sleep(dice.uniform(1, 5))
            slot = dice.choice(self.world.processes.slots)
            pid = slot.pid
            if pid is None or not self.world.processes.signal(slot, signal.SIGSTOP):
                continue
            self.pauses_made += 1
            await asyncio.sleep(dice.choice([0.1, 0.5, 2, 4, 7]))
            if slot.pid == pid:
                ends = slot in self._mortal() and dice.random() < 0.2
                self.world.processes.signal(slot, signal.SIGKILL if ends else signal.SIGCONT)

    async def forget(self) -> None:
        """Wipe the Valkey, or kill it and start it again."""
        dice = self.world.dice
        while not self.halt:
            await asyncio.sleep(dice.uniform(0, 2 * self.redis_s))
            if dice.random() < 0.5:
                with redis.Redis.from_url(self.world.valkey.url) as client:
                    client.flushall()
                self.wipes += 1
            else:
                self.world.break_redis()
                self.redis_kills += 1
