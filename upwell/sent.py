"""What a mutation was sent to do: from the log as long as it is there, and of one that failed from where it is kept.

For whoever looks into a failure, and for trying it again. Of a mutation that is visible the log tells for a grace period, and then
nobody does: what it did is in the index.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from upwell.catalog.record import IndexRecord
from upwell.changeset import Changeset
from upwell.errors import Invalid, NotFound
from upwell.log.entry import PreparedMutation, again
from upwell.log.kept import KeptMutation, KeptMutations
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt, parse
from upwell.manifest import Failure, Failures, ManifestHead


class SentMutations:
    """The mutations of one index, as they were sent. Blocking; safe to share between threads."""

    def __init__(
        self, record: IndexRecord, head: ManifestHead, log: LogReader, failures: Failures, kept: KeptMutations
    ) -> None:
        self._record = record
        self._head = head
        self._log = log
        self._failures = failures
        self._kept = kept

    def changeset(self, mutation_id: str) -> Changeset:
        """The rows of a mutation. Raises NotFound for one that is none, or is told by nobody any more; Corrupt."""
        receipt = parse(self._record.receipt_key, mutation_id)
        failure = self._failure(receipt)
        if failure is not None:
            return self._kept_of(failure, receipt).changeset()
        try:
            return self._log.changeset(receipt)
        except NotFound:
            raise NotFound("the mutation is applied, and its changeset is kept no longer") from None

    def again(self, mutation_id: str, now: datetime) -> PreparedMutation:
        """A mutation that failed, to be appended once more. Raises Invalid for one that did not fail, NotFound, Corrupt."""
        receipt = parse(self._record.receipt_key, mutation_id)
        failure = self._failure(receipt)
        if failure is None:
            raise Invalid("only a mutation that failed can be tried again, and this one did not")
        kept = self._kept_of(failure, receipt)
        # One whose columns cannot be read would only fail again.
        kept.changeset()
        return again(kept.mutation, pa.py_buffer(kept.columns), now)

    def _failure(self, receipt: Receipt) -> Failure | None:
        return self._failures.at(self._head.refresh(), receipt.position, receipt.place)

    def _kept_of(self, failure: Failure, receipt: Receipt) -> KeptMutation:
        try:
            if failure.kept is not None:
                return self._kept.read(failure.kept, receipt)
        except NotFound:
            pass
        raise NotFound("the mutation failed, and what it was to do is kept no longer")
