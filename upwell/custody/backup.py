"""Taking a backup of one index, while it is written to, queried and merged.

A backup is of one version: it holds what that names, the newest notes, and the log from there to the end that it had when the backup
began. So every mutation that was acknowledged by then is in it, applied or not. What a version names stays for a grace period after the
next one; if copying takes longer, something may be gone when its turn comes. Then the newest version is taken instead, and only what
is new in it is copied.

Not in it: webhooks and their progress; the names that the index had before; the records of requests that may be sent again, but for those
whose mutations wait in the log; and vectors that were made of texts which wait there: they are made again.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from upwell.catalog.notes import NOTES
from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.custody.archive import ArchiveWriter, Contents
from upwell.custody.objects import kind_of, verify
from upwell.errors import Exists, NotFound, Unavailable
from upwell.ids import new_identity, numbered, numbers_in
from upwell.log.reader import LogReader
from upwell.log.request import request_folder
from upwell.manifest import Manifest, ManifestChain
from upwell.manifest.failures import Failures
from upwell.shard.view import named_by
from upwell.store import Store
from upwell.store.disk import RealDisk

#: How often a backup begins again, with what it has, because something was collected before its turn.
ROUNDS_MAX = 20
SUFFIX = ".upwell"


def take_backup(
    store: Store,
    record: IndexRecord,
    to: Path,
    clock: Clock,
    *,
    with_log: bool = True,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[Path, Contents]:
    """Write a backup into the file ``to``, or into one with a name of its own if that is a folder; returns the file and what it holds.

    The file is there once it is whole and on stable storage, and not before. ``told`` hears the size of each object that was copied.
    Raises Exists; Corrupt for an index that is damaged; Unavailable if it changes faster than it can be copied, or for want of room.
    """
    folder = to if to.is_dir() else to.parent
    if to.is_file():
        raise Exists("there is such a file already", path=str(to))
    private = folder / f".{new_identity()}{SUFFIX}"
    try:
        with private.open("xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as zipped:
                contents = _Copy(store, record, ArchiveWriter(zipped), clock, told).take(with_log=with_log)
            file.flush()
            os.fsync(file.fileno())
        name = f"{record.account}-{record.name}-v{contents.version}-{contents.log_through}{SUFFIX}"
        target = to / name if to.is_dir() else to
        _publish(private, target)
    except FileExistsError:
        raise Exists("there is such a file already", path=str(to)) from None
    except OSError as error:
        raise Unavailable("the backup could not be written", path=str(to), reason=str(error)) from error
    finally:
        private.unlink(missing_ok=True)
    return target, contents


def _publish(private: Path, target: Path) -> None:
    """Give the file its name, durably, unless that is taken."""
    target.hardlink_to(private)
    RealDisk().sync_folder(target.parent)


class _Copy:
    """One backup being taken."""

    def __init__(
        self,
        store: Store,
        record: IndexRecord,
        archive: ArchiveWriter,
        clock: Clock,
        told: Callable[[int], None],
    ) -> None:
        self._store = store
        self._record = record
        self._folder = record.folder
        self._archive = archive
        self._clock = clock
        self._told = told
        # It only reads, so how long it may trust what it knew is of no matter.
        self._chain = ManifestChain(store, self._folder, clock, 1.0)
        self._log = LogReader(store, self._folder)

    def take(self, *, with_log: bool) -> Contents:
        """Copy everything, and write the table of contents."""
        for _ in range(ROUNDS_MAX):
            taken_at = self._clock.now()
            manifest = self._chain.load(self._chain.newest_version())
            through = self._log.tail(manifest.applied_through) if with_log else manifest.applied_through
            try:
                keys = self._copy_all(manifest, through)
            except NotFound:
                continue
            contents = Contents(
                index_id=self._record.id,
                account=self._record.account,
                name=self._record.name,
                version=manifest.version,
                applied_through=manifest.applied_through,
                log_through=through,
                vectors=manifest.vectors,
                taken_at=taken_at,
            )
            self._archive.finish(contents, keys)
            return contents
        raise Unavailable(
            "the index changes faster than it can be copied; try again, or set UPWELL_GRACE_S higher"
        )

    def _copy_all(self, manifest: Manifest, through: int) -> set[str]:
        """Copy what a version and the log after it need, as far as that is not copied yet; returns the names of all of it.

        Raises NotFound if something is gone.
        """
        keys = {
            f"{self._folder}/record",
            f"{self._folder}/manifest/{numbered(manifest.version)}",
            *named_by(manifest, self._folder),
        }
        welcome: set[str] = set()
        for position in range(manifest.applied_through + 1, through + 1):
            # The log first: it is what goes first.
            self._copy(self._log.key(position))
            keys.add(self._log.key(position))
            for mutation in self._log.read(position).mutations:
                if mutation.payload is not None:
                    keys.add(mutation.payload)
                if mutation.request is not None:
                    # What it says decides which of two copies in the log counts.
                    welcome.add(f"{request_folder(self._folder)}/{mutation.request.name}")
        folder = f"{self._folder}/{NOTES}"
        for number in numbers_in(self._store.list(folder))[-1:]:
            keys.add(f"{folder}/{numbered(number)}")
        for key in sorted(keys):
            self._copy(key)
        for failure in Failures(self._store, self._folder).newest_first(manifest):
            if failure.kept is not None:
                welcome.add(failure.kept)
        return keys | {key for key in welcome if self._copy_if_there(key)}

    def _copy_if_there(self, key: str) -> bool:
        try:
            self._copy(key)
        except NotFound:
            return False
        return True

    def _copy(self, key: str) -> None:
        if key not in self._archive:
            data = self._store.read(key)
            verify(data, kind_of(key), key)
            self._archive.add(key, data)
            self._told(len(data))
