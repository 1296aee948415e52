"""Properties of metadata: how a path names one, what an index on one declares, and which value a row has there.

A path is a property's name; dots lead into objects within objects (``pandas.nice``). On an array a part ``[3]`` is its fourth element and
``[#-1]`` its last (``#`` is its length); on an object these are keys like others. A key that contains a dot has no path, so a path
means one thing.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

#: What a row without a property has there; JSON's own null is a value.
ABSENT: Final = object()
#: A part of a path that is a step into an array. No array is so long that nine digits would not do.
STEP: Final = re.compile(r"\[(#-)?([0-9]{1,9})\]")


class PropertyType(StrEnum):
    """Which values of a property an index on it covers. Null is covered by each."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"


class MetadataIndex(BaseModel):
    """The wish that a property can be filtered by: its values of one type are kept in columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    property: Annotated[str, Field(min_length=1)]
    type: PropertyType


def value_at(metadata: Any, path: str) -> Any:
    """The value of the property at ``path``, or ABSENT."""
    value = metadata
    for key in path.split("."):
        if isinstance(value, dict):
            if key not in value:
                return ABSENT
            value = value[key]
        elif isinstance(value, list):
            place = _place(key, len(value))
            if place is None:
                return ABSENT
            value = value[place]
        else:
            return ABSENT
    return value


def _place(part: str, length: int) -> int | None:
    """Which element of an array of that length a part of a path means, if there is such a one."""
    step = STEP.fullmatch(part)
    if step is None:
        return None
    from_end, number = step.groups()
    place = length - int(number) if from_end else int(number)
    return place if 0 <= place < length else None
