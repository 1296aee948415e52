"""The contract of an object store, and the one primitive that makes it a referee: create-if-absent.

Keys are ``/``-separated paths of plain names. An object is never changed after it was created; it is only ever deleted,
by the sweeper, once nothing can read it. All calls block and are made from threads, never from an event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from upwell.streamed import Part


class Store(Protocol):
    """Where objects live. Every method may raise Unavailable."""

    def create(self, key: str, *parts: Part) -> None:
        """Write an object from ``parts``, or raise AlreadyExists and change nothing.

        Returns only after the object and its name are on stable storage. Of any number of concurrent creates of one key
        exactly one returns. After Unavailable the outcome is unknown: the object may exist, whole, or not at all.
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
        """Remove an object; one that is not there is no error."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Remove every object below ``folder``, and the folder where a store has such things. Not atomic."""
        ...
