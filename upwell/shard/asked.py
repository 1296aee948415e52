"""What a filter asks for: which comparisons and properties, how often, and how deep."""

from __future__ import annotations

from collections.abc import Iterator

from upwell.shard.filter import (
    Calculated,
    Compared,
    Every,
    Filter,
    Glob,
    HasPhrase,
    Leaf,
    Length,
    Not,
    OfId,
    Some,
)


def leaves(asked: Filter) -> Iterator[Leaf]:
    """What a filter compares, in order, as often as it does."""
    match asked:
        case Every(parts) | Some(parts):
            for part in parts:
                yield from leaves(part)
        case Not(part):
            yield from leaves(part)
        case _:
            yield asked


def paths(asked: Filter) -> Iterator[str]:
    """The properties that a filter asks for, in order, as often as it does. An id is none."""
    for leaf in leaves(asked):
        match leaf:
            case OfId():
                pass
            case Compared(path, _, other):
                yield path
                yield other
            case _:
                yield leaf.path


def globs(asked: Filter) -> Iterator[Glob]:
    """The patterns that a filter asks for, of properties and of ids, in order, as often as it does."""
    for leaf in leaves(asked):
        compares = leaf.part if isinstance(leaf, OfId) else leaf
        if isinstance(compares, Glob):
            yield compares


def phrases(asked: Filter) -> Iterator[HasPhrase]:
    """The phrases that a filter asks for, in order, as often as it does."""
    for leaf in leaves(asked):
        if isinstance(leaf, HasPhrase):
            yield leaf


def depth(asked: Filter) -> int:
    """How deep filters lie within this one; any depth can be asked for."""
    deepest, waiting = 0, [(asked, 1)]
    while waiting:
        one, level = waiting.pop()
        deepest = max(deepest, level)
        match one:
            case Every(parts) | Some(parts):
                waiting += [(part, level + 1) for part in parts]
            case Not(part) | OfId(part) | Length(_, part) | Calculated(_, _, _, part):
                waiting.append((part, level + 1))
    return deepest
