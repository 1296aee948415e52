"""What a check has to say: how bad it is, of which object, what that means for the promises, and what to do about it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from upwell.format import Kind


class Severity(StrEnum):
    """How bad a finding is."""

    #: Something that was promised cannot be kept.
    ERROR = "error"
    #: Something is not as it was written, and no promise depends on it.
    WARNING = "warning"
    #: Nothing is wrong: what is superfluous, and will be collected.
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found."""

    severity: Severity
    #: The object, or the folder, that it is about.
    key: str
    #: ``account/name``, where it is about an index that has one.
    index: str | None
    problem: str
    meaning: str
    remedy: str


@dataclass(slots=True)
class Report:
    """Everything found in a store, and how much was looked at. Safe to add to from several threads."""

    findings: list[Finding] = field(default_factory=list)
    indexes: int = 0
    vectors: int = 0
    objects: int = 0
    nbytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, findings: Iterable[Finding]) -> None:
        """Take up findings."""
        # Made first: what makes them may count here as well.
        found = list(findings)
        with self._lock:
            self.findings += found

    def looked_at(self, *, objects: int = 0, nbytes: int = 0) -> None:
        """Count what was read."""
        with self._lock:
            self.objects += objects
            self.nbytes += nbytes

    def count(self, severity: Severity) -> int:
        """How many findings are so bad."""
        return sum(one.severity is severity for one in self.findings)

    @property
    def clean(self) -> bool:
        """Is there nothing that an operator must know of?"""
        return all(one.severity is Severity.NOTE for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "clean": self.clean,
            "indexes": self.indexes,
            "vectors": self.vectors,
            "objects": self.objects,
            "bytes": self.nbytes,
            "findings": [asdict(one) for one in self.findings],
        }


FROM_BACKUP = "restore the index from a backup (upwell restore), under another name, and check that"
WAIT = "nothing: workers collect it in time"

#: What it means that an object of a kind, which something relies on, cannot be read; and what to do.
CONSEQUENCES: dict[Kind, tuple[str, str]] = {
    Kind.LOG_ENTRY: (
        "its acknowledged mutations cannot be applied; status will tell them as failed",
        "send those mutations again",
    ),
    Kind.PAYLOAD: (
        "an acknowledged mutation cannot be applied; status will tell it as failed",
        "send that mutation again",
    ),
    Kind.MANIFEST: (
        "the index cannot be opened: no query answers, and nothing is applied. Its log still takes mutations",
        FROM_BACKUP,
    ),
    Kind.SEGMENT: (
        "its vectors cannot be read: queries, exports and merges that touch it fail",
        FROM_BACKUP,
    ),
    Kind.DELETIONS: (
        "nobody knows which vectors of its segments are deleted: the index cannot be opened",
        FROM_BACKUP,
    ),
    Kind.INDEX_RECORD: ("the index cannot be opened", FROM_BACKUP),
    Kind.CATALOG_EVENT: (
        "nobody knows which index the name stands for: every request to it fails, and no dead index is collected",
        "restore the index from a backup under another name; delete this name's folder in catalog/ once that is done",
    ),
    Kind.TOKEN: ("its holder is refused", "make another token, and delete this object"),
    Kind.WEBHOOK: ("the webhook is not delivered for", "delete the webhook and register it again"),
    Kind.REQUEST: (
        "the same request sent again is refused, and a copy of it in the log fails",
        "delete it if that request will not be sent again",
    ),
    Kind.FAILED: ("a failed mutation cannot be tried again", "send it again, and delete this object"),
    Kind.FAILURES: ("the status of older failed mutations cannot be told", FROM_BACKUP),
    Kind.NAMESPACES: ("nobody knows how its namespaces are called: the index cannot be opened", FROM_BACKUP),
    Kind.NOTES: (
        "what doors keep of it beside its rows (properties, aliases, load states) cannot be told or changed",
        "delete it: what was noted before counts again, as far as that is still there",
    ),
    Kind.EMBEDDED: ("nothing: whoever applies its texts makes their vectors again", WAIT),
    Kind.PART: ("nothing: whoever commits the batch writes that part itself", WAIT),
    Kind.BACKUP: ("the backup cannot be restored", "take another one"),
}
