"""What happened, as it was seen from outside and in the store: plain values, for the checker (check.py) to judge.

Times are seconds on one monotonic clock. Every mutation writes, or deletes, a whole *group* of ids with one number of its own, the
generation, which all its vectors carry; so a reader sees at once whose work it sees, and whether it sees half of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from tests.crash.door_history import DoorHistory
from tests.crash.milvus_history import MilvusHistory

#: Where a mutation lies: position of its entry, place in the entry.
Receipt = tuple[int, int]
#: ``declare``: a metadata index created or deleted, which no group notices.
Operation = Literal["upsert", "insert", "delete", "declare"]
State = Literal["queued", "applying", "visible", "failed"]
#: Seen of a vector whose generation was not told.
SOME = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One sending of a mutation. No receipt: refused for certain, or nobody knows."""

    started: float
    ended: float
    front_end: str
    receipt: Receipt | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A mutation as its sender knows it; with a ``key`` it may have been sent more than once."""

    index: str
    group: str
    generation: int
    operation: Operation
    attempts: tuple[Attempt, ...]
    key: str | None = None

    @property
    def receipts(self) -> set[Receipt]:
        """Those it was acknowledged with: at most one, if all is well."""
        return {one.receipt for one in self.attempts if one.receipt is not None}

    @property
    def started(self) -> float:
        """When it was sent for the first time."""
        return min(one.started for one in self.attempts)

    @property
    def acknowledged_at(self) -> float | None:
        """When it was acknowledged for the first time."""
        return min((one.ended for one in self.attempts if one.receipt is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A mutation as a witness found it in the log. ``whole``: it has all rows of its group, all of its generation."""

    index: str
    receipt: Receipt
    operation: Operation
    group: str
    generation: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Counts:
    """What a mutation did, as a commit or a status says."""

    inserted: int = 0
    replaced: int = 0
    skipped: int = 0
    deleted: int = 0
    updated: int = 0

    def as_mapping(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A mutation's result as a witness found it in the manifest of ``version``."""

    index: str
    version: int
    receipt: Receipt
    counts: Counts
    duplicate: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """An answer that told of vectors: for each group it was about, the generations of those of its members that it had.

    ``asked``: it was about so many members of each, if not about all. ``after``: it was asked to reflect this mutation. ``last``: it
    was made once all was quiet.
    """

    index: str
    front_end: str
    kind: str
    started: float
    ended: float
    seen: Mapping[str, tuple[int, ...]]
    asked: int | None = None
    after: Receipt | None = None
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a front end said of a mutation."""

    index: str
    front_end: str
    started: float
    ended: float
    receipt: Receipt
    state: State
    visible_through: int
    counts: Counts | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that should not have been given, or the lack of one."""

    front_end: str
    request: str
    said: str


@dataclass(slots=True)
class History:
    """All of it."""

    #: How many ids each group of an index has.
    members: dict[str, int] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    #: Mutations that each index's webhook told of, in order of arrival, and whether it told of a gap.
    told: dict[str, list[Receipt]] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    #: What processes printed that they should not have.
    printed: list[str] = field(default_factory=list)
    door: DoorHistory = field(default_factory=DoorHistory)
    milvus: MilvusHistory = field(default_factory=MilvusHistory)
