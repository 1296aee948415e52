"""What happened at the Milvus door besides rows that the other door's history can tell of."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass(slots=True)
class AutoInsert:
    """A request with an Idempotency-Key for rows without ids, each with this ``number``, sent until it was answered, or more often."""

    number: int
    rows: int
    started: float
    #: When it was acknowledged last.
    ended: float = inf
    #: The ids and the mutation that each answer told of.
    answers: list[tuple[tuple[str, ...], str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AutoRead:
    """A Strong read of the rows of one such request, or of all (``number`` None): the number and the id of each row."""

    front_end: str
    started: float
    number: int | None
    found: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """How something was after a change of it had been asked for, and how it may have been then."""

    command: str
    allowed: tuple[Any, ...]
    seen: Any
    code: int


@dataclass(slots=True)
class MilvusHistory:
    """All of it."""

    inserts: list[AutoInsert] = field(default_factory=list)
    reads: list[AutoRead] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
