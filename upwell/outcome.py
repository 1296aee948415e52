"""What became of a mutation: arithmetic on its receipt and the newest manifest, whatever happened to Redis.

position > applied_through         queued (that a worker is at it just now, only Redis can tell)
among the manifest's failures        failed
otherwise                          visible, with counts for as long as the committing manifest is kept
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain, islice

from upwell.catalog.record import IndexRecord
from upwell.errors import NotFound
from upwell.log.entry import Mutation, problem_to_json
from upwell.log.reader import LogReader
from upwell.log.receipt import PLACES_MAX, Receipt, mint, parse
from upwell.log.request import Requests
from upwell.manifest import Failures, Manifest, ManifestHead, MutationResult

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


@dataclass(frozen=True, slots=True)
class Applied:
    """Some outcomes in order, and the receipt through which there are no others."""

    outcomes: list[Outcome]
    through: Receipt


class Outcomes:
    """The outcomes of one index's mutations. Blocking; safe to share between threads."""

    def __init__(
        self, record: IndexRecord, head: ManifestHead, log: LogReader, requests: Requests, failures: Failures
    ) -> None:
        self._record = record
        self._head = head
        self._log = log
        self._requests = requests
        self._failures = failures
        self._lock = threading.Lock()
        self._commits: OrderedDict[int, tuple[datetime, tuple[MutationResult, ...]]] = OrderedDict()

    def of(self, mutation_id: str) -> Outcome:
        """The outcome as of now. Raises NotFound for an id that this index never gave out."""
        receipt = parse(self._record.receipt_key, mutation_id)
        return self.at(mutation_id, receipt, self._head.durable())

    def at(self, mutation_id: str, receipt: Receipt, manifest: Manifest) -> Outcome:
        """The outcome as of ``manifest``."""
        if receipt.position > manifest.applied_through:
            return self._queued(mutation_id, receipt, manifest, self._read(receipt))
        failure = self._failures.at(manifest, receipt.position, receipt.place)
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

    def last_applied(self, manifest: Manifest, by: str | None = None) -> str | None:
        """The mutationId of the newest mutation that ``manifest`` has applied, or None if there is none yet.

        Of those that the token ``by`` sent, if it is among the latest writers: all before it is applied as well, so this is true of
        the index too, and the holder can wait for its own id to come up.
        """
        if manifest.applied_through == 0:
            return None
        own = next((one for one in manifest.newest_by if one.by == by), None)
        # Without one of its own the newest of all; a store of an older format knows none by its sender.
        newest = own or (manifest.newest_by[-1] if manifest.newest_by else None)
        if newest is not None:
            return mint(self._record.receipt_key, Receipt(newest.position, newest.place))
        return mint(self._record.receipt_key, Receipt(manifest.applied_through, manifest.applied_places - 1))

    def recent(self, limit: int, before: Receipt | None = None, state: State | None = None) -> list[Outcome]:
        """The newest mutations, newest first: those that wait, then those applied, as far back as is still known.

        Only those older than ``before``, and in ``state`` (QUEUED stands for APPLYING too), if these are given.
        """
        manifest = self._head.durable()
        if state is State.FAILED:
            older = None if before is None else (before.position, before.place)
            failed = islice(self._failures.newest_first(manifest, older), limit)
            return [self._outcome_at(Receipt(one.position, one.place), manifest) for one in failed]
        outcomes: Iterator[Outcome] = iter(())
        if state is not State.VISIBLE:
            outcomes = chain(outcomes, self._waiting(manifest, before))
        if state in (None, State.VISIBLE):
            outcomes = chain(outcomes, self._applied(manifest, before))
        wanted = (one for one in outcomes if state is None or one.state is state)
        return list(islice(wanted, limit))

    def _waiting(self, manifest: Manifest, before: Receipt | None) -> Iterator[Outcome]:
        """Mutations that are not applied, newest first."""
        newest = self._log.tail(manifest.applied_through)
        for position in range(
            newest if before is None else min(newest, before.position), manifest.applied_through, -1
        ):
            for place, mutation in reversed(list(enumerate(self._log.read(position).mutations))):
                receipt = Receipt(position, place)
                if (before is None or receipt < before) and not self._is_duplicate(mutation, receipt):
                    yield self._queued(self._id_of(receipt), receipt, manifest, mutation)

    def _is_duplicate(self, mutation: Mutation, receipt: Receipt) -> bool:
        """Is it known by now that the same request is in the log twice, and that the other one counts?"""
        if mutation.request is None:
            return False
        settled = self._requests.find(mutation.request.name)
        return settled is not None and settled.receipt != receipt

    def _applied(self, manifest: Manifest, before: Receipt | None) -> Iterator[Outcome]:
        """Mutations that are applied, newest first, as far back as is known."""
        version: int | None = manifest.version
        if before is not None and before.position <= manifest.applied_through:
            version = self._head.chain.version_that_applied(before.position, manifest)
        while version is not None and (applied := self._applied_by(version, manifest)) is not None:
            yield from (one for one in reversed(applied) if before is None or one.receipt < before)
            version -= 1

    def applied_after(self, receipt: Receipt, limit: int) -> Applied | None:
        """Mutations that became visible or failed and lie after ``receipt``, oldest first; None if some of them are not
        known any more. One with the last place that an entry can have (``newest``) stands for its whole entry."""
        manifest = self._head.durable()
        everything = max(receipt, Receipt(manifest.applied_through, PLACES_MAX - 1))
        if receipt >= Receipt(manifest.applied_through, manifest.applied_places - 1):
            return Applied([], everything)
        # Behind the last place that an entry can have, what applied the next one is enough to know.
        position = receipt.position + 1 if receipt.place == PLACES_MAX - 1 else max(receipt.position, 1)
        version = self._head.chain.version_that_applied(position, manifest)
        found: list[Outcome] = []
        while version is not None:
            if version > manifest.version:
                return Applied(found, everything)
            applied = self._applied_by(version, manifest)
            if applied is None:
                return None
            found += [one for one in applied if one.receipt > receipt]
            if len(found) >= limit:
                return Applied(found[:limit], found[limit - 1].receipt)
            version += 1
        return None

    def newest(self) -> Receipt:
        """A receipt behind every mutation that is visible or failed by now."""
        return Receipt(self._head.durable().applied_through, PLACES_MAX - 1)

    def known_from(self) -> int:
        """The position from which on all outcomes are still known; the next one to be applied, if none is."""
        manifest = self._head.durable()
        for version in range(self._head.chain.oldest_version(), manifest.version + 1):
            try:
                _, results = self._commit(version)
            except NotFound:
                continue
            if results:
                return results[0].position
        return manifest.applied_through + 1

    def _applied_by(self, version: int, manifest: Manifest) -> list[Outcome] | None:
        """What the commit of ``version`` applied, in order; None if that is not known any more."""
        try:
            _, results = self._commit(version)
        except NotFound:
            return None
        told = (result for result in results if not result.duplicate)
        return [self._outcome_at(Receipt(result.position, result.place), manifest) for result in told]

    def _outcome_at(self, receipt: Receipt, manifest: Manifest) -> Outcome:
        return self.at(self._id_of(receipt), receipt, manifest)

    def _id_of(self, receipt: Receipt) -> str:
        return mint(self._record.receipt_key, receipt)

    def _queued(self, mutation_id: str, receipt: Receipt, manifest: Manifest, mutation: Mutation) -> Outcome:
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
            committed_at, results = self._commit(version)
        except NotFound:
            return None, None
        return committed_at, _find(results, receipt)

    def _commit(self, version: int) -> tuple[datetime, tuple[MutationResult, ...]]:
        """When a version was committed and what it applied. Raises NotFound once it is swept."""
        with self._lock:
            known = self._commits.get(version)
        if known is None:
            known = (self._head.chain.load(version).committed_at, self._head.chain.results(version))
            with self._lock:
                self._commits[version] = known
                while len(self._commits) > RESULTS_KEPT:
                    self._commits.popitem(last=False)
        return known

    def _kept(self) -> list[tuple[datetime, tuple[MutationResult, ...]]]:
        with self._lock:
            return list(reversed(self._commits.values()))


def _find(results: tuple[MutationResult, ...], receipt: Receipt) -> MutationResult | None:
    if not results or not results[0].position <= receipt.position <= results[-1].position:
        return None
    return next((r for r in results if (r.position, r.place) == (receipt.position, receipt.place)), None)
