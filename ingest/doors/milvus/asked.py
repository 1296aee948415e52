"""The bodies of requests that make collections, fields and indexes."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import AliasChoices, Field

from ingest.doors.milvus.context import NAMED_MAX, Body, ListOf, Name, OfCollection

#: Of one field or index. Milvus knows a dozen of either.
PARAMS_MAX: Final = 256


class FieldAsked(Body):
    """A field of a schema."""

    field_name: Name
    data_type: Name
    element_data_type: str = ""
    is_primary: bool = False
    is_partition_key: bool = False
    is_clustering_key: bool = False
    element_type_params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX)
    params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX)
    nullable: bool = False
    default_value: Any = None
    description: str = ""

    @property
    def told(self) -> dict[str, str]:
        """Its parameters, as texts."""
        return {name: text_of(value) for name, value in (self.params | self.element_type_params).items()}


class SchemaAsked(Body):
    """A whole schema. Milvus takes members in any case; in use are two spellings of one."""

    auto_id: bool = Field(False, validation_alias=AliasChoices("autoId", "autoID"))
    enable_dynamic_field: bool = False
    fields: ListOf[FieldAsked] = Field(default_factory=list)
    functions: list[Any] = Field(default_factory=list)
    struct_fields: list[Any] = Field(default_factory=list)
    description: str = ""


class IndexAsked(Body):
    """An index on a field."""

    field_name: Name
    index_name: str = ""
    metric_type: str = ""
    index_type: str = ""
    params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX)


class CollectionAsked(OfCollection):
    """The body of v2's collections/create."""

    dimension: int = 0
    id_type: str = ""
    auto_id: bool = Field(False, validation_alias=AliasChoices("autoID", "autoId"))
    metric_type: str = ""
    primary_field_name: str = ""
    vector_field_name: str = ""
    collection_schema: SchemaAsked = Field(SchemaAsked(), validation_alias="schema")
    index_params: ListOf[IndexAsked] = Field(default_factory=list)
    params: dict[str, Any] = Field(default_factory=dict)
    properties: dict[str, Any] = Field(default_factory=dict, max_length=NAMED_MAX)
    description: str = ""
    consistency_level: str | None = None


class V1CollectionAsked(OfCollection):
    """The body of v1's collections/create."""

    dimension: int = 0
    metric_type: str = "L2"
    description: str = ""
    primary_field: str = "id"
    vector_field: str = "vector"
    enable_dynamic_field: bool = True


def text_of(value: Any) -> str:
    """A parameter as Milvus keeps it: as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (
        orjson.dumps(value).decode() if not isinstance(value, int) or isinstance(value, bool) else str(value)
    )
