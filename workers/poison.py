"""Finding the mutations that break whoever applies them, so that they fail by themselves and those behind them go on.

A batch that was begun several times and never came to an end is looked into, entry by entry: the next entry is tried without this or
that mutation, in processes of their own (trial.py), until the least set of culprits is known. What cannot be applied even without any
of the entry's mutations is no mutation's fault, and nothing is blamed for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from upwell.log.receipt import Receipt

#: Tells why an entry cannot be applied without these mutations; None if it can.
Breaks = Callable[[dict[Receipt, str]], Awaitable[str | None]]


class NobodysFaultError(Exception):
    """Nothing of the entry is to blame: without any of it, applying breaks just the same."""


async def culprits(
    mutations: Sequence[Receipt], breaks: Breaks, suspected: dict[Receipt, str] | None = None
) -> dict[Receipt, str]:
    """Which of an entry's mutations must be left out so that the rest can be applied, and why each of them must.

    Halves: each culprit is the last mutation of the shortest beginning of the entry that breaks, so it costs a logarithm of trials. And
    one more at the end: what happened only once in a trial (memory that was short, a process that could not begin) blames nobody.
    What is found goes into ``suspected`` at once, so that a search which was cut off goes on where it was. Raises NobodysFaultError, and
    what ``breaks`` raises.
    """
    found: dict[Receipt, str] = {} if suspected is None else suspected
    for one in found.keys() - set(mutations):
        # Of an entry that somebody has applied meanwhile.
        del found[one]
    reason = await breaks(found)
    if reason is None:
        return await _confirmed(found, breaks)
    if (other := await breaks(dict.fromkeys(mutations, reason))) is not None:
        raise NobodysFaultError(other)
    while reason is not None:
        suspects = [one for one in mutations if one not in found]
        fine, breaking = 0, len(suspects)
        while breaking - fine > 1:
            middle = (fine + breaking) // 2
            why = await breaks(found | dict.fromkeys(suspects[middle:], reason))
            if why is None:
                fine = middle
            else:
                breaking, reason = middle, why
        found[suspects[breaking - 1]] = reason
        reason = await breaks(found) if len(found) < len(mutations) else None
    return await _confirmed(found, breaks)


async def _confirmed(found: dict[Receipt, str], breaks: Breaks) -> dict[Receipt, str]:
    """Those without which it does not go, each tried once more."""
    for one in list(found):
        without = {other: why for other, why in found.items() if other != one}
        if await breaks(without) is None:
            found = without
    return found
