"""Notes: one small JSON document that changes, and that the engine itself does not care for.

Each change is a new object, ``{folder}/{number:020d}`` from 1 without gaps, created if absent: of two who change it at once, one finds
that the other was first, and changes what that made of it. What was read, and what a change became, is on stable storage.

Old numbers are collected. So what was known to be the newest is believed for half a grace period, and looked up by listing after
that; and who took longer than that over one number asks what is the newest, since the number may have been used and collected meanwhile.

    meta  {"writer": whoever wrote it, so that it knows its own, "notes": {…}}
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import orjson

from upwell.clock import Clock
from upwell.dense import last_of
from upwell.errors import AlreadyExists, Invalid, NotFound, TooLarge, Unavailable
from upwell.failpoint import Step, reached
from upwell.format import Box, Kind, pack
from upwell.ids import new_identity, numbered, numbers_in
from upwell.store import Store, read_object

#: Those of an index, in its folder.
NOTES = "notes"
#: Of a document, as JSON. It is read whole, and written whole by each change.
NOTES_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class _Version:
    """One state of the document."""

    #: 0: there is none yet.
    number: int
    #: As JSON: whoever gets it may do with it what he likes.
    text: bytes
    writer: str


_NONE = _Version(0, b"{}", "")


class Notes:
    """The document in one folder. Blocking; safe to share between threads."""

    def __init__(self, store: Store, folder: str, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._trust_s = grace_s / 2
        self._lock = threading.Lock()
        self._newest = _NONE
        #: When that was last known to be the newest: monotonic seconds, taken before the look.
        self._seen_at = -inf

    def read(self) -> dict[str, Any]:
        """The document as it is now, {} if there is none: a copy. One look if nothing changed. Raises Unavailable or Corrupt."""
        found: dict[str, Any] = orjson.loads(self._refresh()[0].text)
        return found

    def change(self, make: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Let the document become what ``make`` makes of it, and return that once it is durable.

        ``make`` gets a copy, and is called again if somebody else was first; what it raises changes nothing. Raises Invalid for what is
        no JSON, TooLarge, and Unavailable with the outcome unknown.
        """
        while True:
            last, looked_at = self._refresh()
            text = _encoded(make(orjson.loads(last.text)))
            if text != last.text and not self._write(
                _Version(last.number + 1, text, new_identity()), looked_at
            ):
                continue
            became: dict[str, Any] = orjson.loads(text)
            return became

    def _refresh(self) -> tuple[_Version, float]:
        """The newest version, durable, and a time when it was not yet looked for."""
        with self._lock:
            while True:
                looked_at = self._clock.monotonic()
                stale = looked_at - self._seen_at > self._trust_s
                number = self._newest_number() if stale else last_of(self._exists, self._newest.number)
                if self._clock.monotonic() - (looked_at if stale else self._seen_at) > self._trust_s:
                    # The sleep was in the look itself.
                    continue
                if number != self._newest.number:
                    try:
                        self._newest = self._load(number)
                    except NotFound:
                        # Collected between the two looks, so there are later ones: list them.
                        self._seen_at = -inf
                        continue
                self._seen_at = looked_at
                return self._newest, looked_at

    def _write(self, version: _Version, looked_at: float) -> bool:
        """Make this the newest version; False if somebody else was first, or it took too long to begin."""
        if self._clock.monotonic() - looked_at > self._trust_s:
            return False
        meta = {"writer": version.writer, "notes": orjson.loads(version.text)}
        try:
            self._store.create(self._key(version.number), *pack(Kind.NOTES, meta))
        except AlreadyExists:
            # A client library may have sent ours twice.
            try:
                if self._load(version.number).writer != version.writer:
                    return False
            except NotFound:
                return False
        if self._clock.monotonic() - looked_at > self._trust_s and self._newest_number() != version.number:
            raise Unavailable(
                "a change took so long that nobody knows whether it was made; look, and try again"
            )
        return True

    def _newest_number(self) -> int:
        return max(numbers_in(self._store.list(self._folder)), default=0)

    def _exists(self, number: int) -> bool:
        return self._store.exists(self._key(number))

    def _load(self, number: int) -> _Version:
        """A version, on stable storage. Raises NotFound or Corrupt."""
        if number == 0:
            return _NONE
        key = self._key(number)
        box = read_object(self._store, key, Kind.NOTES)
        self._store.confirm(key)
        with box.understood():
            return _Version(number, orjson.dumps(notes_in(box)), str(box.meta["writer"]))

    def _key(self, number: int) -> str:
        return f"{self._folder}/{numbered(number)}"


class OldNotes:
    """Collects versions of one document that nobody reads any more. For one thread at a time."""

    def __init__(self, store: Store, folder: str, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._grace_s = grace_s
        #: A number that was seen to be the newest, and when that look was over.
        self._seen: tuple[int, float] | None = None

    def collect(self) -> int:
        """Delete what was superseded by a version that was seen a grace period ago; returns how many. Upwards, so that no gap comes to be."""
        began = self._clock.monotonic()
        numbers = numbers_in(self._store.list(self._folder))
        if len(numbers) < 2:
            self._seen = None
            return 0
        if self._seen is None:
            # Durable, or a power failure would leave neither it nor what it superseded.
            self._store.confirm(f"{self._folder}/{numbered(numbers[-1])}")
            self._seen = numbers[-1], self._clock.monotonic()
        newest, seen_at = self._seen
        if began - seen_at < self._grace_s:
            return 0
        self._seen = None
        old = [number for number in numbers if number < newest]
        for number in old:
            reached(Step.GARBAGE_NOTES_BEFORE)
            self._store.delete(f"{self._folder}/{numbered(number)}")
            reached(Step.GARBAGE_NOTES_AFTER)
        return len(old)


def notes_in(box: Box) -> dict[str, Any]:
    """The document that a version holds. Raises Corrupt."""
    with box.understood():
        return dict(box.meta["notes"])


def _encoded(notes: dict[str, Any]) -> bytes:
    if not isinstance(notes, dict):
        raise Invalid("notes must be a JSON object")
    try:
        text = orjson.dumps(notes)
    except TypeError as error:
        raise Invalid(f"notes must be JSON: {error}") from None
    if len(text) > NOTES_BYTES_MAX:
        raise TooLarge(
            f"there would be more notes than the {NOTES_BYTES_MAX:,} bytes that are kept", got=len(text)
        )
    return text
