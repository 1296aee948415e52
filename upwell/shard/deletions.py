"""Deletion vectors: which rows of a segment are no more. A roaring bitmap on disk, a mask in memory; each is immutable.

One commit writes the vectors it changes into one object, a section per segment, so that a commit costs one fsync for all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from upwell.errors import Corrupt
from upwell.format import Kind, pack, unpack
from upwell.streamed import Part

Mask = npt.NDArray[np.bool_]


def encode_deletions(deleted: Mapping[str, Mask]) -> list[Part]:
    """The bytes of one object that holds the deletion vector of each segment id in ``deleted``."""
    sections = []
    for segment_id, mask in deleted.items():
        bitmap = BitMap(np.flatnonzero(mask).astype(np.uint32))
        bitmap.run_optimize()
        sections.append((segment_id, [bitmap.serialize()]))
    return pack(Kind.DELETIONS, {}, sections)


def decode_deletions(data: memoryview, segment_id: str, rows: int, count: int, key: str = "") -> Mask:
    """The deleted rows of a segment: bool (rows,), read-only. Raises Corrupt if it does not hold ``count`` of them."""
    box = unpack(data, Kind.DELETIONS, key)
    with box.understood():
        bitmap = BitMap.deserialize(bytes(box.section(segment_id)))
        if len(bitmap) != count or (count and bitmap.max() >= rows):
            raise Corrupt("a deletion vector does not fit its segment", segment=segment_id)
    mask = np.zeros(rows, dtype=bool)
    mask[np.frombuffer(bitmap.to_array(), dtype=np.uint32)] = True
    mask.flags.writeable = False
    return mask
