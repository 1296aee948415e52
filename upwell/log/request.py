"""Requests that may be sent again and count once: which mutation each of them became.

Whoever comes first, create-if-absent, decides: the front end once the mutation is in its log, or the worker that is about to apply it.
A front end looks before it appends. If it crashed before it could write the record, or another was quicker with the same request, the
log holds the request twice; the worker asks here about each, and leaves out the one that the record does not name. So a request
is applied exactly once, whatever crashes, and what was answered to it stays the answer for as long as the record is kept.

    index/{id}/request/{name}   meta {"digest", "position", "place", "at"}
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from upwell.clock import Clock
from upwell.errors import AlreadyExists, NotFound
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.log.receipt import Receipt
from upwell.store import Store, read_object

#: How the names of requests begin that a failed mutation be tried again: they are remembered for as long as that is kept.
RETRY_PREFIX = "retry-"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may come again. ``name`` stands for who sent it and the key it was given, ``digest`` for what it said."""

    name: str
    digest: str

    @classmethod
    def of_retry(cls, mutation_id: str) -> Request:
        """The request that a mutation which failed be tried again, whoever makes it."""
        one = cls.of("retry", mutation_id)
        return replace(one, name=RETRY_PREFIX + one.name)

    @classmethod
    def of(cls, token_id: str, key: str, *said: bytes | memoryview) -> Request:
        """The request of a token's holder with this key."""
        name = hashlib.sha256(f"{token_id}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()
        digest = hashlib.sha256()
        for part in said:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return cls(name, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Settled:
    """What a request became."""

    digest: str
    receipt: Receipt
    at: datetime


class Requests:
    """The requests of one index. Blocking; safe to share between threads and processes."""

    def __init__(self, store: Store, folder: str, clock: Clock) -> None:
        self._store = store
        self._folder = request_folder(folder)
        self._clock = clock

    def answer(self, name: str) -> Settled | None:
        """What the request of this name became, for good; None if that is not decided, or forgotten. For whoever tells a client."""
        found = self.find(name)
        if found is not None:
            # Whoever decided it may not have come to its fsync; told once, it must not be decided otherwise after a power failure.
            self._store.confirm(f"{self._folder}/{name}")
        return found

    def find(self, name: str) -> Settled | None:
        """What the request of this name became; None if that is not decided, or forgotten."""
        try:
            box = read_object(self._store, f"{self._folder}/{name}", Kind.REQUEST)
        except NotFound:
            return None
        with box.understood():
            meta = box.meta
            return Settled(
                meta["digest"], Receipt(meta["position"], meta["place"]), datetime.fromisoformat(meta["at"])
            )

    def settle(self, request: Request, receipt: Receipt) -> Settled:
        """Decide that ``request`` became ``receipt``, unless it is decided already; returns what holds from now on, for good.

        If a client library sent our record twice, we meet our own: what it says is what we wanted.
        """
        found = self.answer(request.name)
        if found is not None:
            return found
        now = self._clock.now()
        meta = {
            "digest": request.digest,
            "position": receipt.position,
            "place": receipt.place,
            "at": now.isoformat(),
        }
        reached(Step.REQUEST_BEFORE)
        try:
            self._store.create(f"{self._folder}/{request.name}", *pack(Kind.REQUEST, meta))
        except AlreadyExists:
            found = self.find(request.name)
            if found is None:
                # Forgotten between the two looks: it was decided so long ago that nobody asks again.
                raise NotFound("the request was decided and is forgotten", name=request.name) from None
            return found
        reached(Step.REQUEST_SETTLED)
        return Settled(request.digest, receipt, now)


def request_folder(folder: str) -> str:
    """Where an index keeps its requests."""
    return f"{folder}/request"
