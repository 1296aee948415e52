"""A store in a directory: fsync of file and directory before anything is called written.

An object is written to a private file, fsynced, and *linked* to its name: link() fails if the name exists, so the file
system is the referee and a name never shows a half-written object. obstore's LocalStore never fsyncs, which is why this
module exists (PRIOR_ART measured it). A crash between leaves a private file, which the next start removes.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from upwell.errors import AlreadyExists, Invalid, NotFound, Unavailable
from upwell.streamed import Part, Streamed, chunks_of

#: A private file older than this belongs to no living writer. Far above the longest write.
STALE_PRIVATE_FILE_S = 24 * 3600
#: The kernel takes at most 1,024 buffers in one writev call.
WRITEV_PARTS_MAX = 1024


class DirectoryStore:
    """Objects as files below ``root``. Any number of processes on one machine may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._private = root / ".private"
        self._known_folders: set[Path] = set()
        self._make_folder(self._private)
        self._remove_stale_private_files()

    def create(self, key: str, *parts: Part) -> None:
        target = self._path(key)
        private = self._private / secrets.token_hex(12)
        with _translated(key):
            self._make_folder(target.parent)
            try:
                _write_durably(private, parts)
                try:
                    os.link(private, target)
                except FileExistsError:
                    raise AlreadyExists(key=key) from None
            finally:
                private.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def read(self, key: str) -> memoryview:
        with _translated(key), self._path(key).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def exists(self, key: str) -> bool:
        with _translated(key):
            try:
                self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def size_bytes(self, key: str) -> int:
        with _translated(key):
            return self._path(key).stat().st_size

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        path = self._path(folder) if folder else self.root
        with _translated(folder):
            try:
                with os.scandir(path) as entries:
                    names = sorted(e.name for e in entries if e.name > after and not e.name.startswith("."))
            except FileNotFoundError:
                names = []
        return iter(names)

    def delete(self, key: str) -> None:
        with _translated(key):
            self._path(key).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        path = self._path(folder)
        with _translated(folder):
            if path.exists():
                shutil.rmtree(path)
        # Copied first: other threads add to it meanwhile.
        for known in self._known_folders.copy():
            if known.is_relative_to(path):
                self._known_folders.discard(known)

    def _path(self, key: str) -> Path:
        """The file of ``key``. Names that could leave the folder are a programming error, refused all the same."""
        pieces = key.split("/")
        if any(piece in ("", ".", "..") or piece.startswith(".") or "\0" in piece for piece in pieces):
            raise Invalid("an object's name must be plain path pieces", key=key)
        return self.root.joinpath(*pieces)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents durable, once per process: a file in a folder that vanishes is lost too."""
        unknown = []
        # Above the root is not ours: there, what exists is left as it is.
        while folder not in self._known_folders and folder != folder.parent:
            if folder.exists() and not folder.is_relative_to(self.root):
                break
            unknown.append(folder)
            folder = folder.parent
        for path in reversed(unknown):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            # Also when another process made it: it may have died, or be about to die, before it synced the name.
            try:
                _sync_folder(path.parent)
            except PermissionError:
                # What holds the root may be closed to us; then the root is there because its owner saw to it.
                if path != self.root:
                    raise
            self._known_folders.add(path)

    def _remove_stale_private_files(self) -> None:
        oldest_kept = time.time() - STALE_PRIVATE_FILE_S  # noqa: TID251  compared with file times, which are wall time
        with os.scandir(self._private) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < oldest_kept:
                        os.unlink(entry.path)


def _write_durably(path: Path, parts: tuple[Part, ...]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        gathered: list[memoryview] = []
        for part in parts:
            if not isinstance(part, Streamed):
                gathered += chunks_of(part)
                continue
            _write(fd, gathered)
            for chunk in chunks_of(part):
                _write(fd, [chunk])
        _write(fd, gathered)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(fd: int, views: list[memoryview]) -> None:
    """Write all of ``views``, and take them off the list."""
    views[:] = [view for view in views if view.nbytes]
    while views:
        written = os.writev(fd, views[:WRITEV_PARTS_MAX])
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn the operating system's errors into ours, each with the key and the reason."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("there is no such object", key=key) from error
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        raise Unavailable("the store's directory failed", key=key, reason=reason) from error
