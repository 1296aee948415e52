"""Named steps on the way of a mutation, at which a test has this process killed, held up, or made to fail.

Nothing happens anywhere unless the variable UPWELL_FAILPOINTS names a file when the process starts; then ``reached`` looks into it at
each step, so that a test can change its mind while processes run. A line of the file arms one step:

    STEP[=ABOUT] ACTION [CHANCE]        manifest.commit.before kill 0.05
                                        disk.sync error:ENOSPC
                                        apply.rows pause:2.5 0.1
                                        apply.mutation=v7 bug

    kill             SIGKILL to ourselves, as a machine's owner or its memory's keeper would
    pause:SECONDS    hold up the thread
    error:ERRNO      raise that OSError, as the system would
    bug              raise BugError, which nobody foresaw

ABOUT is what the step must be about, for those that say so (``apply.mutation``: its first id). CHANCE is a probability, 1 if left out.
Each time a step is armed and its action taken a line ``STEP ACTION PID`` is appended to the file's namesake with ``.taken`` behind it. Unarmed, a step costs one comparison. ``arm`` replaces the file whole, so that nobody reads half of it.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

VARIABLE = "UPWELL_FAILPOINTS"


class Step(StrEnum):
    """Every step that can be armed, in the order in which a mutation takes them, and those of whoever cleans up behind it."""

    # A front end, up to the answer. Some of these are on its event loop, where only ``kill`` is cheap.
    BODY_RECEIVED = "body.received"
    BODY_PARSED = "body.parsed"
    APPEND_BEFORE = "append.before"
    LOG_PAYLOAD_WRITTEN = "log.payload.written"
    LOG_ENTRY_BEFORE = "log.entry.before"
    LOG_ENTRY_CREATED = "log.entry.created"
    BELL_RUNG = "bell.rung"
    REQUEST_BEFORE = "request.before"
    REQUEST_SETTLED = "request.settled"
    ACK_BEFORE = "ack.before"
    # Any object on its way to a name of its own, and off again.
    DISK_WRITE = "disk.write"
    DISK_SYNC = "disk.sync"
    DISK_SYNCED = "disk.synced"
    DISK_LINKED = "disk.linked"
    DISK_NAME_SYNCED = "disk.name.synced"
    DISK_DELETE = "disk.delete"
    DISK_READ = "disk.read"
    # A drain, up to the word that it is done.
    DRAIN_LEASED = "drain.leased"
    APPLY_MUTATION = "apply.mutation"
    BATCH_READ = "batch.read"
    APPLY_ROWS = "apply.rows"
    EMBED_BEFORE = "embed.before"
    EMBED_AFTER = "embed.after"
    SEGMENT_WRITTEN = "segment.written"
    PART_CLAIMED = "part.claimed"
    PART_PUBLISHED = "part.published"
    DELETIONS_WRITTEN = "deletions.written"
    MANIFEST_COMMIT_BEFORE = "manifest.commit.before"
    MANIFEST_COMMIT_AFTER = "manifest.commit.after"
    DRAIN_COMMITTED = "drain.committed"
    DRAIN_TOLD = "drain.told"
    DRAIN_RELEASE = "drain.release"
    WEBHOOK_SENT = "webhook.sent"
    WEBHOOK_STEP_BEFORE = "webhook.step.before"
    WEBHOOK_STEP_WRITTEN = "webhook.step.written"
    # A compaction.
    COMPACT_LEASED = "compact.leased"
    COMPACT_BUILT = "compact.built"
    COMPACT_WRITTEN = "compact.written"
    COMPACT_COMMIT_BEFORE = "compact.commit.before"
    COMPACT_COMMIT_AFTER = "compact.commit.after"
    # A collector: about to delete one object of a kind, and having done so.
    GARBAGE_LOG_BEFORE = "garbage.log.before"
    GARBAGE_LOG_AFTER = "garbage.log.after"
    GARBAGE_PAYLOAD_BEFORE = "garbage.payload.before"
    GARBAGE_PAYLOAD_AFTER = "garbage.payload.after"
    GARBAGE_MANIFEST_BEFORE = "garbage.manifest.before"
    GARBAGE_MANIFEST_AFTER = "garbage.manifest.after"
    GARBAGE_SEGMENT_BEFORE = "garbage.segment.before"
    GARBAGE_SEGMENT_AFTER = "garbage.segment.after"
    GARBAGE_DELETIONS_BEFORE = "garbage.deletions.before"
    GARBAGE_DELETIONS_AFTER = "garbage.deletions.after"
    GARBAGE_PART_BEFORE = "garbage.part.before"
    GARBAGE_PART_AFTER = "garbage.part.after"
    GARBAGE_FAILURES_BEFORE = "garbage.failures.before"
    GARBAGE_FAILURES_AFTER = "garbage.failures.after"
    GARBAGE_NAMESPACES_BEFORE = "garbage.namespaces.before"
    GARBAGE_NAMESPACES_AFTER = "garbage.namespaces.after"
    GARBAGE_EMBEDDED_BEFORE = "garbage.embedded.before"
    GARBAGE_EMBEDDED_AFTER = "garbage.embedded.after"
    GARBAGE_KEPT_BEFORE = "garbage.kept.before"
    GARBAGE_KEPT_AFTER = "garbage.kept.after"
    GARBAGE_NOTES_BEFORE = "garbage.notes.before"
    GARBAGE_NOTES_AFTER = "garbage.notes.after"
    GARBAGE_REQUEST_BEFORE = "garbage.request.before"
    GARBAGE_REQUEST_AFTER = "garbage.request.after"
    GARBAGE_FENCE_BEFORE = "garbage.fence.before"
    GARBAGE_FENCE_AFTER = "garbage.fence.after"
    GARBAGE_INDEX_BEFORE = "garbage.index.before"
    GARBAGE_INDEX_AFTER = "garbage.index.after"
    # An index's own coming and going.
    CATALOG_RECORD_WRITTEN = "catalog.record.written"
    CATALOG_BEGUN = "catalog.begun"
    CATALOG_NAMED = "catalog.named"
    CATALOG_YIELDING = "catalog.yielding"
    CATALOG_REPLACED = "catalog.replaced"
    CATALOG_RENAMING = "catalog.renaming"
    CATALOG_RENAMED = "catalog.renamed"
    CATALOG_UNNAMED = "catalog.unnamed"


class BugError(RuntimeError):
    """A step was armed to fail in a way that no code expects."""


@dataclass(frozen=True, slots=True)
class _Armed:
    action: str
    argument: str
    chance: float


class _Plan:
    """What the file says, read again whenever it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Is only what is armed about a certain thing to be taken?
        self.only_about = False
        self._read_at: tuple[int, int] | None = None
        self._armed: dict[str, _Armed] = {}

    def reached(self, step: Step, about: str) -> None:
        """Do what the step is armed for."""
        self._read()
        armed = self._armed.get(f"{step}={about}")
        if armed is None and not self.only_about:
            armed = self._armed.get(step)
        if armed is None or random.random() >= armed.chance:  # noqa: S311  chance, not secrecy
            return
        line = f"{step} {armed.action} {os.getpid()}\n".encode()
        fd = os.open(f"{self._path}.taken", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
        _take(step, armed)

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_ino) == self._read_at:
                return
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            self._read_at, self._armed = None, {}
            return
        self._armed = dict(map(_parsed, filter(None, map(str.strip, lines))))
        self._read_at = (stat.st_mtime_ns, stat.st_ino)


