"""What the Milvus door answers, as the API description tells it; and rows as they are sent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: Of a key: an integer of 64 bits (as a string of digits if ``Accept-Type-Allow-Int64: false``), or a text.
Key = int | str
Row = Annotated[
    dict[str, Any], Field(description="Fields by name: the key, the vectors, scalars, and dynamic ones.")
]


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class MilvusFailure(_Shape):
    """A refusal or a failure, whose HTTP status is 200 too but for 401 and 403."""

    code: Annotated[int, Field(description="Never that of a success: 200 in v1, 0 in v2.")]
    message: str


class MilvusRows(_Shape):
    """Rows to be put into a collection: one, or an array of them."""

    db_name: str | None = None
    collection_name: Annotated[str, Field(min_length=1)]
    partition_name: str | None = None
    data: Annotated[list[Row], Field(min_length=1)] | Row


class MilvusUpsert(MilvusRows):
    """The same; with ``partialUpdate`` fields that are not given stay as they are."""

    partial_update: bool | None = None


class MilvusInserted(_Shape):
    """How many rows were taken, and their keys in order."""

    insert_count: int
    insert_ids: list[Key]


class MilvusUpserted(_Shape):
    """How many rows were taken, and their keys in order."""

    upsert_count: int
    upsert_ids: list[Key]


class MilvusDeleted(_Shape):
    """How many rows were deleted; left out if that is not known yet."""

    delete_count: int | None = None


class MilvusHas(_Shape):
    """Whether there is one."""

    has: bool


class MilvusCount(_Shape):
    """How many rows queries see."""

    row_count: int


class MilvusLoadState(_Shape):
    """Whether it is loaded."""

    load_state: str
    load_progress: int | None = None


class MilvusFunction(_Shape):
    """What makes sparse vectors of texts."""

    name: str
    description: str
    type: Annotated[int, Field(description="1: BM25.")]
    id: int
    input_field_names: list[str]
    output_field_names: list[str]
    params: None


class MilvusCollection(_Shape):
    """A collection."""

    model_config = ConfigDict(extra="allow")

    collection_name: str
    description: str
    fields: list[dict[str, Any]]
    indexes: list[dict[str, Any]]
    load: str
    shards_num: int
    enable_dynamic_field: bool
    functions: Annotated[list[MilvusFunction] | None, Field(description="Not in v1.")] = None


class MilvusDatabase(_Shape):
    """A database."""

    db_name: str
    db_id: Annotated[int, Field(alias="dbID")]
    properties: list[dict[str, Any]]


class MilvusAlias(_Shape):
    """An alias, and what it means."""

    db_name: str
    collection_name: str
    alias_name: str


class MilvusToken(_Shape):
    """A term of a text. Where it stands is told in bytes of UTF-8."""

    token: str
    start_offset: Annotated[int | None, Field(description="Where it stands: if withDetail.")] = None
    end_offset: int | None = None
    position: int | None = None
    position_length: int | None = None
    hash: Annotated[int | None, Field(description="If withHash.")] = None


class MilvusTokens(_Shape):
    """The terms of a text."""

    tokens: list[MilvusToken]


class MilvusAnalyzed(_Shape):
    """The terms of each text."""

    results: list[MilvusTokens]
