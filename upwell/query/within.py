"""What the filters of queries leave of a segment, which the queries of one request need not find out again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from upwell.query.patience import Patience
from upwell.query.scope import RowFilter
from upwell.shard.deletions import Mask
from upwell.shard.filter import Covered, Filter
from upwell.shard.segment import Segment

#: Filters of one request of which it is remembered, one bit a row, what they leave.
REMEMBERED_MAX: Final = 4


def left_by(asked: Filter | None, patience: Patience) -> RowFilter | None:
    """What a filter leaves; None: all."""
    return None if asked is None else Covered(asked, (), backfill=True, go_on=patience.check)


class Within:
    """What the filters of one request leave. Shared by the threads that answer its queries."""

    def __init__(self, filters: Iterable[Filter | None], patience: Patience) -> None:
        """Filters of one text are one and the same object."""
        given = [one for one in filters if one is not None]
        # By identity: to compare trees of a thousand leaves, a thousand times, would take seconds.
        by_identity, counts = {id(one): one for one in given}, Counter(map(id, given))
        self._patience = patience
        self._kept = by_identity
        self._remembered = {
            one: _Remembered(Covered(by_identity[one], (), backfill=True, go_on=patience.check))
            for one, count in counts.most_common(REMEMBERED_MAX)
            if count > 1
        }

    def left_by(self, asked: Filter | None) -> RowFilter | None:
        """What one of them leaves; None: all."""
        return self._remembered.get(id(asked)) or left_by(asked, self._patience)


class _Remembered:
    """What a filter leaves, found out once for each segment."""

    def __init__(self, found_by: RowFilter) -> None:
        self._found_by = found_by
        self._bits: dict[str, npt.NDArray[np.uint8]] = {}

    def __call__(self, segment: Segment) -> Mask:
        bits = self._bits.get(segment.id)
        if bits is None:
            bits = self._bits[segment.id] = np.packbits(self._found_by(segment))
        return np.unpackbits(bits, count=segment.rows).view(np.bool_)
