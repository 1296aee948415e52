"""Child processes that end with us: for the supervisor, for the embedded Valkey, and for pools of processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from setproctitle import setproctitle

PR_SET_PDEATHSIG = 1


def start_child(
    command: Sequence[str], *, environment: dict[str, str] | None = None, quiet: bool = False
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, so that a terminal's Ctrl-C does not reach it.

    On Linux the kernel kills it when we end, however we end; elsewhere it outlives a killed parent until it is told to stop. To be
    called from the main thread: the kernel looks at the thread that started the child.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else None,
        start_new_session=True,
        preexec_fn=partial(die_with_parent, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509  one call, before exec
    )


def stop_child(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, also one that is paused."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()


def die_with_parent(parent: int) -> None:
    """In a child of process ``parent``: have the kernel kill it when that ends, also if that has ended already. Linux only."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def begin_helper(parent: int, title: str) -> None:
    """In a new process of a pool of ``parent``'s: be called ``title``, end with it, however it ends, and leave Ctrl-C to it."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle(title)
