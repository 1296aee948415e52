"""Dense numberings: objects numbered without gaps, created only at the end and deleted only at the beginning."""

from __future__ import annotations

from collections.abc import Callable


def last_of(exists: Callable[[int], bool], known: int) -> int:
    """The last number in use, given that ``known`` was (or is the one before the first) and none past it is deleted.

    Asks for known+1, +2, +4 … and then halves: without gaps, "exists" is true up to the last and false beyond. One look when
    nothing is new.
    """
    step, below = 1, known
    while exists(below + step):
        below += step
        step *= 2
    above = below + step
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if exists(middle) else (below, middle)
    return below
