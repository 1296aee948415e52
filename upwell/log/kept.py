"""What failed mutations were to do, kept when the log lets go of them: so that they can be looked at, mended, and tried again.

One object for all that one commit found to fail. Only the manifest says what failed; an object that no commit came to name is never
asked for. They are collected by age (garbage.py).

    index/{id}/failed/{identity}
    meta              {"at": when, "mutations": [{"position", "place", "damaged", … as in a log entry}, …]}
    section "p.n"     Arrow columns of the mutation at position p and place n, as they were in the log; if they were damaged there,
                      "damaged" says so, for the checksum that they get here is that of what was left of them
    section "p"       all bytes of the entry at position p, where not even its header could be read
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import pyarrow as pa
import structlog

from upwell.changeset import Changeset
from upwell.clock import Clock
from upwell.errors import Corrupt, NotFound
from upwell.format import Kind, pack
from upwell.ids import new_identity
from upwell.log.entry import (
    Entry,
    Mutation,
    changeset_of,
    mutation_from_json,
    mutation_to_json,
)
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt
from upwell.store import Store, create_own, read_object

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class KeptMutation:
    """A mutation that failed, with its columns as they were in the log."""

    receipt: Receipt
    mutation: Mutation
    columns: memoryview

    def changeset(self) -> Changeset:
        """Its rows. Raises Corrupt."""
        return changeset_of(self.mutation, pa.py_buffer(self.columns), self.receipt.position)


class KeptMutations:
    """The failed mutations of one index. Blocking; safe to share between threads and processes."""

    def __init__(self, store: Store, folder: str, clock: Clock) -> None:
        self._store = store
        self._folder = kept_folder(folder)
        self._log = LogReader(store, folder)
        self._clock = clock

    def keep(self, receipts: Iterable[Receipt]) -> str:
        """Copy these mutations, in order, from the log into an object; returns its name. Of a damaged one what there is is kept."""
        mutations, sections = [], []
        for position, its in groupby(receipts, key=lambda receipt: receipt.position):
            try:
                entry = self._log.read(position)
            except Corrupt:
                sections.append((str(position), [self._store.read(self._log.key(position))]))
                continue
            for receipt in its:
                columns, damaged = self._columns(entry, receipt.place)
                where = {"position": position, "place": receipt.place, "damaged": damaged}
                mutations.append(where | mutation_to_json(entry.mutations[receipt.place], None))
                if columns is not None:
                    sections.append((f"{position}.{receipt.place}", [columns]))
        key = f"{self._folder}/{new_identity()}"
        meta = {"at": self._clock.now().isoformat(), "mutations": mutations}
        create_own(self._store, key, *pack(Kind.FAILED, meta, sections))
        return key

    def _columns(self, entry: Entry, place: int) -> tuple[memoryview | None, bool]:
        """A mutation's columns, None if they are gone; and whether they are other than they were sent."""
        try:
            box, name = entry.columns_at(place, self._store.read)
            columns = box.section(name, verify=False)
        except (Corrupt, NotFound) as error:
            log.error(
                "a failed mutation's columns are lost", key=entry.box.key, place=place, error=str(error)
            )
            return None, True
        try:
            return box.section(name), False
        except Corrupt:
            return columns, True

    def read(self, key: str, receipt: Receipt) -> KeptMutation:
        """A mutation that ``keep`` put into the object. Raises NotFound if it is kept no longer, Corrupt if it was not whole."""
        box = read_object(self._store, key, Kind.FAILED)
        with box.understood():
            for fields in box.meta["mutations"]:
                if (fields["position"], fields["place"]) == (receipt.position, receipt.place):
                    if fields.get("damaged", False):
                        raise Corrupt("the mutation's columns were damaged or gone when it failed", key=key)
                    columns = box.section(f"{receipt.position}.{receipt.place}")
                    return KeptMutation(receipt, mutation_from_json(fields), columns)
        raise Corrupt("the mutation's log entry was damaged; nothing of it can be read", key=key)

    def kept_at(self, key: str) -> datetime:
        """When an object was written. Raises NotFound or Corrupt."""
        box = read_object(self._store, key, Kind.FAILED)
        with box.understood():
            return datetime.fromisoformat(box.meta["at"])


def kept_folder(folder: str) -> str:
    """Where an index keeps its failed mutations."""
    return f"{folder}/failed"
