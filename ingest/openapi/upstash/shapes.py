"""Requests and results of the Upstash door, as the API description tells them. Its handlers read fields one by one, in Upstash's words.

A null is as good as nothing everywhere, and keys that are not known are passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

#: A key that is left out rather than null.
Absent: TypeAlias = SkipJsonSchema[None]
Id = Annotated[Annotated[str, Field(min_length=1)] | int, Field(description="An integer becomes a string.")]
#: One is as good as an array of one.
Ids = list[Id] | Id
Metadata = dict[str, Any]


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class UpstashSparseVector(_Shape):
    """A sparse vector: in any order, and an index twice counts together."""

    indices: list[Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]]
    values: list[float]


class UpstashVector(_Shape):
    """A row with its vectors: all of those that its index has."""

    id: Id
    vector: list[float] | None = None
    sparse_vector: UpstashSparseVector | None = None
    metadata: Metadata | None = None
    data: str | None = None


class UpstashText(_Shape):
    """A row whose vectors are made of its data."""

    id: Id
    data: str
    metadata: Metadata | None = None


class UpstashUpdate(UpstashVector):
    """What is to be changed of a row."""

    metadata_update_mode: Literal["OVERWRITE", "PATCH"] | None = None


class UpstashDelete(_Shape):
    """Which rows are to be removed: exactly one of these."""

    ids: Ids | None = None
    prefix: str | None = None
    filter: str | None = None


class UpstashRename(_Shape):
    """A namespace's new name."""

    namespace: str
    new_namespace: str
    delete_existing: bool | None = None


class _Include(_Shape):
    include_metadata: bool | None = None
    include_vectors: bool | None = None
    include_data: bool | None = None


class _Question(_Include):
    top_k: Annotated[int, Field(ge=1)] | None = None
    filter: str | None = None
    weighting_strategy: Literal["IDF"] | None = None
    fusion_algorithm: Literal["RRF", "DBSF"] | None = None


class UpstashQuery(_Question):
    """The rows closest to these vectors."""

    vector: list[float] | None = None
    sparse_vector: UpstashSparseVector | None = None


class UpstashTextQuery(_Question):
    """The rows closest to this text."""

    data: str
    query_mode: Literal["HYBRID", "DENSE", "SPARSE"] | None = None


class UpstashResumableQuery(UpstashQuery):
    """The same, to be gone on with."""

    max_idle: Annotated[int, Field(ge=1, description="Seconds.")] | None = None


class UpstashResumableTextQuery(UpstashTextQuery):
    """The same, to be gone on with."""

    max_idle: Annotated[int, Field(ge=1, description="Seconds.")] | None = None


class UpstashNext(_Shape):
    """So many more matches."""

    uuid: str
    additional_k: Annotated[int, Field(ge=1)]


class UpstashEnd(_Shape):
    """No more questions."""

    uuid: str


class UpstashFetch(_Include):
    """Rows by their ids, or by how those begin: one of both."""

    ids: Ids | None = None
    prefix: str | None = None


class UpstashRange(_Include):
    """A page of rows, in the order of writing."""

    cursor: str | int | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    prefix: str | None = None


class UpstashRow(_Shape):
    """A row, with as much of it as was asked for."""

    id: str
    vector: list[float] | Absent = None
    sparse_vector: UpstashSparseVector | Absent = None
    metadata: Metadata | Absent = None
    data: str | Absent = None


class UpstashMatch(UpstashRow):
    """A row that is close."""

    score: float


class UpstashPage(_Shape):
    """A page of rows; an empty cursor after the last."""

    next_cursor: str
    vectors: list[UpstashRow]


class UpstashBegun(_Shape):
    """A query that can be gone on with."""

    uuid: str
    scores: list[UpstashMatch]


class UpstashCounts(_Shape):
    """What queries see, and what they do not see yet."""

    vector_count: int = Field(ge=0)
    pending_vector_count: int = Field(ge=0)


class UpstashDenseIndex(_Shape):
    """Of an index's dense vectors."""

    dimension: int = Field(ge=1)
    similarity_function: Literal["COSINE", "EUCLIDEAN", "DOT_PRODUCT"]
    embedding_model: str


class UpstashSparseIndex(_Shape):
    """Of an index's sparse vectors."""

    embedding_model: str


class UpstashInfo(UpstashCounts):
    """What an index is, and how much is in it."""

    index_size: int = Field(ge=0)
    dimension: int = Field(ge=0)
    similarity_function: Literal["COSINE", "EUCLIDEAN", "DOT_PRODUCT", ""]
    index_type: Literal["DENSE", "SPARSE", "HYBRID"]
    dense_index: UpstashDenseIndex | Absent = None
    sparse_index: UpstashSparseIndex | Absent = None
    namespaces: dict[str, UpstashCounts]


class UpstashFailure(_Shape):
    """Every answer that is not a success."""

    error: str
    status: int
