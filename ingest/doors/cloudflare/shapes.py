"""Requests and results of the Cloudflare door that no handler needs as a model: so the API description tells them.

What handlers build by hand for speed (``vectors.py``, ``indexes.py``) must have these shapes; tests hold real answers to them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType

from ingest.body.precise import FLOAT32_END
from ingest.doors.cloudflare.models import NAMESPACE_BYTES_MAX, Request, Result
from upwell.outcome import State
from upwell.properties import PropertyType
from upwell.shard.metric import Metric

ID_BYTES_MAX = 64

#: A key that is left out rather than null.
Absent: TypeAlias = SkipJsonSchema[None]
Id = Annotated[str, Field(min_length=1, max_length=ID_BYTES_MAX, examples=["doc-1"])]
Float32 = Annotated[float, Field(gt=-FLOAT32_END, lt=FLOAT32_END)]
#: A JSON reader may make a float of one that is further from 0.
Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 64) - 1)]
Namespace = Annotated[
    str, Field(max_length=NAMESPACE_BYTES_MAX, pattern=r"^[^\x00]*$", examples=["tenant-7"])
]
MutationId = Annotated[
    str,
    Field(
        json_schema_extra={"format": "uuid"},
        description="Given out once the mutation is durable; see `…/mutations/{mutation}`.",
    ),
]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
MetadataKey = Annotated[str, Field(pattern=r'^[^$."][^."]*$')]
MetadataValue = TypeAliasType(
    "MetadataValue",
    "str | bool | Int64 | float | list[MetadataValue] | dict[MetadataKey, MetadataValue] | None",
)


class Vector(Request):
    """A vector as it is uploaded. Sizes are in bytes of UTF-8; metadata takes at most 10,240 as compact JSON."""

    id: Id | int = Field(description="Unique in the index. An integer becomes a string.")
    values: list[Float32] = Field(min_length=1, description="As many as the index has dimensions.")
    namespace: Namespace | None = Field(None, description='"" is the same as none.')
    metadata: dict[MetadataKey, MetadataValue] | None = None


class Vectors(BaseModel):
    """Vectors as one document."""

    vectors: list[Vector] = Field(min_length=1)


class Ids(BaseModel):
    """Body of delete_by_ids and get_by_ids."""

    ids: list[Id | Int64] = Field(min_length=1)


class Said(BaseModel):
    """An item of ``errors`` or ``messages``. Codes from 50000 are Upwell's own."""

    code: int
    message: str


class Failure(BaseModel):
    """Every answer that is not a success."""

    result: None
    success: Literal[False]
    errors: list[Said] = Field(min_length=1)
    messages: list[Said]


class BindingFailure(BaseModel):
    """The same to a Worker's binding."""

    code: int
    error: str


class PageInfo(BaseModel):
    """Which part of a list this is."""

    page: int = Field(ge=1)
    per_page: int = Field(ge=1)
    count: int = Field(ge=0)
    total_count: int = Field(ge=0)
    total_pages: int = Field(ge=0)


class AccountResult(BaseModel):
    """An account: a name that owns indexes."""

    id: str
    name: str
    type: Literal["standard"]


class MembershipResult(BaseModel):
    """What the token may do in an account."""

    id: str
    status: Literal["accepted"]
    account: AccountResult
    roles: list[str]


class UserResult(BaseModel):
    """The token, as if it were a person."""

    id: str
    email: None
    username: str
    created_on: Moment | Absent = None


class TokenStatusResult(BaseModel):
    """A token that may be used."""

    id: str
    status: Literal["active"]
    expires_on: Moment | Absent = None


class ResolvedConfig(BaseModel):
    """Of what kind an index's dense vectors are."""

    dimensions: int = Field(ge=0, description="0 of a sparse index, whose metric says nothing.")
    metric: Metric


class OwnFields(Result):
    """What is said of an index where it is not like Vectorize's."""

    kind: Literal["sparse", "hybrid"] | Absent = None
    ids_unique_in: Literal["namespace"] | Absent = None
    ids: Literal["int64"] | Absent = None
    embedding_model: str | Absent = None
    sparse_embedding_model: str | Absent = None


class IndexResult(OwnFields):
    """An index."""

    name: str
    config: ResolvedConfig
    created_on: Annotated[Moment, Field(alias="created_on")]
    modified_on: Annotated[Moment, Field(alias="modified_on")]
    description: str | Absent = None


class Compaction(Result):
    """How far an index is merged, and what that cost."""

    pending: int = Field(ge=0, description="Merges that are due.")
    unindexed: int = Field(ge=0, description="Vectors that queries still compare one by one.")
    segments: int = Field(ge=0)
    write_amplification: float | None = Field(description="Bytes written for each byte first written.")


class Backlog(Result):
    """What waits to be applied."""

    mutations: int = Field(ge=0)
    bytes: int = Field(ge=0)


class InfoResult(OwnFields):
    """Counts of an index. The two ``processedUpTo…`` are absent until a mutation has been processed."""

    dimensions: int = Field(ge=0)
    vector_count: int = Field(ge=0)
    backlog: Backlog
    compaction: Compaction
    processed_up_to_datetime: Moment | Absent = None
    processed_up_to_mutation: MutationId | Absent = None


class AcceptedResult(Result):
    """A mutation that is durable. What became of it is said to those who waited (``Prefer: wait=N``)."""

    mutation_id: MutationId
    state: State | Absent = None
    error: str | Absent = None


class LineProblemResult(Result):
    """A line that would not be accepted."""

    line: int = Field(ge=1)
    field: str
    id: str | None
    code: int
    message: str


class DryRunResult(Result):
    """What would become of a request (``dry-run=true``). Only the first problems are named."""

    dry_run: Literal[True]
    valid: bool
    received: int = Field(ge=0)
    accepted: int = Field(ge=0)
    problem_count: int = Field(ge=0)
    problems: list[LineProblemResult]


class CursorInfo(BaseModel):
    """Where a list goes on; null after its last page."""

    count: int = Field(ge=0)
    cursor: MutationId | None


class ListedVector(BaseModel):
    """A vector of which only the id is told."""

    id: Id


class ListResult(Result):
    """A page of a list. All pages show one state of the index; after the last there is no cursor."""

    count: int = Field(ge=0)
    total_count: int = Field(ge=0)
    is_truncated: bool
    next_cursor: str | None
    cursor_expiration_timestamp: Moment | None
    vectors: list[ListedVector]


class MetadataIndexResult(Result):
    """A property that filters may rely on."""

    property_name: str
    index_type: PropertyType


class MetadataIndexesResult(Result):
    """The metadata indexes of an index."""

    metadata_indexes: list[MetadataIndexResult]


class SparseVectorResult(Result):
    """A sparse vector as it is stored."""

    indices: list[Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]]
    values: list[Float32]


class VectorResult(Result):
    """A row as it is stored: numbers are float32. An index that is not dense has sparse vectors, and other doors give rows data."""

    id: Id
    values: list[Float32] | Absent = None
    sparse_vector: SparseVectorResult | Absent = None
    namespace: Namespace | Absent = None
    metadata: dict[str, Any] | Absent = None
    data: str | Absent = None


class QueryMatch(Result):
    """A vector close to the one asked for."""

    id: Id
    score: float = Field(description="Cosine, Euclidean distance, or negative dot product.")
    values: list[Float32] | Absent = None
    namespace: Namespace | Absent = None
    metadata: dict[str, Any] | Absent = None


class QueryResult(Result):
    """Matches, best first."""

    count: int = Field(ge=0)
    matches: list[QueryMatch]
