"""A disk whose power can be cut: it keeps apart what programs see and what would be left after a power failure.

What lasts is what was fsynced: a file's bytes up to its own fsync, a name (given or taken away) up to its folder's. Of names that were
not, any selection may survive, each independently of the others, in the state that any of its changes left it in: the worst that any
file system may do. A file with a lasting name and bytes that were never synced is torn: cut, zeroed, or garbage.

Every change is kept in a journal, so that one run of a program can be cut at every change in turn (``after_power_loss``). Faults can be
made to happen at any call. Everything is in memory; a store on it never touches a real file.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A change: its name, and what it is about.
Change = tuple[Any, ...]
BLOCK = 512


@dataclass(eq=False)
class File:
    """Bytes as programs see them, and as they are on the platter."""

    content: bytes = b""
    #: None: never synced, or synced in vain.
    synced: bytes | None = None
    #: A sync failed: the system has forgotten what was not written, and later syncs say that all is well.
    forgotten: bool = False


@dataclass(eq=False)
class Folder:
    """Names as programs see them, as they are on the platter, and what became of each since."""

    entries: dict[str, Node] = field(default_factory=dict)
    lasting: dict[str, Node] = field(default_factory=dict)
    pending: dict[str, list[Node | None]] = field(default_factory=dict)

    def change(self, name: str, node: Node | None) -> None:
        """Give a name to a node, or take it away."""
        if node is None:
            del self.entries[name]
        else:
            self.entries[name] = node
        self.pending.setdefault(name, []).append(node)


Node = File | Folder


@dataclass(frozen=True)
class Fault:
    """A call fails with ``number``: before anything happened, or after. Or, being a write, takes only so many bytes."""

    number: int = 0
    after: bool = False
    takes: int | None = None


class SimulatedFile:
    """A file on its way to a name."""

    def __init__(self, disk: SimulatedDisk, number: int) -> None:
        self._disk = disk
        self._number = number

    def write(self, views: Sequence[memoryview]) -> int:
        data = b"".join(views)
        fault = self._disk.call("write", self._number)
        if fault is not None and fault.takes is not None:
            data = data[: max(1, min(fault.takes, len(data)))]
        self._disk.change(None if fault and fault.takes is not None else fault, "write", self._number, data)
        return len(data)

    def sync(self) -> None:
        fault = self._disk.call("sync", self._number)
        if fault is not None and fault.number:
            self._disk.change(None, "forget", self._number)
        self._disk.change(fault, "sync", self._number)

    def link(self, target: Path) -> None:
        fault = self._disk.call("link", target)
        self._disk.folder(target.parent)
        if self._disk.exists_now(target):
            raise FileExistsError(errno.EEXIST, "exists", str(target))
        self._disk.change(fault, "link", self._number, target)

    def close(self) -> None:
        self._disk.open_files.discard(self._number)


class SimulatedDisk:
    """See the module. Implements upwell.store.disk.Disk; for one thread."""

    def __init__(self) -> None:
        self.root = Folder()
        self.files: dict[int, File] = {}
        self.open_files: set[int] = set()
        self.journal: list[Change] = []
        self.calls = 0
        #: Told of each call before it is made; may do anything, and make other calls.
        self.hook: Callable[[str, object], None] | None = None
        #: Asked for each call, by its number and name, how it should fail.
        self.fault: Callable[[int, str], Fault | None] | None = None
        #: What fsync only pretends: "data", "names of files", "names of folders".
        self.pretends: frozenset[str] = frozenset()

    # What a store calls.

    def open(self, root: Path) -> None:
        self.call("open", root)

    def new_file(self, folder: Path) -> SimulatedFile:
        fault = self.call("new_file", folder)
        self.folder(folder)
        number = len(self.files)
        self.change(fault, "new_file", number)
        self.open_files.add(number)
        return SimulatedFile(self, number)

    def sync_folder(self, folder: Path) -> None:
        fault = self.call("sync_folder", folder)
        self.folder(folder)
        self.change(fault, "sync_folder", folder)

    def make_folder(self, folder: Path, *, private: bool = False) -> None:
        fault = self.call("make_folder", folder)
        if self.exists_now(folder):
            raise FileExistsError(errno.EEXIST, "exists", str(folder))
        self.change(fault, "make_folder", folder)

    def unlink(self, path: Path) -> None:
        fault = self.call("unlink", path)
        if path.name not in self.folder(path.parent).entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self.change(fault, "unlink", path)

    def remove_tree(self, folder: Path) -> None:
        for name, node in list(self.folder(folder).entries.items()):
            if isinstance(node, Folder):
                self.remove_tree(folder / name)
            else:
                self.unlink(folder / name)
        self.change(self.call("remove_folder", folder), "unlink", folder)

    def read(self, path: Path) -> memoryview:
        self.look("read", path)
        return memoryview(self._file(path).content)

    def size_bytes(self, path: Path) -> int:
        self.look("size", path)
        return len(self._file(path).content)

    def exists(self, path: Path) -> bool:
        self.look("exists", path)
        return self.exists_now(path)

    def names(self, folder: Path) -> list[str]:
        self.look("names", folder)
        return list(self.folder(folder).entries)

    # What happens.

    def call(self, name: str, about: object) -> Fault | None:
        """Announce a call; returns how it is to fail."""
        if self.hook is not None:
            self.hook(name, about)
        self.calls += 1
        return None if self.fault is None else self.fault(self.calls, name)

    def look(self, name: str, about: object) -> None:
        """A call that changes nothing."""
        _fail(self.call(name, about))

    def change(self, fault: Fault | None, *change: Any) -> None:
        """Make a change, and fail before or after it if that is to be."""
        if fault is not None and not fault.after:
            _fail(fault)
        self.journal.append(change)
        self._apply(*change)
        _fail(fault)

    def _apply(self, name: str, *about: Any) -> None:
        match name, about:
            case "new_file", (number,):
                self.files[number] = File()
            case "write", (number, data):
                self.files[number].content += data
            case "forget", (number,):
                self.files[number].forgotten = True
            case "sync", (number,):
                file = self.files[number]
                if "data" not in self.pretends and not file.forgotten:
                    file.synced = file.content
            case "link", (number, target):
                self.folder(target.parent).change(target.name, self.files[number])
            case "make_folder", (path,):
                self.folder(path.parent).change(path.name, Folder())
            case "unlink", (path,):
                self.folder(path.parent).change(path.name, None)
            case "sync_folder", (path,):
                self._sync(self.folder(path))

    def _sync(self, folder: Folder) -> None:
        for name, changes in list(folder.pending.items()):
            kind = (
                "names of folders" if any(isinstance(node, Folder) for node in changes) else "names of files"
            )
            if kind in self.pretends:
                continue
            del folder.pending[name]
            folder.lasting.pop(name, None)
            if name in folder.entries:
                folder.lasting[name] = folder.entries[name]

    def folder(self, path: Path) -> Folder:
        """The folder of this name. Raises FileNotFoundError."""
        node: Node = self.root
        for piece in path.parts[1:]:
            if isinstance(node, File):
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
            if piece not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
            node = node.entries[piece]
        if isinstance(node, File):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
        return node

    def exists_now(self, path: Path) -> bool:
        """Is there anything of this name? No call."""
        try:
            return path.name == "" or path.name in self.folder(path.parent).entries
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _file(self, path: Path) -> File:
        node = self.folder(path.parent).entries.get(path.name)
        if not isinstance(node, File):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node

    # The power fails.

    def after_power_loss(self, changes: int, rng: random.Random, survive: float) -> SimulatedDisk:
        """The disk after the power failed behind so many changes; each name that was not synced is kept with chance ``survive``."""
        then = SimulatedDisk()
        then.pretends = self.pretends
        for change in self.journal[:changes]:
            then._apply(*change)
        left = SimulatedDisk()
        left.root = _survivor(then.root, rng, survive)
        return left

    def walk(self) -> Iterator[tuple[Path, bytes]]:
        """Every file that programs see."""
        yield from _walk(Path("/"), self.root)


def _fail(fault: Fault | None) -> None:
    if fault is not None and fault.number:
        raise OSError(fault.number, os.strerror(fault.number))


def _survivor(folder: Folder, rng: random.Random, survive: float) -> Folder:
    left: dict[str, Node] = {}
    for name in sorted(folder.lasting.keys() | folder.pending.keys()):
        states = folder.pending.get(name, [])
        node = folder.lasting.get(name)
        if states and rng.random() < survive:
            node = rng.choice(states)
        if isinstance(node, Folder):
            left[name] = _survivor(node, rng, survive)
        elif node is not None:
            content = node.content if node.synced == node.content else _torn(node.content, rng)
            left[name] = File(content, content)
    return Folder(dict(left), left)


def _torn(content: bytes, rng: random.Random) -> bytes:
    cut = rng.randrange(len(content) + 1)
    match rng.choice(["gone", "cut", "zeroed", "block"]):
        case "gone":
            return b""
        case "cut":
            return content[: min(cut, len(content) - 1)]
        case "zeroed":
            return content[:cut] + bytes(len(content) - cut) if content[cut:].strip(b"\0") else b""
        case _:
            garbage = rng.randbytes(min(BLOCK, len(content)))
            return garbage + content[len(garbage) :]


def _walk(path: Path, folder: Folder) -> Iterator[tuple[Path, bytes]]:
    for name, node in sorted(folder.entries.items()):
        if isinstance(node, File):
            yield path / name, node.content
        else:
            yield from _walk(path / name, node)
