"""Which rows a selection describes: of a segment, and of rows that are in none yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Selection
from upwell.shard.deletions import Mask
from upwell.shard.filter import Covered, Filter, MetadataColumns, matching
from upwell.shard.filter_json import filter_from_json
from upwell.shard.rows import SegmentRows
from upwell.shard.spaces import in_space
from upwell.shard.view import LiveSegment


@dataclass(frozen=True, slots=True)
class Selected:
    """A selection that is ready to be asked. ``namespace`` is the identity that rows have; None: any."""

    namespace: str | None
    prefix: str | None
    filter: Filter | None

    @classmethod
    def of(cls, selection: Selection) -> Self:
        """From a mutation's selection. Raises Corrupt for a filter that is none."""
        asked = None if selection.filter is None else filter_from_json(selection.filter)
        return cls(selection.namespace, selection.prefix, asked)

    def in_segment(self, live: LiveSegment, go_on: Callable[[], None]) -> Mask:
        """Which rows of a segment it describes, deleted ones included: bool (rows,), the caller's own. ``go_on`` is called while that
        takes long."""
        segment = live.segment
        if self.namespace is not None and self.namespace not in segment.spaces:
            return np.zeros(segment.rows, dtype=bool)
        return self._mask(
            segment.rows,
            segment.in_namespace,
            segment.ids,
            lambda asked: Covered(asked, (), backfill=True, go_on=go_on)(segment),
        )

    def among(self, rows: SegmentRows, go_on: Callable[[], None]) -> Mask:
        """Which of these rows it describes: bool (rows,). ``go_on`` as of ``in_segment``."""
        return self._mask(
            len(rows),
            lambda namespace: in_space(rows.namespaces, len(rows), namespace),
            rows.ids,
            lambda asked: matching(
                asked, len(rows), MetadataColumns(rows.metadata, len(rows), rows.ids, go_on)
            ),
        )

    def _mask(
        self,
        rows: int,
        inside: Callable[[str], Mask],
        ids: pa.Array,
        filtered: Callable[[Filter], Mask],
    ) -> Mask:
        mask = np.ones(rows, dtype=bool)
        if self.namespace is not None:
            mask &= inside(self.namespace)
        if self.prefix is not None and mask.any():
            mask &= pc.starts_with(ids, self.prefix).to_numpy(zero_copy_only=False)
        if self.filter is not None and mask.any():
            mask &= filtered(self.filter)
        return mask
