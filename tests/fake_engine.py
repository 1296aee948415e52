"""An engine that is small enough to see through: a log and a chain of commits as tiny files in a folder.

Many processes may use one folder, as with the real one. A commit is create-if-absent and says which positions it applied;
``history`` checks that together they applied each position once and in order. ``python -m tests.fake_engine FOLDER REDIS`` is a
worker process on it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from upwell.clock import SystemClock
from upwell.errors import Fenced, Unavailable
from upwell.garbage import Collected
from upwell.log.receipt import Receipt
from upwell.settings import Settings
from upwell.shard.apply import Applied
from upwell.shard.batch import Broken
from upwell.shard.compact import Compacted
from upwell.shard.embedding import TextClaims
from upwell.shard.part import PartTask, Sharing
from upwell.webhook import Delivery
from workers.worker import WorkerProcess, stop_on_signals

BATCH = 8
STUCK_S = 90.0


class FakeEngine:
    """Indexes in ``folder``: ``{index}/log/{position}``, empty, and ``{index}/commit/{version}``: its first and last position."""

    def __init__(self, folder: Path, apply_s: float = 0.0) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._busy: dict[str, int] = {}
        #: How long applying a batch takes.
        self.apply_s = apply_s
        #: What a batch that begins from now on waits for, before it commits: set it to have a drain caught in the middle.
        self.gate: threading.Event | None = None
        #: Asks on behalf of the newest batch whether it still may commit.
        self.still_ours: Callable[[], bool] = lambda: True
        #: The store is away.
        self.away = False
        #: Calls of apply_batch, and the most of them that ran at once for one index.
        self.calls = 0
        self.at_once = 0
        self.fenced = 0
        self.batch = BATCH

    def append(self, index_id: str) -> int:
        """One entry more; returns its position."""
        log = self._folder / index_id / "log"
        log.mkdir(parents=True, exist_ok=True)
        with self._lock:
            position = len(list(log.iterdir())) + 1
            (log / str(position)).touch(exist_ok=False)
        return position

    def through(self, index_id: str) -> int:
        """How far the index is applied."""
        return max((through for _, _, through in self._commits(index_id)), default=0)

    def history(self, index_id: str) -> list[tuple[int, int, int]]:
        """All commits; fails unless they apply every position up to the last exactly once, in order."""
        commits = sorted(self._commits(index_id))
        expected = 1
        for number, (version, first, through) in enumerate(commits, 1):
            assert (version, first) == (number, expected) and through >= first, commits
            expected = through + 1
        return commits

    # What a worker asks for.

    def has_backlog(self, index_id: str) -> bool:
        return (self._folder / index_id / "log" / str(self.through(index_id) + 1)).exists()

    def backlogged(self) -> Iterator[str]:
        return iter([index_id for index_id in self.live_indexes() if self.has_backlog(index_id)])

    def live_indexes(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir())

    def compactions_due(self) -> Iterator[tuple[str, int]]:
        return iter(())

    def compact(
        self,
        index_id: str,
        shard: int,
        alive: Callable[[], None],
        turn: Callable[[], AbstractContextManager[object]],
    ) -> Compacted | None:
        return None

    def collect_garbage(self, index_id: str) -> Collected:
        return Collected()

    def collect_dead_indexes(self) -> int:
        return 0

    def next_entry(self, index_id: str) -> list[Receipt]:
        return [Receipt(self.through(index_id) + 1, 0)] if self.has_backlog(index_id) else []

    def help_apply(self, index_id: str, task: PartTask, sharing: Sharing) -> int:
        return 0

    def webhook_indexes(self) -> list[str]:
        return []

    def embed_ahead(self, index_id: str, claims: TextClaims) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to let go of."""

    def webhooks_due(self, index_id: str) -> list[str]:
        return []

    def webhook_delivery(self, index_id: str, webhook_id: str) -> Delivery | None:
        return None

    def apply_batch(
        self,
        index_id: str,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None],
        sharing: Sharing | None = None,
        broken: Broken | None = None,
        *,
        claims: TextClaims | None = None,
    ) -> Applied | None:
        with self._lock:
            # Read before anybody can see that we are called, and change it.
            apply_s, gate, self.still_ours = self.apply_s, self.gate, still_ours
            self.calls += 1
            self._busy[index_id] = self._busy.get(index_id, 0) + 1
            self.at_once = max(self.at_once, self._busy[index_id])
        try:
            return self._apply(index_id, still_ours, applying, partial(self._take_time, apply_s, gate))
        except Fenced:
            self.fenced += 1
            raise
        finally:
            with self._lock:
                self._busy[index_id] -= 1

    def _apply(
        self,
        index_id: str,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None],
        take_time: Callable[[], None],
    ) -> Applied | None:
        if self.away:
            raise Unavailable("the store is away")
        commits = sorted(self._commits(index_id))
        version, _, applied = commits[-1] if commits else (0, 0, 0)
        log = self._folder / index_id / "log"
        through = applied
        while through - applied < self.batch and (log / str(through + 1)).exists():
            through += 1
        if through == applied:
            return None
        applying(through)
        take_time()
        if not still_ours():
            raise Fenced("the lease was lost")
        folder = self._folder / index_id / "commit"
        folder.mkdir(exist_ok=True)
        private = self._folder / index_id / f"{os.getpid()}-{threading.get_ident()}"
        private.write_text(f"{applied + 1} {through}")
        try:
            (folder / str(version + 1)).hardlink_to(private)
        except FileExistsError as error:
            raise Fenced("somebody else committed") from error
        finally:
            private.unlink()  # the next is to be another file: a link shares its bytes
        return Applied(
            version=version + 1,
            first_position=applied + 1,
            through_position=through,
            mutations=through - applied,
            vectors=through - applied,
        )

    def _take_time(self, apply_s: float, gate: threading.Event | None) -> None:
        if gate is not None:
            assert gate.wait(STUCK_S), "nobody opened the gate"
        time.sleep(apply_s)

    def _commits(self, index_id: str) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._folder / index_id).glob("commit/*"):
            first, through = map(int, path.read_text().split())
            found.append((int(path.name), first, through))
        return found


async def _work(folder: Path, redis_url: str, apply_s: float) -> None:
    settings = Settings()
    engine = FakeEngine(folder, apply_s)
    process = WorkerProcess(engine, settings, SystemClock(), redis_url)
    stop_on_signals(process)
    sys.stdout.write("working\n")
    sys.stdout.flush()
    await process.run()


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
