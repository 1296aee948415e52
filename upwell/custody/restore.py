"""Making an index of a backup: a new one, with an identity and a secret of its own, in any store and under any free name.

Nothing is written before the whole backup was verified. The name is given last: whatever fails before leaves an index without a name, which
is garbage and is collected as such. While objects are written a small one is added now and then, which tells collectors that somebody is
at work here (upwell/garbage.py); whoever sleeps too long all the same finds the name taken by a fence, and has restored nothing.

The new index goes on where the backup ends: its versions and its log have the numbers that they had, so that what a row, a failure or a
metadata index says of positions stays true. The backup's mutationIds are not those of the new index: its secret is another. Which token wrote
what is not carried over, for tokens are a store's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from upwell.catalog.names import Catalog
from upwell.catalog.record import IndexRecord, index_folder, read_record, write_record
from upwell.clock import Clock
from upwell.custody.archive import Archive, check_archive
from upwell.custody.findings import Severity
from upwell.custody.objects import kind_of, verify
from upwell.errors import Corrupt
from upwell.format import Kind, pack
from upwell.ids import new_identity, numbered
from upwell.manifest import Manifest, ManifestChain
from upwell.store import Store
from upwell.store.base import create_own
from upwell.streamed import Part

#: What clients said, which stays as it is whatever it looks like.
_SAID = frozenset({"details", "metadataIndex", "discarded"})
#: The folder of the objects that say that somebody is at work.
RESTORING = "restoring"


def restore_backup(
    path: Path,
    store: Store,
    catalog: Catalog,
    clock: Clock,
    grace_s: float,
    *,
    account: str | None,
    name: str,
    told: Callable[[int], None] = lambda _: None,
) -> IndexRecord:
    """Make the index ``name`` of the backup at ``path``, in its own ``account`` or another.

    Raises Corrupt or TooNew for a backup that is not whole, and Exists for a name that is taken: then nothing was written.
    """
    report = check_archive(path)
    for finding in report.findings:
        if finding.severity is Severity.ERROR:
            raise Corrupt(
                f"the backup is damaged, and nothing of it was restored: {finding.problem}", key=finding.key
            )
    with Archive(path) as archive:
        into = account if account is not None else archive.contents.account
        generation = catalog.next_generation(into, name)
        was = read_record(archive, archive.contents.index_id)
        record = was.model_copy(
            update={
                "id": new_identity(),
                "account": into,
                "name": name,
                "created_at": clock.now(),
                "secret": new_identity(),
                "replaces": (),
            }
        )
        write_record(store, record)
        beat = _Beat(store, record.folder, clock, grace_s / 8)
        rewrite = _Rewrite(was.folder, record.folder)
        for key in archive.objects():
            if kind_of(key) in (Kind.INDEX_RECORD, Kind.MANIFEST):
                continue
            data = archive.verify(key)
            create_own(store, rewrite.name(key), *rewrite.parts(data, key))
            told(len(data))
            beat.now_and_then()
        manifest = rewrite.manifest(_manifest_in(archive), record.id)
        ManifestChain(store, record.folder, clock, grace_s).adopt(manifest)
        catalog.give_name(record, generation)
    store.delete_folder(f"{record.folder}/{RESTORING}")
    return record


def _manifest_in(archive: Archive) -> Manifest:
    contents = archive.contents
    key = f"{index_folder(contents.index_id)}/manifest/{numbered(contents.version)}"
    box = verify(archive.verify(key), Kind.MANIFEST, key)
    with box.understood():
        return Manifest.model_validate(box.meta)


class _Rewrite:
    """Objects as they are in another index's folder. Those that name others are written anew, all else is copied as it is."""

    def __init__(self, was: str, folder: str) -> None:
        self._was = was
        self._folder = folder
        self._name = re.compile(re.escape(was) + r"/[a-z]+/[0-9a-f-]+")

    def name(self, key: str) -> str:
        """An object's new name."""
        return self._folder + key.removeprefix(self._was)

    def parts(self, data: memoryview, key: str) -> list[Part]:
        """An object's bytes."""
        kind = kind_of(key)
        if kind not in (Kind.LOG_ENTRY, Kind.FAILURES):
            return [data]
        box = verify(data, kind, key)
        sections: list[tuple[str, list[Part]]] = []
        for section in box.sections:
            held = box.section(section)
            renamed = kind is Kind.FAILURES
            sections.append((section, [orjson.dumps(self._renamed(orjson.loads(held))) if renamed else held]))
        return pack(kind, self._renamed(box.meta), sections)

    def manifest(self, manifest: Manifest, index_id: str) -> Manifest:
        """A manifest of the new index."""
        fields = self._renamed(manifest.model_dump(mode="json"))
        mine = {"index_id": index_id, "writer": new_identity(), "newest_by": []}
        return Manifest.model_validate(fields | mine)

    def _renamed(self, value: Any) -> Any:
        """The same JSON with every name of an object in the old folder replaced. No other text has the shape of one."""
        match value:
            case dict():
                return {key: one if key in _SAID else self._renamed(one) for key, one in value.items()}
            case list():
                return [self._renamed(one) for one in value]
            case str() if self._name.fullmatch(value):
                return self.name(value)
            case _:
                return value


class _Beat:
    """Says now and then, to collectors, that somebody is at work in a folder without a name."""

    def __init__(self, store: Store, folder: str, clock: Clock, every_s: float) -> None:
        self._store = store
        self._folder = f"{folder}/{RESTORING}"
        self._clock = clock
        self._every_s = every_s
        self._number = 0
        self._last_at = clock.monotonic()

    def now_and_then(self) -> None:
        """Say it if the last time is long enough ago."""
        if self._clock.monotonic() - self._last_at >= self._every_s:
            self._number += 1
            self._last_at = self._clock.monotonic()
            create_own(self._store, f"{self._folder}/{numbered(self._number)}", *pack(Kind.PART, {}))
