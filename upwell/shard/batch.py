"""The next batch of the log, read: whole entries, within limits, each mutation with its rows or the reason why it has none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from upwell.catalog.record import IndexRecord
from upwell.changeset import Changeset
from upwell.clock import Clock
from upwell.errors import Corrupt, NotFound
from upwell.log.entry import Entry, Mutation
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt
from upwell.log.request import Requests
from upwell.store import Store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much one commit takes on: whichever is reached first. At least one log entry is always taken."""

    vectors_max: int
    mutations_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pending:
    """A mutation to be applied: its rows, or (``changeset`` None) why it cannot be, or that it is one that the log holds twice."""

    position: int
    place: int
    mutation: Mutation
    changeset: Changeset | None
    error: str | None = None
    #: Its request is in the log twice, and the other one is the one that counts. Nobody was ever given this one's id.
    duplicate: bool = False

    @property
    def is_left_out(self) -> bool:
        """Does it bring no rows that its entry has?"""
        return self.changeset is None and not self.mutation.operation.names_property


class BatchReader:
    """Reads batches of one index's log. Holds no state: share it freely."""

    def __init__(self, store: Store, record: IndexRecord, limits: BatchLimits, clock: Clock) -> None:
        self._store = store
        self._record = record
        self._limits = limits
        self._log = LogReader(store, record.folder)
        self._requests = Requests(store, record.folder, clock)

    def next(self, applied_through: int) -> list[Pending]:
        """The mutations after ``applied_through``; none if there are none."""
        batch: list[Pending] = []
        vectors = nbytes = 0
        position = applied_through
        while self._log.exists(position + 1):
            position += 1
            taken = self._read_entry(position)
            vectors += sum(one.mutation.rows for one in taken)
            nbytes += sum(one.changeset.nbytes for one in taken if one.changeset is not None)
            full = (
                vectors > self._limits.vectors_max
                or len(batch) + len(taken) > self._limits.mutations_max
                or nbytes > self._limits.bytes_max
            )
            if full and batch:
                break
            batch += taken
            if full:
                break
        return batch

    def again(
        self, applied_through: int, through: int, left_out: Collection[tuple[int, int]]
    ) -> list[Pending] | None:
        """A batch as another process read it; None if this one leaves other mutations out than ``left_out`` says."""
        batch: list[Pending] = []
        for position in range(applied_through + 1, through + 1):
            batch += self._read_entry(position)
        here = {(one.position, one.place) for one in batch if one.is_left_out}
        return batch if here == set(left_out) else None

    def _read_entry(self, position: int) -> list[Pending]:
        entry = self._log.read(position)
        return [self._read_mutation(entry, place) for place in range(len(entry.mutations))]

    def _read_mutation(self, entry: Entry, place: int) -> Pending:
        """One mutation, or the reason why it can never be applied: that becomes its result, and the next ones go on."""
        changeset: Changeset | None = None
        error: str | None = None
        mutation = entry.mutations[place]
        try:
            changeset = entry.changeset(place, self._store.read)
            dimensions = None if changeset.vectors is None else changeset.vectors.shape[1]
            if dimensions not in (None, self._record.dimensions):
                error = f"the mutation has {dimensions} dimensions, the index has {self._record.dimensions}"
            # Only now: a copy whose bytes are gone must not become the one that counts.
            if mutation.request is not None and error is None:
                receipt = Receipt(entry.position, place)
                if self._requests.settle(mutation.request, receipt).receipt != receipt:
                    return Pending(
                        position=entry.position,
                        place=place,
                        mutation=mutation,
                        changeset=None,
                        duplicate=True,
                    )
        except (Corrupt, NotFound) as damage:
            # NotFound: a payload that was swept, so its entry came too late to be acknowledged.
            error = str(damage)
        if error is not None:
            log.error(
                "mutation failed", index=self._record.id, position=entry.position, place=place, error=error
            )
        return Pending(
            position=entry.position,
            place=place,
            mutation=mutation,
            changeset=changeset if error is None else None,
            error=error,
        )
