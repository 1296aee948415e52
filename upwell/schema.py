"""What the rows of an index are to a door that has schemas: the names and types of their fields.

An index that was made elsewhere has no schema of its own; to such a door it is ``OPEN_SCHEMA``: text ids, and any metadata. A field
that is neither the id nor a vector is a top-level member of the row's metadata, so that every door sees the same.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

#: So that each integer is written in one way only.
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)


class IdType(StrEnum):
    """What ids are. In Upwell each is a text."""

    TEXT = "text"
    #: The decimal digits of an integer of 64 bits: no zeros before them, and no plus.
    INT64 = "int64"

    def takes(self, id: str) -> bool:
        """Can this text be an id?"""
        return self is IdType.TEXT or (_DIGITS.fullmatch(id) is not None and -(1 << 63) <= int(id) < 1 << 63)


class FieldType(StrEnum):
    """What a field holds, in Milvus's words."""

    BOOL = "Bool"
    INT8 = "Int8"
    INT16 = "Int16"
    INT32 = "Int32"
    INT64 = "Int64"
    FLOAT = "Float"
    DOUBLE = "Double"
    VARCHAR = "VarChar"
    JSON = "JSON"
    ARRAY = "Array"

    @property
    def is_integer(self) -> bool:
        """Does it hold whole numbers?"""
        return self in (FieldType.INT8, FieldType.INT16, FieldType.INT32, FieldType.INT64)

    @property
    def is_number(self) -> bool:
        """Does it hold numbers?"""
        return self.is_integer or self in (FieldType.FLOAT, FieldType.DOUBLE)


class Consistency(StrEnum):
    """What a read sees unless it says otherwise."""

    #: Everything that was acknowledged before it.
    STRONG = "Strong"
    #: What its session wrote. Sessions are not known here, so as STRONG.
    SESSION = "Session"
    #: What is visible by now.
    BOUNDED = "Bounded"
    EVENTUALLY = "Eventually"
    CUSTOMIZED = "Customized"

    @property
    def waits(self) -> bool:
        """Does a read wait for what was acknowledged before it?"""
        return self in (Consistency.STRONG, Consistency.SESSION)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScalarField(_Frozen):
    """A field of the metadata whose type is known."""

    name: str
    type: FieldType
    description: str = ""
    #: May it be left out, or null?
    nullable: bool = False
    #: What it is if it is left out; None: nothing.
    default: bool | int | float | str | None = None
    #: Of a VarChar, or of each element of an array of them, in bytes of UTF-8.
    bytes_max: int | None = None
    #: Of an array.
    element: FieldType | None = None
    capacity: int | None = None
    #: Of a VarChar whose words are looked for: how they are found (text/analyzer.py).
    analyzer: dict[str, Any] | None = None
    #: May filters ask for its words? Then it has an analyzer.
    matches: bool = False


class FullText(_Frozen):
    """A BM25 function: the sparse vectors are made here, of a field's texts, and are compared by BM25."""

    name: str
    description: str = ""
    #: The field of the texts, which has an analyzer.
    field: str


class RowSchema(_Frozen):
    """The fields of a row. Which of the vectors it has is told by its index's kind."""

    id_field: str = "id"
    ids: IdType = IdType.TEXT
    #: Of ids that are texts, in bytes of UTF-8; None: as the server's settings say.
    id_bytes_max: Annotated[int, Field(ge=1)] | None = None
    #: Are ids made for rows that come without?
    auto_id: bool = False
    id_description: str = ""
    vector_field: str = "vector"
    vector_description: str = ""
    sparse_field: str = "sparse"
    sparse_description: str = ""
    fields: tuple[ScalarField, ...] = ()
    #: May a row have metadata beside ``fields``?
    dynamic: bool = True
    #: The names of all fields in the order in which they were declared; empty: the id, the vectors, the others.
    order: tuple[str, ...] = ()
    partition_key: str | None = None
    #: None: sparse vectors are sent.
    full_text: FullText | None = None
    consistency: Consistency = Consistency.BOUNDED

    @property
    def is_open(self) -> bool:
        """Does it let a row have any metadata? Then doors without schemas may write rows too."""
        return self.dynamic and not self.fields

    def id_bytes_at_most(self, most: int) -> int:
        """How long an id may be where others may have ``most`` bytes."""
        return most if self.id_bytes_max is None else min(most, self.id_bytes_max)

    @property
    def text_analyzer(self) -> dict[str, Any]:
        """The parameters of what finds the terms of texts, where sparse vectors are made of them."""
        field = None if self.full_text is None else self.field(self.full_text.field)
        return {} if field is None or field.analyzer is None else field.analyzer

    def field(self, name: str) -> ScalarField | None:
        """The field of this name, if it is one of the metadata and its type is known."""
        return next((one for one in self.fields if one.name == name), None)


#: Of an index that was made without one.
OPEN_SCHEMA: Final = RowSchema()
#: Of one of which it was only said that its ids are integers.
INT64_SCHEMA: Final = RowSchema(ids=IdType.INT64)
