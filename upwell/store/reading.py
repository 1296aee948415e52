"""Reading an object: the one way in which bytes of a store become something that is understood.

Whatever is wrong with them, then or when a section is asked for later, is Corrupt and names the object, so that an operator can find it.
"""

from __future__ import annotations

from upwell.format import Box, Kind, unpack
from upwell.store.base import Store


def read_object(store: Store, key: str, kind: Kind) -> Box:
    """The object called ``key``. Raises NotFound, Unavailable, Corrupt, or TooNew."""
    return unpack(store.read(key), kind, key)
