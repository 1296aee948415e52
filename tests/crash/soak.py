"""``python -m tests.crash.soak [--minutes M]``: does anything grow that should not, while everything goes on and things go wrong?

Two front ends and two workers are never killed; all that is done to them is held up, given a broken disk now and then, and robbed of
Redis. Beside them live others that are killed. Of the first four memory, open files, sockets, threads and maps are
looked at every two seconds, of the Valkey its connections, of the store its files. In the end the median of the last third of the time may
exceed that of the middle third by no more than a tolerance (and by what is written more, where it is in proportion to that); the first
third is for what is cached once. And all promises are checked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import redis

from tests.crash.killer import Killer
from tests.crash.processes import Slot
from tests.crash.report import table
from tests.crash.run import Plan, run
from tests.crash.world import World
from upwell.custody.objects import KINDS
from upwell.failpoint import arm

EVERY_S = 2.0
MIB = 1 << 20
#: What each measure may grow by from the middle third to the last: a share, and so much on top.
TOLERANCES: dict[str, tuple[float, float]] = {
    "memory of its own": (0.10, 8 * MIB),
    "open files": (0.10, 8),
    "sockets": (0.10, 8),
    "threads": (0.0, 2),
    "maps": (0.10, 40),
    "connections": (0.10, 8),
    "files": (0.15, 60),
    "bytes": (0.20, 4 * MIB),
}
WRITES = "mutations in 10 s"
#: What lies in the store for a grace period, and what is mapped of it, is in proportion to what was written a moment ago.
AS_MUCH_AS_IS_WRITTEN = frozenset({"files", "bytes", "open files", "maps"})
#: What a disk may do to those that live on, one at a time and only for a while.
DISK_FAULTS = (
    "disk.sync error:EIO 0.3",
    "disk.write error:ENOSPC 0.3",
    "disk.linked error:EIO 0.3",
    "disk.name.synced error:EIO 0.3",
    "disk.read error:EIO 0.1",
    "disk.delete error:EACCES 0.3",
)
FAULT_S = 2.0


@dataclass
class Samples:
    """What was measured, by what and of whom."""

    series: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    #: Who was measured, to tell a process that was replaced after all.
    pids: dict[str, int | None] = field(default_factory=dict)

    def add(self, measure: str, whom: str, value: float) -> None:
        """One look."""
        self.series[measure, whom].append(value)

    def rows(self) -> Iterator[tuple[str, str, float, float, bool]]:
        """Measure, whom, medians of the middle and last third, and whether they are alike."""
        for (measure, whom), values in sorted(self.series.items()):
            third = len(values) // 3
            if third == 0:
                continue
            before, after = median(values[third : 2 * third]), median(values[-third:])
            if measure == WRITES:
                yield measure, whom, before, after, True
                continue
            share, more = TOLERANCES[measure]
            busier = self._busier(third) if measure in AS_MUCH_AS_IS_WRITTEN else 1.0
            yield measure, whom, before, after, after <= before * busier * (1 + share) + more

    def _busier(self, third: int) -> float:
        """How much more was written in the last third than in the middle one; 1 if it was not more."""
        rates = self.series[WRITES, "all"]
        return max(1.0, median(rates[-third:]) / max(1.0, median(rates[third : 2 * third])))


class Observer:
    """Breaks the disk of those who live on, and measures them."""

    def __init__(self) -> None:
        self.samples = Samples()
        self.disk_faults = 0
        self.taken: Counter[str] = Counter()

    async def watch(self, world: World, killer: Killer) -> None:
        """Look every now and then, until the killer stops."""
        calm = [slot for slot in world.processes.slots if slot.name.startswith("calm")]
        self.samples.pids = {slot.name: slot.pid for slot in calm}
        logged = deque([0], maxlen=1 + round(10 / EVERY_S))
        while not killer.halt:
            await asyncio.sleep(EVERY_S)
            logged.append(len(world.witness.logged))
            self.samples.add(WRITES, "all", logged[-1] - logged[0])
            for slot in calm:
                self._measure(slot)
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(world.valkey.url) as client:
                self.samples.add("connections", "valkey", client.info("clients")["connected_clients"])
            files, size = await asyncio.to_thread(_store, world.store.root)
            for kind, count in files.items():
                self.samples.add("files", kind, count)
            self.samples.add("files", "store", files.total())
            self.samples.add("bytes", "store", size)
        for slot in calm:
            if slot.pid != self.samples.pids[slot.name]:
                world.history.printed.append(f"{slot.name} was to live, and died")
            record = slot.plan.with_name(f"{slot.plan.name}.taken")
            if record.exists():
                self.taken.update(line.rpartition(" ")[0] for line in record.read_text().splitlines())

    async def break_disks(self, world: World, killer: Killer) -> None:
        """Now and then the disk fails one of those who live on, for a moment."""
        calm = [slot for slot in world.processes.slots if slot.name.startswith("calm")]
        while not killer.halt:
            await asyncio.sleep(world.dice.uniform(3, 12))
            slot = world.dice.choice(calm)
            arm(slot.plan, world.dice.choice(DISK_FAULTS))
            self.disk_faults += 1
            await asyncio.sleep(FAULT_S)
            arm(slot.plan)

    def _measure(self, slot: Slot) -> None:
        of, add = Path(f"/proc/{slot.pid}"), self.samples.add
        status = dict(line.split(":", 1) for line in (of / "status").read_text().splitlines())
        add("memory of its own", slot.name, int(status["RssAnon"].split()[0]) * 1024)
        add("threads", slot.name, int(status["Threads"]))
        targets = []
        for one in os.listdir(of / "fd"):
            with contextlib.suppress(FileNotFoundError):
                targets.append(os.readlink(of / "fd" / one))
        add("open files", slot.name, sum(not target.startswith("socket:") for target in targets))
        add("sockets", slot.name, sum(target.startswith("socket:") for target in targets))
        add("maps", slot.name, len((of / "maps").read_text().splitlines()))

    def table(self) -> str:
        """All series, and which of them grow."""
        lines = [f"{'':20} {'of':16} {'middle third':>14} {'last third':>14}", ""]
        for measure, whom, before, after, alike in self.samples.rows():
            lines.append(
                f"{measure:20} {whom:16} {_shown(measure, before):>14} {_shown(measure, after):>14}"
                f"{'' if alike else '   GROWS'}"
            )
        taken = ", ".join(f"{count} {what}" for what, count in sorted(self.taken.items()))
        return "\n".join([*lines, "", f"disks broken {self.disk_faults} times: {taken or 'nobody noticed'}"])

    @property
    def flat(self) -> bool:
        """Does nothing grow?"""
        rows = list(self.samples.rows())
        return bool(rows) and all(alike for *_, alike in rows)


def _store(root: Path) -> tuple[Counter[str], int]:
    """Files of what indexes hold, by their kind, and bytes in all. The catalog keeps every event of a name: it grows with what is made
    and deleted."""
    files, size = Counter(dict.fromkeys(KINDS, 0)), 0
    for folder, _, names in os.walk(root / "index"):
        kind = Path(folder).relative_to(root).parts[2:3]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(folder, name)).st_size
                files[kind[0] if kind else name] += 1
    return files, size


def _shown(measure: str, value: float) -> str:
    return f"{value / MIB:.1f} MiB" if measure in {"memory of its own", "bytes"} else f"{value:.0f}"


def main() -> int:
    """Soak once; returns 1 if anything grows, or a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is left to chance; none: any")
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}, tolerances {TOLERANCES}", flush=True)
    observer = Observer()
    plan = Plan(
        seed=seed, kills=10**9, seconds=60 * asked.minutes, writers=5, readers=5, pace=0.3, apis=1, workers=1,
        keepers=0, calm=2, fresh=True, companions=(observer.watch, observer.break_disks),
        settings={"parse_processes": "1"},
    )  # fmt: skip
    report = asyncio.run(run(plan, lambda line: print(line, flush=True)))
    print(table(report))
    print()
    print(observer.table())
    return 0 if observer.flat and not report.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
