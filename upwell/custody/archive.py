"""A backup as one file: a ZIP file (64-bit, uncompressed) of an index's objects under the names they had, and a table of contents.

The table is an object in our own format, so that its checksum and its format are verified as any other's are:

    meta  {"indexId", "account", "name", "version", "appliedThrough", "logThrough", "vectors", "takenAt",
           "objects": [[name, bytes, xxh3_64], …]}

It is written last. A member that it does not name was copied and then superseded while the backup was being taken, and does not count.
An archive can be read as a store, which nobody can write to; so what checks an index in a store checks it in a backup.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import xxhash

from upwell.custody.findings import CONSEQUENCES, Finding, Report, Severity
from upwell.custody.index import IndexCheck
from upwell.errors import Corrupt, Invalid, NotFound
from upwell.format import Kind, blaming, pack, unpack
from upwell.streamed import Part, joined

CONTENTS = "contents"
CHUNK_BYTES = 8 << 20
READERS = 4
#: A member's own header: its last two fields are how long its name and its extra field are.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
assert _LOCAL_HEADER.size == 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a backup holds."""

    index_id: str
    account: str
    name: str
    #: The manifest's version that it is of, through which log position that has applied, and how far the log goes on.
    version: int
    applied_through: int
    log_through: int
    vectors: int
    taken_at: datetime

    def to_meta(self, objects: dict[str, tuple[int, int]]) -> dict[str, Any]:
        """With the size and checksum of each object."""
        return {
            "indexId": self.index_id,
            "account": self.account,
            "name": self.name,
            "version": self.version,
            "appliedThrough": self.applied_through,
            "logThrough": self.log_through,
            "vectors": self.vectors,
            "takenAt": self.taken_at.isoformat(),
            "objects": [[key, size, checksum] for key, (size, checksum) in objects.items()],
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Contents:
        """The inverse."""
        return cls(
            index_id=meta["indexId"],
            account=meta["account"],
            name=meta["name"],
            version=meta["version"],
            applied_through=meta["appliedThrough"],
            log_through=meta["logThrough"],
            vectors=meta["vectors"],
            taken_at=datetime.fromisoformat(meta["takenAt"]),
        )


class ArchiveWriter:
    """Writes an archive into an open file. For one thread."""

    def __init__(self, zipped: zipfile.ZipFile) -> None:
        self._zip = zipped
        self._objects: dict[str, tuple[int, int]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._objects

    def add(self, key: str, data: memoryview) -> None:
        """Copy an object."""
        digest = xxhash.xxh3_64()
        with self._zip.open(zipfile.ZipInfo(key), "w", force_zip64=True) as member:
            for start in range(0, len(data), CHUNK_BYTES):
                chunk = data[start : start + CHUNK_BYTES]
                digest.update(chunk)
                member.write(chunk)
        self._objects[key] = len(data), digest.intdigest()

    def finish(self, contents: Contents, keys: set[str]) -> int:
        """Write the table of contents, of these objects only; returns how many bytes they have."""
        objects = {key: self._objects[key] for key in sorted(keys)}
        self._zip.writestr(zipfile.ZipInfo(CONTENTS), joined(pack(Kind.BACKUP, contents.to_meta(objects))))
        return sum(size for size, _ in objects.values())


class Archive:
    """An archive, open and mapped: a store that is never written to. Safe to share between threads. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises NotFound, or Corrupt if it is no whole archive. Objects are verified by ``verify``, or by their readers."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            with zipfile.ZipFile(path) as zipped:
                members = {one.filename: self._place_of(one) for one in zipped.infolist()}
        except FileNotFoundError:
            raise NotFound("there is no such backup", path=str(path)) from None
        except (
            OSError,
            ValueError,
            struct.error,
            zipfile.BadZipFile,
            NotImplementedError,
            EOFError,
        ) as error:
            raise Corrupt(
                "this is no backup, or it is cut short or damaged", path=str(path), reason=str(error)
            ) from error
        if CONTENTS not in members:
            raise Corrupt("this is no backup: it has no table of contents", path=str(path))
        box = unpack(members[CONTENTS], Kind.BACKUP, f"{path}!{CONTENTS}")
        with box.understood():
            self.contents = Contents.from_meta(box.meta)
            self._sums = {key: (size, checksum) for key, size, checksum in box.meta["objects"]}
        missing = sorted(self._sums.keys() - members.keys())
        if missing:
            raise Corrupt("an object is missing from the backup", key=missing[0], path=str(path))
        self._members = {key: members[key] for key in self._sums}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The mapping ends with the last view of it: somebody may still hold one.
        self._members = {}

    def objects(self) -> list[str]:
        """The names of all objects."""
        return list(self._sums)

    def verify(self, key: str) -> memoryview:
        """An object whose bytes are those that were copied. Raises Corrupt."""
        size, checksum = self._sums[key]
        data = self._members[key]
        if len(data) != size or xxhash.xxh3_64_intdigest(data) != checksum:
            raise Corrupt("an object in the backup is damaged", key=key, path=str(self.path))
        return data

    def _place_of(self, member: zipfile.ZipInfo) -> memoryview:
        _, name, extra = _LOCAL_HEADER.unpack_from(self._data, member.header_offset)
        start = member.header_offset + _LOCAL_HEADER.size + name + extra
        data = self._data[start : start + member.file_size]
        if member.compress_type != zipfile.ZIP_STORED or len(data) != member.file_size:
            raise ValueError(f"{member.filename} is not stored as it is")
        return data

    # As a store.

    def create(self, key: str, *parts: Part) -> None:
        """Refused."""
        raise Invalid("a backup is not written to", key=key, parts=len(parts))

    def read(self, key: str) -> memoryview:
        """See Store."""
        if key not in self._members:
            raise NotFound("there is no such object", key=key)
        return self._members[key]

    def confirm(self, key: str) -> None:
        """See Store; whoever took the backup saw to it."""

    def exists(self, key: str) -> bool:
        """See Store."""
        return key in self._members

    def size_bytes(self, key: str) -> int:
        """See Store."""
        return len(self.read(key))

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        """See Store."""
        begins = f"{folder}/" if folder else ""
        names = {
            key.removeprefix(begins).partition("/")[0] for key in self._members if key.startswith(begins)
        }
        return iter(sorted(name for name in names if name > after))

    def delete(self, key: str) -> None:
        """Refused."""
        raise Invalid("a backup is not written to", key=key)

    def delete_folder(self, folder: str) -> None:
        """Refused."""
        raise Invalid("a backup is not written to", folder=folder)


def check_archive(path: Path, *, quick: bool = False, told: Callable[[int], None] = lambda _: None) -> Report:
    """Check a backup as an index in a store is checked. Raises Corrupt if it cannot even be opened, and NotFound."""
    report = Report()
    try:
        archive = Archive(path)
    except Corrupt as error:
        report.add([_broken(str(path), None, error)])
        return report
    contents = archive.contents
    name = f"{contents.account}/{contents.name}"
    with archive, ThreadPoolExecutor(READERS, thread_name_prefix="check") as executor:
        if not quick:
            for key in archive.objects():
                try:
                    with blaming(key):
                        archive.verify(key)
                except Corrupt as error:
                    report.add([_broken(key, name, error)])
        check = IndexCheck(archive, contents.index_id, name, executor, report, quick=quick, told=told)
        report.add(check.run())
        report.indexes, report.vectors = 1, check.vectors
    return report


def _broken(key: str, index: str | None, error: Corrupt) -> Finding:
    meaning, remedy = CONSEQUENCES[Kind.BACKUP]
    return Finding(
        severity=Severity.ERROR, key=key, index=index, problem=error.detail, meaning=meaning, remedy=remedy
    )