def _parsed(line: str) -> tuple[str, _Armed]:
    step, does, *chance = line.split()
    action, _, argument = does.partition(":")
    Step(step.partition("=")[0])
    return step, _Armed(action, argument, float(chance[0]) if chance else 1.0)


def _take(step: Step, armed: _Armed) -> None:
    match armed.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause":
            time.sleep(float(armed.argument))
        case "error":
            number = int(getattr(errno, armed.argument))
            raise OSError(number, os.strerror(number))
        case "bug":
            raise BugError(f"armed to fail at {step}")
        case other:
            raise ValueError(f"no such action: {other}")


def arm(path: Path, *lines: str) -> None:
    """Have the processes that look into ``path`` do what ``lines`` say from now on, and nothing else; for tests."""
    for line in lines:
        _parsed(line)
    private = path.with_name(f"{path.name}.{os.getpid()}")
    private.write_text("".join(f"{line}\n" for line in lines))
    private.replace(path)


_plan: _Plan | None = _Plan(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else None


def reached(step: Step, about: object = "") -> None:
    """Say that this process is at ``step``: it may be killed here, held up, or made to fail, if a test wants it so."""
    if _plan is not None:
        _plan.reached(step, str(about))


def leave_nothing_to_chance() -> None:
    """In a process that finds out what breaks it: from now on only what is armed about a certain thing is done here."""
    if _plan is not None:
        _plan.only_about = True
