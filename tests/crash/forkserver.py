"""Starts front ends and workers within milliseconds: a process of one thread that has imported them, and forks.

    in    {"number": 1, "kind": "api" | "worker", "environment": {...}, "output": path | null, "fresh": false}
          {"pid": pid, "signal": 9}
    out   {"number": 1, "born": pid}        {"died": pid, "status": -9}

A forked child inherits no thread and no lock, for there is only one thread here: that is checked before every fork, because
FAISS, OpenMP and NumPy would start theirs at their first use. A ``fresh`` child is a new Python instead, as in real life. Without an
``output`` it writes to our standard error. Signals go through here because only a parent knows for certain that a process id is
still its child's.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import faiss
import pyarrow as pa
import uvloop

from ingest import __main__ as front_end
from upwell import failpoint
from upwell.children import die_with_parent
from workers import __main__ as worker

MAINS = {"api": front_end.main, "worker": worker.main}
MODULES = {"api": "ingest", "worker": "workers"}
#: Imported above so that children need not.
IMPORTED = (faiss, pa, uvloop)
#: Children that are not reaped.
_living: set[int] = set()


def main() -> None:
    """Serve until stdin is closed."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()
    buffer = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap()
        if 0 not in ready:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if "signal" not in asked:
                _start(asked)
            elif asked["pid"] in _living:
                os.kill(asked["pid"], asked["signal"])


def _start(asked: dict[str, Any]) -> None:
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError(f"a fork would lose {len(threads) - 1} threads")
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be(asked, here)
    _living.add(pid)
    _say({"number": asked["number"], "born": pid})


def _be(asked: dict[str, Any], parent: int) -> None:
    """In the child: become what was asked for. Does not return."""
    status = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = 2
        if asked["output"] is not None:
            output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, wanted in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(fd, wanted)
        os.closerange(3, 256)
        die_with_parent(parent)
        os.environ.update(asked["environment"])
        if asked["fresh"]:
            os.execv(sys.executable, [sys.executable, "-m", MODULES[asked["kind"]]])
        if failpoint.VARIABLE in os.environ:
            failpoint._plan = failpoint._Plan(Path(os.environ[failpoint.VARIABLE]))
        main = MAINS[asked["kind"]]
        # What Python starts for its pools imports what is ``__main__`` here.
        sys.modules["__main__"] = sys.modules[main.__module__]
        status = main()
    except BaseException:  # noqa: BLE001  what a child fails by must not unwind into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _living.discard(pid)
        _say({"died": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
