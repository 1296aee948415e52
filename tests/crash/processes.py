"""Front ends and workers in slots: whoever dies is replaced at once, and what it died of is counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tests.service import ROOT

Kind = Literal["api", "worker"]
READY_S = 60.0
STOP_S = 20.0
POLL_S = 0.01


@dataclass
class Slot:
    """A place in which a process of one kind lives, one after another."""

    name: str
    kind: Kind
    folder: Path
    pid: int | None = None
    #: Where the front end in it answers; None until it does.
    url: str | None = None
    born_at: float = 0.0
    lives: int = 0

    @property
    def plan(self) -> Path:
        """The failpoints of whoever lives here."""
        return self.folder / f"{self.name}.plan"

    @property
    def output(self) -> Path:
        """What they all printed."""
        return self.folder / f"{self.name}.output"


@dataclass
class Processes:
    """All slots. Used from one event loop, inside ``async with``."""

    folder: Path
    environment: dict[str, str]
    #: Real starts, a second each, instead of forks.
    fresh: bool = False
    slots: list[Slot] = field(default_factory=list)
    #: Told the slot and the exit status of each death that was not asked for.
    on_death: Callable[[Slot, int], None] = lambda _slot, _status: None

    async def __aenter__(self) -> Self:
        self._numbers = itertools.count()
        self._born: dict[int, asyncio.Future[int]] = {}
        self._died: dict[int | None, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Replacements that never came to life.
        self.failures: list[str] = []
        self.ending = False
        # OpenBLAS, and Arrow's allocator, would start threads when they are imported, and then nothing could be forked soundly.
        alone = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
        self._server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.forkserver",
            cwd=ROOT, env=kept | alone, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        assert self._server.stdin is not None
        self._server.stdin.close()
        await self._server.wait()
        await self._listener

    async def stop(self) -> list[str]:
        """End all, politely; returns the names of those that had to be killed."""
        self.ending = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        stubborn = []
        living = [(slot, self._died[slot.pid]) for slot in self.slots if slot.pid in self._died]
        for slot, _ in living:
            self.signal(slot, signal.SIGCONT)
            self.signal(slot, signal.SIGTERM)
        for slot, died in living:
            try:
                await asyncio.wait_for(asyncio.shield(died), STOP_S)
            except TimeoutError:
                stubborn.append(slot.name)
                self.signal(slot, signal.SIGKILL)
                await died
        return stubborn

    async def add(self, name: str, kind: Kind) -> Slot:
        """A new slot, and a first process in it, which is ready."""
        slot = Slot(name, kind, self.folder)
        self.slots.append(slot)
        await self._fill(slot)
        return slot

    def of(self, kind: Kind) -> list[Slot]:
        """The slots of one kind."""
        return [slot for slot in self.slots if slot.kind == kind]

    def signal(self, slot: Slot, number: signal.Signals) -> bool:
        """Send a signal to who lives in a slot; returns whether somebody does, as far as we know."""
        if slot.pid is None:
            return False
        self._ask({"pid": slot.pid, "signal": number})
        return True

    def _ask(self, asked: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")

    async def _fill(self, slot: Slot) -> None:
        number = next(self._numbers)
        ready = self.folder / f"{slot.name}.ready-{number}"
        environment = self.environment | {
            "UPWELL_READY_FILE": str(ready),
            "UPWELL_FAILPOINTS": str(slot.plan),
        }
        asked = {
            "number": number, "kind": slot.kind, "environment": environment,
            "output": str(slot.output), "fresh": self.fresh,
        }  # fmt: skip
        born = self._born[number] = asyncio.get_running_loop().create_future()
        self._ask(asked)
        pid = await born
        died = self._died[pid] = asyncio.get_running_loop().create_future()
        died.add_done_callback(lambda done: self._lost(slot, done.result()))
        slot.pid, slot.born_at = pid, time.monotonic()
        slot.lives += 1
        if slot.kind == "api":
            await self._wait_for(slot, ready, died)

    async def _wait_for(self, slot: Slot, ready: Path, died: asyncio.Future[int]) -> None:
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            if died.done():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{slot.name} does not start: {slot.output.read_text()[-2000:]}")
            await asyncio.sleep(POLL_S)
        if not died.done():
            slot.url = ready.read_text().strip()
        ready.unlink()

    def _lost(self, slot: Slot, status: int) -> None:
        slot.pid, slot.url = None, None
        if self.ending:
            return
        self.on_death(slot, status)
        task = asyncio.create_task(self._fill(slot))
        self._tasks.add(task)
        task.add_done_callback(self._filled)

    def _filled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(str(error))

    async def _listen(self) -> None:
        assert self._server.stdout is not None
        async for line in self._server.stdout:
            said: dict[str, Any] = json.loads(line)
            if "born" in said:
                self._born.pop(said["number"]).set_result(said["born"])
            else:
                # Its birth was told first, but whoever waits for that may not have run yet.
                asyncio.get_running_loop().create_task(self._note_death(said["died"], said["status"]))
        for born in self._born.values():
            born.set_exception(RuntimeError("the server that forks has ended"))

    async def _note_death(self, pid: int, status: int) -> None:
        while pid not in self._died:  # noqa: ASYNC110  a turn of the loop at most
            await asyncio.sleep(0)
        self._died.pop(pid).set_result(status)
