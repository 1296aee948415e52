"""What a worker asks of the engine; a test may pass something smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from upwell.garbage import Collected
from upwell.log.receipt import Receipt
from upwell.shard.apply import Applied
from upwell.shard.batch import Broken
from upwell.shard.compact import Compacted
from upwell.shard.embedding import TextClaims
from upwell.shard.part import PartTask, Sharing
from upwell.webhook import Delivery


class Drainable(Protocol):
    """Blocking; called from threads."""

    def has_backlog(self, index_id: str) -> bool:
        """Are there log entries that are not applied?"""
        ...

    def backlogged(self) -> Iterator[str]:
        """All indexes with such entries."""
        ...

    def collect_garbage(self, index_id: str) -> Collected:
        """Delete what nothing of an index can read any more."""
        ...

    def collect_dead_indexes(self) -> int:
        """Delete indexes that nobody can reach any more."""
        ...

    def live_indexes(self) -> list[str]:
        """All indexes that have a name."""
        ...

    def compactions_due(self) -> Iterator[tuple[str, int]]:
        """Index and shard of all that have segments to merge."""
        ...

    def compact(
        self,
        index_id: str,
        shard: int,
        alive: Callable[[], None],
        turn: Callable[[], AbstractContextManager[object]],
    ) -> Compacted | None:
        """Merge what is due next in a shard; None if nothing is. ``alive`` may raise to end it; ``turn`` is entered to commit.

        Raises Fenced, Unavailable or Corrupt.
        """
        ...

    def apply_batch(
        self,
        index_id: str,
        still_ours: Callable[[], bool],
        applying: Callable[[int], None],
        sharing: Sharing | None = None,
        broken: Broken | None = None,
        *,
        claims: TextClaims | None = None,
    ) -> Applied | None:
        """Apply and commit the next batch; ``applying`` is told how far it goes, ``sharing`` may find help with it. With ``broken``
        it is one log entry, of which these mutations fail; ``claims`` say who makes which texts' vectors.

        Raises Fenced, Unavailable or Corrupt.
        """
        ...

    def next_entry(self, index_id: str) -> list[Receipt]:
        """The mutations of the log entry that is applied next; none if nothing of it can be read."""
        ...

    def help_apply(self, index_id: str, task: PartTask, sharing: Sharing) -> int:
        """Write parts of a batch that another process applies; returns how many."""
        ...

    def embed_ahead(self, index_id: str, claims: TextClaims) -> int:
        """Make and keep vectors of texts that wait and that nobody is at, some at once; returns of how many entries. Raises ModelAway."""
        ...

    def close(self) -> None:
        """Let go of models: who waits for one is told that it is away."""
        ...

    def webhook_indexes(self) -> list[str]:
        """All indexes that have webhooks."""
        ...

    def webhooks_due(self, index_id: str) -> list[str]:
        """The webhooks of an index that there may be something to tell now."""
        ...

    def webhook_delivery(self, index_id: str, webhook_id: str) -> Delivery | None:
        """A turn of delivering for one webhook; None if it is not there any more."""
        ...
