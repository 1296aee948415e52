"""Properties of metadata: how a path names one, what an index on one declares, and which value a row has there.

A path is a property's name; dots lead into objects within objects (``pandas.nice``). No key contains a dot, so a path means one thing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

#: What a row without a property has there; JSON's own null is a value.
ABSENT: Final = object()


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
        if not isinstance(value, dict) or key not in value:
            return ABSENT
        value = value[key]
    return value
