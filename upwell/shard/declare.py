"""What a batch does to an index's properties: metadata indexes created and deleted, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from upwell.changeset import Changeset, Operation
from upwell.manifest.state import DeclaredIndex
from upwell.properties import MetadataIndex
from upwell.shard.batch import Pending


def declare(
    before: tuple[DeclaredIndex, ...], batch: Sequence[Pending], most: int
) -> tuple[tuple[DeclaredIndex, ...], list[Pending]]:
    """The metadata indexes after a batch (at most ``most``), and the batch with its mutations marked as failed that cannot be
    carried out."""
    declared = {one.index.property: one for one in before}
    marked = []
    for one in batch:
        error = None if one.changeset is None else _apply(declared, one, one.changeset, most)
        marked.append(one if error is None else replace(one, changeset=None, error=error))
    return tuple(declared.values()), marked


def refusal(declared: Sequence[MetadataIndex], wanted: MetadataIndex, most: int) -> str | None:
    """Why ``wanted`` cannot be created beside what there is; None if it can, or is there already."""
    same = next((one for one in declared if one.property == wanted.property), None)
    if same is not None:
        if same.type is wanted.type:
            return None
        return f'there is a metadata index on "{wanted.property}" of type {same.type}; delete it first'
    if len(declared) >= most:
        return f"too many metadata indexes; max is {most}"
    return None


def _apply(declared: dict[str, DeclaredIndex], one: Pending, changeset: Changeset, most: int) -> str | None:
    """Apply one mutation; returns the reason if it cannot be applied."""
    about = changeset.metadata_index
    if about is None:
        return None
    if changeset.operation is Operation.DELETE_METADATA_INDEX:
        declared.pop(about.property, None)
        return None
    reason = refusal([other.index for other in declared.values()], about, most)
    if reason is None and about.property not in declared:
        declared[about.property] = DeclaredIndex(index=about, position=one.position, place=one.place)
    return reason
