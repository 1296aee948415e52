"""Expressions about fields with defaults: a row that says nothing about one, or null, has the default, as if that had been written to it.

A row that comes without such a field is given its default when it is written. So this is of rows that were there before the field was
added, which in Milvus have the default too, and of rows from other doors, which know of no fields.
"""

from __future__ import annotations

import orjson
import pyarrow as pa

from ingest.doors.milvus.expression_types import ALWAYS, NEVER, TURNED
from upwell.schema import RowSchema
from upwell.shard.filter import (
    Compared,
    Every,
    Filter,
    Leaf,
    MetadataColumns,
    Not,
    OfId,
    OneOf,
    Present,
    Some,
    Within,
    matching,
)

Value = bool | int | float | str


def with_defaults(asked: Filter, schema: RowSchema) -> Filter:
    """A filter that sees a default where a row has nothing, and is ``asked`` itself if it asks for no field that has one."""
    defaults = {one.name: one.default for one in schema.fields if one.default is not None}
    return _with(asked, defaults) if defaults else asked


def _with(asked: Filter, defaults: dict[str, Value]) -> Filter:
    match asked:
        case Every(parts):
            return Every(tuple(_with(part, defaults) for part in parts))
        case Some(parts):
            return Some(tuple(_with(part, defaults) for part in parts))
        case Not(part):
            return Not(_with(part, defaults))
        case OfId():
            return asked
        case Compared(path, order, other):
            # Each side that is not there is its default; the part that is left compares the other with that, and may be the other's default.
            either: list[Filter] = [asked]
            if path in defaults:
                either.append(_absent(path, _with(_against(other, TURNED[order], defaults[path]), defaults)))
            if other in defaults:
                either.append(_absent(other, _against(path, order, defaults[other])))
            return asked if len(either) == 1 else Some(tuple(either))
        case _ if asked.path in defaults:
            if isinstance(asked, Present):
                return ALWAYS
            if isinstance(asked, OneOf) and None in asked.values:
                # So that it is seen whether there is anything: a default is not null.
                return NEVER
            holds = _holds(asked, asked.path, defaults[asked.path])
            return Some((asked, _nothing(asked.path))) if holds else asked
        case _:
            return asked


def _absent(path: str, part: Filter) -> Filter:
    return Every((_nothing(path), part))


def _nothing(path: str) -> Filter:
    return Some((Not(Present(path)), OneOf(path, (None,))))


def _against(path: str, order: str, value: Value) -> Filter:
    """What the row has at ``path`` is so to ``value``."""
    if isinstance(value, bool):
        return NEVER
    match order:
        case "==":
            return OneOf(path, (value,))
        case "!=":
            return Some((Within(path, value, None, False), Within(path, None, value, True, False)))
        case "<" | "<=":
            return Within(path, None, value, True, order == "<=")
        case _:
            return Within(path, value, None, order == ">=")


def _holds(leaf: Leaf, name: str, value: Value) -> bool:
    """Does it hold of a row that has just this?"""
    row = pa.array([orjson.dumps({name: value})], pa.binary())
    return bool(matching(leaf, 1, MetadataColumns(row, 1))[0])
