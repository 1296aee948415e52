"""Large bodies outside of this process's own memory: in an anonymous file that a parsing process maps too.

Linux only (memfd_create); elsewhere, and for small bodies, a body is bytes. A file is named by its process and descriptor, which a
child of the same user can open as long as we hold it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web

from ingest.requests import read_chunks

#: Smaller bodies are parsed in a thread sooner than another process hears of them.
SPOOLED_BYTES_MIN = 256 << 10
POSSIBLE = hasattr(os, "memfd_create")


class SpooledName(NamedTuple):
    """An anonymous file of another process: its descriptor there, and its inode."""

    path: str
    inode: int


class Spooled:
    """An anonymous file. Close it, or leave its ``with``; what is mapped stays readable for as long as it is held."""

    def __init__(self, name: str) -> None:
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)

    @property
    def name(self) -> SpooledName:
        """Where another process finds it, and how it knows it again."""
        return SpooledName(f"/proc/{os.getpid()}/fd/{self._fd}", os.fstat(self._fd).st_ino)

    def write(self, chunk: bytes) -> None:
        """Append to it; memory is all that this needs."""
        os.write(self._fd, chunk)

    def read(self) -> memoryview:
        """All of it, mapped."""
        return map_whole(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; what is mapped stays readable for as long as it is held."""
        os.close(self._fd)


@contextlib.contextmanager
def opened(name: SpooledName, flags: int) -> Iterator[int]:
    """The descriptor of another process's file. Raises OSError if what is found there is not that file any more."""
    fd = os.open(name.path, flags | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != name.inode:
            raise FileNotFoundError(name.path)
        yield fd
    finally:
        os.close(fd)


def map_whole(fd: int) -> memoryview:
    """The bytes of an open file."""
    if os.fstat(fd).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))


async def receive(request: web.Request, bytes_max: int, into: Spooled) -> None:
    """Read a request's body into a file. Raises TooLarge as soon as it is known to be, Invalid if cut short."""
    async for chunk in read_chunks(request, bytes_max):
        into.write(chunk)
