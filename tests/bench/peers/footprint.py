"""Memory of processes and bytes of directories, as the kernel counts them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MiB: all of it, and the part that no file backs."""

    rss_mib: float
    rss_anon_mib: float

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss_mib + other.rss_mib, self.rss_anon_mib + other.rss_anon_mib)

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.rss_mib - other.rss_mib, self.rss_anon_mib - other.rss_anon_mib)


def field_kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def memory_of(pid: int) -> Memory:
    """One process. Pages that several processes map count in proportion, so that a tree's sum counts them once."""
    try:
        status = (PROC / str(pid) / "status").read_text()
        anon_kib = field_kib(status, "RssAnon")
        try:
            kib = field_kib((PROC / str(pid) / "smaps_rollup").read_text(), "Pss")
        except OSError:
            kib = field_kib(status, "VmRSS")
    except OSError:
        return Memory(0, 0)
    return Memory(kib / 1024, anon_kib / 1024)


def own_memory() -> Memory:
    """This process, after what Python and malloc hold for nothing has gone back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # where there is no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory_of(os.getpid())


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(after_name[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def tree_memory(roots: list[int]) -> Memory:
    """Some processes and all below them."""
    total = Memory(0, 0)
    for pid in sorted({pid for root in roots for pid in tree(root)}):
        total += memory_of(pid)
    return total


def title(pid: int) -> str:
    """What a process calls itself."""
    try:
        return (
            (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        return ""


def disk_mib(folder: Path) -> float:
    """Blocks that a directory takes."""
    blocks = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                blocks += (Path(path) / name).lstat().st_blocks
            except OSError:
                continue  # swept meanwhile
    return blocks * 512 / MIB
