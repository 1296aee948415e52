"""Appending one entry, durably, at the next free position.

``append`` returns after the entry and its name are on stable storage; before that nobody has been told anything.
If it raises, the mutations may or may not be in the log, and must not be acknowledged.

The dead zone. Create-if-absent is a referee only while the old object exists: a writer that sleeps long enough may create
an entry at a position that was applied *and swept*, where no drain will ever look. So a position is trusted only for
half the grace period that the sweeper leaves applied entries alone; when more time than that passed between knowing
the position to be free and holding the finished create, the manifest is asked, and an entry that turns out to lie at or
below ``applied_through`` is never acknowledged. A lost race renews no trust: the position after one that is taken may have
been taken, applied and swept as long ago.

Once, and no more. Each append has a token of its own, which its entry bears. If the position is taken, whoever took it may have been
ourselves: a client library of a bucket sends a request again when the first answer is lost. Then the entry there bears our token, and the
append is done. After Unavailable nothing is tried again: the entry may be there, or come to be there later, whole and
unacknowledged, which is what unknown means. On a directory it would take a second fsync of what failed to be sure, and one that succeeds
after one that failed is no ground to promise anything; the *next* append goes behind the entry, and its own fsync covers both.

No gaps. A position is tried only after the one before it is on stable storage: our own, because its create returned; another's, because
AlreadyExists says so; one that was found by looking, because it is confirmed. So a power failure never takes an entry and leaves a later
one, and looking for the tail in growing steps (dense.py) never jumps over a hole into which a drain would fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from upwell.clock import Clock
from upwell.errors import AlreadyExists, Corrupt, NotFound, TooNew, Unavailable
from upwell.failpoint import Step, reached
from upwell.ids import new_identity
from upwell.log.entry import INLINE_BYTES_MAX, PreparedMutation, encode_entry, encode_payload
from upwell.log.reader import LogReader
from upwell.store import Store, create_own

#: After this many lost races in a row the tail is probed for, instead of being walked to one by one.
LOST_RACES_BEFORE_PROBING = 4


class LogWriter:
    """Appends to one index's log. Not for concurrent use: one writer per process and index, see Appender."""

    def __init__(
        self, store: Store, folder: str, applied_through: Callable[[], int], clock: Clock, grace_s: float
    ) -> None:
        self._store = store
        self._folder = folder
        self._reader = LogReader(store, folder)
        #: Asks the newest manifest in the store; never answers from a cache.
        self._applied_through = applied_through
        self._clock = clock
        self._trust_s = grace_s / 2
        #: The position to try next, or None when it must be found first.
        self._next: int | None = None
        self._known_free_at = 0.0

    def append(self, prepared: Sequence[PreparedMutation]) -> int:
        """Write one entry holding ``prepared``; returns its position. Raises Unavailable, with the outcome unknown."""
        try:
            began_at = self._clock.monotonic()
            payloads = [self._write_payload(one) for one in prepared]
            position = self._create_entry(prepared, payloads)
            if self._clock.monotonic() - began_at > self._trust_s:
                # A payload that seemed to belong to nobody for so long may have been swept.
                raise Unavailable(
                    "an append took longer than its payload is kept for; its outcome is unknown"
                )
            return position
        except BaseException:
            self._next = None
            raise

    def _write_payload(self, one: PreparedMutation) -> str | None:
        if one.nbytes <= INLINE_BYTES_MAX:
            return None
        key = f"{self._folder}/payload/{new_identity()}"
        create_own(self._store, key, *encode_payload(one.columns))
        reached(Step.LOG_PAYLOAD_WRITTEN)
        return key

    def _create_entry(self, prepared: Sequence[PreparedMutation], payloads: Sequence[str | None]) -> int:
        lost, token = 0, new_identity()
        while True:
            position = self._free_position()
            # Read before the create, so that time slept inside it counts against what we believe afterwards.
            tried_at = self._clock.monotonic()
            reached(Step.LOG_ENTRY_BEFORE)
            try:
                self._store.create(
                    self._reader.key(position), *encode_entry(position, token, prepared, payloads)
                )
            except AlreadyExists:
                if not self._is_ours(position, token):
                    lost += 1
                    following = None if lost % LOST_RACES_BEFORE_PROBING == 0 else position + 1
                    self._expect(following, self._known_free_at)
                    continue
            reached(Step.LOG_ENTRY_CREATED)
            self._refuse_dead_zone(position)
            self._expect(position + 1, tried_at)
            return position

    def _is_ours(self, position: int, token: str) -> bool:
        """Does the entry at ``position`` bear our ``token``?"""
        try:
            return self._reader.read(position).token == token
        except (NotFound, Corrupt, TooNew):
            # Swept; or damaged, or a newer Upwell's: what we write is neither.
            return False

    def _free_position(self) -> int:
        looked_at = self._clock.monotonic()
        if self._next is None or looked_at - self._known_free_at > self._trust_s:
            tail = self._reader.tail(self._applied_through())
            if tail > 0:
                self._store.confirm(self._reader.key(tail))
            self._expect(tail + 1, looked_at)
        assert self._next is not None
        return self._next

    def _expect(self, position: int | None, known_free_at: float) -> None:
        """Try ``position`` next. At ``known_free_at`` nobody had taken it: it, or one before it, was free then, and the
        numbering is dense. So whoever took it since, it cannot have been swept before a grace period has passed."""
        self._next = position
        self._known_free_at = known_free_at

    def _refuse_dead_zone(self, position: int) -> None:
        """Raise Unavailable if the entry just created may lie where no drain will look.

        A drain may also have applied it properly while we slept after the create; the log alone cannot tell these apart,
        and appending again could apply it twice. So the outcome is called what it is, unknown.
        """
        if self._clock.monotonic() - self._known_free_at <= self._trust_s:
            return
        if position <= self._applied_through():
            raise Unavailable("an append took longer than the log can vouch for; its outcome is unknown")
