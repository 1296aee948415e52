"""Keys: how a row is named, hashed, assigned to a shard, and found in a sorted array of hashes.

A key is the vector's id, preceded by its namespace where an index keeps one id per namespace. Hashes are xxh3_64, and
only ever narrow a search: every match is confirmed on the key itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from upwell.changeset import KeyScope

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


HASHED_AT_ONCE = 16_384

# Made once, and with their types: to find out a type, Arrow looks for modules that are not there, for a tenth of a millisecond.
_NOTHING = pa.scalar(b"", pa.binary())
#: No text in UTF-8 has such a byte, so no two rows share a key, with a namespace or without.
_END = pa.scalar(b"\xff", pa.binary())


def keys_of(ids: pa.Array, namespaces: pa.Array | None, scope: KeyScope) -> pa.Array:
    """The key of each row: Arrow ``binary``, n values, no nulls. In a scope that is open it is as if no row had a namespace."""
    raw = ids.cast(pa.binary())
    if scope is not KeyScope.NAMESPACE or namespaces is None or namespaces.null_count == len(namespaces):
        return raw
    inside = pc.binary_join_element_wise(_NOTHING, namespaces.cast(pa.binary()), raw, _END)
    return pc.if_else(namespaces.is_valid(), inside, raw)


def hash_keys(keys: pa.Array) -> Hashes:
    """xxh3_64 of each key."""
    hashes = np.empty(len(keys), np.uint64)
    # In pieces, because other threads of the process stand still while one is hashed.
    for start in range(0, len(keys), HASHED_AT_ONCE):
        piece = keys.slice(start, HASHED_AT_ONCE).to_numpy(zero_copy_only=False)
        hashes[start : start + len(piece)] = np.fromiter(map(xxh3_64_intdigest, piece), np.uint64, len(piece))
    return hashes


def shard_of(hashes: Hashes, shards: int) -> npt.NDArray[np.int64]:
    """The shard of each key. By the hash's upper half, so that it says nothing about order within a shard."""
    return ((hashes >> np.uint64(32)) % np.uint64(shards)).astype(np.int64)


class Candidates(NamedTuple):
    """Pairs worth comparing: ``asked[i]`` (place in the query) may be ``rows[i]`` (row of the segment)."""

    asked: Rows
    rows: Rows


def find_hashes(sorted_hashes: Hashes, order: npt.NDArray[np.uint32], wanted: Hashes) -> Candidates:
    """Rows whose hash equals a wanted one. ``order[i]`` is the row of ``sorted_hashes[i]``. Vectorised: O(w log n)."""
    left = np.searchsorted(sorted_hashes, wanted, side="left")
    inside = left < len(sorted_hashes)
    hit = np.zeros(len(wanted), dtype=bool)
    hit[inside] = sorted_hashes[left[inside]] == wanted[inside]
    asked = np.flatnonzero(hit)
    places = left[asked]
    if len(asked) == 0:
        return Candidates(asked, places)
    # Equal neighbours are different keys with one hash: rare beyond measure, and still each must be looked at.
    right = np.searchsorted(sorted_hashes, wanted[asked], side="right")
    widths = right - places
    if (widths > 1).any():
        asked = np.repeat(asked, widths)
        starts = np.repeat(places - np.concatenate(([0], np.cumsum(widths)[:-1])), widths)
        places = np.arange(len(asked)) + starts
    return Candidates(asked, order[places].astype(np.int64))
