"""What happened at the Upstash door: each mutation whole, as it was sent, found in the log, and answered, for ``door_check.py`` to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.plain_index import PlainMutation
from upwell.changeset import KeyScope

#: Where a mutation lies: position of its entry, place in the entry.
Receipt = tuple[int, int]
#: A row as the door shows it, without its id; None: there is none of this id.
Shown = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorWrite:
    """A mutation as its sender knows it, sent once.

    ``receipt``: what it was acknowledged with. ``counted``: how many rows it was said to have updated or deleted. ``failed``: what it was
    said to have failed for. ``refused``: it was said not to have been taken.
    """

    index: str
    mutation: PlainMutation
    started: float
    ended: float
    front_end: str
    receipt: Receipt | None = None
    counted: int | None = None
    failed: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLogged:
    """A mutation as a witness found it in the log."""

    index: str
    receipt: Receipt
    mutation: PlainMutation


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorRead:
    """What an answer told of a namespace: of some ids, or (``ordered``) of all its rows, in the order of writing.

    ``exists``: it told of the namespace itself. ``words``: it told of all rows in whose text one of these is, and of no others; ``scored``:
    not what these rows are, but what BM25 says of them, the best first. ``last``: it was made once all was quiet.
    """

    index: str
    front_end: str
    namespace: str
    started: float
    ended: float
    rows: tuple[tuple[str, Shown | None], ...] = ()
    ordered: bool = False
    exists: bool | None = None
    words: str = ""
    scored: bool = False
    last: bool = False


@dataclass(slots=True)
class DoorHistory:
    """All of it."""

    #: The indexes, and of which of them a model makes the vectors.
    indexes: dict[str, bool] = field(default_factory=dict)
    #: What ids are unique in, of those where that was said when they were made.
    scopes: dict[str, KeyScope] = field(default_factory=dict)
    writes: list[DoorWrite] = field(default_factory=list)
    logged: list[DoorLogged] = field(default_factory=list)
    reads: list[DoorRead] = field(default_factory=list)
