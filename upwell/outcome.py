"""What became of a mutation: arithmetic on its receipt and the newest manifest, whatever happened to Redis.

position > applied_through         queued (that a worker is at it just now, only Redis can tell)
listed among the manifest's failures    failed
otherwise                          visible, with counts for as long as the committing manifest is kept
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from upwell.catalog.record import IndexRecord
from upwell.errors import NotFound
from upwell.log.entry import Mutation, problem_to_json
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt, mint, parse
from upwell.manifest import Manifest, ManifestHead, MutationResult

#: Results of this many commits are kept in memory: those that clients wait for just now.
RESULTS_KEPT = 64


class State(StrEnum):
    """Where a mutation is on its way."""

    QUEUED = "queued"
    APPLYING = "applying"
    VISIBLE = "visible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A mutation's state and, as far as it is still known, everything about it."""

    mutation_id: str
    receipt: Receipt
    state: State
    #: The newest manifest's applied_through: every mutation up to there is visible or failed.
    visible_through: int
    #: None once both the log entry and the committing manifest are swept; so is everything below.
    accepted_at: datetime | None = None
    visible_at: datetime | None = None
    result: MutationResult | None = None
    error: str | None = None


class Outcomes:
    """The outcomes of one index's mutations. Blocking; safe to share between threads."""

    def __init__(self, record: IndexRecord, head: ManifestHead, log: LogReader) -> None:
        self._record = record
        self._head = head
        self._log = log
        self._lock = threading.Lock()
        self._commits: OrderedDict[int, tuple[datetime, tuple[MutationResult, ...]]] = OrderedDict()

    def of(self, mutation_id: str) -> Outcome:
        """The outcome as of now. Raises NotFound for an id that this index never gave out."""
        receipt = parse(self._record.receipt_key, mutation_id)
        return self.at(mutation_id, receipt, self._head.refresh())

    def at(self, mutation_id: str, receipt: Receipt, manifest: Manifest) -> Outcome:
        """The outcome as of ``manifest``."""
        if receipt.position > manifest.applied_through:
            return self._queued(mutation_id, receipt, manifest)
        failure = next(
            (f for f in manifest.failures if (f.position, f.place) == (receipt.position, receipt.place)), None
        )
        visible_at, result = self._result(receipt, manifest)
        return Outcome(
            mutation_id=mutation_id,
            receipt=receipt,
            state=State.VISIBLE if failure is None else State.FAILED,
            visible_through=manifest.applied_through,
            accepted_at=result.accepted_at if result else None,
            visible_at=visible_at if failure is None else None,
            result=result,
            error=failure.reason if failure else None,
        )

    def last_applied(self, manifest: Manifest) -> str | None:
        """The mutationId of the newest mutation that ``manifest`` has applied, or None if there is none yet."""
        if manifest.applied_through == 0:
            return None
        return mint(self._record.receipt_key, Receipt(manifest.applied_through, manifest.applied_places - 1))

    def _queued(self, mutation_id: str, receipt: Receipt, manifest: Manifest) -> Outcome:
        mutation = self._read(receipt)
        return Outcome(
            mutation_id=mutation_id,
            receipt=receipt,
            state=State.QUEUED,
            visible_through=manifest.applied_through,
            accepted_at=mutation.accepted_at,
            result=MutationResult(
                position=receipt.position,
                place=receipt.place,
                operation=mutation.operation,
                accepted_at=mutation.accepted_at,
                received=mutation.received,
                discarded=mutation.discarded_count,
                discarded_lines=tuple(problem_to_json(problem) for problem in mutation.discarded),
            ),
        )

    def _read(self, receipt: Receipt) -> Mutation:
        mutations = self._log.read(receipt.position).mutations
        if receipt.place >= len(mutations):
            raise NotFound("no such mutation here")
        return mutations[receipt.place]

    def _result(self, receipt: Receipt, manifest: Manifest) -> tuple[datetime | None, MutationResult | None]:
        """When the mutation was committed and what its commit counted; (None, None) once that is swept."""
        for committed_at, results in self._kept():
            found = _find(results, receipt)
            if found is not None:
                return committed_at, found
        try:
            version = self._head.chain.version_that_applied(receipt.position, manifest)
            if version is None:
                return None, None
            committed_at = self._head.chain.load(version).committed_at
            results = self._head.chain.results(version)
        except NotFound:
            return None, None
        with self._lock:
            self._commits[version] = (committed_at, results)
            while len(self._commits) > RESULTS_KEPT:
                self._commits.popitem(last=False)
        return committed_at, _find(results, receipt)

    def _kept(self) -> list[tuple[datetime, tuple[MutationResult, ...]]]:
        with self._lock:
            return list(reversed(self._commits.values()))


def _find(results: tuple[MutationResult, ...], receipt: Receipt) -> MutationResult | None:
    if not results or not results[0].position <= receipt.position <= results[-1].position:
        return None
    return next((r for r in results if (r.position, r.place) == (receipt.position, receipt.place)), None)
