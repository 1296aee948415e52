"""Reading the log: one entry by position, the tail by probing. Never writes; any number may read at once."""

from __future__ import annotations

from upwell.changeset import Changeset
from upwell.dense import last_of
from upwell.errors import NotFound
from upwell.ids import numbered
from upwell.log.entry import Entry, decode_entry
from upwell.log.receipt import Receipt
from upwell.store import Store


class LogReader:
    """The log of one index, which lies under ``folder`` (``index/{id}``)."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder

    def key(self, position: int) -> str:
        """The name of the entry at ``position``."""
        return f"{self._folder}/log/{numbered(position)}"

    def exists(self, position: int) -> bool:
        """Is there an entry at ``position`` now?"""
        return self._store.exists(self.key(position))

    def read(self, position: int) -> Entry:
        """The entry at ``position``. Raises NotFound (never written, or swept) or Corrupt."""
        key = self.key(position)
        return decode_entry(self._store.read(key), position, key)

    def changeset(self, receipt: Receipt) -> Changeset:
        """The rows of a mutation. Raises NotFound, also once its columns are swept, or Corrupt."""
        entry = self.read(receipt.position)
        if receipt.place >= len(entry.mutations):
            raise NotFound("no such mutation here")
        return entry.changeset(receipt.place, self._store.read)

    def tail(self, known: int) -> int:
        """The last position written, given that every position up to ``known`` was, and none past it is swept."""
        return last_of(self.exists, known)
