"""The contract of an object store, and the one primitive that makes it a referee: create-if-absent.

Keys are ``/``-separated paths of plain names. An object is never changed after it was created; it is only ever deleted,
by the sweeper, once nothing can read it. All calls block and are made from threads, never from an event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from upwell.errors import AlreadyExists
from upwell.streamed import Part


class Store(Protocol):
    """Where objects live. Every method may raise Unavailable."""

    def create(self, key: str, *parts: Part) -> None:
        """Write an object from ``parts``, or raise AlreadyExists and change nothing.

        Returns only after the object and its name are on stable storage; and so is what is there when it raises AlreadyExists.
        Of any number of concurrent creates of one key exactly one returns, but it may be told AlreadyExists: a client library
        that sends a request again meets its own object. Whoever would take that for somebody else's reads it and compares.
        After Unavailable the outcome is unknown: the object may exist, whole, or not at all, or come to exist a while later.
        """
        ...

    def confirm(self, key: str) -> None:
        """Return only after what is true of this name now, that there is an object of it or none, is on stable storage.

        Others may see an object before its creator's call is over, and a deleted one may be back after a power failure. So whoever
        tells a client of what somebody else wrote, or deletes something because of it, asks this first. On a directory it is one fsync.
        """
        ...

    def read(self, key: str) -> memoryview:
        """The object's bytes, mapped where the store can, so that untouched pages cost nothing. Raises NotFound.

        The bytes stay readable for as long as the view is held, even if the object is deleted meanwhile.
        """
        ...

    def exists(self, key: str) -> bool:
        """Is there an object of this name now? One stat or one HEAD."""
        ...

    def size_bytes(self, key: str) -> int:
        """The object's length. Raises NotFound."""
        ...

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        """Names (not whole keys) directly under ``folder`` that sort after ``after``, ascending; folders included."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error. It may be back after a power failure: see ``confirm``."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Remove every object below ``folder``, and the folder where a store has such things. Not atomic."""
        ...


def create_own(store: Store, key: str, *parts: Part) -> None:
    """Create an object whose name nobody else would think of, because an identity was made for it just now: if it exists, then a client
    library sent it twice, and it is ours."""
    with contextlib.suppress(AlreadyExists):
        store.create(key, *parts)
