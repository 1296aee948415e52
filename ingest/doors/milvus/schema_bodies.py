"""The bodies of requests that make collections, fields and indexes: as clients send them, and not yet known to mean anything."""

from __future__ import annotations

from collections.abc import Mapping
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
    element_type_params: dict[str, Any] = Field(
        default_factory=dict,
        max_length=PARAMS_MAX,
        description="By type: `dim`, `max_length`, `max_capacity`; and of a VarChar `enable_analyzer`, `enable_match`, and "
        "`analyzer_params`, an object or its JSON.",
    )
    params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX)
    nullable: bool = False
    default_value: Any = None
    description: str = ""

    @property
    def told(self) -> dict[str, str]:
        """Its parameters, as texts."""
        return param_texts(self.params | self.element_type_params)


class FunctionAsked(Body):
    """A function of a schema: it makes fields of others."""

    name: str = ""
    description: str = ""
    type: str = Field("", description="`BM25`.")
    input_field_names: ListOf[str] = Field(
        default_factory=list, description="One VarChar with `enable_analyzer`."
    )
    output_field_names: ListOf[str] = Field(default_factory=list, description="The SparseFloatVector.")
    params: dict[str, Any] = Field(default_factory=dict, max_length=PARAMS_MAX, description="None.")


class SchemaAsked(Body):
    """A whole schema. Milvus takes members in any case; in use are two spellings of one."""

    auto_id: bool = Field(False, validation_alias=AliasChoices("autoId", "autoID"))
    enable_dynamic_field: bool = False
    fields: ListOf[FieldAsked] = Field(default_factory=list)
    functions: ListOf[FunctionAsked] = Field(default_factory=list)
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


class PropertiesAsked(Body):
    """What a body says that sets properties of something."""

    properties: dict[str, Any] = Field(default_factory=dict, max_length=NAMED_MAX)

    def added_to(self, known: dict[str, str]) -> dict[str, str]:
        """What there is to remember once they are set."""
        return known | param_texts(self.properties)


class PropertyKeysAsked(Body):
    """What a body says that takes properties away."""

    property_keys: ListOf[str] = Field(
        default_factory=list, validation_alias=AliasChoices("propertyKeys", "deleteKeys")
    )

    def taken_from(self, known: dict[str, str]) -> dict[str, str]:
        """What there is to remember without them."""
        gone = set(self.property_keys)
        return {name: value for name, value in known.items() if name not in gone}


def param_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as Milvus keeps them."""
    return {name: param_text(value) for name, value in params.items()}


def param_text(value: Any) -> str:
    """A parameter as Milvus keeps it: as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        # Of any size, which JSON's encoder does not take.
        return str(int(value))
    return orjson.dumps(value).decode()
