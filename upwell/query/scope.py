"""Which rows of a view a question is about: those alive, of a namespace, that a filter leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from upwell.shard.deletions import Mask
from upwell.shard.keys import Rows
from upwell.shard.segment import NAMESPACES_KEPT, Segment
from upwell.shard.spaces import in_any_space
from upwell.shard.view import LiveSegment, View

#: Which rows of a segment count: bool (rows,).
RowFilter = Callable[[Segment], Mask]


@dataclass(frozen=True, slots=True)
class AllBut:
    """Whatever namespace, but for those of these names."""

    names: tuple[str, ...]


#: Which namespaces a question is about: the name of one ("": what is in none), the names of several, all but some, or (None) whatever
#: namespace.
Names = str | tuple[str, ...] | AllBut | None
#: The same as rows have them, by identities.
Identities = tuple[str, ...] | None


def identities_of(view: View, namespace: Names) -> Identities:
    """What rows call the namespaces of these names, each once; None stays None."""
    if namespace is None:
        return None
    if isinstance(namespace, AllBut):
        others = {view.namespaces.called(name) for name in namespace.names}
        return tuple(one for one in view.counts if one not in others)
    names = (namespace,) if isinstance(namespace, str) else namespace
    return tuple(dict.fromkeys(view.namespaces.called(name) for name in names))


def asks_for(names: Names, name: str) -> bool:
    """Is a question about the namespace of this name?"""
    match names:
        case None:
            return True
        case str():
            return name == names
        case AllBut(others):
            return name not in others
        case _:
            return name in names


def selected(live: LiveSegment, identities: Identities, within: RowFilter | None) -> Mask | None:
    """The rows that a question is about, bool (rows,), or None for all that are alive. ``identities`` None: of any namespace."""
    masks = []
    segment = live.segment
    if identities is not None:
        here = [one for one in identities if one in segment.spaces]
        if not here:
            return np.zeros(segment.rows, np.bool_)
        # Most segments of an index without namespaces, or of one, need no mask at all.
        if sum(segment.spaces[one].rows for one in here) < segment.rows:
            masks.append(_in_spaces(segment, here))
    if within is not None:
        masks.append(within(segment))
    if not masks:
        return None
    if live.deleted is not None:
        masks.append(~live.deleted)
    return masks[0] if len(masks) == 1 else np.asarray(np.logical_and.reduce(masks))


def _in_spaces(segment: Segment, identities: list[str]) -> Mask:
    """The rows of a segment that are in some of its namespaces, but not all: by way of the others, if those are fewer."""
    others = segment.spaces.keys() - set(identities)
    fewer = others if len(others) < len(identities) else identities
    if len(fewer) > NAMESPACES_KEPT:
        assert segment.namespaces is not None
        inside = in_any_space(segment.namespaces, fewer)
    else:
        # A segment remembers these.
        inside = np.logical_or.reduce([segment.in_namespace(one) for one in fewer])
    return ~inside if fewer is others else inside


def rows_in(live: LiveSegment, identities: Identities) -> Rows:
    """The live rows of some namespaces, or (None) of any, ascending."""
    chosen = selected(live, identities, None)
    return live.live_rows() if chosen is None else np.flatnonzero(chosen)
