"""Vectors that were made of a log entry's texts: kept beside the log, so that whoever applies the entry need not make them again.

An object for each entry, created if absent: who made it first is read by all, however many made it at once. It can be made again at any
time, and nobody misses it once the entry is applied.

    index/{id}/embedded/{position:020d}
    meta      {"position": p, "mutations": {place: why it can never have vectors, or null}}
    sections  "0", "1", …: by place, the mutation's vectors as Arrow columns: values, and sparse_indices and sparse_values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from upwell.changeset import Matrix, dense_in, sparse_in, vector_columns
from upwell.columns import decode_batch, encode_batch
from upwell.errors import AlreadyExists, Corrupt, NotFound
from upwell.format import Box, Kind, pack
from upwell.ids import numbered
from upwell.sparse import Sparse
from upwell.store import Store, read_object


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The vectors of a mutation's texts, one a row; or the reason (``error``) why there will never be any."""

    vectors: Matrix | None = None
    sparse: Sparse | None = None
    error: str | None = None


#: By the place of a mutation in its entry; of all those that have texts.
MadeOfEntry = Mapping[int, Made]


class EmbeddedEntries:
    """What was made of one index's texts. Blocking; safe to share between threads."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder

    def key(self, position: int) -> str:
        """The name of what was made of the entry at ``position``."""
        return f"{self._folder}/embedded/{numbered(position)}"

    def exists(self, position: int) -> bool:
        """Is the entry's made?"""
        return self._store.exists(self.key(position))

    def read(self, position: int) -> MadeOfEntry | None:
        """What was made of an entry; None if nothing is there, or nothing that can be read: then it is to be made."""
        try:
            return embedded_in(read_object(self._store, self.key(position), Kind.EMBEDDED))
        except (NotFound, Corrupt):
            return None

    def keep(self, position: int, made: MadeOfEntry) -> None:
        """Keep what was made of an entry, unless somebody has already."""
        meta = {"position": position, "mutations": {str(place): one.error for place, one in made.items()}}
        sections = [
            (str(place), [encode_batch(vector_columns(one.vectors, one.sparse))])
            for place, one in made.items()
            if one.error is None
        ]
        try:
            self._store.create(self.key(position), *pack(Kind.EMBEDDED, meta, sections))
        except AlreadyExists:
            return


def embedded_in(box: Box) -> MadeOfEntry:
    """What an object holds. Raises Corrupt."""
    with box.understood():
        return {int(place): _read(box, place, error) for place, error in box.meta["mutations"].items()}


def _read(box: Box, place: str, error: str | None) -> Made:
    if error is not None:
        return Made(error=error)
    columns = decode_batch(box.section(place), "embedded texts")
    return Made(dense_in(columns), sparse_in(columns, "embedded texts"))
