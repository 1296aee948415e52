"""What of a log is not applied yet, in numbers: mutations, bytes of their columns, and rows that they bring into which namespace.

An entry is counted once: this process's own when it is appended, another's when a look first finds it, by its header alone (entries are
mapped, so that their columns stay unread). What is applied is forgotten. So a look costs one failed open where nothing is new, and
50 us for each entry that others appended since the last.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from upwell.errors import Corrupt, NotFound, TooNew
from upwell.log.entry import Mutation
from upwell.log.reader import LogReader

#: A look reads no more entries than this, which takes half a second: the next goes on from there.
ENTRIES_READ_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogSize:
    """How long a backlog is."""

    mutations: int = 0
    nbytes: int = 0
    #: The same of what was applied since this process began to count.
    applied_mutations: int = 0
    applied_nbytes: int = 0
    #: Is everything in the log counted? If not, the backlog is longer than this.
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one entry counts. ``rows``: whole rows that it brings, by their namespace, None for those that do not say."""

    mutations: int
    nbytes: int
    rows: Mapping[str | None, int] = field(default_factory=dict)
    removes: bool = False


class Backlog:
    """Counts the backlog of one index. Safe to share between threads."""

    def __init__(self, log: LogReader, row_bytes: int) -> None:
        self._log = log
        #: What a row of an entry is taken to have whose writer did not yet say.
        self._row_bytes = row_bytes
        #: Held for the length of a look, so that no entry is read twice.
        self._looking = threading.Lock()
        #: Every entry up to here is counted, or applied. Guarded by ``_looking``.
        self._counted_through = 0
        #: Held for moments only: an event loop may wait for it. It guards everything below.
        self._lock = threading.Lock()
        #: By position. Our own may lie behind others that are not counted yet.
        self._entries: dict[int, _Entry] = {}
        self._rows: Counter[str | None] = Counter()
        self._last_removal = 0
        self._applied_through = 0
        self._size = BacklogSize()

    @property
    def size(self) -> BacklogSize:
        """What is counted so far, without looking."""
        return self._size

    def rows_by_namespace(self) -> dict[str | None, int]:
        """How many rows wait to be inserted or upserted, by the name of their namespace ("": in none); under None those of mutations
        that do not say. As far as is counted, without looking."""
        with self._lock:
            return dict(self._rows)

    @property
    def last_removal(self) -> int:
        """The position of the last entry counted that removes rows which it describes instead of naming them; 0 if there is none."""
        return self._last_removal

    def appended(self, position: int, mutations: Iterable[Mutation]) -> None:
        """Count an entry that this process appended. Never waits for the store."""
        self._count(position, self._numbers(mutations))

    def look(self, applied_through: int) -> BacklogSize:
        """Forget what is applied by now, and count what others appended."""
        with self._looking:
            self._forget(applied_through)
            self._counted_through = max(self._counted_through, applied_through)
            for position in range(self._counted_through + 1, self._counted_through + 1 + ENTRIES_READ_MAX):
                if position not in self._entries:
                    numbers = self._read(position)
                    if numbers is None:
                        return self._looked(is_whole=True)
                    self._count(position, numbers)
                self._counted_through = position
            return self._looked(is_whole=False)

    def _read(self, position: int) -> _Entry | None:
        """The numbers of an entry; None if there is none."""
        try:
            return self._numbers(self._log.read(position).mutations)
        except NotFound:
            # Not written yet, or (if we slept) applied and swept meanwhile: then the next look begins behind it.
            return None
        except (Corrupt, TooNew):
            # It is the workers' to complain of, and no reason to refuse what comes after it.
            return _Entry(1, 0)

    def _numbers(self, mutations: Iterable[Mutation]) -> _Entry:
        everything = list(mutations)
        rows: Counter[str | None] = Counter()
        for one in everything:
            if one.brings_rows:
                rows[one.details.namespace] += one.rows
        return _Entry(
            mutations=len(everything),
            nbytes=sum(one.nbytes or one.rows * self._row_bytes for one in everything),
            rows=rows,
            removes=any(one.operation.selects for one in everything),
        )

    def _count(self, position: int, numbers: _Entry) -> None:
        with self._lock:
            # A look may have found our own entry before we were told of it, and a worker may have been quicker than both.
            if position in self._entries or position <= self._applied_through:
                return
            self._entries[position] = numbers
            self._rows.update(numbers.rows)
            if numbers.removes:
                self._last_removal = max(self._last_removal, position)
            self._size = replace(
                self._size,
                mutations=self._size.mutations + numbers.mutations,
                nbytes=self._size.nbytes + numbers.nbytes,
            )

    def _forget(self, applied_through: int) -> None:
        with self._lock:
            if applied_through <= self._applied_through:
                return
            self._applied_through = applied_through
            gone = [position for position in self._entries if position <= applied_through]
            numbers = [self._entries.pop(position) for position in gone]
            mutations = sum(one.mutations for one in numbers)
            nbytes = sum(one.nbytes for one in numbers)
            for one in numbers:
                self._rows.subtract(one.rows)
            self._rows = +self._rows
            self._size = replace(
                self._size,
                mutations=self._size.mutations - mutations,
                nbytes=self._size.nbytes - nbytes,
                applied_mutations=self._size.applied_mutations + mutations,
                applied_nbytes=self._size.applied_nbytes + nbytes,
            )

    def _looked(self, *, is_whole: bool) -> BacklogSize:
        with self._lock:
            self._size = replace(self._size, is_whole=is_whole)
            return self._size
