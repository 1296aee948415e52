"""The next batch of the log, read: whole entries, within limits, each mutation with its rows or the reason why it has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from upwell.catalog.record import IndexRecord
from upwell.changeset import Changeset
from upwell.clock import Clock
from upwell.errors import Corrupt, NotFound
from upwell.failpoint import Step, reached
from upwell.log.embedded import EmbeddedEntries
from upwell.log.entry import Entry, Mutation
from upwell.log.reader import LogReader
from upwell.log.receipt import PLACES_MAX, Receipt
from upwell.log.request import Requests
from upwell.store import Store

#: Mutations that were found to break whoever applies them, and how.
Broken = Mapping[Receipt, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much one commit takes on: whichever is reached first. At least one log entry is always taken."""

    vectors_max: int
    mutations_max: int
    bytes_max: int
    #: Texts that vectors are yet to be made of.
    texts_max: int = 2_048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pending:
    """A mutation to be applied: its rows, or (``changeset`` None) why it cannot be, or that it is one that the log holds twice.

    Without ``mutation`` it stands for all mutations of an entry that cannot be read, however many these are.
    """

    position: int
    place: int
    mutation: Mutation | None
    changeset: Changeset | None
    error: str | None = None
    #: Its request is in the log twice, and the other one is the one that counts. Nobody was ever given this one's id.
    duplicate: bool = False

    @property
    def is_left_out(self) -> bool:
        """Does it bring no rows that its entry has?"""
        return self.changeset is None and not (self.mutation and self.mutation.operation.names_property)

    @property
    def rows(self) -> int:
        """How many it has, whether they count or not."""
        return 0 if self.mutation is None else self.mutation.rows

    @property
    def places(self) -> int:
        """How many places of its entry it stands for."""
        return PLACES_MAX if self.mutation is None else 1


class BatchReader:
    """Reads batches of one index's log. Holds no state: share it freely."""

    def __init__(self, store: Store, record: IndexRecord, limits: BatchLimits, clock: Clock) -> None:
        self._store = store
        self._record = record
        self._limits = limits
        self._log = LogReader(store, record.folder)
        self._requests = Requests(store, record.folder, clock)
        self._embedded = EmbeddedEntries(store, record.folder)

    def next(self, applied_through: int, broken: Broken | None = None) -> list[Pending]:
        """The mutations after ``applied_through``; none if there are none.

        With ``broken`` those of the next entry alone, and of them all but the ones that ``broken`` gives a reason for.
        """
        if broken is not None:
            exists = self._log.exists(applied_through + 1)
            return self._read_entry(applied_through + 1, broken) if exists else []
        batch: list[Pending] = []
        vectors = nbytes = texts = 0
        position = applied_through
        while self._log.exists(position + 1):
            position += 1
            taken = self._read_entry(position)
            vectors += sum(one.rows for one in taken)
            texts += self._texts_in(taken, position)
            nbytes += sum(one.changeset.nbytes for one in taken if one.changeset is not None)
            full = (
                vectors > self._limits.vectors_max
                or len(batch) + len(taken) > self._limits.mutations_max
                or nbytes > self._limits.bytes_max
                or texts > self._limits.texts_max
            )
            if full and batch:
                break
            batch += taken
            if full:
                break
        return batch

    def goes_on_after(self, position: int) -> bool:
        """Is there an entry behind ``position``?"""
        return self._log.exists(position + 1)

    def again(self, applied_through: int, through: int) -> list[Pending]:
        """A batch as another process read it."""
        return [
            one for position in range(applied_through + 1, through + 1) for one in self._read_entry(position)
        ]

    def unembedded_after(self, position: int) -> Iterator[list[Pending]]:
        """The entries of the log behind ``position``, but for those whose texts have vectors by now. Decides nothing: a mutation that
        is there twice comes twice."""
        while self._log.exists(position + 1):
            position += 1
            if not self._embedded.exists(position):
                yield self._read_entry(position, decide=False)

    def _texts_in(self, taken: Sequence[Pending], position: int) -> int:
        """Texts of an entry whose vectors are not made yet."""
        texts = sum(one.rows for one in taken if one.changeset is not None and one.changeset.details.embed)
        return 0 if texts and self._embedded.exists(position) else texts

    def _read_entry(
        self, position: int, broken: Broken | None = None, *, decide: bool = True
    ) -> list[Pending]:
        try:
            entry = self._log.read(position)
        except Corrupt as damage:
            # What it held was acknowledged and is lost to us. It is said, of whichever mutation of it one asks for.
            error = f"its log entry is damaged: {damage}"
            return [Pending(position=position, place=0, mutation=None, changeset=None, error=error)]
        reasons = broken or {}
        return [
            self._read_mutation(entry, place, reasons.get(Receipt(position, place)), decide=decide)
            for place in range(len(entry.mutations))
        ]

    def _read_mutation(self, entry: Entry, place: int, broken: str | None, *, decide: bool) -> Pending:
        """One mutation, or the reason why it can never be applied: that becomes its result, and the next ones go on."""
        one = Pending(
            position=entry.position,
            place=place,
            mutation=entry.mutations[place],
            changeset=None,
            error=broken,
        )
        return self._with_rows(one, entry, decide=decide) if broken is None else one

    def _with_rows(self, one: Pending, entry: Entry, *, decide: bool) -> Pending:
        try:
            changeset = entry.changeset(one.place, self._store.read)
            reached(Step.APPLY_MUTATION, changeset.ids[0] if len(changeset) else "")
            error = self._unsuitable(changeset)
            # Only now: a copy whose bytes are gone must not become the one that counts.
            if error is None and decide and self._is_duplicate(one):
                return replace(one, duplicate=True)
        except (Corrupt, NotFound) as damage:
            # NotFound: a payload that was swept, so its entry came too late to be acknowledged.
            return replace(one, error=str(damage))
        return replace(one, changeset=changeset) if error is None else replace(one, error=error)

    def _is_duplicate(self, one: Pending) -> bool:
        """Did its request become another mutation? Decides it, if nobody has."""
        request = None if one.mutation is None else one.mutation.request
        if request is None:
            return False
        receipt = Receipt(one.position, one.place)
        return self._requests.settle(request, receipt).receipt != receipt

    def _unsuitable(self, changeset: Changeset) -> str | None:
        """Why a changeset cannot be this index's; None if it can."""
        kind, whole = self._record.kind, changeset.brings_rows and not changeset.details.embed
        dimensions = None if changeset.vectors is None else changeset.vectors.shape[1]
        if dimensions is None and kind.has_dense and whole:
            return "the mutation has no dense vectors, and the index has"
        if dimensions not in (None, self._record.dimensions):
            return f"the mutation has {dimensions} dimensions, the index has {self._record.dimensions}"
        if (changeset.sparse is None and kind.has_sparse and whole) or (
            changeset.sparse is not None and not kind.has_sparse
        ):
            return f"the mutation's vectors are not those of a {kind} index"
        if changeset.details.embed and not self._record.embeds:
            return "the index has no model that makes vectors of text"
        return None
