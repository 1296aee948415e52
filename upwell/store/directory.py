"""A store in a directory: fsync of file and directory before anything is called written.

An object is written to a file without a name, fsynced, and *linked* to its name: link() fails if the name exists, so the file system is
the referee and a name never shows a half-written object. Then the folder is fsynced. obstore's LocalStore never fsyncs, which is why this
module exists (PRIOR_ART measured it). The file operations themselves are disk.py's.

Between the link and the fsync others see an object that a power failure would still take away, and its creator may die or fail just then.
That harms nobody who builds upon it *in the same folder*: their own fsync covers both names. Everybody else asks (``confirm``).

Deletions are never fsynced for their own sake: after a power failure any of the deleted may be back, in any selection.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from upwell.errors import AlreadyExists, Invalid, NotFound, StoreFull, Unavailable
from upwell.failpoint import Step, reached
from upwell.store.disk import Disk, NewFile, RealDisk
from upwell.streamed import Part, Streamed, chunks_of


class DirectoryStore:
    """Objects as files below ``root``. Any number of processes on one machine may share it."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self._disk = disk or RealDisk()
        self._known_folders: set[Path] = set()
        with _translated(""):
            self._make_folder(root)
            self._disk.open(root)

    def create(self, key: str, *parts: Part) -> None:
        target = self._path(key)
        with _translated(key):
            self._make_folder(target.parent)
            file = self._disk.new_file(target.parent)
            try:
                _write(file, parts)
                reached(Step.DISK_SYNC)
                file.sync()
                reached(Step.DISK_SYNCED)
                file.link(target)
                reached(Step.DISK_LINKED)
            except FileExistsError:
                # Ours or another's, its creator may not have come to this yet; whoever goes on from it relies on it.
                self._disk.sync_folder(target.parent)
                raise AlreadyExists(key=key) from None
            finally:
                file.close()
            self._disk.sync_folder(target.parent)
            reached(Step.DISK_NAME_SYNCED)

    def confirm(self, key: str) -> None:
        folder = self._path(key).parent
        with _translated(key):
            while not self._disk.exists(folder) and folder != self.root:
                folder = folder.parent
            self._disk.sync_folder(folder)

    def read(self, key: str) -> memoryview:
        with _translated(key):
            return self._disk.read(self._path(key))

    def exists(self, key: str) -> bool:
        with _translated(key):
            return self._disk.exists(self._path(key))

    def size_bytes(self, key: str) -> int:
        with _translated(key):
            return self._disk.size_bytes(self._path(key))

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        path = self._path(folder) if folder else self.root
        with _translated(folder):
            try:
                names = self._disk.names(path)
            except (FileNotFoundError, NotADirectoryError):
                # Under a file that somebody put where folders are, there is nothing either.
                names = []
        return iter(sorted(name for name in names if name > after and not name.startswith(".")))

    def delete(self, key: str) -> None:
        with _translated(key), contextlib.suppress(FileNotFoundError):
            reached(Step.DISK_DELETE)
            self._disk.unlink(self._path(key))

    def delete_folder(self, folder: str) -> None:
        path = self._path(folder)
        with _translated(folder), contextlib.suppress(NotADirectoryError):
            while self._disk.exists(path):
                # Of two who delete it at once each meets what the other has just deleted.
                with contextlib.suppress(FileNotFoundError):
                    self._disk.remove_tree(path)
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
        """Make a folder and its parents durable, once per process: a file in a folder that vanishes is lost too.

        Once is enough although another process may remove a folder that we know, and a third make it again: only folders of what was
        deleted for good go, an index's or a webhook's, and nobody is promised anything of what is written there afterwards.
        """
        unknown = []
        # Above the root is not ours: there, what exists is left as it is.
        while folder not in self._known_folders and folder != folder.parent:
            if not folder.is_relative_to(self.root) and self._disk.exists(folder):
                break
            unknown.append(folder)
            folder = folder.parent
        for path in reversed(unknown):
            with contextlib.suppress(FileExistsError):
                # Vectors and webhooks' secrets lie in it in plain. Who wants to share it makes it beforehand.
                self._disk.make_folder(path, private=path == self.root)
            # Also when another process made it: it may have died, or be about to die, before it synced the name.
            try:
                self._disk.sync_folder(path.parent)
            except PermissionError:
                # What holds the root may be closed to us; then the root is there because its owner saw to it.
                if path != self.root:
                    raise
            self._known_folders.add(path)


def _write(file: NewFile, parts: tuple[Part, ...]) -> None:
    gathered: list[memoryview] = []
    for part in parts:
        if not isinstance(part, Streamed):
            gathered += chunks_of(part)
            continue
        _write_all(file, gathered)
        for chunk in chunks_of(part):
            _write_all(file, [chunk])
    _write_all(file, gathered)


def _write_all(file: NewFile, views: list[memoryview]) -> None:
    """Write all of ``views``, however little is taken at a time, and take them off the list."""
    views[:] = [view for view in views if view.nbytes]
    while views:
        written = file.write(views)
        if written == 0:
            raise OSError(errno.EIO, "a write took nothing")
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn the operating system's errors into ours, each with the key and the reason."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("there is no such object", key=key) from error
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the store's disk is full", key=key, reason=reason) from error
        raise Unavailable("the store's directory failed", key=key, reason=reason) from error
