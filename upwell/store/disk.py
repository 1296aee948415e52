"""The few file operations that a directory store stands on, so that a test can put a disk of its own in their place.

A file is written without a name and linked to one when it is whole: link() fails if the name exists, so the file system is the referee.
Where the file system can (Linux: ext4, xfs, btrfs, tmpfs …) a file without a name is just that (O_TMPFILE), and is gone with its writer,
whatever ends that. Elsewhere (macOS, most network file systems) it has a private name meanwhile. Its writer holds a lock on it, which the
system lets go of when the writer dies; so whoever finds a private file without a lock may remove it, and nobody a living writer's.

All errors are OSErrors, as the system gives them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from upwell.failpoint import Step, reached

#: The kernel takes at most 1,024 buffers in one writev call.
WRITEV_PARTS_MAX = 1024
#: A private file that cannot tell whether its writer lives (no locks here, or an older Upwell's) is left alone for so long.
STALE_PRIVATE_FILE_S = 24 * 3600
#: How the names of private files begin that are locked by their writers.
LOCKED = "locked-"
#: What file systems say that know no files without a name.
_NO_NAMELESS = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}
)
_FILE_MODE = 0o644


class NewFile(Protocol):
    """A file on its way to its name. For one thread."""

    def write(self, views: Sequence[memoryview]) -> int:
        """Append some bytes, from the beginning of ``views``; returns how many, as writev() does."""
        ...

    def sync(self) -> None:
        """Return once all that was written is on stable storage. After an error the file must be given up: what the system could not
        write it may have forgotten, and a second sync would say that all is well."""
        ...

    def link(self, target: Path) -> None:
        """Give the file its name. Raises FileExistsError if that is taken."""
        ...

    def close(self) -> None:
        """Let go of the file; without a name, nothing is left of it."""
        ...


class Disk(Protocol):
    """Where a directory store's folders and files are. Safe to share between threads."""

    def open(self, root: Path) -> None:
        """Make ready for a store in ``root``, which exists, and remove what its dead writers left."""
        ...

    def new_file(self, folder: Path) -> NewFile:
        """A file without a name, in the file system of ``folder``."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return once all names that were given and taken in ``folder`` till now are on stable storage.

        After an error it may be tried again, unlike a file's sync: names go through the file system's journal, and one that cannot
        write that stops taking changes, and forgets none that it took.
        """
        ...

    def make_folder(self, folder: Path, *, private: bool = False) -> None:
        """mkdir, for its owner alone if it is to be ``private``. Raises FileExistsError."""
        ...

    def unlink(self, path: Path) -> None:
        """Take a name away. Raises FileNotFoundError."""
        ...

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder and all below it. Raises FileNotFoundError."""
        ...

    def read(self, path: Path) -> memoryview:
        """All of a file, mapped: the bytes stay, even if the name is taken away.

        A mapped page that the disk cannot read, or that somebody cut off meanwhile, ends the process (SIGBUS): no code of ours sees
        it. Upwell never cuts a file short; who does so by hand, or has a dying disk, sees processes die and be started again.
        """
        ...

    def size_bytes(self, path: Path) -> int:
        """A file's length."""
        ...

    def exists(self, path: Path) -> bool:
        """Is there anything of this name?"""
        ...

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, in any order. Raises FileNotFoundError."""
        ...


class RealDisk:
    """The system's files."""

    def __init__(self) -> None:
        self._private = Path()
        #: Can files be made without a name here? None until it was tried.
        self._nameless: bool | None = None

    def open(self, root: Path) -> None:
        self._private = root / ".private"
        with contextlib.suppress(FileExistsError):
            self._private.mkdir()
        _remove_leftovers(self._private)

    def new_file(self, folder: Path) -> NewFile:
        if self._nameless is None:
            self._nameless = _knows_nameless_files(self._private)
        return _NamelessFile(folder) if self._nameless else _PrivateFile(self._private)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, folder: Path, *, private: bool = False) -> None:
        folder.mkdir(mode=0o700 if private else 0o777)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def remove_tree(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def read(self, path: Path) -> memoryview:
        reached(Step.DISK_READ)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def size_bytes(self, path: Path) -> int:
        return path.stat().st_size

    def exists(self, path: Path) -> bool:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self, folder: Path) -> list[str]:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]


class _OpenFile:
    """What both sorts of files on their way have in common."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, views: Sequence[memoryview]) -> int:
        reached(Step.DISK_WRITE)
        return os.writev(self._fd, views[:WRITEV_PARTS_MAX])

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _NamelessFile(_OpenFile):
    """A file that has no name until it is linked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, _FILE_MODE))

    def link(self, target: Path) -> None:
        # With a descriptor of a folder os.link() is linkat(), which follows the link that /proc shows for ours.
        here = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(str(self._fd), target, src_dir_fd=here, follow_symlinks=True)
        finally:
            os.close(here)


class _PrivateFile(_OpenFile):
    """A file with a private name, locked for as long as it is open."""

    def __init__(self, private: Path) -> None:
        while True:
            self._path = private / f"{LOCKED}{secrets.token_hex(12)}"
            super().__init__(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            )
            with contextlib.suppress(OSError):
                # Where there are no locks, nobody else gets one either, and the file is kept by its age.
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            if os.fstat(self._fd).st_nlink:
                return
            # Whoever tidied up was quicker than our lock.
            os.close(self._fd)

    def link(self, target: Path) -> None:
        os.link(self._path, target)

    def close(self) -> None:
        try:
            # Before the lock is gone, so that nobody else has to.
            self._path.unlink(missing_ok=True)
        finally:
            super().close()


def _knows_nameless_files(private: Path) -> bool:
    """Can a file be made without a name, and given one later? Tried once, all the way. Raises OSError if that cannot be told now."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    trial = private / f"{LOCKED}{secrets.token_hex(12)}"
    try:
        file = _NamelessFile(private)
        try:
            file.link(trial)
            trial.unlink(missing_ok=True)
        finally:
            file.close()
    except OSError as error:
        if error.errno in _NO_NAMELESS | {errno.EXDEV, errno.EPERM}:
            return False
        raise
    return True


def _remove_leftovers(private: Path) -> None:
    """Remove the private files whose writers are dead."""
    oldest_kept = time.time() - STALE_PRIVATE_FILE_S  # noqa: TID251  compared with file times, which are wall time
    with os.scandir(private) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest_kept:
                    os.unlink(entry.path)
                elif entry.name.startswith(LOCKED):
                    _remove_unless_locked(entry.path)


def _remove_unless_locked(path: str) -> None:
    # For writing: network file systems lock nothing that is only read.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # With the lock in hand: its writer, if it is only just being made, sees that it is gone, and makes another.
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        # Its writer lives, or there are no locks: it goes when it is old.
        return
    finally:
        os.close(fd)
