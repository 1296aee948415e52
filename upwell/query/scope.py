"""Which rows of a view a question is about: those alive, of a namespace, that a filter leaves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.segment import Segment
from upwell.shard.view import LiveSegment, View

#: Which rows of a segment count: bool (rows,).
RowFilter = Callable[[Segment], Mask]


def identity_of(view: View, namespace: str | None) -> str | None:
    """What rows call the namespace of this name ("": none of them); None stays None: whatever their namespace."""
    return None if namespace is None else view.namespaces.called(namespace)


def selected(live: LiveSegment, identity: str | None, within: RowFilter | None) -> Mask | None:
    """The rows that a question is about, bool (rows,), or None for all that are alive. ``identity`` None: of any namespace."""
    masks = []
    if identity is not None:
        space = live.segment.spaces.get(identity)
        if space is None:
            return np.zeros(live.segment.rows, np.bool_)
        # Most segments of an index without namespaces, or of one, need no mask at all.
        if space.rows < live.segment.rows:
            masks.append(live.segment.in_namespace(identity))
    if within is not None:
        masks.append(within(live.segment))
    if not masks:
        return None
    if live.deleted is not None:
        masks.append(~live.deleted)
    return masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)


def rows_in(live: LiveSegment, identity: str | None) -> Rows:
    """The live rows of a namespace, or (None) of any, ascending."""
    chosen = selected(live, identity, None)
    return live.live_rows() if chosen is None else np.flatnonzero(chosen)
